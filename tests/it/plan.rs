//! Plans under the limits of real devices and of none: strategy, workgroups, chunks, passes, errors.
//! No GPU.

use softxent::kernel::{Access, Params, RowKernel, STATE_WORDS, Slot, Variant, Width};
use softxent::plan::{DeviceProfile, Pass, Placement, Tuning, fold};
use softxent::{
    Denominator, Dtype, Error, LabelKind, Padding, Plan, Problem, ProblemBuilder, Reduction,
    Strategy, Wanted,
};

/// The least that WebGPU promises.
pub const WEBGPU: DeviceProfile = DeviceProfile {
    software: false,
    max_binding: 128 << 20,
    max_buffer: 256 << 20,
    offset_alignment: 256,
    max_invocations: 256,
    max_workgroups: 65_535,
    workgroup_memory: 16 << 10,
    max_storage_buffers: 8,
    stores_components: false,
    pairs: false,
    subgroup: None,
    memory: None,
    tuning: None,
};
/// Mesa's software driver.
const SOFTWARE: DeviceProfile = DeviceProfile {
    software: true,
    max_buffer: 1 << 31,
    offset_alignment: 16,
    max_invocations: 1024,
    workgroup_memory: 32 << 10,
    max_storage_buffers: 32,
    stores_components: true,
    pairs: false,
    subgroup: Some(8),
    ..WEBGPU
};
/// A large GPU.
const LARGE: DeviceProfile = DeviceProfile {
    software: false,
    max_binding: (1 << 32) - 4,
    max_buffer: 1 << 40,
    offset_alignment: 16,
    max_invocations: 1024,
    workgroup_memory: 48 << 10,
    max_storage_buffers: 1 << 20,
    stores_components: true,
    pairs: false,
    subgroup: Some(32),
    ..WEBGPU
};

/// WebGPU's promise with another limit.
fn with(change: fn(&mut DeviceProfile)) -> DeviceProfile {
    let mut device = WEBGPU;
    change(&mut device);
    device
}

/// Class weights are as wide as f32 logits: a row of 16 bits that fits a binding, and its weights do not,
/// goes in windows.
#[test]
fn weights_of_wide_rows_fit_too() {
    let wide = |classes| {
        let problem = Problem::of(1, classes).dtype(Dtype::F16).index_labels(-100);
        let problem = problem
            .class_weights()
            .want([Wanted::Loss])
            .build()
            .unwrap();
        Plan::new(&problem, &WEBGPU).unwrap().columns_per_chunk
    };
    let fits = (128 << 20) - 256;
    assert_eq!(wide(fits / 4), fits / 4);
    for classes in [fits / 4 + 1, 40_000_000, 80_000_000] {
        assert!(4 * wide(classes) <= fits, "{classes}");
    }
}

/// A gradient in the place of the logits still comes back through memory of its own.
#[test]
fn budgets_of_gradients_in_place() {
    let problem = Problem::of(100_000, 1000)
        .index_labels(-100)
        .want([Wanted::Grad]);
    let problem = problem.grad_over_logits(true).build().unwrap();
    let device = with(|device| device.memory = Some(64 << 20));
    let plan = Plan::new(&problem, &device).unwrap();
    // Two chunks, each the logits, what is mapped for them, and what is mapped for the gradient.
    let used = 2 * 3 * 4000 * plan.rows_per_chunk;
    assert!(used <= 64 << 20 && used > 63 << 20, "{plan}");
}

/// Where a row would fit the device, it is the budget that is too small.
#[test]
fn budgets_that_are_too_small_are_named() {
    let problem = Problem::of(1000, 1000).inner(1000).want([Wanted::Softmax]);
    let problem = problem.build().unwrap();
    let device = with(|device| device.memory = Some(20_000));
    assert!(matches!(
        Plan::new(&problem, &device),
        Err(Error::BudgetTooSmall {
            given: 20_000,
            needed: 32_000
        })
    ));
}

fn loss_grad(rows: usize, classes: usize) -> ProblemBuilder {
    Problem::of(rows, classes)
        .index_labels(-100)
        .want([Wanted::Loss, Wanted::Grad])
}

/// `chunks×rows: pass workgroup/team, …`; the team only where it is not all lanes of a block.
fn shown(plan: &Plan) -> String {
    let passes: Vec<String> = plan
        .count
        .iter()
        .chain(&plan.passes)
        .chain([&plan.reduce])
        .map(|pass| {
            let team = match pass.team {
                1 | 8 => String::new(),
                team => format!("/{team}"),
            };
            format!("{pass} {}{team}", pass.workgroup_size)
        })
        .collect();
    format!(
        "{}×{}: {}",
        plan.chunks(),
        plan.rows_per_chunk,
        passes.join(", ")
    )
}

