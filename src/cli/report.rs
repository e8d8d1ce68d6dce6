//! What is said of a run: one JSON object, or a few aligned lines.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};
use softxent::{Accuracy, Denominator, LabelKind, Problem, Reduction, Wanted};

use super::device::{Device, Outcome, REDUCED, accuracy_name, driver, is_software};

/// An output file.
pub struct Written {
    pub wanted: Wanted,
    pub path: PathBuf,
    pub shape: Vec<usize>,
}

/// A run; its serialized fields are the JSON object.
#[derive(Serialize)]
pub struct Report {
    #[serde(serialize_with = "number_or_name")]
    loss: Option<f32>,
    #[serde(serialize_with = "number_or_name")]
    z_loss: Option<f32>,
    rows: usize,
    valid_rows: u64,
    bad_rows: u64,
    classes: usize,
    axis: usize,
    dtype: &'static str,
    correct: Option<u64>,
    denominator: Option<Divisor>,
    device: &'static str,
    adapter: Option<String>,
    driver: Option<String>,
    software: bool,
    accuracy: &'static str,
    strategy: &'static str,
    seconds: Seconds,
    version: &'static str,
    #[serde(skip)]
    interleaved: bool,
    #[serde(skip)]
    labels: LabelKind,
    #[serde(skip)]
    reduction: Reduction,
    #[serde(skip)]
    reduced_accuracy: bool,
    #[serde(skip)]
    adapter_in_words: String,
    #[serde(skip)]
    written: Vec<Written>,
}

/// What the sum of the losses was divided by.
#[derive(Serialize)]
#[serde(untagged)]
enum Divisor {
    /// As many rows as are not ignored, or 1.
    Count(u64),
    /// The class weights of their labels, added up.
    Weight(f64),
    /// What was typed.
    Given(f32),
}

#[derive(Serialize)]
struct Seconds {
    setup: f64,
    upload: f64,
    waiting: f64,
    download: f64,
    total: f64,
}

impl Report {
    /// `axis` is that of the classes, `weight` what the rows that are not ignored weigh together.
    pub fn new(
        problem: &Problem,
        axis: usize,
        weight: Option<f64>,
        outcome: &Outcome,
        device: &Device,
        written: Vec<Written>,
        total: Duration,
    ) -> Self {
        let Outcome {
            results,
            times,
            strategy,
        } = outcome;
        let strategy = *strategy;
        let adapter = device.adapter();
        Report {
            loss: results.loss,
            z_loss: results.z_loss,
            rows: problem.rows(),
            valid_rows: results.valid_rows,
            bad_rows: results.nan_rows,
            classes: problem.classes(),
            axis,
            dtype: problem.dtype().name(),
            correct: results.correct,
            denominator: results.loss.map(|_| {
                match (problem.reduction(), problem.denominator(), weight) {
                    (Reduction::Sum | Reduction::None, ..) => Divisor::Count(1),
                    (_, Denominator::Number(number), _) => Divisor::Given(number),
                    (_, Denominator::Weights, Some(weight)) => Divisor::Weight(weight),
                    _ => Divisor::Count(results.valid_rows),
                }
            }),
            device: if adapter.is_some() { "gpu" } else { "cpu" },
            adapter: adapter.map(|info| info.name.clone()),
            driver: adapter.map(driver),
            software: adapter.is_some_and(is_software),
            accuracy: accuracy_name(device.accuracy()),
            strategy,
            seconds: Seconds {
                setup: times.setup.as_secs_f64(),
                upload: times.upload.as_secs_f64(),
                waiting: times.waiting.as_secs_f64(),
                download: times.download.as_secs_f64(),
                total: total.as_secs_f64(),
            },
            version: env!("CARGO_PKG_VERSION"),
            interleaved: problem.inner() > 1,
            labels: problem.labels(),
            reduction: problem.reduction(),
            reduced_accuracy: device.accuracy() == Accuracy::Reduced,
            adapter_in_words: device.describe(),
            written,
        }
    }

    /// One object on one line.
    pub fn json(&self) -> String {
        json(self)
    }

