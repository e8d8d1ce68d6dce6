//! What is refused before any device is touched, each with its exact words. No GPU.

use softxent::half::f16;
use softxent::{
    Batch, Denominator, Dtype, IndexLabels, Labels, Logits, MOST_CLASSES, Outputs, Padding,
    Problem, ProblemBuilder, Reduction, Source, Upstream, Wanted,
};

fn index(rows: usize, classes: usize) -> ProblemBuilder {
    Problem::of(rows, classes)
        .index_labels(-100)
        .want([Wanted::Loss])
}

#[test]
fn build_refuses() {
    let most = MOST_CLASSES;
    let none = Reduction::None;
    for (problem, message) in [
        (index(2, 0), "a row has 0 classes: softmax needs at least one".to_owned()),
        (index(0, 0), "a row has 0 classes: softmax needs at least one".to_owned()),
        (
            index(1, most + 1),
            format!("{} classes asked for, at most {most} are supported", most + 1),
        ),
        (
            index(usize::MAX / 2, 3),
            format!("{} rows of 3 classes overflow the address space", usize::MAX / 2),
        ),
        (
            index(usize::MAX / 8 + 1, 1),
            format!("{} rows of 1 classes overflow the address space", usize::MAX / 8 + 1),
        ),
        (
            Problem::of(1, 1),
            "nothing is wanted: ask for at least one output, such as the loss".to_owned(),
        ),
        (
            Problem::of(1, 1).want([Wanted::Softmax, Wanted::Grad]),
            "grad needs labels, and the problem has none: give labels or leave grad out".to_owned(),
        ),
        (
            Problem::of(1, 1).want([Wanted::Losses]),
            "losses needs labels, and the problem has none: give labels or leave losses out".to_owned(),
        ),
        (
            Problem::of(1, 1).want([Wanted::Loss]),
            "loss needs labels, and the problem has none: give labels or leave loss out".to_owned(),
        ),
        (
            index(1, 1).upstream(Upstream::PerRow).reduction(Reduction::Sum),
            "an upstream gradient per row needs the reduction `none`; with `sum` the loss is one number, so give one number".to_owned(),
        ),
        (
            index(1, 1).upstream(Upstream::PerRow),
            "an upstream gradient per row needs the reduction `none`; with `mean` the loss is one number, so give one number".to_owned(),
        ),
        (
            index(1, 1).upstream(Upstream::Number(f32::NAN)),
            "the upstream gradient is NaN; it has to be finite".to_owned(),
        ),
        (
            index(1, 1).upstream(Upstream::Number(f32::NEG_INFINITY)).reduction(none),
            "the upstream gradient is -inf; it has to be finite".to_owned(),
        ),
    ] {
        let shown = format!("{problem:?}");
        match problem.build() {
            Err(error) => assert_eq!(error.to_string(), message, "{shown}"),
            Ok(_) => panic!("accepted: {shown}"),
        }
    }
    for fine in [
        index(0, 1),
        index(1, most),
        index(usize::MAX / 8, 1),
        index(3, 3).reduction(none).upstream(Upstream::PerRow),
        Problem::of(1, 1).want([
            Wanted::Softmax,
            Wanted::LogSoftmax,
            Wanted::Lse,
            Wanted::Predictions,
            Wanted::Entropy,
        ]),
        index(6, 3)
            .inner(2)
            .row_length(most, Padding::Kept)
            .dtype(Dtype::F16)
            .same_dtype_out(true),
        index(1, 2)
            .label_smoothing(1.0)
            .z_loss(1e-30)
            .class_weights(),
        index(1, 2).logit_scale(f32::MIN_POSITIVE).softcap(f32::MAX),
        index(1, 2)
            .want([Wanted::Correct, Wanted::ZLoss])
            .z_loss(1.0),
        index(1, 2).denominator(Denominator::Number(f32::MIN_POSITIVE)),
        index(1, 2).denominator(Denominator::Buffer),
        Problem::softmax_backward(4, 2).inner(4).from_softmax(),
        Problem::softmax_backward(4, 2)
            .logit_scale(2.0)
            .softcap(3.0),
        Problem::softmax_backward(4, 2).upstream(Upstream::PerRow),
    ] {
        fine.build().expect("a sound problem");
    }
}

