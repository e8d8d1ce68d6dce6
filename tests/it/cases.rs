//! Where jobs come from: the golden files, the digits, and generated rows of every shape.

use serde_json::Value;
use softxent::{Denominator, Dtype, EmptyMean, Padding, Reduction, Results, Wanted};

use crate::common::{Case, MASKED, Rng};

// ---- golden/oracle.json ------------------------------------------------------------------------

fn read(path: &str) -> Vec<u8> {
    let path = format!("{}/tests/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub fn json(path: &str) -> Value {
    serde_json::from_slice(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All of them.
pub fn golden() -> Vec<Golden> {
    let Value::Array(cases) = json("golden/oracle.json") else {
        panic!("oracle.json holds no list")
    };
    assert!(cases.len() > 100, "only {} golden cases", cases.len());
    let read = |case| {
        Golden::read(case)
            .unwrap_or_else(|| panic!("{}: a field is missing or unfit", case["name"]))
    };
    cases.iter().map(read).collect()
}

/// A number, or "inf", "-inf", "nan".
pub fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

/// A list of numbers, or one number as a list.
pub fn numbers(value: &Value) -> Option<Vec<f64>> {
    match value {
        Value::Array(list) => list.iter().map(number).collect(),
        value => Some(vec![number(value)?]),
    }
}

fn integers(value: &Value) -> Option<Vec<i64>> {
    value.as_array()?.iter().map(Value::as_i64).collect()
}

/// Numbers that are f32, because the crate takes them as f32; serde_json reads them to 1 ULP of f64.
fn singles(value: &Value) -> Option<Vec<f32>> {
    let single = |value: f64| {
        let off = (f64::from(value as f32) - value).abs();
        (off <= f64::EPSILON * value.abs() || !value.is_finite()).then_some(value as f32)
    };
    numbers(value)?.into_iter().map(single).collect()
}

/// One case; `golden/make_golden.py` says what the fields are.
pub struct Golden {
    pub case: Case,
    pub expect: Results<f64>,
}

impl Golden {
    fn read(case: &Value) -> Option<Golden> {
        let (labels, expect) = (&case["labels"], &case["expect"]);
        let rows = case["rows"].as_u64()?;
        let index = integers(&labels["index"]);
        let ignore_index = labels["ignore_index"].as_i64().unwrap_or_default();

        let (lse, losses) = (numbers(&expect["lse"])?, numbers(&expect["losses"]));
        let predictions = integers(&expect["predictions"])?;
        let nan: Vec<usize> = {
            let deciding = losses.as_ref().unwrap_or(&lse);
            (0..deciding.len())
                .filter(|&i| deciding[i].is_nan())
                .collect()
        };
        let correct = index.as_ref().map(|index| {
            let rows = index.iter().zip(&predictions);
            rows.filter(|&(y, p)| y == p && *y != ignore_index).count() as u64
        });
        let dense = singles(&labels["dense"]);
        let reduction = match case["reduction"].as_str() {
            Some("none") => Reduction::None,
            Some("sum") => Reduction::Sum,
            _ => Reduction::Mean,
        };
        let mut case = Case {
            name: case["name"].as_str()?.into(),
            rows: rows as usize,
            classes: case["classes"].as_u64()? as usize,
            logits: singles(&case["logits"])?,
            index,
            ignore_index,
            dense,
            reduction,
            upstream: singles(&case["upstream"])?,
            per_row: reduction == Reduction::None,
            ..Case::default()
        };
        // What there are expectations of.
        let unknown = [Wanted::Entropy, Wanted::Correct];
        case.wanted = case.everything();
        case.wanted.retain(|output| !unknown.contains(output));
        Some(Golden {
            case,
            expect: Results {
                softmax: numbers(&expect["softmax"]),
                log_softmax: numbers(&expect["log_softmax"]),
                grad: numbers(&expect["grad"]),
                losses,
                lse: Some(lse),
                loss: numbers(&expect["loss"]).map(|loss| loss[0]),
                predictions: Some(predictions),
                correct,
                valid_rows: expect["valid_rows"].as_u64().unwrap_or(rows),
                nan_rows: nan.len() as u64,
                first_nan_row: nan.first().map(|&i| i as u64),
                ..Results::default()
            },
        })
    }
}

// ---- the digits --------------------------------------------------------------------------------

/// The data of an .npy file of the version that NumPy writes.
fn npy(path: &str) -> Vec<u8> {
    let bytes = read(path);
    assert_eq!(bytes[..8], *b"\x93NUMPY\x01\x00", "{path}");
    bytes[10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]))..].to_vec()
}