    /// A few lines for a person.
    pub fn summary(&self, plan: Option<&str>) -> String {
        let mut table = Table::default();
        match (self.labels, self.loss) {
            (LabelKind::None, _) => {}
            (_, None) => table.line("loss", "one per row (--reduction none)"),
            (_, Some(loss)) => {
                table.line("loss", format!("{}, {}", digits(loss), self.how_reduced()))
            }
        }
        if let Some(loss) = self.z_loss {
            table.line("z-loss", format!("{}, a part of it", digits(loss)));
        }
        if let Some(correct) = self.correct {
            table.line("accuracy", accuracy(correct, self.valid_rows));
        }
        let ignored = match self.rows as u64 - self.valid_rows {
            0 => String::new(),
            ignored => format!(", {ignored} ignored"),
        };
        let axis = match (self.axis, self.interleaved) {
            (1, false) => String::new(),
            (axis, _) => format!(" on axis {axis}"),
        };
        let dtype = match self.dtype {
            "f32" => String::new(),
            dtype => format!(", {dtype}"),
        };
        table.line(
            "logits",
            format!(
                "{} × {} classes{axis}{dtype}{ignored}",
                plural(self.rows as u64, "row"),
                self.classes
            ),
        );
        if self.bad_rows > 0 {
            table.line(
                "bad",
                format!("{} came out NaN", plural(self.bad_rows, "row")),
            );
        }
        table.line("adapter", &self.adapter_in_words);
        if self.reduced_accuracy {
            table.line("self-test", REDUCED);
        }
        table.line("time", self.seconds.in_words());
        for Written {
            wanted,
            path,
            shape,
        } in &self.written
        {
            let shape = match shape[..] {
                [] => "one number".to_owned(),
                _ => format!("{shape:?}"),
            };
            table.line("wrote", format!("{}: {wanted}, {shape}", path.display()));
        }
        let mut text = table.finish();
        if let Some(plan) = plan {
            let _ = writeln!(text, "\n{plan}");
        }
        text
    }

    fn how_reduced(&self) -> String {
        let of = plural(self.valid_rows, "row");
        match self.denominator {
            Some(Divisor::Given(number)) => format!("the sum over {of} / {number}"),
            Some(Divisor::Weight(weight)) => {
                let weight = digits(weight as f32);
                format!("the weighted mean over {of}, whose weights add up to {weight}")
            }
            _ => format!("the {} over {of}", self.reduction.name()),
        }
    }

    /// The line of the times.
    pub fn times(&self) -> String {
        self.seconds.in_words()
    }
}

impl Seconds {
    fn in_words(&self) -> String {
        let (total, waiting) = (duration(self.total), duration(self.waiting));
        if self.setup == 0.0 {
            return format!("{total}, of which {waiting} computing");
        }
        format!(
            "{total}: setup {}, upload {}, waiting for the device {waiting}, download {}",
            duration(self.setup),
            duration(self.upload),
            duration(self.download)
        )
    }
}

/// A report as JSON, with a line end.
pub fn json(report: &impl Serialize) -> String {
    // Only maps with keys that are no strings fail.
    let mut text = serde_json::to_string(report).unwrap_or_default();
    text.push('\n');
    text
}

/// JSON has no NaN and no infinity.
fn number_or_name<S: Serializer>(value: &Option<f32>, serializer: S) -> Result<S::Ok, S::Error> {
    match *value {
        None => serializer.serialize_none(),
        Some(value) if value.is_nan() => serializer.serialize_str("NaN"),
        Some(f32::INFINITY) => serializer.serialize_str("Infinity"),
        Some(f32::NEG_INFINITY) => serializer.serialize_str("-Infinity"),
        Some(value) => serializer.serialize_f32(value),
    }
}

/// Lines of a name and a value, the values below each other.
#[derive(Default)]
pub struct Table(Vec<(&'static str, String)>);

impl Table {
    pub fn line(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.push((name, value.into()));
    }

    pub fn finish(&self) -> String {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (name, value) in &self.0 {
            let _ = writeln!(text, "{name:width$}  {value}");
        }
        text
    }
}

/// A number with the nine digits that tell one f32 from every other.
pub fn digits(value: f32) -> String {
    let scientific = format!("{value:.8e}");
    let (mantissa, exponent) = match scientific.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, exponent.parse().unwrap_or(0)),
        None => return scientific, // NaN, inf
    };
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    match exponent {
        -5..=8 => trim(&format!("{value:.*}", (8 - exponent) as usize)),
        _ => format!("{}e{exponent}", trim(mantissa)),
    }
}

/// Right answers and their share.
pub fn accuracy(correct: u64, of: u64) -> String {
    match of {
        0 => "none: no row counts".to_owned(),
        _ => format!(
            "{:.2} %, {correct} of {}",
            100.0 * correct as f64 / of as f64,
            plural(of, "row")
        ),
    }
}

/// `1 row`, `2 rows`.
pub fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Seconds with three digits, in a unit that suits them.
pub fn duration(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s => (s * 1e6, "µs"),
    };
    let decimals = match value {
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (value, expected) in [
            (0.0, "0"),
            (0.115_027_69, "0.115027688"),
            (1.0, "1"),
            (-2.5, "-2.5"),
            (123_456_790.0, "123456792"),
            (1e9, "1e9"),
            (2.5e-26, "2.50000005e-26"),
            (1e-5, "9.99999975e-6"),
            (2e-5, "0.0000199999995"),
            (f32::NAN, "NaN"),
            (f32::INFINITY, "inf"),
        ] {
            assert_eq!(digits(value), expected);
        }
        for (seconds, expected) in [(12.34, "12.3 s"), (0.0123, "12.3 ms"), (4e-5, "40.0 µs")] {
            assert_eq!(duration(seconds), expected);
        }
    }
}