/// What an option can be, at its edges, and what does not go together.
#[test]
fn build_refuses_options() {
    let softmax = || Problem::of(4, 3).want([Wanted::Softmax]);
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let mut refused: Vec<(ProblemBuilder, String)> = Vec::new();
    let mut bad = |problem: ProblemBuilder, message: &str| refused.push((problem, message.into()));

    for epsilon in [-0.1, 1.1, nan, inf, -f32::MIN_POSITIVE] {
        let message = format!("the label smoothing is {epsilon}; it has to be from 0 to 1");
        bad(index(1, 2).label_smoothing(epsilon), &message);
    }
    for lambda in [-1e-9, nan, inf, -inf] {
        let message = format!("the z-loss is {lambda}; it has to be finite and not negative");
        bad(index(1, 2).z_loss(lambda), &message);
    }
    for factor in [0.0, -0.0, -1.0, nan, inf] {
        let needed = format!("is {factor}; it has to be finite and above 0");
        bad(
            softmax().logit_scale(factor),
            &format!("the logit scale {needed}"),
        );
        bad(softmax().softcap(factor), &format!("the softcap {needed}"));
    }
    for denominator in [0.0, -1.0, 1e-38, nan, inf] {
        let message =
            format!("the denominator is {denominator}; it has to be finite and at least 2^-126");
        bad(
            index(1, 2).denominator(Denominator::Number(denominator)),
            &message,
        );
    }
    for reduction in [Reduction::None, Reduction::Sum] {
        let message = format!(
            "a denominator is what `mean` divides by; the reduction is `{}`, so leave it out",
            reduction.name()
        );
        for denominator in [Denominator::Number(2.0), Denominator::Buffer] {
            bad(
                index(1, 2).reduction(reduction).denominator(denominator),
                &message,
            );
        }
    }

    bad(
        softmax().row_length(2, Padding::Masked),
        "the length of a row in memory is 2; it has to be at least its 3 classes",
    );
    for inner in [0, 3, 8] {
        bad(
            softmax().inner(inner),
            &format!(
                "the number of interleaved rows is {inner}; it has to be a divisor of the 4 rows"
            ),
        );
    }
    bad(
        softmax().row_length(MOST_CLASSES + 1, Padding::Masked),
        &format!(
            "{} classes asked for, at most {MOST_CLASSES} are supported",
            MOST_CLASSES + 1
        ),
    );
    bad(
        Problem::of(usize::MAX / 16, 1)
            .want([Wanted::Lse])
            .row_length(3, Padding::Masked),
        &format!(
            "{} rows of 1 classes overflow the address space",
            usize::MAX / 16
        ),
    );
    // Any number divides no rows.
    bad(
        Problem::of(0, 4).want([Wanted::Lse]).inner(usize::MAX),
        &format!(
            "{} rows of 4 classes overflow the address space",
            usize::MAX
        ),
    );

    let vectors = || Problem::softmax_backward(4, 3);
    let alone = "the product of the Jacobian with a vector is its gradient, and no other output goes with it: ask for the others in a problem of their own";
    for output in [Wanted::Softmax, Wanted::Losses, Wanted::Predictions] {
        bad(vectors().want([output]), alone);
    }
    bad(
        index(1, 2).from_softmax(),
        "softmax in place of logits is for `softmax_backward`: give logits",
    );
    for problem in [vectors().softcap(3.0), vectors().logit_scale(0.5)] {
        bad(
            problem.from_softmax(),
            "a scale or a cap of the logits cannot be seen in their softmax: give logits, or leave both out and multiply the gradient by their derivative",
        );
    }
    for unlabelled in [softmax, vectors] {
        bad(
            unlabelled().class_weights(),
            "class weights weigh labels, and there are none: leave them out, or give labels",
        );
        bad(
            unlabelled().label_smoothing(0.5),
            "label smoothing changes labels, and there are none: leave it out, or give labels",
        );
        bad(
            unlabelled().z_loss(0.5),
            "the z-loss is a part of the loss, which needs labels: leave it out and square `lse`, or give labels",
        );
    }
    for output in [Wanted::ZLosses, Wanted::ZLoss] {
        bad(
            index(1, 2).want([output]),
            "the z-loss is wanted, and its factor is 0: set the factor, or leave the output out",
        );
        bad(
            softmax().want([output]),
            &format!(
                "{output} needs labels, and the problem has none: give labels or leave {output} out"
            ),
        );
    }
    bad(
        Problem::of(1, 2).dense_labels().want([Wanted::Correct]),
        "`correct` compares predictions with class indices, and the labels are weights: ask for `predictions` and compare them with what you hold for right",
    );
    bad(
        index(1, 2)
            .want([Wanted::Grad])
            .dtype(Dtype::Bf16)
            .grad_over_logits(true),
        "the gradient takes the place of the logits, so it has to be stored as they are: ask for outputs in the logits' dtype, or give the gradient a place of its own",
    );

    for (problem, message) in refused {
        let shown = format!("{problem:?}");
        match problem.build() {
            Err(error) => assert_eq!(error.to_string(), message, "{shown}"),
            Ok(_) => panic!("accepted: {shown}"),
        }
    }
    let in_place = index(1, 2).want([Wanted::Grad]).dtype(Dtype::Bf16);
    let in_place = in_place.grad_over_logits(true).same_dtype_out(true);
    assert!(in_place.build().is_ok());
}

