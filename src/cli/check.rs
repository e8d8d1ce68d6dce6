//! `softxent check`: what is promised, measured on the user's own adapter.
//!
//! exp and log1p of the shaders against those of the processor in f64; softmax, loss and gradient of every
//! dtype, number of classes and kind of rows against [`reference`]; the sums of each row against 1 and 0;
//! and the bits, which have to be the same from every kernel, in every batch, and on every run.
//!
//! `SOFTXENT_SIMULATE=two_sum` makes the driver one that loses the rounding errors of sums: for tests of
//! this program only, see [`device::open`].

mod findings;
mod inputs;

use std::time::Instant;

use pollster::block_on;
use rayon::prelude::*;
use softxent::{Dtype, Engine, Error, MathFunction, Plan, Results, Strategy, reference};

use super::args::CheckArgs;
use super::progress::Progress;
use super::{Failure, device, print};
use findings::{Compared, Findings, Promise};
use inputs::{Case, Kind};

/// Classes: within one step of a lane, at and past the edges of steps and blocks, and those in use.
const LADDER: [usize; 11] = [
    2, 10, 33, 100, 1000, 1025, 4096, 32_000, 50_257, 128_256, 262_144,
];
/// How often each job is run for the bits of its results.
const RUNS: usize = 10;
/// Values of a function that are asked for at once, and as many as a sample has.
const VALUES: u32 = 1 << 22;
/// The smallest normal f32: what is below may be flushed.
const TINY: f64 = f32::MIN_POSITIVE as f64;

pub fn check(args: &CheckArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let mut progress = Progress::new(args.json);
    progress.show("self-test", 0, 1);
    let engine = device::open(&args.device)?;
    let mut findings = Findings::new(&engine, args);

    for function in [MathFunction::Exp, MathFunction::Log1p] {
        math(
            &engine,
            function,
            args.exhaustive,
            &mut progress,
            &mut findings,
        )?;
    }
    let most = args.max_classes as usize;
    let mut ladder: Vec<usize> = LADDER.into_iter().filter(|&k| k < most).collect();
    ladder.push(most);
    let mut hashes = [FNV_START; RUNS];
    let (mut done, jobs) = (0, Dtype::ALL.len() * ladder.len() * Kind::ALL.len());
    for dtype in Dtype::ALL {
        for &classes in &ladder {
            for kind in Kind::ALL {
                progress.show("softmax, loss, gradient", done, jobs);
                done += 1;
                let case = Case::new(dtype, classes, kind);
                let found = run_every_kernel(&engine, &case, kind, &mut findings.kernels)?;
                judge(&case, kind, &found, &mut findings)?;
                match kind {
                    Kind::Wide => rebatch(&engine, &case, &found, &mut findings.batches)?,
                    Kind::Confident => repeat(&engine, &case, &mut hashes)?,
                    _ => {}
                }
            }
        }
    }
    findings.finish(&hashes, started.elapsed());
    drop(progress);

    print(&match args.json {
        true => findings.json(),
        false => findings.tables(),
    })?;
    match findings.kept() {
        true => Ok(()),
        false => Err(Failure::Verdict),
    }
}

// ---- exp and log1p -----------------------------------------------------------------------------

/// All values of a function, or a sample of even steps through their bits.
fn math(
    engine: &Engine,
    function: MathFunction,
    exhaustive: bool,
    progress: &mut Progress,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let (promise, from, to): (_, f32, f32) = match function {
        MathFunction::Exp => (Promise::Exp, -0.0, -104.0),
        MathFunction::Log1p => (Promise::Log1p, 0.0, 4_294_967_296.0),
    };
    let (first, span) = (from.to_bits(), to.to_bits() - from.to_bits());
    let step = if exhaustive { 1 } else { span / VALUES + 1 };
    let count = span / step + 1;

    let mut worst = Worst::default();
    let mut done = 0;
    while done < count {
        progress.show(promise.name(), done as usize, count as usize);
        let now = VALUES.min(count - done);
        let start = first + done * step;
        let values = block_on(engine.math_values(function, start, step, now))?;
        let x = |at: usize| f32::from_bits(start + at as u32 * step);
        let exact = |at: usize| match function {
            MathFunction::Exp => f64::from(x(at)).exp(),
            MathFunction::Log1p => f64::from(x(at)).ln_1p(),
        };
        let off = |at: usize| ulps(values[at], exact(at), 0.0);
        let here = (0..values.len())
            .into_par_iter()
            .with_min_len(1 << 14)
            .map(|at| (off(at), at))
            .reduce(|| (0.0, 0), |a, b| if b.0 > a.0 { b } else { a });
        worst.keep(here.0, || {
            let (name, at) = (promise.name(), here.1);
            format!(
                "{name}({:e}) is {:e}, exactly {:e}",
                x(at),
                values[at],
                exact(at)
            )
        });
        done += now;
    }
    findings.add(promise, None, None, u64::from(count), worst);
    Ok(())
}