#[test]
fn plans_are_these() {
    use Wanted::{Grad, LogSoftmax, Lse, Predictions, Softmax};
    let count = "count_labels 64";
    let end = "finish_rows/index 64, reduce 32";
    // Of devices that WebGPU promises, whose row kernels leave states.
    let narrow = format!("{count}, row_per_invocation/shifted/index/grad 64, {end}");
    let shared = format!("{count}, row_per_subgroup/memory/shifted/index/grad 64, {end}");
    let wide = format!("{count}, row_per_workgroup/memory/shifted/index/grad 256, {end}");
    let by_vectors = format!("{count}, row_per_workgroup/memory/vectors/index/grad");
    // Of larger ones, whose row kernels finish their rows.
    let finishing = |kernel: &str| format!("{count}, {kernel}/finishes/index/grad");
    let shuffled = finishing("row_per_subgroup/shuffle/shifted");
    let read_again = finishing("row_per_subgroup/shuffle/alike");
    let quick = finishing("row_per_workgroup/shuffle/shifted");
    let quick_by_vectors = finishing("row_per_workgroup/shuffle/vectors");
    let all = loss_grad(9, 1000).z_loss(0.5).want(Wanted::ALL);
    // What the pass with labels has, and what follows it.
    let every = "index/z_loss/losses/lse/predictions/entropy/more";
    for (name, problem, device, expected) in [
        // 16 MiB of logits make a chunk, and the states of 48 bytes a row have to fit a binding less
        // one alignment.
        (
            "narrow",
            loss_grad(1000, 16),
            WEBGPU,
            format!("1×262144: {count}, row_per_invocation/vectors/index/grad 64, {end}"),
        ),
        (
            "one more class",
            loss_grad(1000, 17),
            WEBGPU,
            format!("1×246723: {shared}"),
        ),
        (
            "one more class",
            loss_grad(1000, 17),
            LARGE,
            format!("1×246723: {shuffled} 64, reduce 32"),
        ),
        // A team is a subgroup, or an aligned part of it, of a block's lanes at most.
        (
            "subgroups of four",
            loss_grad(1000, 17),
            DeviceProfile { subgroup: Some(4), ..LARGE },
            format!("1×246723: {shuffled} 64/4, reduce 32"),
        ),
        // (2²⁷ − 256) / 36 bytes of states.
        (
            "one class",
            loss_grad(1 << 23, 1),
            WEBGPU,
            format!("3×3728263: {narrow}"),
        ),
        (
            "one class",
            loss_grad(1 << 23, 1),
            LARGE,
            format!("2×4194304: {} 64, reduce 32", finishing("row_per_invocation/shifted")),
        ),
        (
            "no rows",
            loss_grad(0, 10),
            WEBGPU,
            format!("0×419430: {narrow}"),
        ),
        (
            "as much as a subgroup takes",
            loss_grad(4096, 4096),
            LARGE,
            format!("4×1024: {} 64, reduce 32", finishing("row_per_subgroup/shuffle/vectors")),
        ),
        (
            "more",
            loss_grad(4096, 4097),
            LARGE,
            format!("5×1023: {quick} 256, reduce 32"),
        ),
        (
            "a vocabulary",
            loss_grad(4096, 50_257),
            WEBGPU,
            format!("50×83: {wide}"),
        ),
        (
            "a vocabulary",
            loss_grad(4096, 128_256),
            LARGE,
            format!("128×32: {quick_by_vectors} 256, reduce 32"),
        ),
        (
            "few rows",
            loss_grad(64, 16_384),
            LARGE,
            format!(
                "1×256: {count}, split_row_states/shuffle/vectors/index 64, split_row_finish/vectors/finishes/index/grad 256, reduce 32"
            ),
        ),
        (
            "a row more",
            loss_grad(65, 16_384),
            LARGE,
            format!("1×256: {quick_by_vectors} 256, reduce 32"),
        ),
        (
            "a class less",
            loss_grad(64, 16_383),
            LARGE,
            format!("1×256: {} 256, reduce 32", finishing("row_per_workgroup/shuffle/alike")),
        ),
        (
            "wider than a chunk",
            loss_grad(3, 20_000_000),
            WEBGPU,
            format!(
                "3×1: {count}, split_row_states/memory/vectors/index 64, split_row_finish/vectors/index/grad 256, {end}"
            ),
        ),
        // A driver on the processor: one invocation a row, unless there are less than 32 of more than 256
        // classes: then a team, with a workgroup of its own. A single row, or a very long one, is split.
        (
            "software, narrow and few",
            loss_grad(31, 256),
            SOFTWARE,
            format!("1×16384: {} 16, reduce 32", finishing("row_per_invocation/vectors")),
        ),
        (
            "software, one more class",
            loss_grad(31, 257),
            SOFTWARE,
            format!("1×16320: {read_again} 8, reduce 32"),
        ),
        (
            "software, one more row",
            loss_grad(32, 257),
            SOFTWARE,
            format!("1×16320: {} 16, reduce 32", finishing("row_per_invocation/alike")),
        ),
        (
            "software, a row that is not long",
            loss_grad(1, 65_535),
            SOFTWARE,
            format!("1×64: {read_again} 8, reduce 32"),
        ),
        (
            "software, a row",
            loss_grad(1, 65_537),
            SOFTWARE,
            format!(
                "1×63: {count}, split_row_states/shuffle/shifted/index 16, split_row_finish/alike/finishes/index/grad 8, reduce 32"
            ),
        ),
        (
            "software, two",
            loss_grad(2, 65_537),
            SOFTWARE,
            format!("1×63: {read_again} 8, reduce 32"),
        ),
        (
            "software, as long as a team can loop",
            loss_grad(17, 262_144),
            SOFTWARE,
            format!("2×16: {} 8, reduce 32", finishing("row_per_subgroup/shuffle/vectors")),
        ),
        (
            "software, longer",
            loss_grad(17, 262_145),
            SOFTWARE,
            format!(
                "2×15: {count}, split_row_states/shuffle/shifted/index 16, split_row_finish/alike/finishes/index/grad 8, reduce 32"
            ),
        ),
        (
            "software, as long as an invocation can loop",
            Problem::of(32, 262_144).index_labels(-100).want([Wanted::Loss]),
            SOFTWARE,
            format!("2×16: {count}, row_per_invocation/vectors/finishes/index 16, reduce 32"),
        ),
        (
            "software, as long as an invocation can write",
            loss_grad(32, 131_072),
            SOFTWARE,
            format!("1×32: {} 16, reduce 32", finishing("row_per_invocation/vectors")),
        ),
        (
            "software, longer",
            loss_grad(32, 131_073),
            SOFTWARE,
            format!("2×31: {read_again} 16, reduce 32"),
        ),
        (
            "software, as long as an invocation can look for predictions",
            Problem::of(32, 131_072).want([Predictions]),
            SOFTWARE,
            "1×32: row_per_invocation/vectors/finishes/known/predictions 16, reduce 32".to_owned(),
        ),
        (
            "software, longer",
            Problem::of(32, 131_073).want([Predictions]),
            SOFTWARE,
            "2×31: row_per_subgroup/shuffle/shifted/finishes/known/predictions 16, reduce 32".to_owned(),
        ),
        (
            "software, as long as an invocation can do both",
            loss_grad(32, 65_536).want([Predictions]),
            SOFTWARE,
            format!(
                "1×64: {count}, row_per_invocation/vectors/finishes/index/predictions/grad 16, reduce 32"
            ),
        ),
        (
            "software, longer",
            loss_grad(32, 65_537).want([Predictions]),
            SOFTWARE,
            format!("1×63: {count}, row_per_subgroup/shuffle/alike/finishes/index/predictions/grad 16, reduce 32"),
        ),
        (
            "software, as long as an invocation can loop with options",
            loss_grad(32, 7680).softcap(100.0),
            SOFTWARE,
            format!(
                "1×546: {count}, row_per_invocation/capped/vectors/finishes/index/grad 16, reduce 32"
            ),
        ),
        (
            "software, longer",
            loss_grad(32, 7681).softcap(100.0),
            SOFTWARE,
            format!(
                "1×546: {count}, row_per_subgroup/capped/shuffle/alike/finishes/index/grad 16, reduce 32"
            ),
        ),
        (
            "software, as long as a team can loop with options",
            loss_grad(32, 32_768).softcap(100.0),
            SOFTWARE,
            format!(
                "1×128: {count}, row_per_subgroup/capped/shuffle/vectors/finishes/index/grad 16, reduce 32"
            ),
        ),
        (
            "software, longer",
            loss_grad(32, 32_772).softcap(100.0),
            SOFTWARE,
            format!(
                "1×127: {count}, split_row_states/capped/shuffle/vectors/index 16, split_row_finish/capped/vectors/finishes/index/grad 8, reduce 32"
            ),
        ),
        (
            "software without subgroups",
            loss_grad(31, 1000),
            DeviceProfile { subgroup: None, ..SOFTWARE },
            format!("1×4194: {} 8, reduce 32", finishing("row_per_subgroup/memory/vectors")),
        ),
        // Invocations are halved until they fit.
        (
            "128 invocations",
            loss_grad(1, 5000),
            with(|device| device.max_invocations = 128),
            format!(
                "1×838: {by_vectors} 128, {end}"
            ),
        ),
        (
            "32 invocations",
            loss_grad(1, 5000),
            with(|device| device.max_invocations = 32),
            "1×838: count_labels 32, row_per_workgroup/memory/vectors/index/grad 32, finish_rows/index 32, reduce 32"
                .to_owned(),
        ),
        // 12 bytes an invocation, 24 a block and the row, and 16: 256·12 + 33·24 + 16.
        (
            "as much as 256 invocations take",
            loss_grad(1, 5000),
            with(|device| device.workgroup_memory = 3880),
            format!("1×838: {by_vectors} 256, {end}"),
        ),
        (
            "a byte less",
            loss_grad(1, 5000),
            with(|device| device.workgroup_memory = 3880 - 1),
            format!(
                "1×838: {by_vectors} 128, {end}"
            ),
        ),
        // Full sums: 36 bytes an invocation, 48 a block and the row, and 16: 256·36 + 33·48 + 16.
        (
            "as much as 256 invocations take with full sums",
            loss_grad(1, 5000).label_smoothing(0.1),
            with(|device| device.workgroup_memory = 10_816),
            format!(
                "1×838: {count}, row_per_workgroup/memory/full/vectors/index/smoothed/grad 256, finish_rows/index/smoothed 64, reduce 32"
            ),
        ),
        (
            "a byte less",
            loss_grad(1, 5000).label_smoothing(0.1),
            with(|device| device.workgroup_memory = 10_816 - 1),
            format!(
                "1×838: {count}, row_per_workgroup/memory/full/vectors/index/smoothed/grad 128, finish_rows/index/smoothed 64, reduce 32"
            ),
        ),
        // By shuffles an invocation needs none: 33·24 + 16.
        (
            "as much as 256 invocations take that shuffle",
            loss_grad(65, 5001),
            DeviceProfile { workgroup_memory: 808, ..LARGE },
            format!("1×838: {quick} 256, reduce 32"),
        ),
        (
            "a byte less",
            loss_grad(65, 5001),
            DeviceProfile { workgroup_memory: 808 - 1, ..LARGE },
            format!("1×838: {} 128, reduce 32", finishing("row_per_workgroup/shuffle/alike")),
        ),
        // 8·12 + 2·24 + 16 = 160 for one team.
        (
            "one team",
            loss_grad(1, 5000),
            with(|device| device.workgroup_memory = 160),
            format!("1×838: {by_vectors} 8, {end}"),
        ),
        (
            "no workgroup memory to speak of",
            loss_grad(1, 5000),
            with(|device| device.workgroup_memory = 159),
            format!("1×838: {count}, row_per_invocation/vectors/index/grad 64, {end}"),
        ),
        // The accumulators take 8192 bytes, which are / 36 of states, or / 400 of logits.
        (
            "the smallest bindings",
            loss_grad(1000, 3),
            with(|device| device.max_binding = 8448),
            format!("5×227: {narrow}"),
        ),
        (
            "the smallest buffers",
            loss_grad(1000, 100),
            with(|device| device.max_buffer = 8448),
            format!("50×20: {count}, row_per_subgroup/memory/vectors/index/grad 64, {end}"),
        ),
        (
            "1×1 workgroups",
            loss_grad(5, 3),
            with(|device| device.max_workgroups = 1),
            format!("5×1: {narrow}"),
        ),
        // Log-softmax is a pass of its own where there is another matrix, and comes first; the gradient
        // comes last, as it may go over the logits.
        (
            "everything",
            all.clone(),
            LARGE,
            format!(
                "1×4194: {count}, row_per_subgroup/shuffle/vectors/log_softmax 64, row_per_subgroup/shuffle/full/vectors/finishes/{every}/softmax/grad 64, reduce 32"
            ),
        ),
        (
            "everything, in place",
            all.clone().grad_over_logits(true),
            LARGE,
            format!(
                "1×4194: {count}, row_per_subgroup/shuffle/vectors/log_softmax 64, row_per_subgroup/shuffle/full/pooled/vectors/finishes/{every}/softmax/grad_over_logits 64, reduce 32"
            ),
        ),
        // What is wanted of rows, once in the kernel that knows them and once in those that finish them.
        (
            "everything, one pass after the other",
            all,
            WEBGPU,
            format!(
                "1×4194: {count}, row_per_subgroup/memory/vectors/log_softmax 64, row_per_subgroup/memory/full/vectors/index/z_loss/losses/lse/predictions/entropy/softmax/grad 64, finish_rows/index/z_loss/losses/lse/predictions 64, more_rows 64, reduce 32"
            ),
        ),
        (
            "everything of split rows: one set of states",
            loss_grad(2, 100_000).z_loss(0.5).want(Wanted::ALL),
            LARGE,
            format!(
                "1×41: {count}, split_row_states/shuffle/full/vectors/{every} 64, split_row_finish/full/vectors/log_softmax 256, split_row_finish/full/vectors/finishes/{every}/softmax/grad 256, reduce 32"
            ),
        ),
        (
            "dense labels",
            Problem::of(9, 10).dense_labels().want([LogSoftmax, Grad]),
            WEBGPU,
            "1×419430: row_per_invocation/shifted/known/log_softmax 64, row_per_invocation/full/shifted/dense/known/grad 64, finish_rows/dense 64, reduce 32"
                .to_owned(),
        ),
        (
            "dense labels of split rows",
            Problem::of(9, 100_000).dense_labels().want([Grad]),
            WEBGPU,
            "1×41: split_row_states/memory/full/vectors/dense/known 64, split_row_finish/full/vectors/dense/known/grad 256, finish_rows/dense 64, reduce 32"
                .to_owned(),
        ),
        (
            "no labels",
            Problem::of(9, 10).want([Softmax, LogSoftmax]),
            WEBGPU,
            "1×419430: row_per_invocation/shifted/known/log_softmax 64, row_per_invocation/shifted/known/softmax 64, finish_rows 64, reduce 32"
                .to_owned(),
        ),
        (
            "row outputs only",
            Problem::of(9, 10).want([Lse, Predictions]),
            WEBGPU,
            "1×419430: row_per_invocation/shifted/known/lse/predictions 64, finish_rows/lse/predictions 64, reduce 32".to_owned(),
        ),
        (
            "row outputs of split rows",
            Problem::of(9, 100_000).want([Lse]),
            WEBGPU,
            "1×41: split_row_states/memory/vectors/known/lse 64, split_row_finish/vectors/known/lse 256, finish_rows/lse 64, reduce 32"
                .to_owned(),
        ),
        // A denominator that is known is not counted.
        (
            "the sum",
            loss_grad(9, 10).reduction(Reduction::Sum),
            WEBGPU,
            format!("1×419430: row_per_invocation/shifted/index/known/grad 64, {end}"),
        ),
        (
            "a denominator",
            loss_grad(9, 10).denominator(Denominator::Number(3.0)),
            WEBGPU,
            format!("1×419430: row_per_invocation/shifted/index/known/grad 64, {end}"),
        ),
    ] {
        check(name, problem, device, &expected);
    }
}

