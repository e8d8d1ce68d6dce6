//! Plans under the limits of real devices and of none: strategy, workgroups, chunks, passes, errors.
//! No GPU.

use softxent::kernel::{Access, Variant};
use softxent::plan::{DeviceProfile, fold};
use softxent::{Plan, Problem, ProblemBuilder, Strategy, Wanted};

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

fn loss_grad(rows: usize, classes: usize) -> ProblemBuilder {
    Problem::of(rows, classes)
        .index_labels(-100)
        .want([Wanted::Loss, Wanted::Grad])
}

/// `chunks×rows: pass workgroup/team, …`, a `+` where a pass has its option on; the team only where
/// it is not all lanes of a block.
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
    let split = |exchange: &str| {
        format!(
            "{count}, split_row_states/{exchange} 64, split_row_merge/index 64, split_row_apply/index/grad 64, {end}"
        )
    };
    let all = loss_grad(9, 1000).want(Wanted::ALL);
    let with = |change: fn(&mut DeviceProfile)| {
        let mut device = WEBGPU;
        change(&mut device);
        device
    };
    for (name, problem, device, expected) in [
        // 64 MiB of logits make a chunk, and the states of 32 bytes a row have to fit a binding less
        // one alignment.
        (
            "narrow",
            loss_grad(1000, 16),
            WEBGPU,
            format!("1×1048576: {narrow}"),
        ),
        (
            "one more class",
            loss_grad(1000, 17),
            WEBGPU,
            format!("1×986895: {shared}"),
        ),
        // As many of a subgroup as have a slot of four columns.
        (
            "one more class",
            loss_grad(1000, 17),
            LARGE,
            format!(
                "1×986895: {count}, row_per_subgroup/shuffle/index/grad 64/8, {end}"
            ),
        ),
        (
            "65 classes",
            loss_grad(1000, 65),
            LARGE,
            format!("1×258111: {shuffled}"),
        ),
        (
            "one class",
            loss_grad(1 << 23, 1),
            WEBGPU,
            format!("3×4194296: {narrow}"),
        ),
        (
            "one class",
            loss_grad(1 << 23, 1),
            LARGE,
            format!("1×16777216: {narrow}"),
        ),
        (
            "no rows",
            loss_grad(0, 10),
            WEBGPU,
            format!("0×1677721: {narrow}"),
        ),
        (
            "as much as a subgroup takes",
            loss_grad(4096, 4096),
            LARGE,
            format!("1×4096: {shuffled}"),
        ),
        (
            "more",
            loss_grad(4096, 4097),
            LARGE,
            format!("2×4095: {quick}"),
        ),
        (
            "a vocabulary",
            loss_grad(4096, 50_257),
            WEBGPU,
            format!("13×333: {wide}"),
        ),
        (
            "a vocabulary",
            loss_grad(4096, 128_256),
            LARGE,
            format!("32×130: {quick}"),
        ),
        (
            "few rows",
            loss_grad(64, 16_384),
            LARGE,
            format!("1×1024: {}", split("shuffle")),
        ),
        (
            "a row more",
            loss_grad(65, 16_384),
            LARGE,
            format!("1×1024: {quick}"),
        ),
        (
            "wider than a chunk",
            loss_grad(3, 20_000_000),
            WEBGPU,
            format!("3×1: {}", split("memory")),
        ),
        // A driver on the processor: one invocation a narrow row, then a subgroup; few or very long
        // rows are split.
        (
            "software, narrow",
            loss_grad(1000, 512),
            SOFTWARE,
            format!("1×32768: {narrow}"),
        ),
        (
            "software",
            loss_grad(1000, 513),
            SOFTWARE,
            format!("1×32704: {count}, row_per_subgroup/shuffle/index/grad 64/8, {end}"),
        ),
        (
            "software, as long as a subgroup can loop",
            loss_grad(17, 262_144),
            SOFTWARE,
            format!("1×64: {count}, row_per_subgroup/shuffle/index/grad 64/8, {end}"),
        ),
        (
            "software, longer",
            loss_grad(17, 262_145),
            SOFTWARE,
            format!(
                "1×63: {count}, split_row_states/shuffle 64/8, split_row_merge/index 64, split_row_apply/index/grad 64, {end}"
            ),
        ),
        (
            "software, few rows",
            loss_grad(16, 16_384),
            SOFTWARE,
            format!(
                "1×1024: {count}, split_row_states/shuffle 64/8, split_row_merge/index 64, split_row_apply/index/grad 64, {end}"
            ),
        ),
        (
            "software without subgroups",
            loss_grad(1000, 16_384),
            DeviceProfile { subgroup: None, ..SOFTWARE },
            format!("1×1024: {narrow}"),
        ),
        (
            "software without subgroups, wide",
            loss_grad(1000, 16_385),
            DeviceProfile { subgroup: None, ..SOFTWARE },
            format!("1×1023: {}", split("memory")),
        ),
        // Invocations are halved until they fit.
        (
            "128 invocations",
            loss_grad(1, 5000),
            with(|device| device.max_invocations = 128),
            format!(
                "1×3355: {count}, row_per_workgroup/memory/index/grad 128, {end}"
            ),
        ),
        (
            "32 invocations",
            loss_grad(1, 5000),
            with(|device| device.max_invocations = 32),
            "1×3355: count_labels 32+, row_per_workgroup/memory/index/grad 32, finish_rows 32+, reduce 32+"
                .to_owned(),
        ),
        // 20 bytes an invocation, 32 a block and the row.
        (
            "6 KiB of workgroup memory",
            loss_grad(1, 5000),
            with(|device| device.workgroup_memory = 5424 - 1),
            format!(
                "1×3355: {count}, row_per_workgroup/memory/index/grad 128, {end}"
            ),
        ),
        (
            "no workgroup memory to speak of",
            loss_grad(1, 5000),
            with(|device| device.workgroup_memory = 512),
            format!("1×3355: {narrow}"),
        ),
        // (4608 − 256) / 32 bytes of states, or / 400 of logits.
        (
            "bindings of 4.5 KiB",
            loss_grad(1000, 3),
            with(|device| device.max_binding = 4608),
            format!("8×136: {narrow}"),
        ),
        (
            "buffers of 4.5 KiB",
            loss_grad(1000, 100),
            with(|device| device.max_buffer = 4608),
            format!("100×10: {shared}"),
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
                "1×16777: {count}, row_per_subgroup/shuffle/log_softmax 64+, row_per_subgroup/shuffle/index/softmax/grad 64+, {end}"
            ),
        ),
        (
            "everything, in place",
            all.clone().grad_over_logits(true),
            LARGE,
            format!(
                "1×16777: {count}, row_per_subgroup/shuffle/log_softmax 64+, row_per_subgroup/shuffle/index/softmax/grad_over_logits 64+, {end}"
            ),
        ),
        (
            "everything of split rows: one set of states",
            loss_grad(2, 100_000).want(Wanted::ALL),
            LARGE,
            format!(
                "1×167: {count}, split_row_states/shuffle 64+, split_row_merge/index 64+, split_row_apply/log_softmax 64+, split_row_apply/index/softmax/grad 64+, {end}"
            ),
        ),
        (
            "dense labels",
            Problem::of(9, 10).dense_labels().want([LogSoftmax, Grad]),
            WEBGPU,
            format!(
                "1×1677721: row_per_invocation/log_softmax 64, row_per_invocation/dense/grad 64, {end}"
            ),
        ),
        (
            "dense labels of split rows",
            Problem::of(9, 100_000).dense_labels().want([Grad]),
            WEBGPU,
            format!(
                "1×167: split_row_states/memory/dense 64, split_row_merge/dense 64, split_row_apply/dense/grad 64, {end}"
            ),
        ),
        (
            "no labels",
            Problem::of(9, 10).want([Softmax, LogSoftmax]),
            WEBGPU,
            "1×1677721: row_per_invocation/log_softmax 64, row_per_invocation/softmax 64, finish_rows 64, reduce 32"
                .to_owned(),
        ),
        (
            "row outputs only",
            Problem::of(9, 10).want([Lse, Predictions]),
            WEBGPU,
            "1×1677721: row_per_invocation 64+, finish_rows 64, reduce 32".to_owned(),
        ),
        (
            "row outputs of split rows",
            Problem::of(9, 100_000).want([Lse]),
            WEBGPU,
            "1×167: split_row_states/memory 64, split_row_merge 64, finish_rows 64, reduce 32"
                .to_owned(),
        ),
        // A denominator that is known is not counted.
        (
            "the sum",
            loss_grad(9, 10).reduction(softxent::Reduction::Sum),
            WEBGPU,
            format!("1×1677721: row_per_invocation/index/grad 64, {end}"),
        ),
        (
            "a denominator",
            loss_grad(9, 10).denominator(softxent::Denominator::Number(3.0)),
            WEBGPU,
            format!("1×1677721: row_per_invocation/index/grad 64, {end}"),
        ),
        (
            "6 storage buffers",
            loss_grad(9, 10),
            with(|device| device.max_storage_buffers = 6),
            format!("1×1677721: {narrow}"),
        ),
    ] {
        let plan = Plan::new(&problem.build().unwrap(), &device)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(shown(&plan), expected, "{name}");
    }
}

