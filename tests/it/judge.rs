//! How results of a device are judged against f64 values: the tolerances of the specification.
//!
//! One ULP is that of max(|reference|, 2⁻¹²⁶). Results below 2⁻¹²⁶ may be flushed, and so may each
//! of the K terms of a sum, which is `slack`. With `wt` the labels, smoothed and weighted, `λ` the factor
//! of the z-loss and `A` = |m| + L, what is compared with what:
//!
//! ```text
//! softmax        6 ULP of p
//! log_softmax    4 of itself: (z − m) − L, two terms ≤ 0, as the loss of that class
//! lse            4 of A, the two terms that may cancel
//! entropy       10 of itself: L + Σp(m − z), terms ≥ 0
//! gradient      10 of itself for index labels alone, where it is computed without cancelling, and
//!                  times ∂z/∂x is a product;
//!                of ((p·Σ|wt| + |wt|)·|g/denominator| + 2λAp·|g/its denominator|)·|∂z/∂x| for dense
//!                  labels, smoothing or a z-loss, where p·Σwt − wt truly cancels
//! J·v           10 of p·(|v| + Σp|v|)·|∂z/∂x|·|g|
//! z-loss         6 of itself where m ≥ 0: 4 of lse twice would be 8 were they of |lse| itself, and its
//!                  two terms do not cancel, so that half of them is ample; of 2λA|lse| where m < 0,
//!                  and of 2λA·ulp(A) where lse itself has cancelled away
//! loss           4 of its two parts: the cross-entropy, terms ≥ 0 for labels that are not negative,
//!                  Σ|wt|·(−log p) where signs mix, and not judged where that is past FLT_MAX; and the
//!                  z-loss, as above
//! reduced        the bits of the exact sum of the rows' values, divided and rounded once, where all of
//!                it has one denominator; so, where all are ≥ 0, their relative error: 4 ULP of each are
//!                up to 8 of the sum, half a one is the rounding, and one a denominator that is a sum of
//!                weights, rounded. Two denominators are two quotients of which each is rounded: one more
//! 16 bits        what the same job gives in f32, rounded to nearest
//! the rest       equal
//! ```

use std::collections::BTreeMap;
use std::fmt;

use softxent::{Dtype, Padding, Results, Wanted};

use crate::common::{Case, Divisor, MASKED, bits, same_bits};

/// The smallest normal f32.
const TINY: f64 = f32::MIN_POSITIVE as f64;

/// One ULP of f32 at `value`.
pub fn ulp(value: f64) -> f64 {
    let power = f64::from_bits(value.abs().max(TINY).to_bits() & 0x7ff0_0000_0000_0000);
    power * f64::from(f32::EPSILON)
}

pub fn allowed(output: Wanted) -> f64 {
    match output {
        Wanted::Grad | Wanted::Entropy => 10.0,
        Wanted::Softmax | Wanted::ZLosses | Wanted::ZLoss => 6.0,
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
        // Of two numbers; `max` would make 0 of a NaN.
        let off = (found - self.expected).abs() - self.slack;
        if off <= 0.0 {
            return 0.0;
        }
        let off = off / ulp(self.size);
        if off.is_nan() { f64::INFINITY } else { off }
    }
}

/// The most by which the unit of a term of a sum exceeds the term, where one is flushed: a class of
/// which `exp` is still above 2⁻¹²⁶ is less than this below the maximum.
const DEPTH: f64 = 104.0;