fn check(name: &str, problem: ProblemBuilder, device: DeviceProfile, expected: &str) {
    let problem = problem.build();
    let problem = problem.unwrap_or_else(|error| panic!("{name}: {error}"));
    let plan = Plan::new(&problem, &device).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(shown(&plan), expected, "{name}");
}

/// What each option adds to a plan: to the pass over the logits, before and after it, to its rows.
#[test]
fn plans_with_options_are_these() {
    use Wanted::{Correct, Entropy, Grad, Loss, Softmax, ZLoss, ZLosses};
    let ten = || loss_grad(9, 10);
    let index = || Problem::of(9, 10).index_labels(-100);
    let count = "count_labels 64";
    let end = "finish_rows/index 64, reduce 32";
    let one = |options: &str| format!("row_per_invocation{options} 64");
    // Of ten f32 in a row, which are no whole vectors; the parts of the text come before that.
    let cut = |options: &str| {
        let parts = ["/scaled", "/capped", "/full"];
        let text: String = parts
            .into_iter()
            .filter(|part| options.contains(part))
            .collect();
        one(&format!("{text}/shifted{}", &options[text.len()..]))
    };
    let weighted_end = "finish_rows/index/weighted 64, reduce";
    for (name, problem, device, expected) in [
        // The weights of the labels are summed on the device.
        (
            "class weights",
            ten().class_weights(),
            WEBGPU,
            format!(
                "1×419430: count_labels/weighted 64, {}, {weighted_end}/weighted 32",
                cut("/index/weighted/grad")
            ),
        ),
        (
            "class weights, the mean over rows",
            ten().class_weights().denominator(Denominator::ValidRows),
            WEBGPU,
            format!("1×419430: {count}, {}, {weighted_end} 32", cut("/index/weighted/grad")),
        ),
        (
            "class weights, the sum",
            ten().class_weights().reduction(Reduction::Sum),
            WEBGPU,
            format!("1×419430: {}, {weighted_end} 32", cut("/index/known/weighted/grad")),
        ),
        (
            "class weights of dense labels: divided by the rows",
            Problem::of(9, 10).dense_labels().class_weights().want([Loss]),
            WEBGPU,
            format!(
                "1×419430: {}, finish_rows/dense/weighted 64, reduce 32",
                cut("/full/dense/known/weighted")
            ),
        ),
        // All classes of a row count in its loss.
        (
            "smoothing",
            ten().label_smoothing(0.1),
            WEBGPU,
            format!(
                "1×419430: {count}, {}, finish_rows/index/smoothed 64, reduce 32",
                cut("/full/index/smoothed/grad")
            ),
        ),
        (
            "z-loss",
            ten().z_loss(1e-4),
            WEBGPU,
            format!(
                "1×419430: {count}, {}, finish_rows/index/z_loss 64, reduce 32",
                cut("/index/z_loss/grad")
            ),
        ),
        // What has no mean needs no denominator.
        (
            "z-losses alone",
            index().z_loss(1e-4).want([ZLosses]),
            WEBGPU,
            format!(
                "1×419430: {}, finish_rows/index/z_loss 64, more_rows 64, reduce 32",
                cut("/index/known/z_loss")
            ),
        ),
        (
            "their mean",
            index().z_loss(1e-4).want([ZLoss]),
            WEBGPU,
            format!(
                "1×419430: {count}, {}, finish_rows/index/z_loss 64, reduce 32",
                cut("/index/z_loss")
            ),
        ),
        (
            "entropy",
            Problem::of(9, 10).want([Entropy]),
            WEBGPU,
            format!(
                "1×419430: {}, finish_rows 64, more_rows 64, reduce 32",
                cut("/full/known/entropy")
            ),
        ),
        // Of split rows one set of states serves all outputs, so that all passes have its sums.
        (
            "entropy and softmax of split rows",
            Problem::of(9, 100_000).want([Entropy, Softmax]),
            WEBGPU,
            "1×41: split_row_states/memory/full/vectors/known/entropy 64, split_row_finish/full/vectors/known/entropy/softmax 256, finish_rows 64, more_rows 64, reduce 32"
                .to_owned(),
        ),
        (
            "correct rows",
            index().want([Correct]),
            WEBGPU,
            format!(
                "1×419430: {}, finish_rows/index/predictions 64, more_rows 64, reduce 32",
                cut("/index/known/predictions")
            ),
        ),
        (
            "a scale",
            ten().logit_scale(0.5),
            WEBGPU,
            format!(
                "1×419430: {count}, {}, finish_rows/scaled/index 64, reduce 32",
                cut("/scaled/index/grad")
            ),
        ),
        (
            "a scale and a cap",
            ten().logit_scale(0.5).softcap(30.0).want([Correct]),
            WEBGPU,
            format!(
                "1×419430: {count}, {}, finish_rows/capped/index/predictions 64, more_rows/capped 64, reduce 32",
                cut("/capped/index/low_cap/predictions/grad")
            ),
        ),
        // The widest array decides how many rows fit: the gradient of 4 bytes,
        (
            "16 bits in",
            ten().dtype(Dtype::Bf16),
            WEBGPU,
            format!("1×419430: {count}, {}, {end}", one("/index/bf16/grad")),
        ),
        // then the states, 48 bytes a row against 20 of logits,
        (
            "16 bits in and out",
            ten().dtype(Dtype::F16).same_dtype_out(true),
            WEBGPU,
            format!("1×838860: {count}, {}, {end}", one("/halves/index/f16/grad")),
        ),
        // or 2²⁶ / 2000.
        (
            "16 bits in, wider",
            Problem::of(9, 1000).index_labels(-100).dtype(Dtype::F16).want([Loss]),
            WEBGPU,
            format!("1×8388: {count}, row_per_subgroup/memory/vectors/index/f16 64, {end}"),
        ),
        (
            "16 bits in and dense labels, which are f32",
            Problem::of(9, 1000).dense_labels().dtype(Dtype::F16).want([Loss]),
            WEBGPU,
            "1×4194: row_per_subgroup/memory/full/vectors/dense/f16/known 64, finish_rows/dense 64, reduce 32"
                .to_owned(),
        ),
        // Interleaved rows go to neighbouring invocations, 8·floor(2²⁶ / (8·400)) of them at once.
        (
            "interleaved",
            loss_grad(24, 100).inner(8),
            LARGE,
            format!("1×41936: {count}, {}, reduce 32", one("/finishes/index/strided/grad")),
        ),
        (
            "interleaved and long",
            loss_grad(24, 20_000).inner(8),
            LARGE,
            format!("1×208: {count}, {}, reduce 32", one("/finishes/index/strided/grad")),
        ),
        // 8192 / 3200 is 2.
        (
            "interleaved, the smallest bindings",
            loss_grad(24, 100).inner(8),
            with(|device| device.max_binding = 8448),
            format!("2×16: {count}, {}, {end}", one("/index/strided/grad")),
        ),
        // 8192 / (200·48) of states would be none.
        (
            "interleaved and narrow, small bindings",
            loss_grad(400, 2).inner(200),
            with(|device| device.max_binding = 10_000 + 256),
            format!("2×200: {count}, {}, {end}", one("/index/strided/grad")),
        ),
        (
            "software, interleaved",
            loss_grad(18, 7680).inner(2).softcap(100.0),
            SOFTWARE,
            format!(
                "1×546: {count}, row_per_invocation/capped/finishes/index/strided/grad 16, reduce 32"
            ),
        ),
        (
            "software, interleaved, longer than an invocation can loop",
            loss_grad(18, 7681).inner(2).softcap(100.0),
            SOFTWARE,
            format!(
                "1×546: {count}, row_per_subgroup/capped/shuffle/finishes/index/strided/grad 8, reduce 32"
            ),
        ),
        (
            "software, much padding to be written",
            loss_grad(32, 10).row_length(131_072, Padding::Masked),
            SOFTWARE,
            format!("1×32: {count}, row_per_invocation/alike/finishes/index/grad/padded 16, reduce 32"),
        ),
        (
            "software, more",
            loss_grad(32, 10).row_length(131_073, Padding::Masked),
            SOFTWARE,
            format!(
                "2×31: {count}, row_per_subgroup/shuffle/alike/finishes/index/grad/padded 16, reduce 32"
            ),
        ),
        (
            "software, yet more",
            loss_grad(32, 10).row_length(262_145, Padding::Masked),
            SOFTWARE,
            format!(
                "3×15: {count}, split_row_states/shuffle/shifted/index 16, split_row_finish/alike/finishes/index/grad/padded 8, reduce 32"
            ),
        ),
        (
            "software, left as it is",
            loss_grad(32, 10).row_length(262_145, Padding::Kept),
            SOFTWARE,
            format!("3×15: {count}, row_per_invocation/shifted/finishes/index/grad 16, reduce 32"),
        ),
        // 36 bytes a row; what lies past the classes is written or left.
        (
            "padded",
            ten().row_length(12, Padding::Masked),
            WEBGPU,
            format!("1×349525: {count}, {}, {end}", cut("/index/grad/padded")),
        ),
        (
            "padded, and left as it is",
            ten().row_length(12, Padding::Kept),
            WEBGPU,
            format!("1×349525: {count}, {}, {end}", cut("/index/grad")),
        ),
        (
            "padded, and nothing written there",
            index().row_length(12, Padding::Masked).want([Loss]),
            WEBGPU,
            format!("1×349525: {count}, {}, {end}", cut("/index")),
        ),
        (
            "softmax backward",
            Problem::softmax_backward(9, 10),
            WEBGPU,
            format!(
                "1×419430: {}, finish_rows/vector 64, reduce 32",
                cut("/full/vector/known/grad")
            ),
        ),
        (
            "softmax backward of softmax, in place, in 16 bits",
            Problem::softmax_backward(9, 1000)
                .from_softmax()
                .dtype(Dtype::Bf16)
                .same_dtype_out(true)
                .grad_over_logits(true),
            WEBGPU,
            "1×4194: row_per_subgroup/memory/full/pooled/halves/vector/bf16/from_softmax/known/grad_over_logits 64, finish_rows/vector 64, reduce 32"
                .to_owned(),
        ),
        (
            "softmax backward of split rows",
            Problem::softmax_backward(9, 100_000).want([Grad]),
            WEBGPU,
            "1×41: split_row_states/memory/full/vectors/vector/known 64, split_row_finish/full/vectors/vector/known/grad 256, finish_rows/vector 64, reduce 32"
                .to_owned(),
        ),
    ] {
        check(name, problem, device, &expected);
    }
}