// ---- softmax, loss, gradient -------------------------------------------------------------------

/// The results of the kernel that is planned; those of the others are compared with it, row by row.
fn run_every_kernel(
    engine: &Engine,
    case: &Case,
    kind: Kind,
    compared: &mut Compared,
) -> Result<Results, Failure> {
    let (problem, batch) = (case.problem()?, case.batch());
    let planned = Plan::new(&problem, engine.profile())?.strategy;
    let run = |kernel| block_on(engine.run_with(&problem, &batch, kernel));
    let first = run(planned)?;
    for kernel in Strategy::ALL
        .into_iter()
        .filter(|&kernel| kernel != planned)
    {
        let found = match run(kernel) {
            Ok(found) => found,
            // Not every device takes every row in every kernel.
            Err(Error::RowTooWide { .. } | Error::DeviceTooSmall { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let rows = (0..case.rows()).map(|i| (i, i));
        compared.add((&found, &first), case, rows, || {
            format!("{} and {}, {}", kernel.name(), planned.name(), kind.name())
        });
    }
    Ok(first)
}

impl Compared {
    /// Compares rows of some results with rows of others.
    fn add(
        &mut self,
        (found, expected): (&Results, &Results),
        case: &Case,
        rows: impl Iterator<Item = (usize, usize)>,
        what: impl Fn() -> String,
    ) {
        for (i, of_expected) in rows {
            self.rows += 1;
            if row(found, case.classes, i) == row(expected, case.classes, of_expected) {
                continue;
            }
            self.differing += 1;
            self.first.get_or_insert_with(|| {
                let (dtype, classes) = (case.dtype.name(), case.classes);
                format!("{}, {dtype}, {classes} classes, row {of_expected}", what())
            });
        }
    }
}

/// The bits of row `i`.
fn row(results: &Results, classes: usize, i: usize) -> [&[u32]; 3] {
    let of = |values, length| &bits(values)[i * length..][..length];
    [
        of(&results.softmax, classes),
        of(&results.grad, classes),
        of(&results.losses, 1),
    ]
}

fn bits(values: &Option<Vec<f32>>) -> &[u32] {
    bytemuck::cast_slice(values.as_deref().unwrap_or_default())
}

/// Compares every value with the reference.
fn judge(case: &Case, kind: Kind, found: &Results, findings: &mut Findings) -> Result<(), Failure> {
    let classes = case.classes;
    let exact = reference::run(&case.problem()?, &case.batch())?;
    // Each of the terms of a row may be flushed.
    let slack = classes as f64 * TINY;
    for (promise, found, exact, columns) in [
        (Promise::Softmax, &found.softmax, &exact.softmax, classes),
        (Promise::Loss, &found.losses, &exact.losses, 1),
        (Promise::Gradient, &found.grad, &exact.grad, classes),
    ] {
        let found = found.as_deref().unwrap_or_default();
        let exact = exact.as_deref().unwrap_or_default();
        let mut worst = Worst::default();
        for (at, (&found, &exact)) in found.iter().zip(exact).enumerate() {
            // Nothing is flushed to something.
            let slack = if exact == 0.0 { 0.0 } else { slack };
            worst.keep(ulps(found, exact, slack), || {
                let class = match columns {
                    1 => String::new(),
                    _ => format!(", class {}", at % columns),
                };
                format!("row {}{class}: {found:e}, exactly {exact:e}", at / columns)
            });
        }
        let values = found.len() as u64;
        findings.add(
            promise,
            Some((case.dtype, classes)),
            Some(kind),
            values,
            worst,
        );
    }
    for (promise, values, exact) in [
        (Promise::SoftmaxSum, &found.softmax, 1.0),
        (Promise::GradientSum, &found.grad, 0.0),
    ] {
        let mut worst = Worst::default();
        let rows = values.as_deref().unwrap_or_default().chunks_exact(classes);
        for (i, row) in rows.enumerate() {
            let sum: f64 = row.iter().map(|&value| f64::from(value)).sum();
            worst.keep((sum - exact).abs(), || format!("row {i}: {sum:e}"));
        }
        let rows = case.rows() as u64;
        findings.add(
            promise,
            Some((case.dtype, classes)),
            Some(kind),
            rows,
            worst,
        );
    }
    Ok(())
}

/// The largest error so far, and where it is.
#[derive(Debug, Default)]
pub struct Worst {
    off: f64,
    place: String,
}

impl Worst {
    /// NaN is worse than everything.
    fn keep(&mut self, off: f64, place: impl FnOnce() -> String) {
        let off = if off.is_nan() { f64::INFINITY } else { off };
        if off > self.off {
            (self.off, self.place) = (off, place());
        }
    }
}

/// The ULPs by which a value is off; one is that of max(|exact|, 2⁻¹²⁶). What is below may be anything
/// down to 0, of the same sign.
fn ulps(found: f32, exact: f64, slack: f64) -> f64 {
    let found = f64::from(found);
    if found == exact || found.is_nan() && exact.is_nan() {
        return 0.0;
    }
    if exact != 0.0 && exact.abs() < TINY && (0.0..=TINY).contains(&(found * exact.signum())) {
        return 0.0;
    }
    let off = (found - exact).abs() - slack;
    if off <= 0.0 {
        return 0.0;
    }
    let power = f64::from_bits(exact.abs().max(TINY).to_bits() & 0x7ff0_0000_0000_0000);
    let off = off / (power * f64::from(f32::EPSILON));
    // Of a NaN, or an infinity, and something else.
    if off.is_nan() { f64::INFINITY } else { off }
}

// ---- bits --------------------------------------------------------------------------------------

/// Runs some of the rows in other batches, with the kernel that is planned for those, and compares.
fn rebatch(
    engine: &Engine,
    case: &Case,
    whole: &Results,
    compared: &mut Compared,
) -> Result<(), Failure> {
    let rows = case.rows();
    for of in [
        vec![0],
        vec![rows - 1],
        (rows / 2..rows).collect(),
        (0..rows).step_by(3).collect(),
        (0..rows).rev().collect::<Vec<_>>(),
    ] {
        let part = case.select(&of);
        let found = engine.run_blocking(&part.problem()?, &part.batch())?;
        let what = || format!("{} of {rows} rows", of.len());
        compared.add((&found, whole), case, of.iter().copied().enumerate(), what);
    }
    Ok(())
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// Runs a job again and again, and hashes the bits of each run (FNV-1a over words).
fn repeat(engine: &Engine, case: &Case, hashes: &mut [u64; RUNS]) -> Result<(), Failure> {
    let problem = case.problem()?;
    for hash in hashes {
        let found = engine.run_blocking(&problem, &case.batch())?;
        for values in [&found.softmax, &found.grad, &found.losses] {
            for &word in bits(values) {
                *hash = (*hash ^ u64::from(word)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        let next = f32::from_bits(1f32.to_bits() + 1);
        for (found, exact, slack, expected) in [
            (next, 1.0, 0.0, 1.0),
            (1.0, f64::from(next), 0.0, 1.0),
            (next, 1.0, f64::from(f32::EPSILON), 0.0),
            (0.0, TINY / 2.0, 0.0, 0.0),
            (f32::MIN_POSITIVE, TINY / 2.0, 0.0, 0.0),
            (-0.0, -TINY / 2.0, 0.0, 0.0),
            (f32::MIN_POSITIVE, -TINY, 0.0, (2f64).powi(24)),
            (f32::MIN_POSITIVE, 0.0, 0.0, (2f64).powi(23)),
            (f32::INFINITY, f64::INFINITY, 0.0, 0.0),
            (1.0, f64::INFINITY, 0.0, f64::INFINITY),
            (f32::NAN, f64::NAN, 0.0, 0.0),
            (f32::NAN, 1.0, 9.0, f64::INFINITY),
            (1.0, f64::NAN, 9.0, f64::INFINITY),
        ] {
            assert_eq!(
                ulps(found, exact, slack),
                expected,
                "{found:e} for {exact:e}"
            );
        }
    }
}