/// The logits of a trained classifier on 1797 images, and their digits.
pub fn digits() -> Case {
    let logits = bytemuck::pod_collect_to_vec(&npy("data/digits_logits.npy"));
    let labels = bytemuck::pod_collect_to_vec(&npy("data/digits_labels.npy"));
    Case::new("digits", 10, logits).index(labels)
}

// ---- generated rows ----------------------------------------------------------------------------

/// What the logits of row `i` are like, each with the columns that are asked for as its label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// N(0, 1).
    Normal,
    /// N(0, 10).
    Wide,
    /// N(0, 1) about 1000: the rounding of `z − m` is felt.
    Offset,
    /// One class above all others by 0 to 87, the label or not.
    Confident,
    /// The maximum and the label in the last column.
    LastIsTop,
    /// Half of the mass, but not the maximum, in the last column.
    LastIsHeavy,
    /// A peak and the label at an edge of a slot, a lane step, a block.
    Edges,
    /// Each block raises the maximum.
    Ascending,
    /// The first block holds it.
    Descending,
    /// All the same.
    Tied,
    /// A third masked, the label too at times.
    Masked,
    /// Among ±FLT_MAX and ±1e30.
    Huge,
}

impl Shape {
    pub const ALL: [Shape; 12] = [
        Shape::Normal,
        Shape::Wide,
        Shape::Offset,
        Shape::Confident,
        Shape::LastIsTop,
        Shape::LastIsHeavy,
        Shape::Edges,
        Shape::Ascending,
        Shape::Descending,
        Shape::Tied,
        Shape::Masked,
        Shape::Huge,
    ];

    /// One row and its label.
    fn row(self, k: usize, i: usize, rng: &mut Rng) -> (Vec<f32>, usize) {
        let (mut row, any) = (rng.normals(k), rng.below(k));
        let last = k - 1;
        // Ascending and descending rows stay within 80, so that no term is 0.
        let step = 80.0 / k as f32;
        let label = match self {
            Shape::Normal => any,
            Shape::Wide => {
                row.iter_mut().for_each(|z| *z *= 10.0);
                any
            }
            Shape::Offset => {
                row.iter_mut().for_each(|z| *z += 1000.0);
                any
            }
            Shape::Confident => {
                const GAPS: [f32; 12] = [
                    0.0, 1.0, 5.0, 10.0, 16.0, 17.0, 20.0, 25.0, 40.0, 60.0, 80.0, 87.0,
                ];
                row.iter_mut().for_each(|z| *z = -z.abs());
                row[any] = GAPS[i % 12];
                if i % 5 == 4 { rng.below(k) } else { any }
            }
            Shape::LastIsTop => {
                row[last] = 6.0 + i as f32 % 20.0;
                last
            }
            Shape::LastIsHeavy => {
                // The others have the mass K·e^½, so ln K is about half of it.
                row[last] = (k as f32).ln().max(row[last]);
                row[any] = row[any].max(row[last] + 0.25);
                if i.is_multiple_of(2) { last } else { any }
            }
            Shape::Edges => {
                const EDGES: [usize; 16] = [
                    1024, 1023, 1025, 3, 4, 127, 128, 31, 32, 2047, 2048, 4095, 511, 512, 16384,
                    65536,
                ];
                let within: Vec<usize> = EDGES.into_iter().filter(|&edge| edge < k).collect();
                let edge = if within.is_empty() {
                    last
                } else {
                    within[i % within.len()]
                };
                row[edge] += (k as f32).ln() + 2.0;
                if i % 3 == 2 { any } else { edge }
            }
            Shape::Ascending => {
                row.iter_mut()
                    .enumerate()
                    .for_each(|(j, z)| *z = j as f32 * step);
                if i.is_multiple_of(2) { last } else { any }
            }
            Shape::Descending => {
                row.iter_mut()
                    .enumerate()
                    .for_each(|(j, z)| *z = -(j as f32) * step);
                if i.is_multiple_of(2) { 0 } else { any }
            }
            Shape::Tied => {
                row.fill([0.0, -5.5, 1e30][i % 3]);
                any
            }
            Shape::Masked => {
                for z in &mut row {
                    if rng.below(3) == 0 {
                        *z = MASKED;
                    }
                }
                row[rng.below(k)] = 0.5;
                any
            }
            Shape::Huge => {
                const HUGE: [f32; 8] =
                    [f32::MAX, -f32::MAX, 3.4e38, 1e30, -1e30, 0.0, 1.0, -3.4e38];
                row.iter_mut().for_each(|z| *z = HUGE[rng.below(8)]);
                any
            }
        };
        (row, label)
    }
}

/// Which labels a generated job has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One index a row; each seventh row is ignored.
    Index,
    /// One-hot, soft, not normalised, and mostly zero rows in turn.
    Dense,
    /// Weights of both signs.
    Signed,
    /// No labels, but rows that the Jacobian is multiplied by: of both signs, mostly zero, all of one
    /// large value but for a little, and one-hot in turn.
    Vector,
    /// The same with softmax in place of logits.
    FromSoftmax,
}