/// All passes, in the order of their dispatches.
fn dispatches(plan: &Plan) -> Vec<Pass> {
    let passes = plan.count.iter().chain(&plan.passes);
    passes.chain([&plan.reduce]).copied().collect()
}

/// The passes over rows with their kernels and widths.
fn row_passes(plan: &Plan) -> Vec<(Pass, RowKernel, Width)> {
    let row = |pass: &Pass| match pass.variant {
        Variant::Row { kernel, width, .. } => Some((*pass, kernel, width)),
        _ => None,
    };
    plan.passes.iter().filter_map(row).collect()
}

/// Vectors where every row of every array of this shape begins and ends where one does.
#[test]
fn rows_are_read_by_vectors_where_they_are_made_of_them() {
    let by_words = Tuning {
        vectors: false,
        ..Tuning::GPU
    };
    let words = DeviceProfile {
        tuning: Some(by_words),
        ..LARGE
    };
    let dense = Problem::of(8, 64).dense_labels().want([Wanted::Grad]);
    for (name, problem, device, expected) in [
        ("64", loss_grad(8, 64), LARGE, Width::Vectors),
        ("4", loss_grad(8, 4), WEBGPU, Width::Vectors),
        ("65", loss_grad(8, 65), LARGE, Width::Shifted),
        ("66", loss_grad(8, 66), LARGE, Width::Shifted),
        ("1", loss_grad(8, 1), LARGE, Width::Shifted),
        ("65, in a browser", loss_grad(8, 65), WEBGPU, Width::Shifted),
        (
            "padded",
            loss_grad(8, 64).row_length(68, Padding::Kept),
            LARGE,
            Width::Vectors,
        ),
        (
            "and written",
            loss_grad(8, 64).row_length(68, Padding::Masked),
            LARGE,
            Width::Vectors,
        ),
        (
            "by less",
            loss_grad(8, 64).row_length(66, Padding::Kept),
            LARGE,
            Width::Shifted,
        ),
        (
            "to that",
            loss_grad(8, 62).row_length(64, Padding::Masked),
            LARGE,
            Width::Shifted,
        ),
        (
            "f16",
            loss_grad(8, 64).dtype(Dtype::F16),
            LARGE,
            Width::Vectors,
        ),
        (
            "bf16",
            loss_grad(8, 64).dtype(Dtype::Bf16).same_dtype_out(true),
            LARGE,
            Width::Vectors,
        ),
        (
            "f16, half a vector more",
            loss_grad(8, 68).dtype(Dtype::F16),
            LARGE,
            Width::Words,
        ),
        (
            "65, in place",
            loss_grad(8, 65).grad_over_logits(true),
            LARGE,
            Width::Words,
        ),
        (
            "bf16, in place",
            loss_grad(8, 64)
                .dtype(Dtype::Bf16)
                .same_dtype_out(true)
                .grad_over_logits(true),
            LARGE,
            Width::Words,
        ),
        (
            "interleaved",
            loss_grad(8, 64).inner(4),
            LARGE,
            Width::Words,
        ),
        ("dense", dense, LARGE, Width::Vectors),
        (
            "in place",
            loss_grad(8, 64).grad_over_logits(true),
            LARGE,
            Width::Vectors,
        ),
        (
            "nothing of this shape",
            Problem::of(8, 64).want([Wanted::Lse]),
            LARGE,
            Width::Vectors,
        ),
        ("not allowed", loss_grad(8, 64), words, Width::Words),
    ] {
        let problem = problem.build().unwrap();
        for strategy in Strategy::ALL {
            let plan = Plan::with_strategy(&problem, &device, strategy).unwrap();
            for (pass, kernel, width) in row_passes(&plan) {
                // Only what writes over the logits has to be careful with them.
                if name.contains("in place") && !kernel.writes() {
                    continue;
                }
                // What does not stay in the kernel is written as it is read again.
                let alike = expected == Width::Shifted && pass.options.writes() && !pass.resident;
                let expected = match alike && device.stores_components {
                    true => Width::Alike,
                    false => expected,
                };
                assert_eq!(width, expected, "{name}: {pass}");
            }
        }
    }
}

