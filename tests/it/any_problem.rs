//! Any problem and any batch, out of any bytes: what is accepted is planned and computed, and what is
//! not is refused in words. For the fuzzer (tests/fuzz), and here with its seeds. No GPU.

use arbitrary::{Result, Unstructured};
use softxent::half::{bf16, f16};
use softxent::plan::DeviceProfile;
use softxent::{
    Batch, Denominator, Dtype, EmptyMean, Error, LabelKind, Labels, Logits, Padding, Plan, Problem,
    ProblemBuilder, Reduction, Results, Strategy, Upstream, Wanted, reference,
};

/// The least that WebGPU promises.
const DEVICE: DeviceProfile = DeviceProfile {
    software: false,
    max_binding: 128 << 20,
    max_buffer: 256 << 20,
    offset_alignment: 256,
    max_invocations: 256,
    max_workgroups: 65_535,
    workgroup_memory: 16 << 10,
    max_storage_buffers: 8,
    stores_components: false,
    pairs: false,
    subgroup: None,
    memory: None,
    tuning: None,
};
/// Elements of the largest problem that is computed.
const MOST: usize = 256;

/// Whether it was computed. Where bytes run out they go on as zeros, so that there is always a problem.
pub fn problem(bytes: &[u8]) -> bool {
    any(&mut Unstructured::new(bytes)).unwrap_or(false)
}

fn any(bytes: &mut Unstructured<'_>) -> Result<bool> {
    let problem = match builder(bytes)?.build() {
        Ok(problem) => problem,
        Err(error) => {
            said(&error);
            return Ok(false);
        }
    };
    let device = DeviceProfile {
        software: bytes.arbitrary()?,
        max_storage_buffers: *bytes.choose(&[8, 16, 64])?,
        subgroup: *bytes.choose(&[None, Some(4), Some(32)])?,
        ..DEVICE
    };
    for strategy in Strategy::ALL {
        match Plan::with_strategy(&problem, &device, strategy) {
            Ok(plan) => assert!(!plan.to_string().is_empty()),
            Err(error) => said(&error),
        }
    }
    if problem.elements() > MOST || problem.classes() > MOST {
        match problem.check(&Batch::default()) {
            Ok(_) => assert_eq!(problem.elements(), 0),
            Err(error) => said(&error),
        }
        return Ok(false);
    }

    // Now and then one too many, labels of another kind, or any value.
    let extra = |bytes: &mut Unstructured<'_>| Ok(usize::from(rare(bytes)?));
    let (n, k, elements) = (problem.rows(), problem.classes(), problem.elements());
    let logits = floats(bytes, elements)?;
    let halves: Vec<f16> = logits.iter().map(|&x| f16::from_f32(x)).collect();
    let bhalves: Vec<bf16> = logits.iter().map(|&x| bf16::from_f32(x)).collect();
    let dtype = match rare(bytes)? {
        true => *bytes.choose(&Dtype::ALL)?,
        false => problem.dtype(),
    };
    let count = n + extra(bytes)?;
    let index: Vec<i64> = (0..count)
        .map(|_| match rare(bytes)? {
            true => bytes.arbitrary(),
            false => bytes.int_in_range(0..=k as i64 - 1),
        })
        .collect::<Result<_>>()?;
    let dense = elements + extra(bytes)?;
    let dense = floats(bytes, dense)?;
    let kind = match rare(bytes)? {
        true => bytes.int_in_range(0..=3)?,
        false => match problem.labels() {
            LabelKind::None => 0,
            LabelKind::Index { .. } => 1,
            LabelKind::Dense => 2,
            LabelKind::Vector => 3,
        },
    };
    let weights = if problem.class_weights() { k } else { 0 } + extra(bytes)?;
    let mut weights = floats(bytes, weights)?;
    let upstream = match problem.upstream() {
        Upstream::PerRow => n,
        Upstream::Shared => 1,
        Upstream::Number(_) => 0,
    };
    let mut upstream = floats(bytes, upstream)?;
    if !rare(bytes)? {
        let sound = |x: &mut f32| *x = if x.is_finite() { x.abs() } else { 1.0 };
        weights.iter_mut().chain(&mut upstream).for_each(sound);
    }
    let batch = Batch {
        logits: match dtype {
            Dtype::F32 => Logits::F32(&logits),
            Dtype::F16 => Logits::F16(&halves),
            Dtype::Bf16 => Logits::Bf16(&bhalves),
        },
        labels: match kind {
            0 => Labels::None,
            1 => Labels::Index(&index),
            2 => Labels::Dense(&dense),
            _ => Labels::Vector(&dense),
        },
        class_weights: &weights,
        upstream: &upstream,
    };
    match (problem.check(&batch), reference::run(&problem, &batch)) {
        (Ok(valid), Ok(results)) => {
            check(&problem, valid, &results);
            Ok(true)
        }
        (Err(error), Err(same)) => {
            said(&error);
            assert_eq!(error.to_string(), same.to_string());
            Ok(false)
        }
        (checked, run) => panic!("checked {checked:?}, and yet {run:?}"),
    }
}

