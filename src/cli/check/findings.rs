//! What a check has found: the verdict, one JSON object, or tables.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use serde::{Serialize, Serializer};
use softxent::{Accuracy, Dtype, Engine};

use super::Worst;
use super::inputs::Kind;
use crate::cli::args::CheckArgs;
use crate::cli::device::{FULL, REDUCED, accuracy_name, describe, driver, is_software};
use crate::cli::origin::{VERSION, command, machine, today};
use crate::cli::report::{Table, duration, json};

/// What is promised of every value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    Exp,
    Log1p,
    Softmax,
    Loss,
    Gradient,
    SoftmaxSum,
    GradientSum,
}

impl Promise {
    /// Those with a value per class or row, in ULP.
    const OUTPUTS: [Promise; 3] = [Promise::Softmax, Promise::Loss, Promise::Gradient];
    const SUMS: [Promise; 2] = [Promise::SoftmaxSum, Promise::GradientSum];

    pub fn name(self) -> &'static str {
        match self {
            Promise::Exp => "exp",
            Promise::Log1p => "log1p",
            Promise::Softmax => "softmax",
            Promise::Loss => "loss",
            Promise::Gradient => "gradient",
            Promise::SoftmaxSum => "|1 - sum of softmax|",
            Promise::GradientSum => "|sum of gradient|",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Promise::SoftmaxSum | Promise::GradientSum => "1",
            _ => "ULP",
        }
    }

    fn allowed(self) -> f64 {
        match self {
            Promise::Exp => 1.0,
            Promise::Log1p => 2.0,
            Promise::Softmax => 6.0,
            Promise::Loss => 4.0,
            Promise::Gradient => 10.0,
            Promise::SoftmaxSum => 3e-7,
            Promise::GradientSum => 4e-7,
        }
    }
}

#[derive(Serialize)]
pub struct Findings {
    adapter: String,
    driver: String,
    backend: &'static str,
    software: bool,
    machine: String,
    version: &'static str,
    date: String,
    command: String,
    exhaustive: bool,
    max_classes: u32,
    accuracy: &'static str,
    rows: Vec<Line>,
    pub kernels: Compared,
    pub batches: Compared,
    runs: Runs,
    seconds: f64,
    verdict: &'static str,
    #[serde(skip)]
    adapter_in_words: String,
}

/// The worst of some values.
#[derive(Serialize)]
struct Line {
    name: &'static str,
    #[serde(skip)]
    promise: Promise,
    unit: &'static str,
    dtype: &'static str,
    classes: Option<usize>,
    kind: Option<&'static str>,
    values: u64,
    allowed: f64,
    #[serde(serialize_with = "digits_or_name")]
    found: f64,
    r#where: String,
}

impl Line {
    fn is_kept(&self) -> bool {
        self.found <= self.allowed
    }
}

/// Rows of the same values by other ways.
#[derive(Serialize, Default)]
pub struct Compared {
    pub rows: usize,
    pub differing: usize,
    /// Where one does.
    pub first: Option<String>,
}

#[derive(Serialize, Default)]
struct Runs {
    runs: usize,
    hashes: usize,
    /// Of the first.
    hash: String,
}

impl Findings {
    pub fn new(engine: &Engine, args: &CheckArgs) -> Findings {
        let info = engine.adapter_info();
        Findings {
            adapter: info.name.clone(),
            driver: driver(info),
            backend: info.backend.to_str(),
            software: is_software(info),
            machine: machine(),
            version: VERSION,
            date: today(),
            command: command(),
            exhaustive: args.exhaustive,
            max_classes: args.max_classes,
            accuracy: accuracy_name(engine.accuracy()),
            rows: Vec::new(),
            kernels: Compared::default(),
            batches: Compared::default(),
            runs: Runs::default(),
            seconds: 0.0,
            verdict: match engine.accuracy() {
                Accuracy::Full => "kept",
                Accuracy::Reduced => "reduced",
            },
            adapter_in_words: describe(info),
        }
    }

    /// The worst of `values` values; without a shape, of a function.
    pub fn add(
        &mut self,
        promise: Promise,
        shape: Option<(Dtype, usize)>,
        kind: Option<Kind>,
        values: u64,
        worst: Worst,
    ) {
        self.rows.push(Line {
            name: promise.name(),
            promise,
            unit: promise.unit(),
            dtype: shape.map_or(Dtype::F32, |(dtype, _)| dtype).name(),
            classes: shape.map(|(_, classes)| classes),
            kind: kind.map(Kind::name),
            values,
            allowed: promise.allowed(),
            found: worst.off,
            r#where: worst.place,
        });
    }

    /// Takes the hash of each run, and comes to a verdict.
    pub fn finish(&mut self, hashes: &[u64], time: Duration) {
        self.runs = Runs {
            runs: hashes.len(),
            hashes: hashes.iter().collect::<BTreeSet<_>>().len(),
            hash: hashes
                .first()
                .map_or_else(String::new, |hash| format!("{hash:016x}")),
        };
        self.seconds = (time.as_secs_f64() * 10.0).round() / 10.0;
        let same = self.kernels.differing + self.batches.differing == 0 && self.runs.hashes == 1;
        if self.verdict == "kept" && !(same && self.rows.iter().all(Line::is_kept)) {
            self.verdict = "broken";
        }
    }

    /// Whether all is as promised.
    pub fn kept(&self) -> bool {
        self.verdict == "kept"
    }

    pub fn json(&self) -> String {
        json(self)
    }