/// Arrays that begin elsewhere are read by the word, a denominator that is known after all is not looked
/// for: in shaders that exist, and but for that the same.
#[test]
fn passes_are_placed_and_told_the_denominator() {
    let shaders = Variant::all();
    for strategy in Strategy::ALL {
        for problem in with_options(8, 100) {
            let problem = problem.build().unwrap();
            for device in [WEBGPU, LARGE] {
                let plan = Plan::with_strategy(&problem, &device, strategy).unwrap();
                for pass in dispatches(&plan) {
                    let placed = |whole, alike, room| Placement { whole, alike, room };
                    let (anywhere, best) = (placed(false, false, false), placed(true, true, true));
                    let (narrow, known) = (pass.placed(anywhere), pass.known());
                    assert_eq!(pass.placed(best), pass);
                    for placed in [
                        pass.placed(placed(false, false, true)),
                        pass.placed(placed(false, true, true)),
                        pass.placed(placed(false, true, false)),
                        pass.pooled().placed(best),
                    ] {
                        assert!(shaders.contains(&placed.variant), "{placed}");
                    }
                    assert!(shaders.contains(&narrow.variant), "{narrow}");
                    assert_eq!(narrow.placed(anywhere), narrow);
                    assert_eq!(known.known(), known);
                    let mut by_words = pass;
                    let mut told = pass;
                    if let Variant::Row { width, .. } = &mut by_words.variant {
                        *width = Width::Words;
                        told.options.denominator_known = true;
                    }
                    assert_eq!((narrow, known), (by_words, told));
                }
            }
        }
    }
    let plan = |problem: ProblemBuilder| Plan::new(&problem.build().unwrap(), &LARGE).unwrap();
    let known = |plan: &Plan| row_passes(plan)[0].0.options.denominator_known;
    for (problem, expected) in [
        (loss_grad(8, 10), false),
        (loss_grad(8, 10).denominator(Denominator::ValidRows), false),
        (loss_grad(8, 10).denominator(Denominator::Buffer), false),
        (loss_grad(8, 10).denominator(Denominator::Number(3.0)), true),
        (loss_grad(8, 10).reduction(Reduction::Sum), true),
        (loss_grad(8, 10).reduction(Reduction::None), true),
        (Problem::of(8, 10).want([Wanted::Softmax]), true),
    ] {
        assert_eq!(known(&plan(problem)), expected);
    }
}