fn builder(bytes: &mut Unstructured<'_>) -> Result<ProblemBuilder> {
    // What goes together, or now and then anything.
    let any = rare(bytes)?;
    let kind = bytes.int_in_range(0..=3)?;
    let (labelled, vector) = (any || matches!(kind, 1 | 2), kind == 3);
    let inner = *bytes.choose(&[1, 1, 2, 3])?;
    let (n, k) = match any {
        true => (extent(bytes)?, extent(bytes)?),
        false => (
            inner * bytes.int_in_range(0..=3)?,
            bytes.int_in_range(1..=6)?,
        ),
    };
    let mut builder = match vector {
        true => Problem::softmax_backward(n, k),
        false => Problem::of(n, k),
    };
    builder = builder.inner(if any { extent(bytes)? } else { inner });
    builder = match kind {
        1 => builder.index_labels(*bytes.choose(&[-100, 0, 1, i64::MIN, i64::MAX])?),
        2 => builder.dense_labels(),
        _ => builder,
    };
    let from_softmax = (any || vector) && bytes.arbitrary()?;
    if from_softmax {
        builder = builder.from_softmax();
    }
    if any || !from_softmax {
        if bytes.arbitrary()? {
            builder = builder.softcap(option(bytes)?);
        }
        if bytes.arbitrary()? {
            builder = builder.logit_scale(option(bytes)?);
        }
    }
    let mut z_loss = 0.0;
    if labelled {
        if bytes.arbitrary()? {
            builder = builder.class_weights();
        }
        if bytes.arbitrary()? {
            builder = builder.label_smoothing(option(bytes)?.min(1.0));
        }
        if bytes.arbitrary()? {
            z_loss = option(bytes)?;
        }
    }
    if bytes.arbitrary()? {
        let columns = if any {
            extent(bytes)?
        } else {
            k + bytes.int_in_range(0..=2)?
        };
        builder = builder.row_length(columns, *bytes.choose(&[Padding::Masked, Padding::Kept])?);
    }
    if !vector || any {
        let reduction = *bytes.choose(&[Reduction::Mean, Reduction::Sum, Reduction::None])?;
        builder = builder.reduction(reduction);
        let denominators = [
            Denominator::Weights,
            Denominator::ValidRows,
            Denominator::Number(option(bytes)?),
            Denominator::Buffer,
        ];
        if any || reduction == Reduction::Mean {
            let kinds = if any { 4 } else { 3 };
            builder = builder.denominator(*bytes.choose(&denominators[..kinds])?);
        }
        if any || reduction == Reduction::None {
            let number = Upstream::Number(option(bytes)?);
            let kinds = [number, Upstream::Shared, Upstream::PerRow];
            builder = builder.upstream(*bytes.choose(&kinds)?);
        }
    }
    let (wanted, indexed): (u16, _) = (bytes.arbitrary()?, kind == 1);
    let has = |output: &Wanted| match output {
        Wanted::Correct => indexed,
        Wanted::ZLoss | Wanted::ZLosses => labelled && z_loss != 0.0,
        Wanted::Lse if !vector => true, // one of them at least
        output => {
            (wanted >> *output as u16) & 1 == 1 && !vector && (labelled || !output.needs_labels())
        }
    };
    let wanted = Wanted::ALL.into_iter().filter(has);
    let (dtype, same) = (*bytes.choose(&Dtype::ALL)?, bytes.arbitrary()?);
    Ok(builder
        .z_loss(z_loss)
        .dtype(dtype)
        .same_dtype_out(same)
        .grad_over_logits((any || same) && bytes.arbitrary()?)
        .empty_mean(*bytes.choose(&[EmptyMean::Nan, EmptyMean::Zero])?)
        .want(wanted))
}

