//! How results of a device are judged against f64 values: the tolerances of the specification.
//!
//! One ULP is that of max(|reference|, 2⁻¹²⁶). Results below 2⁻¹²⁶ may be flushed, and so may each
//! of the K terms of a sum, which is `slack`. What is compared with what:
//!
//! ```text
//! softmax        10 ULP of p
//! gradient       10 ULP of itself at index labels, where it is computed without cancelling;
//!                of (p·Σ|t| + |t|)·|g/denominator| at dense labels, where p·Σt − t truly cancels
//! loss            4 ULP of itself for labels that are not negative, a sum of terms ≥ 0;
//!                of Σ|t|·(−log p) where signs mix, and not judged where that is past FLT_MAX
//! log_softmax     4 ULP of itself: (z − m) − L, two terms ≤ 0, as the loss of that class
//! lse             4 ULP of |m| + L, the two terms that may cancel
//! loss, reduced   the bits of the exact sum of the losses of the rows, divided and rounded once; so
//!                 where all are ≥ 0, their relative error: 4 ULP of each are up to 8 of the sum,
//!                 and half a one for the rounding; a row past FLT_MAX is inf, and so is the sum
//! the rest        equal
//! ```

use std::collections::BTreeMap;
use std::fmt;

use softxent::{Denominator, Reduction, Results, Wanted};

use crate::common::{Case, MASKED, exact_quotient, exact_quotient_by};

/// The smallest normal f32.
const TINY: f64 = f32::MIN_POSITIVE as f64;

/// One ULP of f32 at `value`.
pub fn ulp(value: f64) -> f64 {
    let power = f64::from_bits(value.abs().max(TINY).to_bits() & 0x7ff0_0000_0000_0000);
    power * f64::from(f32::EPSILON)
}

pub fn allowed(output: Wanted) -> f64 {
    match output {
        Wanted::Softmax | Wanted::Grad => 10.0,
        _ => 4.0,
    }
}

/// The most ULPs that any value was off, per output, and where.
#[derive(Default)]
pub struct Worst(BTreeMap<String, (f64, String)>);

impl fmt::Display for Worst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, (ulps, place)) in &self.0 {
            if *ulps > 0.0 {
                writeln!(f, "  {what:<42} {ulps:5.2} ULP  at {place}")?;
            }
        }
        Ok(())
    }
}

/// One value against its reference; `size` is what the ULP is taken of.
struct Pair {
    found: f32,
    expected: f64,
    size: f64,
    slack: f64,
}

impl Pair {
    /// The ULPs it is off, 0 where both are the same infinity or NaN, infinite where only one is.
    fn ulps(&self) -> f64 {
        let found = f64::from(self.found);
        if found == self.expected || found.is_nan() && self.expected.is_nan() {
            return 0.0;
        }
        // Past the largest f32 the nearest value is infinity; f64 knows by how much.
        let past = |value: f64| {
            let most = f64::from(f32::MAX);
            if value.abs() >= most + ulp(most) / 2.0 {
                value.signum() * f64::INFINITY
            } else {
                value
            }
        };
        if past(self.expected) == found {
            return 0.0;
        }
        let off = ((found - self.expected).abs() - self.slack).max(0.0) / ulp(self.size);
        if off.is_nan() { f64::INFINITY } else { off }
    }
}