/// What the kernels hold of a row: as many slots or stripes as it has, eight at most.
#[test]
fn kernels_hold_what_rows_have() {
    use Strategy::{RowPerInvocation, RowPerSubgroup, RowPerWorkgroup, SplitRow};
    let (invocation, team) = (RowPerInvocation, RowPerSubgroup);
    let loss = |classes| {
        Problem::of(8, classes)
            .index_labels(-100)
            .want([Wanted::Loss])
    };
    let masked = |classes, padding| loss_grad(8, classes).row_length(classes + 4, padding);
    const KEEPS_NOTHING: DeviceProfile = DeviceProfile {
        tuning: Some(Tuning {
            keeps: false,
            ..Tuning::GPU
        }),
        ..LARGE
    };
    const FEW: DeviceProfile = DeviceProfile {
        max_invocations: 64,
        ..LARGE
    };
    for (strategy, problem, device, expected) in [
        // (held, resident, one_block): slots of four columns,
        (invocation, loss_grad(8, 1), LARGE, (1, true, true)),
        (invocation, loss_grad(8, 4), LARGE, (1, true, true)),
        (invocation, loss_grad(8, 5), LARGE, (2, true, true)),
        (invocation, loss_grad(8, 10), LARGE, (4, true, true)),
        (invocation, loss_grad(8, 16), LARGE, (4, true, true)),
        (invocation, loss_grad(8, 17), LARGE, (8, true, true)),
        (invocation, loss_grad(8, 32), LARGE, (8, true, true)),
        (invocation, loss_grad(8, 33), LARGE, (8, false, true)),
        (invocation, loss_grad(8, 256), LARGE, (8, false, true)),
        (invocation, loss_grad(8, 257), LARGE, (8, false, false)),
        // stripes of 32,
        (team, loss_grad(8, 10), LARGE, (1, true, true)),
        (team, loss_grad(8, 32), LARGE, (1, true, true)),
        (team, loss_grad(8, 33), LARGE, (2, true, true)),
        (team, loss_grad(8, 65), LARGE, (4, true, true)),
        (team, loss_grad(8, 129), LARGE, (8, true, true)),
        (team, loss_grad(8, 256), LARGE, (8, true, true)),
        (team, loss_grad(8, 257), LARGE, (8, false, false)),
        // and a block for each of 32 teams, or of 8.
        (RowPerWorkgroup, loss_grad(8, 100), LARGE, (4, true, true)),
        (RowPerWorkgroup, loss_grad(8, 8192), LARGE, (8, true, false)),
        (
            RowPerWorkgroup,
            loss_grad(8, 8193),
            LARGE,
            (8, false, false),
        ),
        (RowPerWorkgroup, loss_grad(8, 2048), FEW, (8, true, false)),
        (RowPerWorkgroup, loss_grad(8, 2049), FEW, (8, false, false)),
        // Parts of rows do not stay.
        (SplitRow, loss_grad(8, 10), LARGE, (1, false, true)),
        (SplitRow, loss_grad(8, 1000), LARGE, (8, false, false)),
        // Where nothing is written nothing has to, and what is written past the classes is not held.
        (invocation, loss(10), LARGE, (4, false, true)),
        (team, masked(100, Padding::Masked), LARGE, (4, false, true)),
        (team, masked(100, Padding::Kept), LARGE, (4, true, true)),
        (
            invocation,
            loss_grad(8, 10),
            KEEPS_NOTHING,
            (8, false, false),
        ),
        (team, loss_grad(8, 10), KEEPS_NOTHING, (8, false, false)),
        (
            RowPerWorkgroup,
            loss_grad(8, 10),
            KEEPS_NOTHING,
            (8, false, false),
        ),
    ] {
        let problem = problem.build().unwrap();
        let plan = Plan::with_strategy(&problem, &device, strategy).unwrap();
        let pass = row_passes(&plan)[0].0;
        let found = (pass.held, pass.resident, pass.one_block);
        let classes = problem.classes();
        assert_eq!(found, expected, "{}, {classes} classes", strategy.name());
    }
}

/// A row stays in its kernel if and only if the workgroup that the device has room for holds it.
#[test]
fn rows_stay_only_where_they_fit() {
    let sizes = [8, 16, 32, 64, 128, 256];
    for classes in [
        1, 4, 31, 32, 33, 255, 256, 257, 511, 512, 513, 2048, 2049, 8192, 8193,
    ] {
        for invocations in [32, 48, 64, 128, 256] {
            for (memory, subgroup) in [
                (160, None),
                (700, None),
                (1 << 14, None),
                (1 << 14, Some(4)),
                (1 << 14, Some(32)),
            ] {
                for size in sizes {
                    let tuning = Tuning {
                        workgroup: size,
                        row_workgroup: size,
                        ..Tuning::GPU
                    };
                    let device = DeviceProfile {
                        max_invocations: invocations,
                        workgroup_memory: memory,
                        subgroup,
                        tuning: Some(tuning),
                        ..WEBGPU
                    };
                    let problem = loss_grad(9, classes).build().unwrap();
                    for strategy in Strategy::ALL {
                        let plan = Plan::with_strategy(&problem, &device, strategy);
                        let Ok(plan) = plan else {
                            assert_eq!(memory, 160, "{}", plan.unwrap_err());
                            continue;
                        };
                        for (pass, kernel, _) in row_passes(&plan) {
                            stays_only_where_it_fits(&pass, kernel, classes);
                        }
                    }
                }
            }
        }
    }
}

fn stays_only_where_it_fits(pass: &Pass, kernel: RowKernel, classes: usize) {
    let held = pass.held as usize;
    let unit = match kernel {
        RowKernel::PerInvocation => 4,
        _ => 32,
    };
    assert!(held == 8 || classes <= unit * held, "{pass}: {held}");
    assert!(!pass.one_block || classes <= 256, "{pass}");
    let room = match kernel {
        RowKernel::PerInvocation | RowKernel::PerSubgroup => unit * held,
        RowKernel::PerWorkgroup => 256 * (pass.workgroup_size / pass.team) as usize,
        _ => 0,
    };
    assert_eq!(
        pass.resident,
        classes <= room,
        "{pass}: {classes} in {room}"
    );
}