/// With the reduction `none`, the loss is the losses, and the z-loss the z-losses.
#[test]
fn loss_without_reduction_is_losses() {
    let problem = index(1, 1).reduction(Reduction::None).build().unwrap();
    assert!(problem.wants(Wanted::Losses) && !problem.wants(Wanted::ZLosses));
    assert!(!index(1, 1).build().unwrap().wants(Wanted::Losses));
    let problem = index(1, 1).reduction(Reduction::None).z_loss(0.5);
    let problem = problem.want([Wanted::ZLoss]).build().unwrap();
    assert!(problem.wants(Wanted::ZLosses));
}

/// Where each class of each row is: `[rows / inner, row_length, inner]`, each place once.
#[test]
fn elements_of_a_layout() {
    let problem = Problem::of(6, 2).inner(3).row_length(4, Padding::Kept);
    let problem = problem.want([Wanted::Softmax]).build().unwrap();
    assert_eq!(problem.elements(), 24);
    let row = |row| [problem.element(row, 0), problem.element(row, 1)];
    assert_eq!(row(0), [0, 3]);
    assert_eq!(row(2), [2, 5]);
    assert_eq!(row(3), [12, 15]);
    assert_eq!(row(5), [14, 17]);
    let case = crate::common::Case {
        rows: 6,
        classes: 2,
        inner: 3,
        row_length: 4,
        ..Default::default()
    };
    for (i, k) in (0..6).flat_map(|i| [(i, 0), (i, 1)]) {
        assert_eq!(case.element(i, k), problem.element(i, k));
    }
}

