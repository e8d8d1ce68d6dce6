//! What is refused before any device is touched, each with its exact words. No GPU.

use softxent::{
    Batch, IndexLabels, Labels, MOST_CLASSES, Problem, ProblemBuilder, Reduction, Upstream, Wanted,
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
        ]),
    ] {
        fine.build().expect("a sound problem");
    }
}

/// With the reduction `none`, the loss is the losses.
#[test]
fn loss_without_reduction_is_losses() {
    let problem = index(1, 1).reduction(Reduction::None).build().unwrap();
    assert!(problem.wants(Wanted::Losses));
    assert!(!index(1, 1).build().unwrap().wants(Wanted::Losses));
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
    let (six, labels) = ([0.0f32; 6], [0i64, 2]);
    let y = Labels::Index(&labels);
    type Given<'a> = (&'a Problem, &'a [f32], Labels<'a>, &'a [f32], &'a str);
    let cases: [Given<'_>; 14] = [
        (
            &mean,
            &six[..5],
            y,
            &[],
            "logits: 5 values given, 6 expected (2 rows × 3 classes)",
        ),
        (
            &mean,
            &[],
            y,
            &[],
            "logits: 0 values given, 6 expected (2 rows × 3 classes)",
        ),
        (
            &mean,
            &six,
            Labels::Index(&[0i64]),
            &[],
            "labels: 1 values given, 2 expected (one per row, 2 rows)",
        ),
        (
            &mean,
            &six,
            y,
            &[1.0],
            "upstream gradients: 1 values given, 0 expected (one per row, 2 rows)",
        ),
        (
            &per_row,
            &six,
            y,
            &[1.0],
            "upstream gradients: 1 values given, 2 expected (one per row, 2 rows)",
        ),
        (
            &per_row,
            &six,
            y,
            &[1.0, f32::INFINITY],
            "the upstream gradient of row 1 is inf; it has to be finite",
        ),
        (
            &per_row,
            &six,
            y,
            &[f32::NAN, 1.0],
            "the upstream gradient of row 0 is NaN; it has to be finite",
        ),
        (
            &dense,
            &six,
            Labels::Dense(&six[1..]),
            &[],
            "dense labels: 5 values given, 6 expected (2 rows × 3 classes)",
        ),
        (
            &dense,
            &six,
            y,
            &[],
            "the problem was built for dense labels, the batch holds index labels",
        ),
        (
            &mean,
            &six,
            Labels::Dense(&six),
            &[],
            "the problem was built for index labels, the batch holds dense labels",
        ),
        (
            &mean,
            &six,
            Labels::None,
            &[],
            "the problem was built for index labels, the batch holds no labels",
        ),
        (
            &plain,
            &six,
            y,
            &[],
            "the problem was built for no labels, the batch holds index labels",
        ),
        (
            &mean,
            &six,
            Labels::Index(&[2i64, 3]),
            &[],
            "row 1 has the label 3: labels are 0 to 2, or -100 for a row to ignore",
        ),
        (
            &mean,
            &six,
            Labels::Index(&[-1i64, 9]),
            &[],
            "row 0 has the label -1: labels are 0 to 2, or -100 for a row to ignore",
        ),
    ];
    for (problem, logits, labels, upstream, message) in cases {
        let error = problem.check(&Batch {
            logits,
            labels,
            upstream,
        });
        assert_eq!(error.expect_err(message).to_string(), message);
    }
    assert_eq!(
        mean.check(&Batch {
            logits: &six,
            labels: y,
            upstream: &[]
        })
        .unwrap(),
        2
    );
    assert_eq!(
        dense
            .check(&Batch {
                logits: &six,
                labels: Labels::Dense(&six),
                upstream: &[]
            })
            .unwrap(),
        2
    );
    assert_eq!(
        plain
            .check(&Batch {
                logits: &six,
                ..Batch::default()
            })
            .unwrap(),
        2
    );
}

/// Labels of every integer type mean the same, also at the ends of each type.
#[test]
fn labels_of_every_integer_type() {
    fn check(labels: &dyn IndexLabels, ignore_index: i64) -> Result<usize, String> {
        let problem = Problem::of(labels.len(), 120)
            .index_labels(ignore_index)
            .want([Wanted::Loss]);
        let logits = vec![0.0; 120 * labels.len()];
        let batch = Batch {
            logits: &logits,
            labels: Labels::Index(labels),
            upstream: &[],
        };
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
        let batch = Batch {
            logits: &[0.0; 9],
            labels: Labels::Index(&labels),
            upstream: &[],
        };
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