/// A job of `rows` rows, the same one for the same arguments. All outputs, mean reduction (none for
/// vectors).
pub fn generate(shape: Shape, kind: Kind, rows: usize, k: usize) -> Case {
    let mut rng = Rng((shape as u64) << 48 | (kind as u64) << 40 | (rows as u64) << 20 | k as u64);
    let (mut logits, mut index) = (Vec::with_capacity(rows * k), Vec::with_capacity(rows));
    for i in 0..rows {
        let (row, label) = shape.row(k, i, &mut rng);
        logits.extend(row);
        index.push(label);
    }
    let name = format!("{shape:?} {kind:?} {rows}×{k}");
    let mut case = Case::new(name, k, logits);
    case.rows = rows;
    match kind {
        Kind::Index => {
            let label = |i: usize| if i % 7 == 6 { -100 } else { index[i] as i64 };
            return case.index((0..rows).map(label).collect());
        }
        Kind::Vector | Kind::FromSoftmax => {
            let mut vector = rng.normals(rows * k);
            for (i, row) in vector.chunks_exact_mut(k).enumerate() {
                for (j, v) in row.iter_mut().enumerate() {
                    *v = match i % 4 {
                        0 => *v,
                        1 if rng.below(16) != 0 => 0.0,
                        2 => 1000.0 + *v / 16.0,
                        3 => f32::from(u8::from(j == index[i])),
                        _ => 30.0 * *v,
                    };
                }
            }
            if kind == Kind::FromSoftmax {
                let softmax = case.oracle().to_f32().softmax;
                case.logits = softmax.unwrap_or_else(|| panic!("{}: no softmax", case.name));
            }
            return case.vector(vector, kind == Kind::FromSoftmax);
        }
        Kind::Dense | Kind::Signed => {}
    }
    let mut dense = vec![0.0; rows * k];
    for (i, row) in dense.chunks_exact_mut(k).enumerate() {
        for (j, t) in row.iter_mut().enumerate() {
            let weight = rng.unit() as f32;
            *t = match i % 4 {
                0 => f32::from(u8::from(j == index[i])),
                1 => weight * 2.0 / k as f32,
                2 => weight * 3.0,
                _ if rng.below(16) == 0 => weight,
                _ => 0.0,
            };
            if kind == Kind::Signed && rng.below(2) == 0 {
                *t = -*t;
            }
            // Weight on a masked class makes the loss infinite: at times only.
            if case.logits[i * k + j] == MASKED && i % 8 != 1 {
                *t = 0.0;
            }
        }
    }
    case.dense(dense)
}

// ---- options -----------------------------------------------------------------------------------

/// Class weights from 0 to 4, a fourth of them 0.
pub fn some_weights(k: usize) -> Vec<f32> {
    let mut rng = Rng(k as u64);
    let mut weight = |_| match rng.below(4) {
        0 => 0.0,
        _ => 4.0 * rng.unit() as f32,
    };
    (0..k).map(&mut weight).collect()
}

/// The options of one turn, each drawn from its levels by itself: so that, over some hundred turns, every
/// level of one meets every level of each other. The first level of each is none.
#[derive(Debug, Clone, Copy)]
pub struct Levels {
    pub weights: usize,
    pub smoothing: usize,
    pub z_loss: usize,
    pub scale: usize,
    pub cap: usize,
    pub mean: usize,
    pub denominator: usize,
    pub dtype: usize,
    pub inner: usize,
    pub padding: usize,
    pub reduction: usize,
}

const SMOOTHING: [f32; 3] = [0.0, 0.1, 1.0];
const Z_LOSS: [f32; 4] = [0.0, 1e-4, 0.5, 3.0];
const SCALE: [f32; 4] = [1.0, 0.25, 3.0, 30.0];
const CAP: [Option<f32>; 5] = [None, Some(5.0), Some(30.0), Some(50.0), Some(1000.0)];
const INNER: [usize; 4] = [1, 2, 3, 8];
const PADDING: [Option<Padding>; 3] = [None, Some(Padding::Masked), Some(Padding::Kept)];
const DENOMINATORS: [Denominator; 3] = [
    Denominator::Weights,
    Denominator::ValidRows,
    Denominator::Number(37.5),
];
const EMPTY_MEAN: [EmptyMean; 2] = [EmptyMean::Nan, EmptyMean::Zero];
/// The mean twice, because it has options of its own.
const REDUCTIONS: [Reduction; 4] = [
    Reduction::Mean,
    Reduction::Mean,
    Reduction::Sum,
    Reduction::None,
];

