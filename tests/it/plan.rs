//! Plans under the limits of real devices and of none: strategy, workgroups, chunks, passes, errors.
//! No GPU.

use softxent::kernel::{GradOutput, LabelInput, Variant};
use softxent::plan::{DeviceProfile, fold};
use softxent::{Plan, Problem, ProblemBuilder, Strategy, Wanted};

/// The least that WebGPU promises.
const WEBGPU: DeviceProfile = DeviceProfile {
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
    max_storage_buffers: 1 << 20,
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
    ..WEBGPU
};

fn loss_grad(rows: usize, classes: usize) -> ProblemBuilder {
    Problem::of(rows, classes)
        .index_labels(-100)
        .want([Wanted::Loss, Wanted::Grad])
}

/// `chunks×rows strategy: pass workgroup, …`, a `+` where a pass has its option on.
fn shown(plan: &Plan) -> String {
    let passes: Vec<String> = plan
        .passes
        .iter()
        .chain([&plan.reduce])
        .map(|pass| {
            format!(
                "{} {}{}",
                pass.variant,
                pass.workgroup_size,
                if pass.option { "+" } else { "" }
            )
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
    let end = "finish_rows 64+, reduce 32+";
    let narrow = format!("row_per_invocation/index/grad 64, {end}");
    let wide = format!("row_per_workgroup/index/grad 256, {end}");
    let all = loss_grad(9, 1000).want(Wanted::ALL);
    for (name, problem, device, expected) in [
        // Up to 64 classes a GPU gives each row to one invocation. 64 MiB of logits make a chunk,
        // and the row states of 32 bytes have to fit a binding less one alignment.
        (
            "narrow",
            loss_grad(1000, 64),
            WEBGPU,
            format!("1×262144: {narrow}"),
        ),
        (
            "one more class",
            loss_grad(1000, 65),
            WEBGPU,
            format!("1×258111: {wide}"),
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
            "a vocabulary",
            loss_grad(4096, 50_257),
            WEBGPU,
            format!("13×333: {wide}"),
        ),
        (
            "a vocabulary",
            loss_grad(4096, 128_256),
            LARGE,
            format!("32×130: {wide}"),
        ),
        (
            "wider than a chunk",
            loss_grad(3, 20_000_000),
            WEBGPU,
            format!("3×1: {wide}"),
        ),
        // A driver on the processor has one invocation take a row as long as it lasts.
        (
            "software",
            loss_grad(10, 131_072),
            SOFTWARE,
            format!("1×128: {narrow}"),
        ),
        (
            "software, wide",
            loss_grad(10, 131_073),
            SOFTWARE,
            format!("1×127: {wide}"),
        ),
        // Invocations are halved until they fit.
        (
            "128 invocations",
            loss_grad(1, 1000),
            DeviceProfile {
                max_invocations: 128,
                ..WEBGPU
            },
            format!("1×16777: row_per_workgroup/index/grad 128, {end}"),
        ),
        (
            "64 invocations",
            loss_grad(1, 1000),
            DeviceProfile {
                max_invocations: 64,
                ..WEBGPU
            },
            format!("1×16777: row_per_workgroup/index/grad 64, {end}"),
        ),
        (
            "32 invocations",
            loss_grad(1, 1000),
            DeviceProfile {
                max_invocations: 32,
                ..WEBGPU
            },
            "1×16777: row_per_workgroup/index/grad 32, finish_rows 32+, reduce 32+".to_owned(),
        ),
        (
            "1 KiB of workgroup memory",
            loss_grad(1, 1000),
            DeviceProfile {
                workgroup_memory: 1024,
                ..WEBGPU
            },
            format!("1×16777: row_per_workgroup/index/grad 32, {end}"),
        ),
        (
            "no workgroup memory to speak of",
            loss_grad(1, 1000),
            DeviceProfile {
                workgroup_memory: 512,
                ..WEBGPU
            },
            format!("1×16777: row_per_invocation/index/grad 64, {end}"),
        ),
        // (4096 − 256) / 32 rows of states, or / 400 of logits.
        (
            "bindings of 4 KiB",
            loss_grad(1000, 3),
            DeviceProfile {
                max_binding: 4096,
                ..WEBGPU
            },
            format!("9×120: {narrow}"),
        ),
        (
            "buffers of 4 KiB",
            loss_grad(1000, 100),
            DeviceProfile {
                max_buffer: 4096,
                ..WEBGPU
            },
            format!("112×9: {wide}"),
        ),
        (
            "1×1 workgroups",
            loss_grad(5, 3),
            DeviceProfile {
                max_workgroups: 1,
                ..WEBGPU
            },
            format!("5×1: {narrow}"),
        ),
        // A third matrix is a second pass, and the gradient comes last: it may go over the logits.
        (
            "everything",
            all.clone(),
            WEBGPU,
            format!(
                "1×16777: row_per_workgroup/softmax/log_softmax 256+, row_per_workgroup/index/grad 256+, {end}"
            ),
        ),
        (
            "everything, in place",
            all.grad_over_logits(true),
            WEBGPU,
            format!(
                "1×16777: row_per_workgroup/softmax/log_softmax 256+, row_per_workgroup/index/grad_over_logits 256+, {end}"
            ),
        ),
        (
            "two matrices",
            loss_grad(9, 10).want([Softmax]),
            WEBGPU,
            format!("1×1677721: row_per_invocation/index/softmax/grad 64, {end}"),
        ),
        (
            "dense labels",
            Problem::of(9, 10).dense_labels().want([LogSoftmax, Grad]),
            WEBGPU,
            format!("1×1677721: row_per_invocation/dense/log_softmax/grad 64, {end}"),
        ),
        (
            "no labels",
            Problem::of(9, 10).want([Softmax, LogSoftmax]),
            WEBGPU,
            "1×1677721: row_per_invocation/softmax/log_softmax 64, finish_rows 64, reduce 32+"
                .to_owned(),
        ),
        (
            "row outputs only",
            Problem::of(9, 10).want([Lse, Predictions]),
            WEBGPU,
            "1×1677721: row_per_invocation 64+, finish_rows 64, reduce 32+".to_owned(),
        ),
        (
            "5 storage buffers",
            loss_grad(9, 10),
            DeviceProfile {
                max_storage_buffers: 5,
                ..WEBGPU
            },
            format!("1×1677721: {narrow}"),
        ),
    ] {
        let plan = Plan::new(&problem.build().unwrap(), &device)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(shown(&plan), expected, "{name}");
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
            loss_grad(1, 961),
            limit(|device| device.max_binding = 4096),
            invocation,
            "one row needs 3844 bytes in logits, and this device allows 3840; run it on the CPU, or on a device with larger buffers",
        ),
        (
            loss_grad(1, 10),
            limit(|device| device.max_storage_buffers = 4),
            invocation,
            "this device allows 4 storage buffers per shader, and at least 5 are needed",
        ),
        (
            loss_grad(1, 10).want([Wanted::Softmax]),
            limit(|device| device.max_storage_buffers = 5),
            invocation,
            "this device allows 5 storage buffers per shader, and at least 6 are needed",
        ),
        (
            loss_grad(1, 10),
            limit(|device| device.max_invocations = 16),
            invocation,
            "this device allows 16 invocations per workgroup, and at least 32 are needed",
        ),
        (
            loss_grad(1, 1000),
            limit(|device| device.max_invocations = 16),
            workgroup,
            "this device allows 16 invocations per workgroup, and at least 32 are needed",
        ),
        (
            loss_grad(1, 1000),
            limit(|device| device.workgroup_memory = 879),
            workgroup,
            "this device allows 879 bytes of workgroup memory, and at least 880 are needed",
        ),
        (
            loss_grad(1, 131_073),
            SOFTWARE,
            invocation,
            "one row needs 524292 bytes in what a software driver can loop over, and this device allows 524288; run it on the CPU, or on a device with larger buffers",
        ),
        (
            loss_grad(1, 8192 * 256 + 1),
            SOFTWARE,
            workgroup,
            "one row needs 8388612 bytes in what a software driver can loop over, and this device allows 8388608; run it on the CPU, or on a device with larger buffers",
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
                (4096, 1),
                (4096, 960),
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
                    let groups = pass.workgroups(rows as u32, classes as u32, 65_535);
                    assert!(groups.iter().all(|&groups| groups <= 65_535), "{plan}");
                }
                if plan.strategy == Strategy::RowPerWorkgroup {
                    // Lanes of the canonical tree: a power of two of 32.
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
  each chunk  row_per_workgroup/index/grad, workgroups of 256
  each chunk  finish_rows, workgroups of 64
  at the end  reduce, one workgroup of 32";
    assert_eq!(Plan::new(&problem, &WEBGPU).unwrap().to_string(), expected);
}
