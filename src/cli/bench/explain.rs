//! What a case would run.

use std::fmt::Write;

use softxent::Plan;
use softxent::kernel::Params;
use softxent::plan::DeviceProfile;

use super::cases::Case;
use crate::cli::report::plural;

/// The passes of a plan, in the order in which they are recorded.
pub fn explain(case: &Case, plan: &Plan, device: &DeviceProfile) -> String {
    let passes = plan.count.iter().chain(&plan.passes).chain([&plan.reduce]);
    let passes: Vec<_> = passes.collect();
    let name = |pass: &&softxent::plan::Pass| pass.to_string();
    let width = passes.iter().map(name).map(|name| name.len()).max();
    let width = width.unwrap_or(0);
    let mut text = format!("{}: {}\n", case.name(), plan.strategy.name());
    let classes = case.classes as u32;
    let params = Params {
        rows: case.rows as u32,
        classes,
        row_length: classes,
        end_column: classes,
        part: plan.part as u32,
        span: plan.span as u32,
        ..Params::default()
    };
    for pass in &passes {
        let [x, y] = pass.workgroups(&params, device.max_workgroups);
        let grid = match y {
            1 => plural(u64::from(x), "workgroup"),
            _ => format!("{x} × {y} workgroups"),
        };
        let (name, size) = (pass.to_string(), pass.workgroup_size);
        let _ = writeln!(text, "  {name:width$}  {grid} of {size}");
    }
    let _ = writeln!(
        text,
        "  {} dispatches, {} bytes of scratch; a host call has {} at a time",
        passes.len(),
        plan.scratch_size(device, case.rows),
        plural(plan.rows_per_chunk as u64, "row")
    );
    text
}