/// Logits that share a buffer: the same plan in shaders that declare them as written.
#[test]
fn pooled_passes_are_variants_too() {
    let known = Variant::all();
    for strategy in Strategy::ALL {
        for problem in [
            loss_grad(9, 100).want(Wanted::ALL),
            Problem::of(9, 100).dense_labels().want(Wanted::ALL),
            Problem::of(9, 100).want([Wanted::Softmax, Wanted::LogSoftmax]),
        ] {
            for subgroup in [None, Some(8)] {
                let device = DeviceProfile { subgroup, ..WEBGPU };
                let problem = problem.clone().build().unwrap();
                let plan = Plan::with_strategy(&problem, &device, strategy).unwrap();
                for pass in plan.count.iter().chain(&plan.passes).chain([&plan.reduce]) {
                    let pooled = pass.pooled().variant;
                    assert!(known.contains(&pass.variant), "{}", pass.variant);
                    assert!(known.contains(&pooled), "{pooled}");
                    let reads = pooled
                        .slots()
                        .iter()
                        .any(|(_, access)| *access == Access::Read);
                    assert!(!reads, "{pooled}");
                }
            }
        }
    }
}

#[test]
fn no_plan_is_an_error_that_says_why() {
    let limit = |change: fn(&mut DeviceProfile)| {
        let mut device = WEBGPU;
        change(&mut device);
        device
    };
    let invocation = Strategy::RowPerInvocation;
    let workgroup = Strategy::RowPerWorkgroup;
    for (problem, device, strategy, expected) in [
        (
            loss_grad(1, 1089),
            limit(|device| device.max_binding = 4608),
            invocation,
            "one row needs 4356 bytes in logits, and this device allows 4352; run it on the CPU, or on a device with larger buffers",
        ),
        (
            loss_grad(1, 10),
            limit(|device| device.max_binding = 4351),
            invocation,
            "this device allows 4351 bytes in a binding, and at least 4352 are needed",
        ),
        (
            loss_grad(1, 10),
            limit(|device| device.max_storage_buffers = 5),
            invocation,
            "this device allows 5 storage buffers per shader, and at least 6 are needed",
        ),
        (
            loss_grad(1, 10).want([Wanted::Softmax]),
            limit(|device| device.max_storage_buffers = 6),
            invocation,
            "this device allows 6 storage buffers per shader, and at least 7 are needed",
        ),
        (
            loss_grad(1, 10),
            limit(|device| device.max_invocations = 16),
            invocation,
            "this device allows 16 invocations per workgroup, and at least 32 are needed",
        ),
        (
            loss_grad(1, 1000),
            limit(|device| device.workgroup_memory = 719),
            workgroup,
            "this device allows 719 bytes of workgroup memory, and at least 720 are needed",
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

/// Plans name variants that exist, within the limits they were made for.
#[test]
fn plans_stay_within_the_limits() {
    let known = Variant::all();
    for invocations in [32, 48, 64, 100, 128, 256, 1024] {
        for memory in [512, 1024, 2048, 4096, 16384] {
            for (binding, classes) in [
                (4608, 1),
                (4608, 1000),
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
                let problem = loss_grad(1 << 20, classes).build().unwrap();
                let plan = Plan::new(&problem, &device).unwrap();
                let rows = plan.rows_per_chunk as u64;
                assert!(
                    rows >= 1 && plan.chunks() as u64 * rows >= 1 << 20,
                    "{plan}"
                );
                for bytes in [4 * classes as u64, 32] {
                    assert!(
                        rows * bytes + 256 <= binding,
                        "{plan} with bindings of {binding}"
                    );
                }
                for pass in plan.passes.iter().chain([&plan.reduce]) {
                    assert!(known.contains(&pass.variant), "{}", pass.variant);
                    assert!(
                        pass.workgroup_size <= invocations,
                        "{plan} with {invocations} invocations"
                    );
                    let groups =
                        pass.workgroups(rows as u32, classes as u32, classes as u32, 65_535);
                    assert!(groups.iter().all(|&groups| groups <= 65_535), "{plan}");
                }
                if plan.strategy == Strategy::RowPerWorkgroup {
                    // Whole teams.
                    let size = plan.passes[0].workgroup_size;
                    assert!(size >= 32 && size.is_power_of_two(), "{plan}");
                }
            }
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
4096 rows × 50257 classes in 13 chunks of at most 333 rows
  each chunk  row_per_workgroup/memory/index/grad, workgroups of 256
  each chunk  finish_rows, workgroups of 64
  at the end  reduce, one workgroup of 32";
    assert_eq!(Plan::new(&problem, &WEBGPU).unwrap().to_string(), expected);
}
