//! `softxent bench`: how fast the kernels are, beside what the memory of the device can do.
//!
//! Each case is verified, then timed; [`verify`] says how, [`cases`] what there is, [`report`] what is
//! written of it.

pub mod args;
mod cases;
mod chart;
mod clock;
mod data;
mod explain;
mod gpu;
mod overhead;
mod report;
mod sets;
mod timing;
mod verify;
mod workers;
mod yardstick;

use pollster::block_on;
use softxent::plan::DeviceProfile;
use softxent::{AdapterChoice, Engine, Error, Problem, Strategy, adapters};

use super::output::{try_place, write_text};
use super::progress::Progress;
use super::report::json;
use super::{Failure, device, print};
use args::{BenchArgs, Format, is_standard_output};
use cases::{Case, Kernel};
use data::Data;
use gpu::Gpu;
use report::{Line, Outcome, Report};
use sets::{Job, Sets};
use verify::{Verdict, WORKGROUP_CLASSES, is_idle, judge_status, verify};
use yardstick::{Yardstick, Yardsticks};

pub fn bench(args: &BenchArgs) -> Result<(), Failure> {
    if let Some(conflict) = args.conflict() {
        return Err(Failure::Usage(conflict));
    }
    if args.explain {
        return explain(args);
    }
    if !args.check {
        refuse_software(args)?;
    }
    for (_, path) in args.files() {
        if !is_standard_output(path) {
            try_place(path)?;
        }
    }
    let mut progress = Progress::new(true);
    progress.show("cold start", 0, 1);
    let (tested, cold_start) = overhead::cold_start(&args.device)?;
    let gpu = Gpu::like(&tested, profile(&tested, args), args.shader_checks)?;
    drop(tested);
    let pinned = workers::pin();
    let overhead = match args.check {
        true => None,
        false => Some((cold_start, overhead::recording(&gpu)?)),
    };
    let mut report = Report::new(&gpu, overhead, pinned);
    let cases = cases::cases(args, megabytes(args, gpu.engine.profile()));

    // Nothing else goes where a file is printed.
    let talks = !args.files().any(|(_, path)| is_standard_output(path));
    let say = |progress: &mut Progress, text: &str| match talks {
        true => {
            progress.clear();
            print(text)
        }
        false => Ok(()),
    };
    say(
        &mut progress,
        &format!("{}\n{}", report.preamble(), report::header()),
    )?;
    let mark_chosen = kernels(args) != [Kernel::Planned];
    let mut yardsticks = Yardsticks::default();
    for (done, case) in cases.iter().enumerate() {
        progress.show(&case.name(), done, cases.len());
        measure(&gpu, args, case, &mut yardsticks, |line| {
            say(&mut progress, &line.text(mark_chosen))?;
            report.cases.push(line);
            Ok(())
        })?;
    }
    say(&mut progress, &format!("\n{}", report.summary()))?;
    drop(progress);

    for (format, path) in args.files() {
        let text = match format {
            Format::Json => json(&report),
            Format::Csv => report.csv(),
            Format::Markdown => report.markdown(),
            Format::Svg => chart::svg(&report),
        };
        match is_standard_output(path) {
            true => print(&text)?,
            false => write_text(path, &text)?,
        }
    }
    match report.failure() {
        Some(failure) => Err(Failure::Message(failure)),
        None => Ok(()),
    }
}

/// A software driver has to be named: its times are the processor's, and say nothing of a GPU.
fn refuse_software(args: &BenchArgs) -> Result<(), Failure> {
    let named = std::env::var("WGPU_ADAPTER_NAME").is_ok_and(|name| !name.is_empty());
    if args.device != AdapterChoice::Auto || named {
        return Ok(());
    }
    match block_on(adapters())
        .first()
        .map(|adapter| adapter.get_info())
    {
        Some(info) if device::is_software(&info) => Err(Failure::Usage(format!(
            "there is no GPU, only {}, a software driver: this would time the processor. If that is what \
             you want: softxent bench --device 0",
            info.name
        ))),
        _ => Ok(()),
    }
}

/// What plans are made for.
fn profile(engine: &Engine, args: &BenchArgs) -> DeviceProfile {
    let profile = engine.profile().clone();
    let mut tuning = profile.tuning();
    args.plan.iter().for_each(|value| value.put(&mut tuning));
    DeviceProfile {
        subgroup: profile.subgroup.filter(|_| !args.no_subgroups),
        tuning: Some(tuning),
        ..profile
    }
}

fn megabytes(args: &BenchArgs, profile: &DeviceProfile) -> u32 {
    args.megabytes
        .unwrap_or(match (args.check, profile.software) {
            (true, _) => 1,
            (false, true) => 8,
            (false, false) => 256,
        })
}

fn kernels(args: &BenchArgs) -> Vec<Kernel> {
    match (args.kernel.is_empty(), args.check) {
        (true, true) => vec![Kernel::All],
        (true, false) => vec![Kernel::Planned],
        (false, _) => args.kernel.clone(),
    }
}