/// Row kernels finish their rows where the device binds 16 buffers; else they leave states for passes
/// that do. No other pass binds states, but for those of split rows.
#[test]
fn rows_are_finished_once() {
    for buffers in [8, 10, 15, 16, 32] {
        let device = DeviceProfile {
            max_storage_buffers: buffers,
            ..LARGE
        };
        for strategy in Strategy::ALL {
            for problem in with_options(8, 100) {
                let problem = problem.build().unwrap();
                let plan = Plan::with_strategy(&problem, &device, strategy).unwrap();
                let all = dispatches(&plan);
                let most = all.iter().map(|pass| pass.variant.slots().len() as u32 - 1);
                assert!(most.max() <= Some(buffers), "{plan}");
                let has = |of: fn(&Variant) -> bool| all.iter().filter(|p| of(&p.variant)).count();
                let finishing = has(|v| matches!(v, Variant::Row { finishes: true, .. }));
                let rows = has(|v| matches!(v, Variant::FinishRows(_)));
                let more = has(|v| matches!(v, Variant::MoreRows(_)));
                let seldom = [Wanted::Entropy, Wanted::Correct, Wanted::ZLosses];
                let seldom = seldom.into_iter().any(|wanted| problem.wants(wanted));
                let expected = match buffers {
                    16.. => (1, 0, 0),
                    _ => (0, 1, usize::from(seldom)),
                };
                assert_eq!((finishing, rows, more), expected, "{plan}");
                for pass in &all {
                    let states = pass
                        .variant
                        .slots()
                        .iter()
                        .any(|(slot, _)| *slot == Slot::States);
                    let leaves = match pass.variant {
                        Variant::Row {
                            kernel, finishes, ..
                        } => !finishes || !kernel.is_whole(),
                        Variant::FinishRows(_) | Variant::MoreRows(_) => true,
                        _ => false,
                    };
                    assert_eq!(states, leaves, "{pass}");
                }
            }
        }
    }
}

/// Dispatches of a step that finishes its rows: the rows and the sum; the labels' count; one more where rows are split, one where log-softmax is beside
/// another output of its shape. One or two more where others finish the rows.
#[test]
fn a_step_is_a_few_dispatches() {
    let all = |rows, classes| loss_grad(rows, classes).z_loss(0.5).want(Wanted::ALL);
    for (problem, strategy, fused, apart) in [
        (
            loss_grad(9, 10).reduction(Reduction::Sum),
            Strategy::RowPerInvocation,
            2,
            3,
        ),
        (
            loss_grad(9, 10).reduction(Reduction::Sum),
            Strategy::RowPerSubgroup,
            2,
            3,
        ),
        (
            loss_grad(9, 10).reduction(Reduction::Sum),
            Strategy::RowPerWorkgroup,
            2,
            3,
        ),
        (
            loss_grad(9, 10).reduction(Reduction::Sum),
            Strategy::SplitRow,
            3,
            4,
        ),
        (loss_grad(9, 10), Strategy::RowPerInvocation, 3, 4),
        (loss_grad(9, 10), Strategy::SplitRow, 4, 5),
        (
            loss_grad(9, 10).class_weights(),
            Strategy::RowPerSubgroup,
            3,
            4,
        ),
        (loss_grad(9, 10).class_weights(), Strategy::SplitRow, 4, 5),
        (
            loss_grad(9, 10).want([Wanted::Entropy]),
            Strategy::RowPerSubgroup,
            3,
            5,
        ),
        (all(9, 10), Strategy::RowPerWorkgroup, 4, 6),
        (all(9, 10), Strategy::SplitRow, 5, 7),
    ] {
        let problem = problem.build().unwrap();
        for (device, expected) in [(LARGE, fused), (SOFTWARE, fused), (WEBGPU, apart)] {
            let plan = Plan::with_strategy(&problem, &device, strategy).unwrap();
            assert_eq!(dispatches(&plan).len(), expected, "{plan}");
        }
    }
}

/// Problems with every option, of `rows` that are a multiple of 4.
fn with_options(rows: usize, classes: usize) -> Vec<ProblemBuilder> {
    let plain = || loss_grad(rows, classes);
    let all = || plain().z_loss(0.5).want(Wanted::ALL);
    vec![
        plain(),
        all(),
        all()
            .class_weights()
            .label_smoothing(0.1)
            .softcap(30.0)
            .row_length(classes + 3, Padding::Masked),
        all()
            .dtype(Dtype::F16)
            .same_dtype_out(true)
            .grad_over_logits(true)
            .logit_scale(0.5),
        plain().inner(4),
        plain().inner(4).row_length(classes + 1, Padding::Kept),
        plain().class_weights().denominator(Denominator::ValidRows),
        Problem::of(rows, classes)
            .dense_labels()
            .dtype(Dtype::Bf16)
            .same_dtype_out(true)
            .want([Wanted::Loss, Wanted::Entropy, Wanted::Softmax]),
        Problem::of(rows, classes).want([Wanted::Softmax, Wanted::LogSoftmax, Wanted::Entropy]),
        Problem::softmax_backward(rows, classes),
        Problem::softmax_backward(rows, classes)
            .from_softmax()
            .grad_over_logits(true),
    ]
}

/// Logits that share a buffer: the same plan in shaders that declare them as written. Every shader has
/// as many storage buffers as WebGPU promises, at most.
#[test]
fn pooled_passes_are_variants_too() {
    let known = Variant::all();
    for strategy in Strategy::ALL {
        for (i, problem) in with_options(8, 100).into_iter().enumerate() {
            let problem = problem
                .build()
                .unwrap_or_else(|error| panic!("{i}: {error}"));
            for subgroup in [None, Some(8)] {
                let device = DeviceProfile { subgroup, ..WEBGPU };
                let plan = Plan::with_strategy(&problem, &device, strategy).unwrap();
                for pass in plan.count.iter().chain(&plan.passes).chain([&plan.reduce]) {
                    let pooled = pass.pooled().variant;
                    assert!(known.contains(&pass.variant), "{}", pass.variant);
                    assert!(known.contains(&pooled), "{pooled}");
                    let slots = pooled.slots();
                    let reads = slots.iter().any(|(_, access)| *access == Access::Read);
                    assert!(!reads, "{pooled}");
                    assert!(slots.len() <= 1 + 8, "{pooled}");
                }
            }
        }
    }
}

