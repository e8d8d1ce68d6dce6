//! The oracle and all kernels against the reference set (multi-precision, every option) and against
//! ONNX's public cases: `tests/golden/reference.json` and `onnx.json`, whose makers say what the
//! fields mean. Everything goes through the public API, straight from the file.
//!
//! How far an f32 value may be off, in ULPs of its `size` (which the file gives where it is not the
//! value itself), besides what is lost where each of the K terms of a row is flushed (`slack`):
//!
//! | output | ULPs | |
//! |---|---|---|
//! | lse, losses, z-losses, log-softmax | 4 | what the row's sum lost; the rest is in sums of two f32 |
//! | softmax | 6 | `exp`, the sum, a corrected reciprocal |
//! | grad, entropy | 10 | softmax's, a second sum, the factors |
//! | loss, z-loss | 8.5 | twice the above, because ULPs change at powers of two; one rounding |

use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};
use serde_json::Value;
use softxent::{
    Batch, Denominator, Dtype, EmptyMean, Logits, Plan, Problem, Reduction, Results, Strategy,
    Upstream, Wanted, reference,
};

use crate::common::{gpu, long, report};
use crate::plan::WEBGPU;

// ---- the files ---------------------------------------------------------------------------------

fn read(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn number(value: &Value) -> f64 {
    match value.as_str() {
        Some("nan") => f64::NAN,
        Some("inf") => f64::INFINITY,
        Some("-inf") => f64::NEG_INFINITY,
        _ => value.as_f64().unwrap_or_else(|| panic!("{value}")),
    }
}

/// A list, or one number.
fn numbers(value: &Value) -> Vec<f64> {
    match value.as_array() {
        Some(values) => values.iter().map(number).collect(),
        None => vec![number(value)],
    }
}

fn narrow(value: &Value) -> Vec<f32> {
    numbers(value).into_iter().map(|v| v as f32).collect()
}

fn integers(value: &Value) -> Vec<i64> {
    let values = value.as_array().into_iter().flatten();
    values.map(|v| v.as_i64().unwrap()).collect()
}

fn size(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

/// Logits of any dtype.
enum Owned {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Owned {
    fn new(dtype: Dtype, values: &[f32]) -> Owned {
        let exact = |same: bool| assert!(same, "a logit that its dtype does not hold");
        exact(
            values
                .iter()
                .all(|&v| v.is_nan() || dtype.round(v).to_bits() == v.to_bits()),
        );
        match dtype {
            Dtype::F32 => Owned::F32(values.to_vec()),
            Dtype::F16 => Owned::F16(values.iter().map(|&v| f16::from_f32(v)).collect()),
            Dtype::Bf16 => Owned::Bf16(values.iter().map(|&v| bf16::from_f32(v)).collect()),
        }
    }

    fn borrow(&self) -> Logits<'_> {
        match self {
            Owned::F32(values) => values.into(),
            Owned::F16(values) => values.into(),
            Owned::Bf16(values) => values.into(),
        }
    }
}

/// A case with what its batch borrows from.
struct Entry {
    name: String,
    problem: Problem,
    /// The same with outputs in the logits' dtype, where that is not f32.
    narrow: Option<Problem>,
    logits: Owned,
    index: Option<Vec<i64>>,
    dense: Option<Vec<f32>>,
    vectors: Option<Vec<f32>>,
    weights: Vec<f32>,
    upstream: Vec<f32>,
    expect: Value,
    size: Value,
    slack: Value,
    /// What an f64 oracle may be off by, relative to the size.
    oracle: f64,
}

impl Entry {
    fn batch(&self) -> Batch<'_> {
        let mut batch = Batch::of(self.logits.borrow())
            .class_weights(&self.weights)
            .upstream(&self.upstream);
        if let Some(index) = &self.index {
            batch = batch.index(index);
        }
        if let Some(dense) = &self.dense {
            batch = batch.dense(dense);
        }
        if let Some(vectors) = &self.vectors {
            batch = batch.vectors(vectors);
        }
        batch
    }
}

fn reduction(name: &Value) -> Reduction {
    match name.as_str() {
        Some("none") => Reduction::None,
        Some("sum") => Reduction::Sum,
        Some("mean") | None => Reduction::Mean,
        _ => panic!("{name}"),
    }
}

fn entry(case: &Value) -> Entry {
    let name = case["name"].as_str().unwrap().to_owned();
    let (rows, classes) = (size(&case["rows"]), size(&case["classes"]));
    let dtype = match case["dtype"].as_str() {
        Some("f16") => Dtype::F16,
        Some("bf16") => Dtype::Bf16,
        None => Dtype::F32,
        Some(other) => panic!("{other}"),
    };
    let option = |field: &str| case.get(field).map(|value| number(value) as f32);
    let optional = |field: &str| case.get(field).filter(|value| !value.is_null()).map(narrow);
    let (dense, vectors) = (optional("dense"), optional("vectors"));
    let index = case.get("index").map(integers);
    let z_loss = option("z_loss").unwrap_or(0.0);
    let (scale, softcap) = (option("scale").unwrap_or(1.0), option("softcap"));

    let mut builder = match vectors {
        Some(_) => Problem::softmax_backward(rows, classes),
        None => Problem::of(rows, classes).reduction(reduction(&case["reduction"])),
    };
    if index.is_some() {
        builder = builder.index_labels(
            case.get("ignore_index")
                .map_or(-100, |v| v.as_i64().unwrap()),
        );
    }
    if dense.is_some() {
        builder = builder.dense_labels();
    }
    if case["from_softmax"] == true {
        builder = builder.from_softmax();
    }
    let weights = optional("weights").unwrap_or_default();
    if !weights.is_empty() {
        builder = builder.class_weights();
    }
    if let Some(cap) = softcap {
        builder = builder.softcap(cap);
    }
    let given = case.get("upstream").map_or(vec![1.0], narrow);
    let (kind, upstream) = match case.get("upstream").is_some_and(Value::is_array) {
        true => (Upstream::PerRow, given),
        false if case["shared"] == true => (Upstream::Shared, given),
        false => (Upstream::Number(given[0]), vec![]),
    };
    let denominator = match &case["denominator"] {
        Value::Null => Denominator::Weights,
        Value::String(name) if name == "valid_rows" => Denominator::ValidRows,
        value => Denominator::Number(number(value) as f32),
    };
    let empty_mean = match case["empty_mean"].as_str() {
        Some("zero") => EmptyMean::Zero,
        _ => EmptyMean::Nan,
    };
    if vectors.is_none() {
        let labelled = index.is_some() || dense.is_some();
        builder = builder.want(Wanted::ALL.into_iter().filter(|&wanted| match wanted {
            Wanted::Correct => index.is_some(),
            Wanted::ZLosses | Wanted::ZLoss => labelled && z_loss > 0.0,
            _ => labelled || !wanted.needs_labels(),
        }));
    }
    let builder = builder
        .dtype(dtype)
        .label_smoothing(option("smoothing").unwrap_or(0.0))
        .z_loss(z_loss)
        .logit_scale(scale)
        .denominator(denominator)
        .empty_mean(empty_mean)
        .upstream(kind);
    let build = |builder: softxent::ProblemBuilder| {
        builder
            .build()
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let logits = narrow(&case["logits"]);
    Entry {
        problem: build(builder.clone()),
        narrow: (dtype != Dtype::F32).then(|| build(builder.same_dtype_out(true))),
        oracle: oracle_tolerance(&logits, scale, softcap),
        logits: Owned::new(dtype, &logits),
        index,
        dense,
        vectors,
        weights,
        upstream,
        expect: case["expect"].clone(),
        size: case.get("size").cloned().unwrap_or_default(),
        slack: case.get("slack").cloned().unwrap_or_default(),
        name,
    }
}

/// In f64 a product of two f32 is exact. What is left is one rounding of `z − m`, which moves `exp` by
/// `2⁻⁵³·|z − m|` of itself, up to the 750 where it is 0; with a cap some roundings of z, up to c, and
/// of `q = exp(−2|u|)`; and a few dozen roundings of everything else.
fn oracle_tolerance(logits: &[f32], scale: f32, cap: Option<f32>) -> f64 {
    let finite = || {
        logits
            .iter()
            .filter(|v| v.is_finite())
            .map(|&v| f64::from(v))
    };
    let scale = f64::from(scale);
    let spread = scale * (finite().fold(f64::MIN, f64::max) - finite().fold(f64::MAX, f64::min));
    let capped = cap.map_or(0.0, |cap| {
        let (cap, largest) = (
            f64::from(cap),
            finite().fold(0.0, |a: f64, v| a.max(v.abs())),
        );
        16.0 * cap.min(scale * largest) + 16.0 * (scale * largest / cap).min(750.0)
    });
    2f64.powi(-53) * (64.0 + 8.0 * spread.clamp(0.0, 750.0) + capped)
}

// ---- judging -----------------------------------------------------------------------------------

type Floats<T> = Vec<(&'static str, Option<Vec<T>>)>;

/// Every output that is made of floats, by its name in the file.
fn floats<T: Copy>(results: &Results<T>) -> Floats<T> {
    let one = |value: Option<T>| value.map(|value| vec![value]);
    vec![
        ("softmax", results.softmax.clone()),
        ("log_softmax", results.log_softmax.clone()),
        ("grad", results.grad.clone()),
        ("losses", results.losses.clone()),
        ("lse", results.lse.clone()),
        ("entropy", results.entropy.clone()),
        ("z_losses", results.z_losses.clone()),
        ("loss", one(results.loss)),
        ("z_loss", one(results.z_loss)),
    ]
}

/// Every other output: as the file has it, and as it was found.
fn others<T>(entry: &Entry, results: &Results<T>) -> Vec<(&'static str, Value, Value)> {
    let mut all = vec![
        ("valid_rows", Value::from(results.valid_rows)),
        ("nan_rows", Value::from(results.nan_rows)),
        ("first_nan_row", Value::from(results.first_nan_row)),
    ];
    if entry.vectors.is_none() {
        all.push(("predictions", Value::from(results.predictions.clone())));
    }
    if entry.index.is_some() {
        all.push(("correct_rows", Value::from(results.correct_rows.clone())));
        all.push(("correct", Value::from(results.correct)));
    }
    let expected = |name: &str| entry.expect.get(name).cloned().unwrap_or_default();
    all.into_iter()
        .map(|(name, found)| (name, expected(name), found))
        .collect()
}

/// One ULP of an f32 that may be past the largest one.
fn ulp(value: f64) -> f64 {
    let value = value.abs().max(f64::from(f32::MIN_POSITIVE));
    2f64.powi(((value.to_bits() >> 52) as i32 - 1023) - 23)
}

fn limit(output: &str) -> f64 {
    match output {
        "softmax" => 6.0,
        "grad" | "entropy" => 10.0,
        "loss" | "z_loss" => 8.5,
        _ => 4.0,
    }
}

/// How well a kernel, or the oracle, does.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    /// How far off, as a share of what is allowed, and in what.
    failures: Vec<(f64, String)>,
    /// The largest error of each output and its case.
    worst: BTreeMap<&'static str, (f64, String)>,
}

impl Tally {
    fn count(&mut self, failures: Vec<(f64, String)>) {
        match failures.is_empty() {
            true => self.passed += 1,
            false => self.failed += 1,
        }
        self.failures.extend(failures);
    }

    fn see(&mut self, output: &'static str, off: f64, name: &str) {
        let worst = self.worst.entry(output).or_default();
        if off > worst.0 {
            *worst = (off, name.to_owned());
        }
    }

    /// Says how it went; returns the worst failures, if there are any.
    fn finish(mut self, who: &str, unit: &str) -> Option<String> {
        let mut text = format!(
            "{who}: {} of {} cases pass; off at most by",
            self.passed,
            self.passed + self.failed
        );
        for (output, (off, name)) in &self.worst {
            text += &format!("\n  {output:12} {off:8.3} {unit}  {name}");
        }
        report(&text);
        if self.failures.is_empty() {
            return None;
        }
        self.failures.sort_by(|a, b| b.0.total_cmp(&a.0));
        let listed: Vec<_> = self
            .failures
            .iter()
            .take(40)
            .map(|f| f.1.as_str())
            .collect();
        Some(format!(
            "{who}: {} cases fail, with {} values; the worst:\n  {}",
            self.failed,
            self.failures.len(),
            listed.join("\n  ")
        ))
    }
}

/// Compares results with the file. `allowed` makes of an output, the size of a value and its slack
/// the unit in which errors are counted, how many are allowed, and what is allowed besides.
fn judge(
    entry: &Entry,
    results: &Results<f64>,
    in_f32: bool,
    tally: &mut Tally,
    allowed: impl Fn(&str, f64, f64) -> (f64, f64, f64),
) {
    let (name, classes) = (&entry.name, entry.problem.classes());
    let mut failures = vec![];
    for (output, found) in floats(results) {
        let (expected, found) = match (entry.expect.get(output), found) {
            (None, None) => continue,
            (Some(expected), Some(found)) => (numbers(expected), found),
            (expected, found) => {
                let (want, have) = (expected.is_some(), found.is_some());
                failures.push((
                    f64::INFINITY,
                    format!("{name}: {output} wanted {want}, there {have}"),
                ));
                continue;
            }
        };
        if expected.len() != found.len() {
            let lengths = (found.len(), expected.len());
            failures.push((
                f64::INFINITY,
                format!("{name}: {output} of length {lengths:?}"),
            ));
            continue;
        }
        let sizes = entry.size.get(output).map(numbers);
        let slacks = entry.slack.get(output).map(numbers);
        let per_class = matches!(output, "softmax" | "log_softmax" | "grad");
        for (j, (&found, &expected)) in found.iter().zip(&expected).enumerate() {
            let same = found == expected || found.is_nan() && expected.is_nan();
            // Infinite, where the value is past the largest f32, or the loss of a row of its sum is.
            let past = |value: &f64| value.abs() > f64::from(f32::MAX);
            let of_rows = |losses: &Value| output == "loss" && numbers(losses).iter().any(past);
            let past = in_f32
                && found.is_infinite()
                && (past(&expected) || entry.expect.get("losses").is_some_and(of_rows))
                && found.signum() == expected.signum();
            if same || past {
                tally.see(output, 0.0, name);
                continue;
            }
            let size = sizes.as_ref().map_or(0.0, |s| s[j]).max(expected.abs());
            let row = if per_class { j / classes } else { j };
            let slack = slacks.as_ref().map_or(1.0, |s| s[row]);
            let (unit, units, besides) = allowed(output, size, slack);
            // NaN stays NaN; `max` would make 0 of it.
            let off = ((found - expected).abs() - besides) / unit;
            let off = if off < 0.0 { 0.0 } else { off };
            if off <= units {
                tally.see(output, off, name);
            } else {
                failures.push((
                    if off.is_nan() { f64::INFINITY } else { off / units },
                    format!("{name}: {output}[{j}] {found:e} for {expected:e}, off by {off:.3e} of {units}"),
                ));
            }
        }
    }
    for (output, expected, found) in others(entry, results) {
        if expected != found {
            failures.push((
                f64::INFINITY,
                format!("{name}: {output} {found} for {expected}"),
            ));
        }
    }
    tally.count(failures);
}

fn judge_f32(entry: &Entry, results: &Results, tally: &mut Tally) {
    let classes = entry.problem.classes() as f64;
    let wide = results.map(f64::from);
    judge(entry, &wide, true, tally, |output, size, slack| {
        // An entropy's term p·(m − z) is flushed with p, when m − z is up to 104.
        let terms = if output == "entropy" {
            104.0 * classes
        } else {
            classes
        };
        let besides = terms * f64::from(f32::MIN_POSITIVE) * slack;
        (ulp(size), limit(output), besides)
    });
}

fn finish(failed: Vec<String>) {
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

// ---- tests -------------------------------------------------------------------------------------

fn entries() -> Vec<Entry> {
    let file = read("reference.json");
    let entries: Vec<_> = file["cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(entry)
        .collect();
    assert!(entries.len() >= 450, "{} cases", entries.len());
    entries
}

/// The cases that kernels run: with `SOFTXENT_CASES=cap/` those whose name holds that.
fn entries_of_kernels() -> Vec<Entry> {
    let part = std::env::var("SOFTXENT_CASES").unwrap_or_default();
    let mut entries = entries();
    entries.retain(|entry| entry.name.contains(&part));
    entries
}

#[test]
fn oracle_agrees_with_the_reference_set() {
    let mut tally = Tally::default();
    for entry in &entries() {
        match reference::run(&entry.problem, &entry.batch()) {
            Err(error) => tally.count(vec![(f64::INFINITY, format!("{}: {error}", entry.name))]),
            Ok(results) => judge(entry, &results, false, &mut tally, |_, size, slack| {
                // Below 2⁻¹⁰²² f64 has fewer digits.
                let besides = entry.problem.classes() as f64 * f64::MIN_POSITIVE * slack;
                (entry.oracle * size.max(f64::MIN_POSITIVE), 1.0, besides)
            }),
        }
    }
    finish(
        tally
            .finish("oracle", "of its tolerance")
            .into_iter()
            .collect(),
    );
}

/// The oracle's values as f32 are off by half an ULP; the same off by 2⁻¹⁹ of themselves, 16 ULPs or
/// more, are refused in all cases that have a value to be wrong in.
#[test]
fn the_judge_of_f32_tells_right_from_wrong() {
    let (mut right, mut wrong) = (Tally::default(), Tally::default());
    for entry in &entries() {
        let results = reference::run(&entry.problem, &entry.batch()).unwrap();
        judge_f32(entry, &results.to_f32(), &mut right);
        let off = results.map(|value| value * (1.0 + 2f64.powi(-19)));
        judge_f32(entry, &off.to_f32(), &mut wrong);
    }
    for (output, (off, name)) in &right.worst {
        assert!(*off <= 0.5 + 1e-6, "{output}: {off} in {name}");
    }
    finish(
        right
            .finish("oracle, rounded to f32", "ULP")
            .into_iter()
            .collect(),
    );
    let missed = wrong.passed;
    assert!(
        missed <= 30,
        "{missed} cases pass though every value is off"
    );
}

/// Whether a kernel runs a case: with `SOFTXENT_LONG=1` all run all. Else each case has one kernel, the
/// same for all that need the same pipelines, because those take a driver a second each.
fn takes(entry: &Entry, strategy: Strategy) -> bool {
    let first = Plan::with_strategy(&entry.problem, &WEBGPU, Strategy::RowPerInvocation);
    let passes = first.map(|plan| {
        plan.passes
            .iter()
            .map(ToString::to_string)
            .collect::<String>()
    });
    let mut turn = 0_usize;
    for byte in passes.unwrap_or_default().bytes() {
        turn = (turn ^ usize::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    turn >>= 16;
    long() || Strategy::ALL[turn % Strategy::ALL.len()] == strategy
}

#[test]
fn kernels_agree_with_the_reference_set() {
    let engine = gpu!();
    let entries = entries_of_kernels();
    let mut failed = vec![];
    for strategy in Strategy::ALL {
        let mut tally = Tally::default();
        for entry in entries.iter().filter(|entry| takes(entry, strategy)) {
            match pollster::block_on(engine.run_with(&entry.problem, &entry.batch(), strategy)) {
                Err(error) => {
                    tally.count(vec![(f64::INFINITY, format!("{}: {error}", entry.name))])
                }
                Ok(results) => judge_f32(entry, &results, &mut tally),
            }
        }
        failed.extend(tally.finish(strategy.name(), "ULP"));
    }
    finish(failed);
}

/// Outputs in 16 bits are the f32 outputs, rounded: bit for bit.
#[test]
fn narrow_outputs_are_the_wide_ones_rounded() {
    let engine = gpu!();
    let entries = entries_of_kernels();
    let mut failed = vec![];
    for strategy in Strategy::ALL {
        let mut tally = Tally::default();
        for entry in entries.iter().filter(|entry| takes(entry, strategy)) {
            let Some(narrow) = &entry.narrow else {
                continue;
            };
            let run =
                |problem| pollster::block_on(engine.run_with(problem, &entry.batch(), strategy));
            let (wide, narrow) = match (run(&entry.problem), run(narrow)) {
                (Ok(wide), Ok(narrow)) => (wide, narrow),
                (Err(error), _) | (_, Err(error)) => {
                    tally.count(vec![(f64::INFINITY, format!("{}: {error}", entry.name))]);
                    continue;
                }
            };
            let dtype = entry.problem.dtype();
            let mut failures = vec![];
            for ((output, wide), (_, narrow)) in floats(&wide).into_iter().zip(floats(&narrow)) {
                let (Some(wide), Some(narrow)) = (&wide, &narrow) else {
                    if wide.is_some() || narrow.is_some() {
                        failures
                            .push((f64::INFINITY, format!("{}: only one {output}", entry.name)));
                    }
                    continue;
                };
                let rounds = matches!(output, "softmax" | "log_softmax" | "grad");
                let round = |v: f32| if rounds { dtype.round(v) } else { v };
                let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                let differs = |j: &usize| !same(round(wide[*j]), narrow[*j]);
                if wide.len() != narrow.len() {
                    failures.push((
                        f64::INFINITY,
                        format!("{}: lengths of {output}", entry.name),
                    ));
                } else if let Some(j) = (0..wide.len()).find(differs) {
                    let (wide, narrow) = (wide[j], narrow[j]);
                    failures.push((
                        1.0,
                        format!("{}: {output}[{j}] {narrow:e} for {wide:e}", entry.name),
                    ));
                }
            }
            for ((output, _, wide), (_, _, narrow)) in
                others(entry, &wide).into_iter().zip(others(entry, &narrow))
            {
                if wide != narrow {
                    failures.push((1.0, format!("{}: {output} {narrow} for {wide}", entry.name)));
                }
            }
            tally.count(failures);
        }
        failed.extend(tally.finish(&format!("{}, 16 bits out", strategy.name()), ""));
    }
    finish(failed);
}

/// A case of ONNX as an entry: `[outer, classes, inner]`.
fn onnx_entry(case: &Value) -> Entry {
    let name = format!("onnx/{}", case["name"].as_str().unwrap());
    let shape: Vec<usize> = case["shape"].as_array().unwrap().iter().map(size).collect();
    let axis = size(&case["axis"]);
    let outer: usize = shape[..axis].iter().product();
    let inner: usize = shape[axis + 1..].iter().product();
    let reduction = reduction(&case["reduction"]);
    let mut builder = Problem::of(outer * inner, shape[axis])
        .inner(inner)
        .reduction(reduction);
    let mut expect = case["expect"].clone();
    let index = case.get("labels").map(integers);
    let weights = match &case["weights"] {
        Value::Null => vec![],
        weights => narrow(weights),
    };
    if index.is_some() {
        builder = builder.index_labels(case["ignore_index"].as_i64().unwrap_or(-100));
        if reduction == Reduction::None {
            let losses = expect.as_object_mut().unwrap().remove("loss").unwrap();
            expect["losses"] = losses;
        }
    }
    if !weights.is_empty() {
        builder = builder.class_weights();
    }
    let wants = |(name, wanted): (&str, Wanted)| expect.get(name).map(|_| wanted);
    let outputs = [
        ("softmax", Wanted::Softmax),
        ("log_softmax", Wanted::LogSoftmax),
        ("losses", Wanted::Losses),
        ("loss", Wanted::Loss),
    ];
    let problem = builder.want(outputs.into_iter().filter_map(wants)).build();
    Entry {
        problem: problem.unwrap_or_else(|error| panic!("{name}: {error}")),
        narrow: None,
        logits: Owned::F32(narrow(&case["logits"])),
        index,
        dense: None,
        vectors: None,
        weights,
        upstream: vec![],
        expect,
        size: Value::Null,
        slack: Value::Null,
        oracle: 0.0,
        name,
    }
}

/// ONNX computed its values in f32, by plain formulas: they are off themselves.
fn judge_onnx(entry: &Entry, results: &Results<f64>, tally: &mut Tally) {
    let (name, mut failures) = (&entry.name, vec![]);
    for (output, found) in floats(results) {
        let Some(expected) = entry.expect.get(output).map(numbers) else {
            continue;
        };
        let found = found.unwrap_or_default();
        if found.len() != expected.len() {
            failures.push((f64::INFINITY, format!("{name}: length of {output}")));
            continue;
        }
        for (j, (&found, &expected)) in found.iter().zip(&expected).enumerate() {
            let off = (found - expected).abs() / ulp(expected).max(1e-6 / 4.0 * expected.abs());
            if off <= 4.0 {
                tally.see(output, off, name);
            } else {
                failures.push((
                    off,
                    format!("{name}: {output}[{j}] {found:e} for {expected:e}"),
                ));
            }
        }
    }
    tally.count(failures);
}

fn onnx_entries() -> Vec<Entry> {
    let file = read("onnx.json");
    let entries: Vec<_> = file["cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(onnx_entry)
        .collect();
    assert!(entries.len() >= 30, "{} cases", entries.len());
    entries
}

#[test]
fn oracle_agrees_with_onnx() {
    let mut tally = Tally::default();
    for entry in &onnx_entries() {
        match reference::run(&entry.problem, &entry.batch()) {
            Err(error) => tally.count(vec![(f64::INFINITY, format!("{}: {error}", entry.name))]),
            Ok(results) => judge_onnx(entry, &results, &mut tally),
        }
    }
    finish(
        tally
            .finish("oracle, ONNX's cases", "of 4")
            .into_iter()
            .collect(),
    );
}

#[test]
fn kernels_agree_with_onnx() {
    let engine = gpu!();
    let entries = onnx_entries();
    let mut failed = vec![];
    for strategy in Strategy::ALL {
        let mut tally = Tally::default();
        for entry in &entries {
            match pollster::block_on(engine.run_with(&entry.problem, &entry.batch(), strategy)) {
                Err(error) => {
                    tally.count(vec![(f64::INFINITY, format!("{}: {error}", entry.name))])
                }
                Ok(results) => judge_onnx(entry, &results.map(f64::from), &mut tally),
            }
        }
        failed.extend(tally.finish(&format!("{}, ONNX's cases", strategy.name()), "of 4"));
    }
    finish(failed);
}