impl Levels {
    /// How many there are of each.
    const COUNTS: [usize; 11] = [
        3,
        SMOOTHING.len(),
        Z_LOSS.len(),
        SCALE.len(),
        CAP.len(),
        EMPTY_MEAN.len(),
        DENOMINATORS.len(),
        Dtype::ALL.len(),
        INNER.len(),
        PADDING.len(),
        REDUCTIONS.len(),
    ];

    /// Those of a turn.
    pub fn of(turn: usize) -> Levels {
        let mut rng = Rng(0x0907_1045 ^ (turn as u64) << 32);
        let [
            weights,
            smoothing,
            z_loss,
            scale,
            cap,
            mean,
            denominator,
            dtype,
            inner,
            padding,
            reduction,
        ] = Levels::COUNTS.map(|count| rng.below(count));
        Levels {
            weights,
            smoothing,
            z_loss,
            scale,
            cap,
            mean,
            denominator,
            dtype,
            inner,
            padding,
            reduction,
        }
    }

    /// Numbered as in `COUNTS`.
    fn list(self) -> [usize; 11] {
        [
            self.weights,
            self.smoothing,
            self.z_loss,
            self.scale,
            self.cap,
            self.mean,
            self.denominator,
            self.dtype,
            self.inner,
            self.padding,
            self.reduction,
        ]
    }
}

/// How many turns of options are enough for each pair.
pub const TURNS: usize = 320;

#[test]
fn every_pair_of_options_meets() {
    const MEAN: usize = 5;
    const DENOMINATOR: usize = 6;
    const REDUCTION: usize = 10;
    // Denominator and empty mean are options of the mean.
    let of_mean = |levels: Levels| match REDUCTIONS[levels.reduction] {
        Reduction::Mean => levels,
        _ => Levels {
            denominator: 0,
            mean: 0,
            ..levels
        },
    };
    let turns: Vec<_> = (0..TURNS)
        .map(|turn| of_mean(Levels::of(turn)).list())
        .collect();
    for (a, &of_a) in Levels::COUNTS.iter().enumerate() {
        for (b, &of_b) in Levels::COUNTS.iter().enumerate().skip(a + 1) {
            for (i, j) in (0..of_a).flat_map(|i| (0..of_b).map(move |j| (i, j))) {
                if b == REDUCTION && j > 1 && (a == MEAN || a == DENOMINATOR) && i > 0 {
                    continue;
                }
                let met = turns.iter().any(|turn| (turn[a], turn[b]) == (i, j));
                assert!(met, "options {a} and {b} at {i} and {j}");
            }
        }
    }
}

/// A contiguous case of [`generate`] with the options of a turn, as far as its labels have them, and
/// every output that it has then.
pub fn with_options(mut case: Case, turn: usize) -> Case {
    let (levels, k) = (Levels::of(turn), case.classes);
    let labelled = case.index.is_some() || case.dense.is_some();
    // A scale may not carry a logit past the largest f32: of what is not finite there is no cap.
    let most = case.logits.iter().filter(|z| z.is_finite());
    let most = most.fold(0.0f32, |most, z| most.max(z.abs()));
    if !case.from_softmax {
        case.softcap = CAP[levels.cap];
        if (most * SCALE[levels.scale]).is_finite() {
            case.logit_scale = SCALE[levels.scale];
        }
    }
    if labelled {
        case.label_smoothing = SMOOTHING[levels.smoothing];
        case.z_loss = Z_LOSS[levels.z_loss];
        case.class_weights = match levels.weights {
            0 => Vec::new(),
            1 => some_weights(k),
            _ => (0..k).map(|j| 0.125 + (j % 7) as f32).collect(),
        };
    }
    if labelled {
        case.reduction = REDUCTIONS[levels.reduction];
    }
    case.empty_mean = EMPTY_MEAN[levels.mean];
    if labelled && case.reduction == Reduction::Mean {
        case.denominator = DENOMINATORS[levels.denominator];
    }
    case.name += &format!(
        " {:?} weights {} ε {} λ {} s {} c {:?} {:?} {:?}",
        case.reduction,
        levels.weights,
        case.label_smoothing,
        case.z_loss,
        case.logit_scale,
        case.softcap,
        case.empty_mean,
        case.denominator
    );
    case = case.store(Dtype::ALL[levels.dtype]).want_everything();
    let inner = INNER[levels.inner];
    let inner = if case.rows.is_multiple_of(inner) {
        inner
    } else {
        1
    };
    let (row_length, padding) = match PADDING[levels.padding] {
        Some(padding) => (k + 3, padding),
        None => (0, Padding::Masked),
    };
    if inner > 1 || row_length > 0 {
        case.name += &format!(" inner {inner} row of {row_length} {padding:?}");
        case = case.laid_out(inner, row_length, padding);
    }
    case
}
