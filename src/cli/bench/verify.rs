//! Whether a case is right, before it is timed; not by the f64 reference, which would take longer than
//! all else.
//!
//! * No row is NaN, no label is bad, every row counts.
//! * Another kernel, where the device has one that takes the shape, gives the same bits.
//! * The sum of each row of softmax is 1, that of each gradient [`Formula::row_sum`]: 0 where the labels of a
//!   row add up to what multiplies p, and no slope of a curve comes after. Each value is off by at most 10 ULP
//!   (softmax 6) of a size `a`, which is p, |g|, p·Σ|y| + |y|, or p·(|v| + Σp|v|); an ULP is at most
//!   2⁻²³ of it. Then it is rounded, to within u of itself, and flushed below a smallest number. So the sum
//!   of K of them is off by at most `A·(10·2⁻²³ + u) + K·smallest`, where A = Σa is 1 for softmax, at
//!   most 2 for index labels, 2Σy for dense ones, 2·max|v| for vectors.
//! * The loss is [`Formula::mean_loss`], to within 4 ULP of each row's and 2 for the mean's own roundings: of
//!   a denominator, of two quotients, of their sum.

use rayon::prelude::*;
use softxent::half::{bf16, f16};
use softxent::{Accuracy, Dtype, Problem, Status, Strategy};

use super::cases::Case;
use super::data::Data;
use super::does_not_fit;
use super::gpu::Gpu;
use super::sets::{Job, Set, Sets};
use crate::cli::Failure;

/// Fewer classes leave most of a workgroup idle, for minutes on a software driver.
pub const WORKGROUP_CLASSES: usize = 256;
/// From here on one invocation a row is slow enough for a driver to give up on it.
const TEAM_CLASSES: usize = 4096;

/// How far the plain formula may be off by its own roundings: entries of its table are up to 1.1·10⁵, where
/// half an ulp is 8·10⁻¹², and the sum of a row of one class may be as small as e⁻⁵.
const TABLE: f64 = 2e-9;

/// Why a case is not timed.
pub enum Verdict {
    /// What it was compared with, if there is another kernel.
    Right(Option<Strategy>),
    Wrong(String),
}

/// Runs a job once, judges the results, and compares them with those of another kernel.
pub fn verify(
    gpu: &Gpu,
    case: &Case,
    problem: &Problem,
    strategy: Strategy,
    job: &Job,
    (sets, data): (&Sets, &Data),
) -> Result<Verdict, Failure> {
    let [first, second, ..] = &sets.sets[..] else {
        return Ok(Verdict::Wrong("there is nothing to compare".to_owned()));
    };
    // What a kernel before has left there would be right.
    let mut encoder = gpu.encoder();
    for Set { logits, output, .. } in [first, second] {
        encoder.copy_buffer_to_buffer(logits, 0, output, 0, logits.size());
    }
    gpu.submit(encoder)?;
    job.run(gpu)?;
    let formula = data.formula();
    if let Err(why) = judge_status(case, &job.status(gpu)?) {
        return Ok(Verdict::Wrong(why));
    }
    if case.op.has_loss() {
        let loss = job.loss(gpu)?;
        if let Err(why) = judge_loss(loss, formula.mean_loss(), gpu.accuracy) {
            return Ok(Verdict::Wrong(why));
        }
    }
    if case.op.has_matrix() {
        let sums = gpu.read(&first.output, |bytes| {
            judge_sums(case, bytes, |row| formula.row_sum(row), gpu.accuracy)
        })?;
        if let Err(why) = sums {
            return Ok(Verdict::Wrong(why));
        }
    }
    let Some((other, compared)) = another(gpu, case, problem, strategy, sets)? else {
        return Ok(Verdict::Right(None));
    };
    compared.run(gpu)?;
    let different = |what: String| {
        let name = other.name();
        Ok(Verdict::Wrong(format!("{name} gives other bits: {what}")))
    };
    if case.op.has_loss() {
        let (loss, as_well) = (job.loss(gpu)?, compared.loss(gpu)?);
        if loss.to_bits() != as_well.to_bits() {
            return different(format!("loss {loss:e} and {as_well:e}"));
        }
    }
    if case.op.has_matrix() {
        let differs = gpu.read(&first.output, |bytes| {
            gpu.read(&second.output, |others| {
                first_difference(case, bytes, others)
            })
        })??;
        if let Some(place) = differs {
            return different(place);
        }
    }
    Ok(Verdict::Right(Some(other)))
}