    /// The worst of the lines that are asked for.
    fn worst(&self, of: impl Fn(&Line) -> bool) -> f64 {
        let lines = self.rows.iter().filter(|line| of(line));
        lines.map(|line| line.found).fold(0.0, f64::max)
    }

    pub fn tables(&self) -> String {
        let mut table = Table::default();
        table.line("adapter", &self.adapter_in_words);
        table.line("driver", &self.driver);
        table.line(
            "self-test",
            if self.accuracy == "full" {
                FULL
            } else {
                REDUCED
            },
        );
        for (promise, range) in [(Promise::Exp, "[-104, -0]"), (Promise::Log1p, "[0, 2^32]")] {
            if let Some(line) = self.rows.iter().find(|line| line.promise == promise) {
                let every = if self.exhaustive {
                    "every one"
                } else {
                    "a sample"
                };
                table.line(
                    promise.name(),
                    format!(
                        "within {:.2} ULP, {} allowed: {every} of the f32 in {range}, {} values",
                        line.found, line.allowed, line.values
                    ),
                );
            }
        }
        let mut text = table.finish();

        text += "\nLargest error in ULP, by classes\n\n";
        let mut classes: Vec<usize> = self.rows.iter().filter_map(|line| line.classes).collect();
        classes.sort_unstable();
        classes.dedup();
        let columns = classes.iter().map(ToString::to_string).collect::<Vec<_>>();
        self.grid(&mut text, &columns, |line, at| {
            line.classes == Some(classes[at])
        });
        text += "\nand by kind of row\n\n";
        let kinds = Kind::ALL.map(|kind| kind.name().to_owned());
        self.grid(&mut text, &kinds, |line, at| {
            line.kind == Some(Kind::ALL[at].name())
        });

        let mut table = Table::default();
        for promise in Promise::SUMS {
            table.line(
                promise.name(),
                format!(
                    "{:.1e} at most, {:e} allowed",
                    self.worst(|line| line.promise == promise),
                    promise.allowed()
                ),
            );
        }
        let differ =
            |compared: &Compared| format!("{} of {} rows", compared.differing, compared.rows);
        table.line(
            "other kernel",
            format!("{} get other bits, 0 allowed", differ(&self.kernels)),
        );
        table.line(
            "other batch",
            format!("{} get other bits, 0 allowed", differ(&self.batches)),
        );
        table.line(
            "other run",
            format!(
                "{} different results of {} runs, 1 allowed",
                self.runs.hashes, self.runs.runs
            ),
        );
        table.line("time", duration(self.seconds));
        text += "\n";
        text += &table.finish();
        text += "\n";
        text += &self.in_words();
        text
    }

    /// A line for each output of each dtype, a column for each thing that a line may be about.
    fn grid(&self, text: &mut String, columns: &[String], is: impl Fn(&Line, usize) -> bool) {
        let width = |at: usize| columns[at].len().max(5);
        let _ = write!(text, "{:4}  {:8}  allowed", "", "");
        for (at, column) in columns.iter().enumerate() {
            let _ = write!(text, "  {column:>0$}", width(at));
        }
        for dtype in Dtype::ALL {
            for (i, promise) in Promise::OUTPUTS.into_iter().enumerate() {
                let dtype_once = if i == 0 { dtype.name() } else { "" };
                let (name, allowed) = (promise.name(), promise.allowed());
                let _ = write!(text, "\n{dtype_once:4}  {name:8}  {allowed:7}");
                for at in 0..columns.len() {
                    let found = self.worst(|line| {
                        line.promise == promise && line.dtype == dtype.name() && is(line, at)
                    });
                    let _ = write!(text, "  {found:>0$.2}", width(at));
                }
            }
        }
        text.push('\n');
    }

    /// The verdict, with what speaks against it.
    fn in_words(&self) -> String {
        /// Lines of a table that nobody wants to read in full.
        const MOST: usize = 10;
        let mut text = String::new();
        let mut broken: Vec<&Line> = self.rows.iter().filter(|line| !line.is_kept()).collect();
        broken.sort_by(|a, b| (b.found / b.allowed).total_cmp(&(a.found / a.allowed)));
        for line in broken.iter().take(MOST) {
            let of = match (line.classes, line.kind) {
                (Some(classes), Some(kind)) => {
                    format!(", {}, {classes} classes, {kind}", line.dtype)
                }
                _ => String::new(),
            };
            let (name, found, place) = (line.name, line.found, &line.r#where);
            let _ = writeln!(
                text,
                "{name}{of}: {found:.3e}, {:e} allowed: {place}",
                line.allowed
            );
        }
        if broken.len() > MOST {
            let more = broken.len() - MOST;
            let _ = writeln!(text, "and {more} more, which --json lists");
        }
        for compared in [&self.kernels, &self.batches] {
            if let Some(first) = &compared.first {
                let _ = writeln!(text, "other bits: {first}");
            }
        }
        text += match self.verdict {
            "kept" => "All is as promised.\n",
            "reduced" => {
                "Accuracy is reduced: this driver rearranges floating-point sums. Results are of use, but may \
                 be off by more\nthan is promised.\n"
            }
            _ => "NOT all is as promised on this adapter.\n",
        };
        text
    }
}

/// Five digits, of which JSON has no infinite ones.
fn digits_or_name<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    match format!("{value:.4e}").parse::<f64>() {
        Ok(short) if short.is_finite() => serializer.serialize_f64(short),
        _ => serializer.serialize_str("Infinity"),
    }
}