#[test]
fn check_refuses() {
    let mean = index(2, 3).build().unwrap();
    let dense = Problem::of(2, 3)
        .dense_labels()
        .want([Wanted::Loss])
        .build()
        .unwrap();
    let plain = Problem::of(2, 3).want([Wanted::Softmax]).build().unwrap();
    let per_row = index(2, 3)
        .reduction(Reduction::None)
        .upstream(Upstream::PerRow)
        .build()
        .unwrap();
    let shared = index(2, 3).upstream(Upstream::Shared).build().unwrap();
    let vectors = Problem::softmax_backward(2, 3).build().unwrap();
    let weighted = index(2, 3).class_weights().build().unwrap();
    let narrow = index(2, 3).dtype(Dtype::F16).build().unwrap();
    let padded = index(2, 3).row_length(4, Padding::Masked).build().unwrap();
    let strided = index(2, 3).inner(2).build().unwrap();
    let buffer = index(2, 3).denominator(Denominator::Buffer);
    let buffer = buffer.build().unwrap();
    let (six, labels) = ([0.0f32; 6], [0i64, 2]);
    let halves = [f16::ZERO; 6];
    let (given, without) = (Batch::of(&six).index(&labels), Batch::of(&six));
    let cases: [(&Problem, Batch<'_>, &str); 32] = [
        (
            &mean,
            Batch::of(&six[..5]).index(&labels),
            "logits: 5 values given, 6 expected (2 rows × 3 classes)",
        ),
        (
            &mean,
            Batch::default().index(&labels),
            "logits: 0 values given, 6 expected (2 rows × 3 classes)",
        ),
        (
            &padded,
            given,
            "logits: 6 values given, 8 expected (2 rows × 4 columns)",
        ),
        (
            &strided,
            Batch::of(&six[1..]).index(&labels),
            "logits: 5 values given, 6 expected (1 × 3 classes × 2)",
        ),
        (
            &mean,
            without.index(&[0i64]),
            "labels: 1 values given, 2 expected (one per row, 2 rows)",
        ),
        (
            &mean,
            given.upstream(&[1.0]),
            "upstream gradients: 1 values given, 0 expected (one per row, 2 rows)",
        ),
        (
            &per_row,
            given.upstream(&[1.0]),
            "upstream gradients: 1 values given, 2 expected (one per row, 2 rows)",
        ),
        (
            &shared,
            given,
            "upstream gradients: 0 values given, 1 expected (one for all rows)",
        ),
        (
            &per_row,
            given.upstream(&[1.0, f32::INFINITY]),
            "the upstream gradient of row 1 is inf; it has to be finite",
        ),
        (
            &per_row,
            given.upstream(&[f32::NAN, 1.0]),
            "the upstream gradient of row 0 is NaN; it has to be finite",
        ),
        (
            &dense,
            without.dense(&six[1..]),
            "dense labels: 5 values given, 6 expected (2 rows × 3 classes)",
        ),
        (
            &dense,
            given,
            "the problem was built for dense labels, the batch holds index labels",
        ),
        (
            &mean,
            without.dense(&six),
            "the problem was built for index labels, the batch holds dense labels",
        ),
        (
            &mean,
            without,
            "the problem was built for index labels, the batch holds no labels",
        ),
        (
            &plain,
            given,
            "the problem was built for no labels, the batch holds index labels",
        ),
        (
            &vectors,
            without,
            "the problem was built for vectors, the batch holds no labels",
        ),
        (
            &vectors,
            without.dense(&six),
            "the problem was built for vectors, the batch holds dense labels",
        ),
        (
            &dense,
            without.vectors(&six),
            "the problem was built for dense labels, the batch holds vectors",
        ),
        (
            &vectors,
            without.vectors(&six[2..]),
            "vectors: 4 values given, 6 expected (2 rows × 3 classes)",
        ),
        (
            &mean,
            without.index(&[2i64, 3]),
            "row 1 has the label 3: labels are 0 to 2, or -100 for a row to ignore",
        ),
        (
            &mean,
            without.index(&[-1i64, 9]),
            "row 0 has the label -1: labels are 0 to 2, or -100 for a row to ignore",
        ),
        (
            &weighted,
            given,
            "class weights: 0 values given, 3 expected (one per class, 3 classes)",
        ),
        (
            &weighted,
            given.class_weights(&six),
            "class weights: 6 values given, 3 expected (one per class, 3 classes)",
        ),
        (
            &mean,
            given.class_weights(&six[..3]),
            "class weights: 3 values given, 0 expected (the problem was built without)",
        ),
        (
            &weighted,
            given.class_weights(&[0.0, -1.0, -2.0]),
            "the weight of class 1 is -1; it has to be finite and not negative",
        ),
        (
            &weighted,
            given.class_weights(&[f32::NAN, 0.0, 0.0]),
            "the weight of class 0 is NaN; it has to be finite and not negative",
        ),
        (
            &weighted,
            given.class_weights(&[1.0, 0.0, f32::INFINITY]),
            "the weight of class 2 is inf; it has to be finite and not negative",
        ),
        (
            &narrow,
            given,
            "the problem was built for logits in f16, the batch holds f32",
        ),
        (
            &mean,
            Batch::of(&halves).index(&labels),
            "the problem was built for logits in f32, the batch holds f16",
        ),
        (
            &narrow,
            Batch::of(&halves[..4]).index(&labels),
            "logits: 4 values given, 6 expected (2 rows × 3 classes)",
        ),
        (
            &shared,
            given.upstream(&[f32::NEG_INFINITY]),
            "the upstream gradient of row 0 is -inf; it has to be finite",
        ),
        (
            &buffer,
            given,
            "the denominator of this problem is in a buffer of the device: bind the problem there, or give a number",
        ),
    ];
    for (problem, batch, message) in cases {
        let error = problem.check(&batch);
        assert_eq!(error.expect_err(message).to_string(), message);
    }
    for (problem, batch) in [
        (&mean, given),
        (&dense, without.dense(&six)),
        (&plain, without),
        (&vectors, without.vectors(&six)),
        (&weighted, given.class_weights(&[0.0, f32::MAX, 1.0])),
        (&narrow, Batch::of(&halves).index(&labels)),
        (&padded, Batch::of(&[0.0; 8]).index(&labels)),
        (&shared, given.upstream(&[0.0])),
    ] {
        assert_eq!(problem.check(&batch).unwrap(), 2);
    }
}

/// Labels of every integer type mean the same, also at the ends of each type.
#[test]
fn labels_of_every_integer_type() {
    fn check(labels: &dyn IndexLabels, ignore_index: i64) -> Result<usize, String> {
        let problem = Problem::of(labels.len(), 120)
            .index_labels(ignore_index)
            .want([Wanted::Loss]);
        let logits = vec![0.0; 120 * labels.len()];
        let batch = Batch::of(&logits).index(labels);
        problem
            .build()
            .unwrap()
            .check(&batch)
            .map_err(|error| error.to_string())
    }
    macro_rules! each {
        ($($integer:ty)*) => {$(
            let name = stringify!($integer);
            let most = <$integer>::MAX;
            assert_eq!(check(&[0 as $integer, 119, 7], -100), Ok(3), "{name}");
            assert_eq!(check(&vec![0 as $integer, 119, 7], 7), Ok(2), "{name}");
            let bad = format!("row 1 has the label {most}: labels are 0 to 119, or -1 for a row to ignore");
            assert_eq!(check(&[0, most], -1), Err(bad), "{name}");
            let slice: &[$integer] = &[1, 2];
            assert_eq!(check(&slice.to_vec(), -1), Ok(2), "{name}");
            assert!(!IndexLabels::is_empty(&[1 as $integer]) && IndexLabels::is_empty(&Vec::<$integer>::new()));
        )*};
    }
    each!(i8 i16 i32 i64 isize u8 u16 u32 u64 usize);
    macro_rules! signed {
        ($($integer:ty)*) => {$(
            let least = <$integer>::MIN;
            assert_eq!(check(&[least, 5], i64::try_from(least).unwrap()), Ok(1), "{}", stringify!($integer));
            let bad = format!("row 0 has the label {least}: labels are 0 to 119, or -1 for a row to ignore");
            assert_eq!(check(&[least, 5], -1), Err(bad), "{}", stringify!($integer));
        )*};
    }
    signed!(i8 i16 i32 i64 isize);
    // Past i64: named by its value, not wrapped.
    let bad = "row 2 has the label 9223372036854775808: labels are 0 to 119, or -9223372036854775808 for a row to ignore";
    assert_eq!(check(&[0, 1, 1u64 << 63], i64::MIN), Err(bad.to_owned()));
}

#[test]
fn ignore_index_may_be_any_integer() {
    for (ignore_index, labels, valid) in [
        (i64::MIN, [i64::MIN, 0, 2], 2),
        (i64::MAX, [i64::MAX, i64::MAX, 2], 1),
        (0, [0, 1, 0], 1),
        (2, [2, 2, 2], 0),
        (-1, [-1, 0, 1], 2),
        (1 << 40, [1 << 40, 0, 1], 2),
    ] {
        let problem = Problem::of(3, 3)
            .index_labels(ignore_index)
            .want([Wanted::Loss])
            .build()
            .unwrap();
        let batch = Batch::of(&[0.0; 9]).index(&labels);
        assert_eq!(problem.check(&batch).unwrap(), valid, "{ignore_index}");
    }
}

#[test]
fn no_rows_are_no_mistake() {
    let batch = Batch {
        labels: Labels::Index(&[0i64; 0]),
        ..Batch::default()
    };
    assert_eq!(index(0, 5).build().unwrap().check(&batch).unwrap(), 0);
    let dense = Problem::of(0, 5)
        .dense_labels()
        .want([Wanted::Grad])
        .build()
        .unwrap();
    assert_eq!(
        dense
            .check(&Batch {
                labels: Labels::Dense(&[]),
                ..Batch::default()
            })
            .unwrap(),
        0
    );
    let plain = Problem::of(0, 5).want([Wanted::Softmax]).build().unwrap();
    assert_eq!(plain.check(&Batch::default()).unwrap(), 0);
}

#[test]
fn outputs_are_a_set() {
    let outputs: Outputs = [Wanted::Grad, Wanted::Loss, Wanted::Grad]
        .into_iter()
        .collect();
    assert_eq!(outputs.iter().count(), 2);
    assert!(outputs.has(Wanted::Grad) && outputs.has(Wanted::Loss));
}

#[test]
fn logits_that_are_none() {
    assert!(Logits::default().is_empty() && Logits::from(&[f16::ZERO; 0]).is_empty());
    assert!(!Logits::from(&[0.0f32; 1]).is_empty() && !Logits::from(&[f16::ZERO; 2]).is_empty());
}

/// The bytes of some logits, which a batch in memory gives as a source.
#[test]
fn a_batch_gives_its_bytes() {
    let halves = [1.0, 2.0, 3.0].map(f16::from_f32);
    let mut bytes = Vec::new();
    let mut batch = Batch::of(&halves);
    Source::logits(&mut batch, 1..3, &mut |some| bytes.extend_from_slice(some)).unwrap();
    assert_eq!(bytes, bytemuck::cast_slice::<f16, u8>(&halves[1..]));
}