/// Compares everything that was wanted.
pub fn judge(
    case: &Case,
    kernel: &str,
    found: &Results,
    expected: &Results<f64>,
    worst: &mut Worst,
) -> Result<(), String> {
    if !case.is_contiguous() {
        padding(case, kernel, found)?;
        return judge(
            &case.contiguous(),
            kernel,
            &case.contiguous_results(found),
            &case.contiguous_results(expected),
            worst,
        );
    }
    let k = case.classes;
    let labels = match (&case.index, &case.dense, &case.vector) {
        (Some(_), ..) => "index",
        (_, Some(_), _) => "dense",
        (.., Some(_)) => "vector",
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

    // ---- what the units are made of, each from the f64 values of this very row -------------------
    let rows: Vec<_> = (0..case.rows).map(|i| case.reference_row(i)).collect();
    let weights: Vec<f64> = (0..case.rows).map(|i| case.weight(i)).collect();
    let (lambda, divisors) = (f64::from(case.z_loss), case.divisors());
    let parts = |i: usize| rows[i].m.abs() + rows[i].l;
    let z_size = |i: usize| {
        let (lse, parts) = (rows[i].lse(), parts(i));
        match case.is_ignored(i) || lambda == 0.0 {
            true => 0.0,
            false if rows[i].m >= 0.0 => lambda * lse * lse,
            false => 2.0 * lambda * parts * (lse.abs() + ulp(parts)),
        }
    };
    let loss_size = |i: usize, loss: f64| {
        if signed {
            let terms = (0..k).map(|j| (case.target_size(i, j), j));
            let terms = terms.filter(|&(weight, _)| weight != 0.0);
            let sum: f64 = terms.map(|(weight, j)| -rows[i].log_p(j) * weight).sum();
            return sum + z_size(i);
        }
        match case.is_ignored(i) || lambda == 0.0 || rows[i].m >= 0.0 {
            true => loss,
            false => (loss - lambda * rows[i].lse().powi(2)).max(0.0) + z_size(i),
        }
    };
    let own = |_: usize, value: f64| [value, 1.0];
    compare(Wanted::Softmax, &found.softmax, &expected.softmax, &own)?;
    compare(
        Wanted::LogSoftmax,
        &found.log_softmax,
        &expected.log_softmax,
        &own,
    )?;
    compare(Wanted::Lse, &found.lse, &expected.lse, &|i, _| {
        [parts(i), 1.0]
    })?;
    compare(
        Wanted::Entropy,
        &found.entropy,
        &expected.entropy,
        &|_, entropy| [entropy, DEPTH],
    )?;
    compare(
        Wanted::ZLosses,
        &found.z_losses,
        &expected.z_losses,
        &|i, _| [z_size(i), 1.0],
    )?;
    compare(
        Wanted::Losses,
        &found.losses,
        &expected.losses,
        &|i, loss| [loss_size(i, loss), weights[i]],
    )?;
    let p = |i: usize, j: usize| match case.from_softmax {
        true => f64::from(case.logits[i * k + j]),
        false => rows[i].p(j),
    };
    // Σp|v|
    let products: Vec<f64> = match &case.vector {
        Some(v) => (0..case.rows)
            .map(|i| {
                (0..k)
                    .map(|j| p(i, j) * f64::from(v[i * k + j]).abs())
                    .sum()
            })
            .collect(),
        None => Vec::new(),
    };
    compare(Wanted::Grad, &found.grad, &expected.grad, &|j, grad| {
        let (i, j) = (j / k, j % k);
        let [scale, z_scale] = case.scales(i, divisors);
        // NaN at a masked class of a capped row, where the gradient is 0 or a label's.
        let slope = rows[i].slope(j).max(0.0);
        if let Some(v) = &case.vector {
            let v = f64::from(v[i * k + j]).abs();
            let size = p(i, j) * (v + products[i]) * slope * scale;
            return [size, scale * (v + products[i]) * slope.max(1.0)];
        }
        let mixed = case.dense.is_some() || case.label_smoothing != 0.0 || lambda != 0.0;
        let size = match mixed && !case.is_ignored(i) {
            true => {
                let loss = rows[i].p(j) * weights[i] + case.target_size(i, j);
                slope * (scale * loss + z_scale * 2.0 * lambda * parts(i) * rows[i].p(j))
            }
            false => grad,
        };
        let z_terms = z_scale * 2.0 * lambda * parts(i);
        [size, (scale * weights[i] + z_terms) * slope.max(1.0)]
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
        let of = |values: &Option<Vec<f32>>| values.as_ref().map_or(0, |all| all[i].to_bits());
        let grad = found
            .grad
            .as_ref()
            .map_or(&[][..], |grad| &grad[case.row(i)]);
        let nothing = of(&found.losses) == 0 && of(&found.z_losses) == 0;
        if !nothing || grad.iter().any(|&g| g != 0.0) {
            return fail(format!("the ignored row {i} has a loss or a gradient"));
        }
    }
    let never_negative = [
        ("loss", &found.losses),
        ("z-loss", &found.z_losses),
        ("entropy", &found.entropy),
    ];
    for (name, values) in never_negative {
        let negative = |value: &f32| value.is_sign_negative() && !value.is_nan();
        if let (Some(values), false) = (values, signed && name == "loss") {
            if let Some(i) = values.iter().position(negative) {
                return fail(format!("the {name} of row {i} is {:?}", values[i]));
            }
        }
    }

    // ---- what is reduced ------------------------------------------------------------------------
    let reduced = |r: &Results<f64>| (r.loss.is_some(), r.z_loss.is_some());
    if reduced(&found.map(f64::from)) != reduced(expected) {
        return fail("only one has a reduced loss".to_owned());
    }
    let one_divisor = lambda == 0.0 || divisors[0] == divisors[1];
    for (name, reduced, rows, divisor, exact) in [
        ("loss", found.loss, &found.losses, divisors[0], one_divisor),
        ("z-loss", found.z_loss, &found.z_losses, divisors[1], true),
    ] {
        let (Some(reduced), Some(rows), true) = (reduced, rows, exact) else {
            continue;
        };
        let exact = divisor.quotient(rows, case.empty_mean);
        if reduced.to_bits() != exact.to_bits() && !(reduced.is_nan() && exact.is_nan()) {
            return fail(format!(
                "the reduced {name} is {reduced:e}, that of its rows {exact:e}"
            ));
        }
    }
    // Of a mean of nothing, only its being NaN or 0 is judged, and what is left of the z-loss.
    let fit = |losses: &Vec<f64>| losses.iter().all(|loss| loss.abs() <= f64::from(f32::MAX));
    let judged = !signed && expected.losses.as_ref().is_some_and(fit);
    if let (Some(loss), Some(exact), true) = (found.loss, expected.loss, judged) {
        let losses = expected.losses.iter().flatten().enumerate();
        let size: f64 = match one_divisor {
            true => {
                let sum: f64 = losses.map(|(i, &loss)| loss_size(i, loss)).sum();
                sum / divisors[0].value().max(TINY)
            }
            false => losses
                .map(|(i, &loss)| {
                    let [scale, z_scale] = divisors.map(|by| match by.value() {
                        0.0 => 0.0,
                        by => 1.0 / by,
                    });
                    let z = match case.is_ignored(i) {
                        true => 0.0,
                        false => lambda * rows[i].lse().powi(2),
                    };
                    (loss - z).max(0.0) * scale + z_size(i) * z_scale
                })
                .sum(),
        };
        let least = divisors
            .map(|by| by.value())
            .into_iter()
            .fold(1.0, f64::min);
        let terms = (case.rows * k) as f64 * weights.iter().copied().fold(1.0, f64::max);
        let pair = Pair {
            found: loss,
            expected: exact,
            size,
            slack: terms * TINY / least.max(TINY),
        };
        let weighted = matches!(divisors[0], Divisor::Number(_));
        let allowed = 8.5 + f64::from(u8::from(weighted)) + f64::from(u8::from(!one_divisor));
        if pair.ulps() > allowed {
            return fail(format!("the reduced loss is {loss:e}, expected {exact:e}"));
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
    if found.correct_rows != expected.correct_rows {
        return fail(format!(
            "correct rows {:?}, expected {:?}",
            found.correct_rows, expected.correct_rows
        ));
    }
    Ok(())
}

/// Past the last class: 0 in softmax and gradient, −∞ in log-softmax; 0 in all where it is kept, since
/// the host has nothing there.
fn padding(case: &Case, kernel: &str, found: &Results) -> Result<(), String> {
    let masked = match case.padding {
        Padding::Masked => MASKED,
        Padding::Kept => 0.0,
    };
    for (output, values, rest) in [
        (Wanted::Softmax, &found.softmax, 0.0),
        (Wanted::LogSoftmax, &found.log_softmax, masked),
        (Wanted::Grad, &found.grad, 0.0),
    ] {
        let Some(values) = values else { continue };
        let length = case.rows * case.columns();
        if values.len() != length {
            let of = values.len();
            return Err(format!(
                "{}, {kernel}: {output}: {of} of {length} values",
                case.name
            ));
        }
        for i in 0..case.rows {
            for column in case.classes..case.columns() {
                let value = values[case.element(i, column)];
                if value != rest {
                    return Err(format!(
                        "{}, {kernel}: {output} of row {i} is {value:e} in column {column}, past the last class",
                        case.name
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Whether results with outputs in a 16-bit dtype are those with outputs in f32, rounded to nearest, and
/// all else the same bits. What is below 2⁻¹²⁶ in both may have been flushed in one.
pub fn check_rounded(
    what: &str,
    dtype: Dtype,
    wide: &Results,
    narrow: &Results,
) -> Result<(), String> {
    let same = |output: Wanted, wide: &Option<Vec<f32>>, narrow: &Option<Vec<f32>>| {
        let lengths = (wide.as_ref().map(Vec::len), narrow.as_ref().map(Vec::len));
        if lengths.0 != lengths.1 {
            return Err(format!("{what}: {output}: lengths {lengths:?}"));
        }
        let pairs = wide.iter().flatten().zip(narrow.iter().flatten());
        for (j, (&wide, &narrow)) in pairs.enumerate() {
            let rounded = dtype.round(wide);
            let flushed = |value: f32| value.abs() < f32::MIN_POSITIVE;
            let good = rounded.to_bits() == narrow.to_bits()
                || rounded.is_nan() && narrow.is_nan()
                || flushed(wide) && flushed(narrow);
            if !good {
                return Err(format!(
                    "{what}: {output}[{j}] is {narrow:e} in {}, and {wide:e} in f32, which rounds to {rounded:e}",
                    dtype.name()
                ));
            }
        }
        Ok(())
    };
    same(Wanted::Softmax, &wide.softmax, &narrow.softmax)?;
    same(Wanted::LogSoftmax, &wide.log_softmax, &narrow.log_softmax)?;
    same(Wanted::Grad, &wide.grad, &narrow.grad)?;
    let rest = |r: &Results| {
        bits(&Results {
            softmax: None,
            log_softmax: None,
            grad: None,
            ..r.clone()
        })
    };
    same_bits(what, &rest(wide), &rest(narrow))
}

#[test]
fn nan_is_off_by_more_than_anything() {
    let pair = |found: f32, expected: f64| Pair {
        found,
        expected,
        size: expected,
        slack: 1.0,
    };
    for (found, expected) in [
        (f32::NAN, 1.0),
        (1.0, f64::NAN),
        (f32::INFINITY, f64::NAN),
        (f32::INFINITY, 1.0),
        (1.0, f64::INFINITY),
        (f32::NEG_INFINITY, f64::INFINITY),
    ] {
        let off = pair(found, expected).ulps();
        assert_eq!(off, f64::INFINITY, "{found} for {expected}");
    }
    for (found, expected) in [
        (f32::NAN, f64::NAN),
        (f32::INFINITY, f64::INFINITY),
        (2.0, 1.0),
    ] {
        assert_eq!(pair(found, expected).ulps(), 0.0, "{found} for {expected}");
    }
}

/// The oracle rounded to f32 passes with every option, and each of its outputs a few units off does
/// not: no unit of a row is so large that nothing is judged.
#[test]
fn the_oracle_passes_and_what_is_off_does_not() {
    use crate::cases::{Kind, Shape, TURNS, generate, with_options};
    let kinds = [
        Kind::Index,
        Kind::Dense,
        Kind::Signed,
        Kind::Vector,
        Kind::FromSoftmax,
    ];
    for turn in 0..TURNS {
        let (shape, kind) = (
            Shape::ALL[turn % Shape::ALL.len()],
            kinds[turn % kinds.len()],
        );
        let case = with_options(generate(shape, kind, 24, [1, 5, 40][turn % 3]), turn);
        let expected = case.oracle();
        let mut found = expected.to_f32();
        let divisors = case.divisors();
        if let (Some(loss), Some(losses)) = (&mut found.loss, &found.losses) {
            if case.z_loss == 0.0 || divisors[0] == divisors[1] {
                *loss = divisors[0].quotient(losses, case.empty_mean);
            }
        }
        if let (Some(z_loss), Some(z_losses)) = (&mut found.z_loss, &found.z_losses) {
            *z_loss = divisors[1].quotient(z_losses, case.empty_mean);
        }
        let passes =
            |found: &Results| judge(&case, "oracle", found, &expected, &mut Worst::default());
        passes(&found).unwrap_or_else(|why| panic!("{why}"));

        // A thousandth is some 8000 ULP: where that hides in the unit of one value, whose terms cancel, it
        // does not in those of all.
        type Output = fn(&mut Results) -> Option<&mut Vec<f32>>;
        let outputs: [Output; 7] = [
            |r| r.softmax.as_mut(),
            |r| r.log_softmax.as_mut(),
            |r| r.grad.as_mut(),
            |r| r.losses.as_mut(),
            |r| r.lse.as_mut(),
            |r| r.entropy.as_mut(),
            |r| r.z_losses.as_mut(),
        ];
        for (i, output) in outputs.into_iter().enumerate() {
            let mut off = found.clone();
            let Some(values) = output(&mut off) else {
                continue;
            };
            let some = |value: &f32| value.abs() > 1e-3 && value.is_finite();
            if values.iter().any(some) {
                values.iter_mut().for_each(|value| *value *= 1.001);
                assert!(passes(&off).is_err(), "{}: output {i}", case.name);
            }
        }
    }
}
