//! The rows that a check is made on: the same ones on every machine.

use softxent::half::{bf16, f16};
use softxent::{Batch, Dtype, Logits, Problem, Reduction, Wanted};

use crate::cli::random::Rng;

/// What the logits of a row are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Normal,
    Wide,
    /// The rounding of z − m is felt.
    Offset,
    /// Where the usual formulas lose every digit.
    Confident,
    Masked,
}

impl Kind {
    pub const ALL: [Kind; 5] = [
        Kind::Normal,
        Kind::Wide,
        Kind::Offset,
        Kind::Confident,
        Kind::Masked,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Normal => "normal",
            Kind::Wide => "wide",
            Kind::Offset => "offset",
            Kind::Confident => "confident",
            Kind::Masked => "masked",
        }
    }

    /// Appends row `i` and returns its label.
    fn row(self, classes: usize, i: usize, rng: &mut Rng, logits: &mut Vec<f32>) -> usize {
        /// From rows that are hardly confident to one whose loss is hardly above 2⁻¹²⁶.
        const GAPS: [f32; 8] = [1.0, 5.0, 10.0, 17.0, 25.0, 40.0, 60.0, 87.0];
        let (label, kept) = (rng.below(classes), rng.below(classes));
        for k in 0..classes {
            let z = rng.normal();
            logits.push(match self {
                Kind::Normal => z,
                Kind::Wide => 10.0 * z,
                Kind::Offset => 1000.0 + z,
                Kind::Confident if k == kept => GAPS[i % GAPS.len()],
                Kind::Confident => -z.abs(),
                Kind::Masked if k != kept && rng.below(3) == 0 => f32::NEG_INFINITY,
                Kind::Masked => z,
            });
        }
        match self {
            Kind::Confident if i % 5 != 4 => kept,
            _ => label,
        }
    }
}

/// Logits in one of their types.
enum Floats {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

/// Rows of one kind, with one label each.
pub struct Case {
    pub classes: usize,
    pub dtype: Dtype,
    pub labels: Vec<i64>,
    logits: Floats,
}

impl Case {
    /// A quarter of a million logits, but at least six rows and at most a thousand.
    pub fn new(dtype: Dtype, classes: usize, kind: Kind) -> Case {
        let rows = ((1 << 18) / classes).clamp(6, 1000);
        let mut rng = Rng::new((kind as u64) << 32 | classes as u64);
        let mut logits = Vec::with_capacity(rows * classes);
        let label = |i| kind.row(classes, i, &mut rng, &mut logits) as i64;
        let labels = (0..rows).map(label).collect();
        let logits = match dtype {
            Dtype::F32 => Floats::F32(logits),
            Dtype::F16 => Floats::F16(logits.into_iter().map(f16::from_f32).collect()),
            Dtype::Bf16 => Floats::Bf16(logits.into_iter().map(bf16::from_f32).collect()),
        };
        Case {
            classes,
            dtype,
            labels,
            logits,
        }
    }

    pub fn rows(&self) -> usize {
        self.labels.len()
    }

    pub fn logits(&self) -> Logits<'_> {
        match &self.logits {
            Floats::F32(values) => values.into(),
            Floats::F16(values) => values.into(),
            Floats::Bf16(values) => values.into(),
        }
    }

    pub fn batch(&self) -> Batch<'_> {
        Batch::of(self.logits()).index(&self.labels)
    }

    pub fn problem(&self) -> softxent::Result<Problem> {
        Problem::of(self.rows(), self.classes)
            .dtype(self.dtype)
            .index_labels(-100)
            .reduction(Reduction::None)
            .want([Wanted::Softmax, Wanted::Losses, Wanted::Grad])
            .build()
    }

    /// A batch of some of the rows, in this order.
    pub fn select(&self, rows: &[usize]) -> Case {
        fn gather<T: Copy>(values: &[T], classes: usize, rows: &[usize]) -> Vec<T> {
            let row = |&i: &usize| values[i * classes..][..classes].iter().copied();
            rows.iter().flat_map(row).collect()
        }
        Case {
            labels: gather(&self.labels, 1, rows),
            logits: match &self.logits {
                Floats::F32(values) => Floats::F32(gather(values, self.classes, rows)),
                Floats::F16(values) => Floats::F16(gather(values, self.classes, rows)),
                Floats::Bf16(values) => Floats::Bf16(gather(values, self.classes, rows)),
            },
            ..*self
        }
    }
}
