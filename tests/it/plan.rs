//! Plans under the limits of real devices and of none: strategy, workgroups, chunks, passes, errors.
//! No GPU.

use softxent::kernel::{Access, RowKernel, Variant};
use softxent::plan::{DeviceProfile, fold};
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
    subgroup: None,
};
/// Mesa's software driver.
const SOFTWARE: DeviceProfile = DeviceProfile {
    software: true,
    max_buffer: 1 << 31,
    offset_alignment: 16,
    max_invocations: 1024,
    workgroup_memory: 32 << 10,
    max_storage_buffers: 32,
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
    subgroup: Some(32),
    ..WEBGPU
};

/// WebGPU's promise with another limit.
fn with(change: fn(&mut DeviceProfile)) -> DeviceProfile {
    let mut device = WEBGPU;
    change(&mut device);
    device
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
                1 | 32 => String::new(),
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
    let narrow = format!("{count}, row_per_invocation/index/grad 64, {end}");
    let shared = format!("{count}, row_per_subgroup/memory/index/grad 64, {end}");
    let shuffled = format!("{count}, row_per_subgroup/shuffle/index/grad 64, {end}");
    let wide = format!("{count}, row_per_workgroup/memory/index/grad 256, {end}");
    let quick = format!("{count}, row_per_workgroup/shuffle/index/grad 256, {end}");
    let split = |exchange: &str, team: &str| {
        format!(
            "{count}, split_row_states/{exchange}/index 64{team}, split_row_merge/index 64, split_row_apply/index/grad 64, {end}"
        )
    };
    let all = loss_grad(9, 1000).z_loss(0.5).want(Wanted::ALL);
    // What the pass with labels has, and what follows it.
    let every = "index/z_loss/predictions/entropy/softmax";
    let every_end = "finish_rows/index/z_loss 64, more_rows 64, reduce 32";
    for (name, problem, device, expected) in [
        // 16 MiB of logits make a chunk, and the states of 48 bytes a row have to fit a binding less
        // one alignment.
        (
            "narrow",
            loss_grad(1000, 16),
            WEBGPU,
            format!("1×262144: {narrow}"),
        ),
        (
            "one more class",
            loss_grad(1000, 17),
            WEBGPU,
            format!("1×246723: {shared}"),
        ),
        // As many of a subgroup as have a slot of four columns.
        (
            "one more class",
            loss_grad(1000, 17),
            LARGE,
            format!(
                "1×246723: {count}, row_per_subgroup/shuffle/index/grad 64/8, {end}"
            ),
        ),
        (
            "65 classes",
            loss_grad(1000, 65),
            LARGE,
            format!("1×64527: {shuffled}"),
        ),
        // (2²⁷ − 256) / 48 bytes of states.
        (
            "one class",
            loss_grad(1 << 23, 1),
            WEBGPU,
            format!("4×2796197: {narrow}"),
        ),
        (
            "one class",
            loss_grad(1 << 23, 1),
            LARGE,
            format!("2×4194304: {narrow}"),
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
            format!("4×1024: {shuffled}"),
        ),
        (
            "more",
            loss_grad(4096, 4097),
            LARGE,
            format!("5×1023: {quick}"),
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
            format!("128×32: {quick}"),
        ),
        (
            "few rows",
            loss_grad(64, 16_384),
            LARGE,
            format!("1×256: {}", split("shuffle", "")),
        ),
        (
            "a row more",
            loss_grad(65, 16_384),
            LARGE,
            format!("1×256: {quick}"),
        ),
        (
            "wider than a chunk",
            loss_grad(3, 20_000_000),
            WEBGPU,
            format!("3×1: {}", split("memory", "")),
        ),
        // A driver on the processor: one invocation a narrow row, then a subgroup; few or very long
        // rows are split.
        (
            "software, narrow",
            loss_grad(1000, 512),
            SOFTWARE,
            format!("1×8192: {narrow}"),
        ),
        (
            "software",
            loss_grad(1000, 513),
            SOFTWARE,
            format!("1×8176: {count}, row_per_subgroup/shuffle/index/grad 64/8, {end}"),
        ),
        (
            "software, as long as a subgroup can loop",
            loss_grad(17, 262_144),
            SOFTWARE,
            format!("2×16: {count}, row_per_subgroup/shuffle/index/grad 64/8, {end}"),
        ),
        (
            "software, longer",
            loss_grad(17, 262_145),
            SOFTWARE,
            format!("2×15: {}", split("shuffle", "/8")),
        ),
        (
            "software, few rows",
            loss_grad(16, 16_384),
            SOFTWARE,
            format!("1×256: {}", split("shuffle", "/8")),
        ),
        (
            "software without subgroups",
            loss_grad(1000, 16_384),
            DeviceProfile { subgroup: None, ..SOFTWARE },
            format!("4×256: {narrow}"),
        ),
        (
            "software without subgroups, wide",
            loss_grad(1000, 16_385),
            DeviceProfile { subgroup: None, ..SOFTWARE },
            format!("4×255: {}", split("memory", "")),
        ),
        // Invocations are halved until they fit.
        (
            "128 invocations",
            loss_grad(1, 5000),
            with(|device| device.max_invocations = 128),
            format!(
                "1×838: {count}, row_per_workgroup/memory/index/grad 128, {end}"
            ),
        ),
        (
            "32 invocations",
            loss_grad(1, 5000),
            with(|device| device.max_invocations = 32),
            "1×838: count_labels 32, row_per_workgroup/memory/index/grad 32, finish_rows/index 32, reduce 32"
                .to_owned(),
        ),
        // 12 bytes an invocation, 24 a block and the row, and 16: 256·12 + 9·24 + 16.
        (
            "a byte less than 256 invocations take",
            loss_grad(1, 5000),
            with(|device| device.workgroup_memory = 3304 - 1),
            format!(
                "1×838: {count}, row_per_workgroup/memory/index/grad 128, {end}"
            ),
        ),
        // Full sums: 36 bytes an invocation, 48 a block and the row, and 16: 256·36 + 9·48 + 16.
        (
            "the same of full sums",
            loss_grad(1, 5000).label_smoothing(0.1),
            with(|device| device.workgroup_memory = 9664 - 1),
            format!(
                "1×838: {count}, row_per_workgroup/memory/full/index/smoothed/grad 128, {end}"
            ),
        ),
        // 32·12 + 2·24 + 16 = 448 for 32 invocations.
        (
            "no workgroup memory to speak of",
            loss_grad(1, 5000),
            with(|device| device.workgroup_memory = 447),
            format!("1×838: {narrow}"),
        ),
        // The accumulators take 8192 bytes, which are / 48 of states, or / 400 of logits.
        (
            "the smallest bindings",
            loss_grad(1000, 3),
            with(|device| device.max_binding = 8448),
            format!("6×170: {narrow}"),
        ),
        (
            "the smallest buffers",
            loss_grad(1000, 100),
            with(|device| device.max_buffer = 8448),
            format!("50×20: {shared}"),
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
                "1×4194: {count}, row_per_subgroup/shuffle/log_softmax 64, row_per_subgroup/shuffle/full/{every}/grad 64, {every_end}"
            ),
        ),
        (
            "everything, in place",
            all.grad_over_logits(true),
            LARGE,
            format!(
                "1×4194: {count}, row_per_subgroup/shuffle/log_softmax 64, row_per_subgroup/shuffle/full/pooled/{every}/grad_over_logits 64, {every_end}"
            ),
        ),
        (
            "everything of split rows: one set of states",
            loss_grad(2, 100_000).z_loss(0.5).want(Wanted::ALL),
            LARGE,
            format!(
                "1×41: {count}, split_row_states/shuffle/full/index/z_loss/predictions/entropy 64, split_row_merge/full/index/z_loss/predictions/entropy 64, split_row_apply/full/log_softmax 64, split_row_apply/full/{every}/grad 64, {every_end}"
            ),
        ),
        (
            "dense labels",
            Problem::of(9, 10).dense_labels().want([LogSoftmax, Grad]),
            WEBGPU,
            "1×419430: row_per_invocation/log_softmax 64, row_per_invocation/full/dense/grad 64, finish_rows/dense 64, reduce 32"
                .to_owned(),
        ),
        (
            "dense labels of split rows",
            Problem::of(9, 100_000).dense_labels().want([Grad]),
            WEBGPU,
            "1×41: split_row_states/memory/full/dense 64, split_row_merge/full/dense 64, split_row_apply/full/dense/grad 64, finish_rows/dense 64, reduce 32"
                .to_owned(),
        ),
        (
            "no labels",
            Problem::of(9, 10).want([Softmax, LogSoftmax]),
            WEBGPU,
            "1×419430: row_per_invocation/log_softmax 64, row_per_invocation/softmax 64, finish_rows 64, reduce 32"
                .to_owned(),
        ),
        (
            "row outputs only",
            Problem::of(9, 10).want([Lse, Predictions]),
            WEBGPU,
            "1×419430: row_per_invocation/predictions 64, finish_rows 64, reduce 32".to_owned(),
        ),
        (
            "row outputs of split rows",
            Problem::of(9, 100_000).want([Lse]),
            WEBGPU,
            "1×41: split_row_states/memory 64, split_row_merge 64, finish_rows 64, reduce 32"
                .to_owned(),
        ),
        // A denominator that is known is not counted.
        (
            "the sum",
            loss_grad(9, 10).reduction(Reduction::Sum),
            WEBGPU,
            format!("1×419430: row_per_invocation/index/grad 64, {end}"),
        ),
        (
            "a denominator",
            loss_grad(9, 10).denominator(Denominator::Number(3.0)),
            WEBGPU,
            format!("1×419430: row_per_invocation/index/grad 64, {end}"),
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
    for (name, problem, device, expected) in [
        // The weights of the labels are summed on the device, and rounded once before the rows.
        (
            "class weights",
            ten().class_weights(),
            WEBGPU,
            format!(
                "1×419430: count_labels/weighted 64, round_denominator 32, {}, {end}",
                one("/index/weighted/grad")
            ),
        ),
        (
            "class weights, the mean over rows",
            ten().class_weights().denominator(Denominator::ValidRows),
            WEBGPU,
            format!("1×419430: {count}, {}, {end}", one("/index/weighted/grad")),
        ),
        (
            "class weights, the sum",
            ten().class_weights().reduction(Reduction::Sum),
            WEBGPU,
            format!("1×419430: {}, {end}", one("/index/weighted/grad")),
        ),
        (
            "class weights of dense labels: divided by the rows",
            Problem::of(9, 10).dense_labels().class_weights().want([Loss]),
            WEBGPU,
            format!(
                "1×419430: {}, finish_rows/dense 64, reduce 32",
                one("/full/dense/weighted")
            ),
        ),
        // All classes of a row count in its loss.
        (
            "smoothing",
            ten().label_smoothing(0.1),
            WEBGPU,
            format!("1×419430: {count}, {}, {end}", one("/full/index/smoothed/grad")),
        ),
        (
            "z-loss",
            ten().z_loss(1e-4),
            WEBGPU,
            format!(
                "1×419430: {count}, {}, finish_rows/index/z_loss 64, reduce 32",
                one("/index/z_loss/grad")
            ),
        ),
        // What has no mean needs no denominator.
        (
            "z-losses alone",
            index().z_loss(1e-4).want([ZLosses]),
            WEBGPU,
            format!(
                "1×419430: {}, finish_rows/index/z_loss 64, more_rows 64, reduce 32",
                one("/index/z_loss")
            ),
        ),
        (
            "their mean",
            index().z_loss(1e-4).want([ZLoss]),
            WEBGPU,
            format!(
                "1×419430: {count}, {}, finish_rows/index/z_loss 64, reduce 32",
                one("/index/z_loss")
            ),
        ),
        (
            "entropy",
            Problem::of(9, 10).want([Entropy]),
            WEBGPU,
            format!(
                "1×419430: {}, finish_rows 64, more_rows 64, reduce 32",
                one("/full/entropy")
            ),
        ),
        // Of split rows one set of states serves all outputs, so that all passes have its sums.
        (
            "entropy and softmax of split rows",
            Problem::of(9, 100_000).want([Entropy, Softmax]),
            WEBGPU,
            "1×41: split_row_states/memory/full/entropy 64, split_row_merge/full/entropy 64, split_row_apply/full/entropy/softmax 64, finish_rows 64, more_rows 64, reduce 32"
                .to_owned(),
        ),
        (
            "correct rows",
            index().want([Correct]),
            WEBGPU,
            format!(
                "1×419430: {}, finish_rows/index 64, more_rows 64, reduce 32",
                one("/index/predictions")
            ),
        ),
        (
            "a scale",
            ten().logit_scale(0.5),
            WEBGPU,
            format!(
                "1×419430: {count}, {}, finish_rows/scaled/index 64, reduce 32",
                one("/scaled/index/grad")
            ),
        ),
        (
            "a scale and a cap",
            ten().logit_scale(0.5).softcap(30.0).want([Correct]),
            WEBGPU,
            format!(
                "1×419430: {count}, {}, finish_rows/capped/index 64, more_rows/capped 64, reduce 32",
                one("/capped/index/predictions/grad")
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
            format!("1×8388: {count}, row_per_subgroup/memory/index/f16 64, {end}"),
        ),
        (
            "16 bits in and dense labels, which are f32",
            Problem::of(9, 1000).dense_labels().dtype(Dtype::F16).want([Loss]),
            WEBGPU,
            "1×4194: row_per_subgroup/memory/full/dense/f16 64, finish_rows/dense 64, reduce 32"
                .to_owned(),
        ),
        // Interleaved rows go to neighbouring invocations, 8·floor(2²⁶ / (8·400)) of them at once.
        (
            "interleaved",
            loss_grad(24, 100).inner(8),
            LARGE,
            format!("1×41936: {count}, {}, {end}", one("/index/strided/grad")),
        ),
        (
            "interleaved and long",
            loss_grad(24, 20_000).inner(8),
            LARGE,
            format!("1×208: {count}, {}, {end}", one("/index/strided/grad")),
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
            loss_grad(18, 61_440).inner(2),
            SOFTWARE,
            format!("1×68: {count}, {}, {end}", one("/index/strided/grad")),
        ),
        (
            "software, interleaved, longer than an invocation can loop",
            loss_grad(18, 61_441).inner(2),
            SOFTWARE,
            format!(
                "1×68: {count}, row_per_subgroup/shuffle/index/strided/grad 64/8, {end}"
            ),
        ),
        // 48 bytes a row; what lies past the classes is written or left.
        (
            "padded",
            ten().row_length(12, Padding::Masked),
            WEBGPU,
            format!("1×349525: {count}, {}, {end}", one("/index/grad/padded")),
        ),
        (
            "padded, and left as it is",
            ten().row_length(12, Padding::Kept),
            WEBGPU,
            format!("1×349525: {count}, {}, {end}", one("/index/grad")),
        ),
        (
            "padded, and nothing written there",
            index().row_length(12, Padding::Masked).want([Loss]),
            WEBGPU,
            format!("1×349525: {count}, {}, {end}", one("/index")),
        ),
        (
            "softmax backward",
            Problem::softmax_backward(9, 10),
            WEBGPU,
            format!(
                "1×419430: {}, finish_rows/vector 64, reduce 32",
                one("/full/vector/grad")
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
            "1×4194: row_per_subgroup/memory/full/pooled/halves/vector/bf16/from_softmax/grad_over_logits 64, finish_rows/vector 64, reduce 32"
                .to_owned(),
        ),
        (
            "softmax backward of split rows",
            Problem::softmax_backward(9, 100_000).want([Grad]),
            WEBGPU,
            "1×41: split_row_states/memory/full/vector 64, split_row_merge/full/vector 64, split_row_apply/full/vector/grad 64, finish_rows/vector 64, reduce 32"
                .to_owned(),
        ),
    ] {
        check(name, problem, device, &expected);
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
            loss_grad(24, 100).inner(24),
            with(|device| device.max_binding = 8448),
            invocation,
            "one row needs 9600 bytes in logits, whose rows are interleaved, and this device allows 8192; run it on the CPU, or on a device with larger buffers",
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
            with(|device| device.workgroup_memory = 447),
            workgroup,
            "this device allows 447 bytes of workgroup memory, and at least 448 are needed",
        ),
        // Full sums: 32·36 + 2·48 + 16.
        (
            Problem::softmax_backward(1, 1000),
            with(|device| device.workgroup_memory = 1263),
            workgroup,
            "this device allows 1263 bytes of workgroup memory, and at least 1264 are needed",
        ),
        (
            loss_grad(1, 131_073),
            SOFTWARE,
            invocation,
            "one row needs 524292 bytes in what a software driver can loop over, and this device allows 245760; run it on the CPU, or on a device with larger buffers",
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
            let group = problem.inner() as u64 * matrix;
            assert!(needed == group && group > usable, "{problem:?}");
            return;
        }
        plan => plan.unwrap_or_else(|error| panic!("{problem:?}, {device:?}: {error}")),
    };
    let rows = plan.rows_per_chunk as u64;
    let enough = plan.chunks() as u64 * rows >= all_rows as u64;
    assert!(rows >= 1 && enough, "{plan}");
    assert!(rows.is_multiple_of(problem.inner() as u64), "{plan}");
    let blocks = match plan.strategy {
        Strategy::SplitRow => classes.div_ceil(1024) as u64,
        _ => 0,
    };
    for bytes in [matrix, 48 * (1 + blocks)] {
        assert!(rows * bytes <= usable, "{plan} with {device:?}");
    }
    for pass in plan.count.iter().chain(&plan.passes).chain([&plan.reduce]) {
        assert!(known.contains(&pass.variant), "{}", pass.variant);
        let size = pass.workgroup_size;
        assert!(size <= device.max_invocations, "{plan} with {device:?}");
        let columns = problem.row_length() as u32;
        let groups = pass.workgroups(rows as u32, classes as u32, columns, 65_535);
        assert!(groups.iter().all(|&groups| groups <= 65_535), "{plan}");
        // Whole teams.
        if matches!(
            pass.variant,
            Variant::Row {
                kernel: RowKernel::PerWorkgroup,
                ..
            }
        ) {
            assert!(size >= 32 && size.is_power_of_two(), "{plan}");
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
  each chunk  row_per_workgroup/memory/index/predictions/grad, workgroups of 256
  each chunk  finish_rows/index, workgroups of 64
  at the end  reduce, one workgroup of 32";
    assert_eq!(Plan::new(&problem, &WEBGPU).unwrap().to_string(), expected);
}