#[test]
fn no_plan_is_an_error_that_says_why() {
    let invocation = Strategy::RowPerInvocation;
    let workgroup = Strategy::RowPerWorkgroup;
    for (problem, device, strategy, expected) in [
        // 2049·4 bytes, and 8448 − 256.
        (
            loss_grad(1, 2049),
            with(|device| device.max_binding = 8448),
            invocation,
            "one row needs 8196 bytes in logits, and this device allows 8192; run it on the CPU, or on a device with larger buffers",
        ),
        (
            loss_grad(24, 2049).inner(24),
            with(|device| device.max_binding = 8448),
            invocation,
            "one row needs 8196 bytes in logits, whose rows are interleaved, and this device allows 8192; run it on the CPU, or on a device with larger buffers",
        ),
        // The padding counts, and labels of f32 beside logits of 16 bits.
        (
            loss_grad(1, 10).row_length(2049, Padding::Kept),
            with(|device| device.max_binding = 8448),
            invocation,
            "one row needs 8196 bytes in logits, and this device allows 8192; run it on the CPU, or on a device with larger buffers",
        ),
        (
            Problem::of(1, 2049)
                .dense_labels()
                .dtype(Dtype::F16)
                .want([Wanted::Loss]),
            with(|device| device.max_binding = 8448),
            invocation,
            "one row needs 8196 bytes in logits, and this device allows 8192; run it on the CPU, or on a device with larger buffers",
        ),
        // Windows of a row are parts of it, whose states have to fit all the same.
        (
            loss_grad(1, 1 << 18),
            with(|device| device.max_binding = 8448),
            Strategy::SplitRow,
            "one row needs 9252 bytes in states, and this device allows 8192; run it on the CPU, or on a device with larger buffers",
        ),
        // 1024 columns of logits and a gradient, and 4 bytes of a label, four times.
        (
            loss_grad(1, 2000),
            with(|device| device.memory = Some(32_783)),
            Strategy::SplitRow,
            "a memory budget of 32783 bytes is too small: this problem needs at least 32784",
        ),
        (
            loss_grad(1, 10),
            with(|device| device.max_binding = 8447),
            invocation,
            "this device allows 8447 bytes in a binding, and at least 8448 are needed",
        ),
        (
            loss_grad(1, 10),
            with(|device| device.max_storage_buffers = 7),
            invocation,
            "this device allows 7 storage buffers per shader, and at least 8 are needed",
        ),
        (
            loss_grad(1, 10),
            with(|device| device.max_invocations = 16),
            invocation,
            "this device allows 16 invocations per workgroup, and at least 32 are needed",
        ),
        (
            loss_grad(1, 1000),
            with(|device| device.workgroup_memory = 159),
            workgroup,
            "this device allows 159 bytes of workgroup memory, and at least 160 are needed",
        ),
        // Full sums: 8·36 + 2·48 + 16.
        (
            Problem::softmax_backward(1, 1000),
            with(|device| device.workgroup_memory = 399),
            workgroup,
            "this device allows 399 bytes of workgroup memory, and at least 400 are needed",
        ),
        (
            loss_grad(1, 131_073),
            SOFTWARE,
            invocation,
            "one row needs 524292 bytes in what a software driver can loop over, and this device allows 524288; run it on the CPU, or on a device with larger buffers",
        ),
    ] {
        let error = Plan::with_strategy(&problem.build().unwrap(), &device, strategy);
        assert_eq!(error.expect_err(expected).to_string(), expected);
    }
}

/// Plans name variants that exist, within the limits they were made for, whatever the options.
#[test]
fn plans_stay_within_the_limits() {
    let known = Variant::all();
    for invocations in [32, 48, 64, 100, 128, 256, 1024] {
        for memory in [512, 1024, 2048, 4096, 16384] {
            for (binding, classes) in [
                (8448, 1),
                (8448, 1000),
                (65_536, 1000),
                (128 << 20, 1),
                (128 << 20, 70_000),
            ] {
                let device = DeviceProfile {
                    max_invocations: invocations,
                    workgroup_memory: memory,
                    max_binding: binding,
                    ..WEBGPU
                };
                for rows in [8, 1 << 20] {
                    for problem in with_options(rows, classes) {
                        let problem = problem.build().unwrap();
                        within_limits(&problem, &device, &known);
                        let fuses = DeviceProfile {
                            max_storage_buffers: 16,
                            subgroup: Some(4),
                            ..device.clone()
                        };
                        within_limits(&problem, &fuses, &known);
                    }
                }
            }
        }
    }
}

fn within_limits(problem: &Problem, device: &DeviceProfile, known: &[Variant]) {
    let (all_rows, classes) = (problem.rows(), problem.classes());
    // Bytes of the widest array of a row.
    let dense = matches!(problem.labels(), LabelKind::Dense | LabelKind::Vector);
    let writes = problem.outputs().iter().any(Wanted::has_classes);
    let out = if writes {
        problem.dtype_out().size()
    } else {
        0
    };
    let element = problem.dtype().size().max(out).max(4 * usize::from(dense));
    let matrix = (element * problem.row_length()) as u64;
    let usable = device.max_binding - u64::from(device.offset_alignment);
    let plan = match Plan::new(problem, device) {
        Err(Error::RowTooWide { needed, .. }) => {
            let interleaved = problem.inner() > 1;
            assert!(
                interleaved && needed == matrix && needed > usable,
                "{problem:?}"
            );
            return;
        }
        plan => plan.unwrap_or_else(|error| panic!("{problem:?}, {device:?}: {error}")),
    };
    let (rows, columns) = (plan.rows_per_chunk as u64, plan.columns_per_chunk);
    let enough = plan.chunks() as u64 * rows >= all_rows as u64;
    assert!(rows >= 1 && enough, "{plan}");
    let inner = problem.inner() as u64;
    assert!(rows < inner || rows.is_multiple_of(inner), "{plan}");
    let windows = columns < problem.row_length();
    assert_eq!(windows, matrix > usable, "{plan}");
    if windows {
        assert!(
            rows == 1 && inner == 1 && columns.is_multiple_of(plan.part),
            "{plan}"
        );
        assert_eq!(plan.strategy, Strategy::SplitRow, "{plan}");
    }
    let matrix = (element * columns) as u64;
    let parts = match plan.strategy {
        Strategy::SplitRow => classes.div_ceil(plan.part) as u64,
        _ => 0,
    };
    for bytes in [matrix, 4 * STATE_WORDS as u64 * (1 + parts)] {
        assert!(rows * bytes <= usable, "{plan} with {device:?}");
    }
    for pass in plan.count.iter().chain(&plan.passes).chain([&plan.reduce]) {
        assert!(known.contains(&pass.variant), "{}", pass.variant);
        let size = pass.workgroup_size;
        assert!(size <= device.max_invocations, "{plan} with {device:?}");
        assert!(
            pass.memory() <= device.workgroup_memory,
            "{plan} with {device:?}"
        );
        let params = Params {
            rows: rows as u32,
            part: plan.part as u32,
            span: plan.span as u32,
            ..Params::of(problem)
        };
        let groups = pass.workgroups(&params, 65_535);
        assert!(groups.iter().all(|&groups| groups <= 65_535), "{plan}");
        // Whole teams.
        if matches!(
            pass.variant,
            Variant::Row {
                kernel: RowKernel::PerWorkgroup,
                ..
            }
        ) {
            assert!(size >= 8 && size.is_power_of_two(), "{plan}");
        }
    }
}

#[test]
fn fold_covers_all_groups_within_the_limit() {
    for most in [1u32, 2, 3, 7, 255, 65_535, u32::MAX] {
        let square = most.saturating_mul(most);
        let near = |value: u32| [value.saturating_sub(1), value, value.saturating_add(1)];
        let powers = (0..32).flat_map(|shift| near(1 << shift));
        for groups in powers
            .chain(near(most))
            .chain(near(square))
            .chain([0, u32::MAX, 1_000_003])
        {
            if groups > square {
                continue;
            }
            let [width, height] = fold(groups, most);
            assert!(
                width <= most && height <= most,
                "{groups}: {width}×{height}, at most {most}"
            );
            let made = u64::from(width) * u64::from(height);
            assert!(made >= u64::from(groups), "{groups}: {width}×{height}");
            // Less than one row of workgroups in vain.
            assert!(
                made < u64::from(groups) + u64::from(height),
                "{groups}: {width}×{height}"
            );
        }
    }
}

#[test]
fn a_plan_can_be_printed() {
    let problem = loss_grad(4096, 50_257)
        .want([Wanted::Predictions])
        .build()
        .unwrap();
    let expected = "\
4096 rows × 50257 classes in 50 chunks of at most 83 rows
  each chunk  row_per_workgroup/memory/shifted/index/predictions/grad, workgroups of 256
  each chunk  finish_rows/index/predictions, workgroups of 64
  at the end  reduce, one workgroup of 32";
    assert_eq!(Plan::new(&problem, &WEBGPU).unwrap().to_string(), expected);
}