/// Compares everything that was wanted.
pub fn judge(
    case: &Case,
    kernel: &str,
    found: &Results,
    expected: &Results<f64>,
    worst: &mut Worst,
) -> Result<(), String> {
    let k = case.classes;
    let labels = match (&case.index, &case.dense) {
        (Some(_), _) => "index",
        (_, Some(_)) => "dense",
        _ => "none",
    };
    let signed = case
        .dense
        .as_ref()
        .is_some_and(|dense| dense.iter().any(|&t| t < 0.0));
    // `of` gives what the ULP of value j is taken of, and how far its terms are scaled.
    let mut compare = |output: Wanted,
                       found: &Option<Vec<f32>>,
                       expected: &Option<Vec<f64>>,
                       of: &dyn Fn(usize, f64) -> [f64; 2]|
     -> Result<(), String> {
        let lengths = (
            found.as_ref().map(Vec::len),
            expected.as_ref().map(Vec::len),
        );
        if lengths.0 != lengths.1 {
            return Err(format!(
                "{}, {kernel}: {output}: lengths {lengths:?}",
                case.name
            ));
        }
        let key = format!("{output}, {labels}, {kernel}");
        let mut most = worst.0.remove(&key).unwrap_or_default();
        for (j, (&found, &expected)) in found
            .iter()
            .flatten()
            .zip(expected.iter().flatten())
            .enumerate()
        {
            let [size, slack] = of(j, expected);
            if output == Wanted::Losses && signed && size > f64::from(f32::MAX) {
                continue;
            }
            let pair = Pair {
                found,
                expected,
                size,
                slack: k as f64 * TINY * slack.max(1.0),
            };
            let ulps = pair.ulps();
            if ulps > most.0 {
                most = (
                    ulps,
                    format!("{}[{j}]: {found:e} for {expected:e}", case.name),
                );
            }
            if ulps > allowed(output) {
                return Err(format!(
                    "{kernel}: {output} is off by {ulps:.1} ULP at {}",
                    most.1
                ));
            }
        }
        worst.0.insert(key, most);
        Ok(())
    };
    let top = |i: usize| {
        case.logits[case.row(i)]
            .iter()
            .copied()
            .fold(MASKED, f32::max)
    };
    // Σ|t|·(−log p), from the f64 values of this very row.
    let loss_size = |i: usize, loss: f64| match &case.dense {
        Some(dense) if signed => {
            let row = softxent::reference::row(
                &case.logits[case.row(i)],
                softxent::reference::Target::None,
            );
            let terms = dense[case.row(i)]
                .iter()
                .enumerate()
                .filter(|&(_, &t)| t != 0.0);
            terms
                .map(|(j, &t)| (f64::from(t) * row.log_p(j)).abs())
                .sum()
        }
        _ => loss,
    };
    compare(
        Wanted::Softmax,
        &found.softmax,
        &expected.softmax,
        &|_, p| [p, 1.0],
    )?;
    compare(
        Wanted::LogSoftmax,
        &found.log_softmax,
        &expected.log_softmax,
        &|_, log_p| [log_p, 1.0],
    )?;
    compare(Wanted::Lse, &found.lse, &expected.lse, &|i, lse| {
        let m = f64::from(top(i));
        [m.abs() + (lse - m), 1.0]
    })?;
    compare(
        Wanted::Losses,
        &found.losses,
        &expected.losses,
        &|i, loss| [loss_size(i, loss), case.weight(i)],
    )?;
    let every_p = case.dense.as_ref().map(|_| -> Vec<_> {
        let row = |i| {
            softxent::reference::row(&case.logits[case.row(i)], softxent::reference::Target::None)
        };
        (0..case.rows).map(row).collect()
    });
    let weights: Vec<f64> = (0..case.rows).map(|i| case.weight(i)).collect();
    compare(Wanted::Grad, &found.grad, &expected.grad, &|j, grad| {
        let (i, scale) = (j / k, case.scale(j / k, expected.valid_rows));
        let size = match (&case.dense, &every_p) {
            (Some(t), Some(rows)) => {
                scale * (rows[i].p(j % k) * weights[i] + f64::from(t[j]).abs())
            }
            _ => grad,
        };
        [size, scale * weights[i]]
    })?;

    let fail = |what: String| Err(format!("{}, {kernel}: {what}", case.name));
    // Exact zeros: masked classes, ignored rows.
    for j in (0..case.rows * k).filter(|&j| case.logits[j] == MASKED) {
        let zero = |values: &Option<Vec<f32>>, expected: &Option<Vec<f64>>| match (values, expected)
        {
            (Some(found), Some(expected)) => expected[j] != 0.0 || found[j] == 0.0,
            _ => true,
        };
        if !zero(&found.softmax, &expected.softmax) || !zero(&found.grad, &expected.grad) {
            return fail(format!(
                "the masked class {j} has a probability or a gradient"
            ));
        }
    }
    for i in (0..case.rows).filter(|&i| case.is_ignored(i)) {
        let loss = found.losses.as_ref().map_or(0.0, |losses| losses[i]);
        let grad = found
            .grad
            .as_ref()
            .map_or(&[][..], |grad| &grad[case.row(i)]);
        if loss.to_bits() != 0 || grad.iter().any(|&g| g != 0.0) {
            return fail(format!("the ignored row {i} has a loss or a gradient"));
        }
    }
    if let (Some(losses), false) = (&found.losses, signed) {
        if let Some(i) = losses
            .iter()
            .position(|loss| loss.is_sign_negative() && !loss.is_nan())
        {
            return fail(format!("the loss of row {i} is {:?}", losses[i]));
        }
    }
    if found.loss.is_some() != expected.loss.is_some() {
        return fail("only one has a reduced loss".to_owned());
    }
    if let (Some(loss), Some(losses)) = (found.loss, &found.losses) {
        let exact = match (case.reduction, case.denominator) {
            (Reduction::Mean, Denominator::ValidRows) => {
                exact_quotient(losses, expected.valid_rows as u32)
            }
            (Reduction::Mean, Denominator::Number(number)) => exact_quotient_by(losses, number),
            (Reduction::Mean, Denominator::Buffer) => {
                exact_quotient_by(losses, case.denominator_value)
            }
            _ => exact_quotient(losses, 1),
        };
        if loss.to_bits() != exact.to_bits() && !(loss.is_nan() && exact.is_nan()) {
            return fail(format!(
                "the reduced loss is {loss:e}, that of its rows {exact:e}"
            ));
        }
    }
    let fit = |losses: &Vec<f64>| losses.iter().all(|loss| loss.abs() <= f64::from(f32::MAX));
    let judged = !signed && expected.losses.as_ref().is_some_and(fit);
    if let (Some(found), Some(expected), true) = (found.loss, expected.loss, judged) {
        let terms = (case.rows * k) as f64 * weights.iter().copied().fold(1.0, f64::max);
        let pair = Pair {
            found,
            expected,
            size: expected,
            slack: terms * TINY,
        };
        if pair.ulps() > 8.5 {
            return fail(format!(
                "the reduced loss is {found:e}, expected {expected:e}"
            ));
        }
    }
    let counts = |r: &Results<f64>| (r.correct, r.valid_rows, r.nan_rows, r.first_nan_row);
    let of_device = Results::<f64> {
        correct: found.correct,
        valid_rows: found.valid_rows,
        nan_rows: found.nan_rows,
        first_nan_row: found.first_nan_row,
        ..Results::default()
    };
    if counts(&of_device) != counts(expected) {
        return fail(format!(
            "correct, valid, NaN rows and the first: {:?}, expected {:?}",
            counts(&of_device),
            counts(expected)
        ));
    }
    if found.predictions != expected.predictions {
        return fail(format!(
            "predictions {:?}, expected {:?}",
            found.predictions, expected.predictions
        ));
    }
    Ok(())
}