/// Once in 16 times, and never where bytes have run out.
fn rare(bytes: &mut Unstructured<'_>) -> Result<bool> {
    Ok(bytes.arbitrary::<u8>()? % 16 == 15)
}

/// Small, and now and then anything.
fn extent(bytes: &mut Unstructured<'_>) -> Result<usize> {
    match rare(bytes)? {
        true => bytes.arbitrary(),
        false => bytes.int_in_range(0..=6),
    }
}

/// The value of an option: mostly a sound one.
fn option(bytes: &mut Unstructured<'_>) -> Result<f32> {
    match rare(bytes)? {
        true => float(bytes),
        false => Ok(*bytes.choose(&[1.0, 0.5, 0.1, 1e-4, 30.0])?),
    }
}

fn float(bytes: &mut Unstructured<'_>) -> Result<f32> {
    const SPECIAL: [f32; 10] = [
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        1e-45,
        1000.0,
    ];
    match bytes.int_in_range(0..=7)? {
        0 => Ok(*bytes.choose(&SPECIAL)?),
        1 => bytes.arbitrary(),
        _ => Ok(f32::from(bytes.arbitrary::<i8>()?) / 8.0),
    }
}

fn floats(bytes: &mut Unstructured<'_>, count: usize) -> Result<Vec<f32>> {
    (0..count).map(|_| float(bytes)).collect()
}

fn said(error: &Error) {
    let text = error.to_string();
    assert!(
        text.len() > 10 && !text.contains(char::is_control),
        "{text:?}"
    );
}

/// What holds of any results: which there are, how long they are, and what every softmax is.
fn check(problem: &Problem, valid: usize, results: &Results<f64>) {
    let (n, k, elements) = (problem.rows(), problem.classes(), problem.elements());
    let wants = |output, has: bool| assert_eq!(problem.wants(output), has, "{output}");
    for (output, values) in [
        (Wanted::Softmax, &results.softmax),
        (Wanted::LogSoftmax, &results.log_softmax),
        (Wanted::Grad, &results.grad),
        (Wanted::Losses, &results.losses),
        (Wanted::Lse, &results.lse),
        (Wanted::Entropy, &results.entropy),
        (Wanted::ZLosses, &results.z_losses),
    ] {
        wants(output, values.is_some());
        let length = if output.has_classes() { elements } else { n };
        assert!(values.as_ref().is_none_or(|values| values.len() == length));
    }
    wants(Wanted::Predictions, results.predictions.is_some());
    wants(Wanted::Correct, results.correct_rows.is_some());
    let reduced = problem.reduction() != Reduction::None;
    assert_eq!(
        results.loss.is_some(),
        reduced && problem.wants(Wanted::Loss)
    );
    assert_eq!(
        results.z_loss.is_some(),
        reduced && problem.wants(Wanted::ZLoss)
    );
    assert_eq!(results.valid_rows, valid as u64);
    assert!(results.nan_rows <= results.valid_rows);
    assert_eq!(results.first_nan_row.is_some(), results.nan_rows > 0);

    for i in 0..n {
        let row = |values: &[f64]| -> Vec<f64> {
            (0..k).map(|c| values[problem.element(i, c)]).collect()
        };
        if let Some(p) = results.softmax.as_deref().map(row) {
            let sum: f64 = p.iter().sum();
            let spoilt = p.iter().all(|p| p.is_nan());
            // K terms, each rounded, and each addition.
            let close = (sum - 1.0).abs() <= 16.0 * k as f64 * f64::EPSILON;
            assert!(
                spoilt || close && p.iter().all(|p| (0.0..=1.0).contains(p)),
                "{p:?}"
            );
        }
        if let Some(logs) = results.log_softmax.as_deref().map(row) {
            assert!(
                logs.iter().all(|&log| log.is_nan() || log <= 0.0),
                "{logs:?}"
            );
        }
        let entropy = results.entropy.as_ref().map_or(0.0, |entropy| entropy[i]);
        assert!(entropy.is_nan() || entropy >= 0.0, "{entropy}");
    }
    for &prediction in results.predictions.iter().flatten() {
        assert!((-1..k as i64).contains(&prediction), "{prediction}");
    }
}

#[cfg(test)]
#[test]
fn seeds_of_problems() {
    let computed = crate::mutate::each_mutation("problem", 100_000, problem);
    assert!(computed > 10_000, "only {computed} were computed");
}