fn strategies(args: &BenchArgs, chosen: Strategy) -> Vec<Strategy> {
    let mut strategies = Vec::new();
    for kernel in kernels(args) {
        strategies.extend(match kernel {
            Kernel::Planned => vec![chosen],
            Kernel::All => Strategy::ALL.to_vec(),
            Kernel::One(strategy) => vec![strategy],
        });
    }
    let mut seen = Vec::new();
    strategies.retain(|strategy| {
        let new = !seen.contains(strategy);
        seen.push(*strategy);
        new
    });
    strategies
}

fn explain(args: &BenchArgs) -> Result<(), Failure> {
    let engine = device::open(&args.device)?;
    let profile = profile(&engine, args);
    let cases = cases::cases(args, megabytes(args, &profile));
    let skipped = |case: &Case, error| match does_not_fit(&error) {
        Some(why) => Ok(format!("{}\n  skipped: {why}\n", case.name())),
        None => Err(error),
    };
    for case in &cases {
        let chosen = match case.plan(&profile, None) {
            Ok(plan) => plan.strategy,
            Err(error) => {
                print(&skipped(case, error)?)?;
                continue;
            }
        };
        for strategy in strategies(args, chosen) {
            print(&match case.plan(&profile, Some(strategy)) {
                Ok(plan) => explain::explain(case, &plan, &profile),
                Err(error) => skipped(case, error)?,
            })?;
        }
    }
    Ok(())
}

/// One line for each kernel of a case, as soon as it is known.
fn measure(
    gpu: &Gpu,
    args: &BenchArgs,
    case: &Case,
    yardsticks: &mut Yardsticks,
    mut tell: impl FnMut(Line) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let data = Data::new(case);
    let prepared = || -> Result<_, Failure> {
        let chosen = case.plan(gpu.engine.profile(), None)?.strategy;
        let sets = Sets::new(gpu, case, &data, !args.check)?;
        Ok((case.problem()?, chosen, sets))
    };
    let (problem, chosen, sets) = match prepared() {
        Ok(prepared) => prepared,
        Err(failure) => {
            let outcome = Outcome::Skipped(skipped(failure)?);
            return tell(Line::new(case, None, false, outcome));
        }
    };
    for strategy in strategies(args, chosen) {
        let outcome = if is_idle(strategy, case.classes) && strategy != chosen && !args.check {
            Outcome::Skipped(format!(
                "fewer than {WORKGROUP_CLASSES} classes leave most of a workgroup idle"
            ))
        } else {
            let run = (case, &problem, strategy);
            match one(gpu, args, run, (&sets, &data), yardsticks) {
                Ok(outcome) => outcome,
                Err(failure) => Outcome::Skipped(skipped(failure)?),
            }
        };
        tell(Line::new(case, Some(strategy), strategy == chosen, outcome))?;
    }
    Ok(())
}

/// Verifies and times.
fn one(
    gpu: &Gpu,
    args: &BenchArgs,
    (case, problem, strategy): (&Case, &Problem, Strategy),
    (sets, data): (&Sets, &Data),
    yardsticks: &mut Yardsticks,
) -> Result<Outcome, Failure> {
    let job = Job::new(gpu, problem, strategy, sets, &sets.sets)?;
    let with = match verify(gpu, case, problem, strategy, &job, (sets, data))? {
        Verdict::Right(with) if args.check => return Ok(Outcome::Verified(with)),
        Verdict::Right(with) => with,
        Verdict::Wrong(why) => return Ok(Outcome::Wrong(why)),
    };
    let (min, max) = (args.min_time, args.max_time);
    let timing = gpu.settle(min, max, |run, encoder| job.record(run, encoder))?;
    if let Err(why) = judge_status(case, &job.status(gpu)?) {
        return Ok(Outcome::Wrong(format!(
            "in one of {} runs {why}",
            timing.runs
        )));
    }
    let yardstick = Yardstick::of(case.op);
    let ceiling = yardsticks.rate(gpu, yardstick, sets, min, max)?;
    Ok(Outcome::Timed(with, timing, yardstick, ceiling))
}

/// Why a case is not run, or the failure that it is.
fn skipped(failure: Failure) -> Result<String, Failure> {
    match failure {
        Failure::Library(error) => does_not_fit(&error).ok_or(Failure::Library(error)),
        failure => Err(failure),
    }
}

/// What a case needs that the device does not have.
fn does_not_fit(error: &Error) -> Option<String> {
    match error {
        Error::RowTooWide {
            what,
            needed,
            limit,
        } => Some(format!(
            "needs {needed} bytes in {what}, and this device allows {limit}"
        )),
        Error::DeviceTooSmall {
            limit,
            found,
            needed,
        } => Some(format!(
            "needs {needed} {limit}, and this device allows {found}"
        )),
        Error::OutOfMemory { what, bytes, .. } => Some(format!(
            "needs {bytes} bytes for {what}, and there is no memory left"
        )),
        Error::TooLarge { .. } => Some("needs more bytes than can be addressed".to_owned()),
        _ => None,
    }
}
