//! Where jobs come from: the golden files, the digits, and generated rows of every shape.

use serde_json::Value;
use softxent::{Denominator, Reduction, Results};

use crate::common::{ALL, Case, MASKED, Rng};

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
        let labelled = index.is_some() || dense.is_some();
        let wanted = ALL
            .into_iter()
            .filter(|output| labelled || !output.needs_labels());
        Some(Golden {
            case: Case {
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
                wanted: wanted.collect(),
                over_logits: false,
                shared: false,
                denominator: Denominator::ValidRows,
                denominator_value: 0.0,
            },
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
}

/// A job of `rows` rows, the same one for the same arguments. All outputs, mean reduction.
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
    if kind == Kind::Index {
        return case.index(
            (0..rows)
                .map(|i| if i % 7 == 6 { -100 } else { index[i] as i64 })
                .collect(),
        );
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