/// A job on the second set in another kernel, the one that suits the shape best.
fn another(
    gpu: &Gpu,
    case: &Case,
    problem: &Problem,
    strategy: Strategy,
    sets: &Sets,
) -> Result<Option<(Strategy, Job)>, Failure> {
    let mut others: Vec<Strategy> = Strategy::ALL
        .into_iter()
        .filter(|&s| s != strategy)
        .collect();
    if problem.classes() >= TEAM_CLASSES {
        // One invocation a row is the last resort.
        others.sort_by_key(|&other| other == Strategy::RowPerInvocation);
    }
    for other in others {
        if is_idle(other, problem.classes()) {
            continue;
        }
        let plan = case.plan(gpu.engine.profile(), Some(other));
        if plan.is_err_and(|error| does_not_fit(&error).is_some()) {
            continue;
        }
        let second = sets.sets.get(1..2).unwrap_or_default();
        match Job::new(gpu, problem, other, sets, second) {
            Ok(job) => return Ok(Some((other, job))),
            Err(Failure::Library(error)) if does_not_fit(&error).is_some() => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(None)
}

/// Whether most of a workgroup would have nothing to do.
pub fn is_idle(strategy: Strategy, classes: usize) -> bool {
    let whole = matches!(strategy, Strategy::RowPerWorkgroup | Strategy::SplitRow);
    whole && classes < WORKGROUP_CLASSES
}

/// What the device says of the rows.
pub fn judge_status(case: &Case, status: &Status) -> Result<(), String> {
    let Status {
        nan_rows,
        bad_labels,
        valid_rows,
        ..
    } = *status;
    match (nan_rows, bad_labels, valid_rows as usize) {
        (0, 0, rows) if rows == case.rows => Ok(()),
        (0, 0, rows) => Err(format!("{rows} of {} rows count", case.rows)),
        _ => Err(format!("{nan_rows} rows are NaN, {bad_labels} labels bad")),
    }
}

/// ULPs, as many as are promised where the self-test found full accuracy.
fn ulps(count: f64, accuracy: Accuracy) -> f64 {
    let count = match accuracy {
        Accuracy::Full => count,
        Accuracy::Reduced => 1000.0,
    };
    count * f64::from(f32::EPSILON)
}

fn judge_loss(loss: f32, exact: f64, accuracy: Accuracy) -> Result<(), String> {
    let off = (f64::from(loss) - exact).abs();
    match off <= ulps(6.0, accuracy) * exact.abs() + TABLE {
        true => Ok(()),
        false => Err(format!("loss {loss:e}, expected {exact:e}")),
    }
}

/// How far a sum of a row may be off, whose numbers have sizes that add up to this.
fn allowed(case: &Case, size: f64, accuracy: Accuracy) -> f64 {
    let (unit, smallest): (f64, f64) = match case.dtype {
        // Within the ULPs.
        Dtype::F32 => (0.0, f64::from(f32::MIN_POSITIVE)),
        Dtype::F16 => ((0.5f64).powi(11), (0.5f64).powi(25)),
        Dtype::Bf16 => ((0.5f64).powi(8), f64::from(f32::MIN_POSITIVE)),
    };
    size * (ulps(10.0, accuracy) + unit) + case.classes as f64 * smallest
}

/// `row_sum` is what a row adds up to, and the sizes of its numbers.
fn judge_sums(
    case: &Case,
    bytes: &[u8],
    row_sum: impl Fn(usize) -> (f64, f64) + Sync,
    accuracy: Accuracy,
) -> Result<(), String> {
    let row_bytes = case.classes * case.dtype.size();
    let wrong = |row: usize| {
        let row_bytes = bytes.get(row * row_bytes..(row + 1) * row_bytes);
        let sum = sum(row_bytes.unwrap_or_default(), case.dtype);
        let (expected, size) = row_sum(row);
        let allowed = allowed(case, size, accuracy);
        let right = (sum - expected).abs() <= allowed;
        (!right).then(|| {
            format!("row {row} adds up to {sum:e}, {expected:e} to within {allowed:.1e} expected")
        })
    };
    match (0..case.rows).into_par_iter().find_map_first(wrong) {
        None => Ok(()),
        Some(why) => Err(why),
    }
}

fn sum(row: &[u8], dtype: Dtype) -> f64 {
    let single = |bytes: &[u8]| bytes.try_into().map_or(f32::NAN, f32::from_le_bytes);
    let half = |bytes: &[u8]| bytes.try_into().map_or(0, u16::from_le_bytes);
    match dtype {
        Dtype::F32 => row.chunks_exact(4).map(|x| f64::from(single(x))).sum(),
        Dtype::F16 => {
            let values = row
                .chunks_exact(2)
                .map(|x| f16::from_bits(half(x)).to_f64());
            values.sum()
        }
        Dtype::Bf16 => {
            let values = row
                .chunks_exact(2)
                .map(|x| bf16::from_bits(half(x)).to_f64());
            values.sum()
        }
    }
}

/// Where two outputs differ first.
fn first_difference(case: &Case, one: &[u8], other: &[u8]) -> Option<String> {
    let size = case.dtype.size();
    let used = case.rows * case.classes * size;
    let (one, other) = (one.get(..used)?, other.get(..used)?);
    if one == other {
        return None;
    }
    let at = one.iter().zip(other).position(|(a, b)| a != b)? / size;
    Some(format!(
        "row {}, class {}",
        at / case.classes,
        at % case.classes
    ))
}

#[cfg(test)]
mod tests {
    use super::super::cases::{LabelsOf, Op, With};
    use super::*;

    /// Without options.
    fn zero_or_one(case: &Case) -> impl Fn(usize) -> (f64, f64) + Sync {
        let sum = match case.op {
            Op::Softmax => (1.0, 1.0),
            _ => (0.0, 2.0),
        };
        move |_| sum
    }

    fn case(op: Op, dtype: Dtype) -> Case {
        Case {
            op,
            dtype,
            labels: op.has_loss().then_some(LabelsOf::Index),
            options: With::Plain,
            rows: 2,
            classes: 3,
        }
    }

    #[test]
    fn what_is_wrong_is_found() {
        let softmax = case(Op::Softmax, Dtype::F32);
        let bytes = |rows: [f32; 6]| rows.map(f32::to_le_bytes).concat();
        let judged =
            |case: &Case, rows| judge_sums(case, &bytes(rows), zero_or_one(case), Accuracy::Full);
        assert_eq!(judged(&softmax, [0.25, 0.25, 0.5, 0.0, 1.0, 0.0]), Ok(()));
        for second in [[0.25, 0.25, 0.49], [0.0; 3], [f32::NAN, 0.5, 0.5]] {
            let rows = [0.25, 0.25, 0.5, second[0], second[1], second[2]];
            let why = judged(&softmax, rows).unwrap_err();
            assert!(why.starts_with("row 1 adds up to "), "{why}");
        }
        let grad = case(Op::LossGrad, Dtype::F32);
        assert_eq!(judged(&grad, [0.25, -0.75, 0.5, 0.5, 0.5, -1.0]), Ok(()));
        assert!(judged(&grad, [0.25, -0.75, 0.5, 0.5, 0.5, -0.999]).is_err());

        // bf16 keeps three digits, and a third of 1 is off by one of them.
        let halves = [0.333f32; 6]
            .map(|x| bf16::from_f32(x).to_le_bytes())
            .concat();
        let softmax = case(Op::Softmax, Dtype::Bf16);
        assert_eq!(
            judge_sums(&softmax, &halves, zero_or_one(&softmax), Accuracy::Full),
            Ok(())
        );
        let halves = [0.34f32; 6]
            .map(|x| bf16::from_f32(x).to_le_bytes())
            .concat();
        assert!(judge_sums(&softmax, &halves, zero_or_one(&softmax), Accuracy::Full).is_err());

        assert_eq!(judge_loss(1.0, 1.0 + 6e-7, Accuracy::Full), Ok(()));
        assert!(judge_loss(1.0, 1.0 + 8e-7, Accuracy::Full).is_err());
        assert_eq!(judge_loss(0.0, -5e-17, Accuracy::Full), Ok(()));
        assert!(judge_loss(f32::NAN, 1.0, Accuracy::Full).is_err());

        let one = bytes([0.0; 6]);
        let other = bytes([0.0, 0.0, 0.0, 0.0, -0.0, 1.0]);
        assert_eq!(first_difference(&grad, &one, &one), None);
        let place = first_difference(&grad, &one, &other);
        assert_eq!(place.as_deref(), Some("row 1, class 1"));

        let status = |nan_rows, bad_labels, valid_rows| Status {
            nan_rows,
            bad_labels,
            valid_rows,
            ..Status::default()
        };
        assert_eq!(judge_status(&grad, &status(0, 0, 2)), Ok(()));
        for wrong in [status(1, 0, 2), status(0, 1, 2), status(0, 0, 1)] {
            assert!(judge_status(&grad, &wrong).is_err());
        }
    }
}
