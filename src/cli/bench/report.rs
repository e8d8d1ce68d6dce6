//! What was measured: lines for a person, JSON, CSV, Markdown.

use std::fmt::Write;

use serde::Serialize;
use softxent::Strategy;

use super::cases::{Case, LabelsOf};
use super::gpu::Gpu;
use super::overhead::{ColdStart, Recording};
use super::timing::Timing;
use super::yardstick::Yardstick;
use crate::cli::device::{accuracy_name, describe, driver, is_software};
use crate::cli::origin::{VERSION, command, commit, machine, today};
use crate::cli::report::{Table, duration};

/// Its serialized fields are the JSON object.
#[derive(Serialize)]
pub struct Report {
    pub adapter: String,
    pub driver: String,
    backend: &'static str,
    software: bool,
    accuracy: &'static str,
    machine: String,
    pub version: &'static str,
    pub date: String,
    commit: String,
    command: String,
    clock: &'static str,
    subgroup: Option<u32>,
    /// See [`workers`](super::workers).
    pinned_threads: usize,
    cold_start: Option<ColdStart>,
    recording: Option<Recording>,
    pub cases: Vec<Line>,
    #[serde(skip)]
    pub adapter_in_words: String,
}

/// A case in one kernel.
#[derive(Serialize)]
pub struct Line {
    op: &'static str,
    dtype: &'static str,
    labels: Option<&'static str>,
    options: &'static str,
    pub rows: usize,
    pub classes: usize,
    kernel: Option<&'static str>,
    pub chosen: bool,
    bytes: u64,
    verified: bool,
    verified_with: Option<&'static str>,
    seconds: Option<f64>,
    spread: Option<f64>,
    runs: Option<usize>,
    gigabytes_per_second: Option<f64>,
    yardstick: Option<&'static str>,
    yardstick_bytes_per_second: Option<f64>,
    pub share: Option<f64>,
    pub skipped: Option<String>,
    pub wrong: Option<String>,
    #[serde(skip)]
    pub case: Case,
}

/// What came of it.
pub enum Outcome {
    /// With its verification's other kernel.
    Verified(Option<Strategy>),
    Timed(Option<Strategy>, Timing, Yardstick, f64),
    Skipped(String),
    Wrong(String),
}

impl Line {
    pub fn new(case: &Case, kernel: Option<Strategy>, chosen: bool, outcome: Outcome) -> Line {
        let mut line = Line {
            op: case.op.name(),
            dtype: case.dtype.name(),
            labels: case.labels.map(LabelsOf::name),
            options: case.options.name(),
            rows: case.rows,
            classes: case.classes,
            kernel: kernel.map(Strategy::name),
            chosen,
            bytes: case.bytes(),
            verified: false,
            verified_with: None,
            seconds: None,
            spread: None,
            runs: None,
            gigabytes_per_second: None,
            yardstick: None,
            yardstick_bytes_per_second: None,
            share: None,
            skipped: None,
            wrong: None,
            case: *case,
        };
        match outcome {
            Outcome::Skipped(why) => line.skipped = Some(why),
            Outcome::Wrong(why) => line.wrong = Some(why),
            Outcome::Verified(with) => {
                line.verified = true;
                line.verified_with = with.map(Strategy::name);
            }
            Outcome::Timed(with, timing, yardstick, ceiling) => {
                let rate = line.bytes as f64 / timing.seconds;
                line.verified = true;
                line.verified_with = with.map(Strategy::name);
                line.seconds = Some(timing.seconds);
                line.spread = timing.spread;
                line.runs = Some(timing.runs);
                line.gigabytes_per_second = Some(rate / 1e9);
                line.yardstick = Some(yardstick.name());
                line.yardstick_bytes_per_second = Some(ceiling);
                line.share = Some(rate / ceiling);
            }
        }
        line
    }

    /// What it is called in messages.
    pub fn name(&self) -> String {
        let kernel = self.kernel.map(|kernel| format!(", {kernel}"));
        self.case.name() + &kernel.unwrap_or_default()
    }

    /// The columns of a person's table; what is no number is in the last.
    fn columns(&self) -> [String; 9] {
        let none = String::new;
        [
            self.case.job(),
            self.dtype.to_owned(),
            self.rows.to_string(),
            self.classes.to_string(),
            self.kernel.unwrap_or_default().to_owned(),
            self.seconds.map_or_else(none, duration),
            self.spread.map_or_else(none, percent),
            self.gigabytes_per_second.map_or_else(none, three_digits),
            self.share.map_or_else(none, percent),
        ]
    }

    /// What there is to say where there is no time.
    fn remark(&self) -> Option<String> {
        match (&self.wrong, &self.skipped, self.verified_with) {
            (Some(why), ..) => Some(format!("WRONG: {why}")),
            (_, Some(why), _) => Some(format!("skipped: {why}")),
            _ if self.seconds.is_some() => None,
            (.., Some(other)) => Some(format!("verified, same bits as {other}")),
            _ => Some("verified; no other kernel takes it".to_owned()),
        }
    }

    /// One line of the table.
    pub fn text(&self, mark_chosen: bool) -> String {
        let columns = self.columns();
        let mark = match (mark_chosen && self.chosen, self.remark()) {
            (_, Some(remark)) => return format!("{}  {remark}\n", aligned(&columns[..5])),
            (true, None) => "  planned",
            (false, None) => "",
        };
        format!("{}{mark}\n", aligned(&columns))
    }
}

const NAMES: [&str; 9] = [
    "op", "dtype", "rows", "classes", "kernel", "time", "spread", "GB/s", "share",
];

/// The names of the columns.
pub fn header() -> String {
    aligned(&NAMES.map(str::to_owned)) + "\n"
}

/// Words to the left, numbers to the right.
fn aligned(columns: &[String]) -> String {
    const WIDTHS: [usize; 9] = [19, 5, 9, 8, 18, 8, 6, 7, 6];
    let mut text = String::new();
    for (at, (column, width)) in columns.iter().zip(WIDTHS).enumerate() {
        if at > 0 {
            text += "  ";
        }
        // A formatter counts characters, of which µ is one.
        let _ = match at {
            0 | 1 | 4 => write!(text, "{column:width$}"),
            _ => write!(text, "{column:>width$}"),
        };
    }
    text
}

fn percent(share: f64) -> String {
    let decimals = usize::from(share < 0.0995);
    format!("{:.decimals$} %", 100.0 * share)
}

fn three_digits(value: f64) -> String {
    let decimals = match value {
        v if v < 0.1 => 4,
        v if v < 1.0 => 3,
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

impl Report {
    pub fn new(
        gpu: &Gpu,
        overhead: Option<(ColdStart, Recording)>,
        pinned_threads: usize,
    ) -> Report {
        let info = gpu.engine.adapter_info();
        Report {
            adapter: info.name.clone(),
            driver: driver(info),
            backend: info.backend.to_str(),
            software: is_software(info),
            accuracy: accuracy_name(gpu.accuracy),
            machine: machine(),
            version: VERSION,
            date: today(),
            commit: commit(),
            command: command(),
            clock: gpu.clock.name(),
            subgroup: gpu.engine.profile().subgroup,
            pinned_threads,
            cold_start: overhead.map(|(cold_start, _)| cold_start),
            recording: overhead.map(|(_, recording)| recording),
            cases: Vec::new(),
            adapter_in_words: describe(info),
        }
    }

    /// What is said before the table.
    pub fn preamble(&self) -> String {
        let mut table = Table::default();
        table.line("adapter", &self.adapter_in_words);
        table.line("driver", &self.driver);
        let subgroup = match self.subgroup {
            Some(size) => format!("of {size}"),
            None => "not used".to_owned(),
        };
        table.line("subgroups", subgroup);
        if self.pinned_threads > 0 {
            table.line("threads", self.threads());
        }
        if let (Some(cold), Some(recording)) = (&self.cold_start, &self.recording) {
            table.line("clock", self.clock_in_words());
            table.line("cold start", cold_in_words(cold));
            table.line("recording", recording_in_words(recording));
        }
        table.finish()
    }

    fn threads(&self) -> String {
        format!(
            "{} of the driver, each on a core of its own",
            self.pinned_threads
        )
    }

    fn clock_in_words(&self) -> &'static str {
        match self.clock {
            "gpu" => "the device's",
            _ => "the host's: the device has none that can be read",
        }
    }

    /// What is said after it.
    pub fn summary(&self) -> String {
        let count = |is: &dyn Fn(&Line) -> bool| self.cases.iter().filter(|line| is(line)).count();
        let verified = count(&|line| line.verified);
        let alone = count(&|line| line.verified && line.verified_with.is_none());
        let mut text = format!("{verified} of {} cases verified", self.cases.len());
        if alone > 0 {
            let _ = write!(text, ", {alone} without another kernel");
        }
        let skipped = count(&|line| line.skipped.is_some());
        if skipped > 0 {
            let _ = write!(text, ", {skipped} skipped");
        }
        text.push('\n');
        if count(&|line| line.share.is_some()) > 0 {
            let _ = writeln!(text, "{CEILING}\n{}", self.yardsticks());
        }
        text
    }

    /// The rates of the yardsticks.
    fn yardsticks(&self) -> String {
        let of = |yardstick: Yardstick| {
            let lines = self.cases.iter();
            let lines = lines.filter(|line| line.yardstick == Some(yardstick.name()));
            let rates = lines.filter_map(|line| line.yardstick_bytes_per_second);
            let rates: Vec<f64> = rates.map(|rate| rate / 1e9).collect();
            let (least, most) = (
                rates.iter().copied().reduce(f64::min)?,
                rates.iter().copied().reduce(f64::max)?,
            );
            let (name, least, most) = (yardstick.name(), three_digits(least), three_digits(most));
            Some(match least == most {
                true => format!("{name} {least} GB/s"),
                false => format!("{name} {least} to {most} GB/s"),
            })
        };
        let all = [Yardstick::Copy, Yardstick::Read]
            .into_iter()
            .filter_map(of);
        all.collect::<Vec<_>>().join(", ")
    }

    /// What is wrong, for the end.
    pub fn failure(&self) -> Option<String> {
        let wrong = |line: &Line| Some(format!("{}: {}", line.name(), line.wrong.as_ref()?));
        let wrong: Vec<String> = self.cases.iter().filter_map(wrong).collect();
        match wrong.len() {
            0 => None,
            1 => Some(format!("1 case is wrong: {}", wrong.concat())),
            count => Some(format!(
                "{count} cases are wrong:\n  {}",
                wrong.join("\n  ")
            )),
        }
    }

    pub fn csv(&self) -> String {
        let subgroup = match self.subgroup {
            Some(size) => format!("subgroups of {size}"),
            None => "no subgroups".to_owned(),
        };
        let mut text = format!(
            "# {}\n# {}, softxent {}, commit {}, {}, {}, {}, {subgroup}\n",
            one_line(&self.command),
            self.date,
            self.version,
            self.commit,
            one_line(&self.adapter),
            one_line(&self.driver),
            self.machine,
        );
        if let (Some(cold), Some(recording)) = (&self.cold_start, &self.recording) {
            let (cold, recording) = (cold_in_words(cold), recording_in_words(recording));
            let _ = writeln!(text, "# cold start: {cold}; recording: {recording}");
        }
        if self.pinned_threads > 0 {
            let _ = writeln!(text, "# threads: {}", self.threads());
        }
        text += "adapter,driver,rows,classes,op,dtype,labels,options,kernel,chosen,seconds,spread,runs,clock,bytes,\
                 gigabytes_per_second,yardstick_bytes_per_second,share\n";
        for line in &self.cases {
            let Some(seconds) = line.seconds else {
                let remark = line.remark().unwrap_or_default();
                let _ = writeln!(text, "# {}: {}", line.name(), one_line(&remark));
                continue;
            };
            let number = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.5}"));
            let _ = writeln!(
                text,
                "{},{},{},{},{},{},{},{},{},{},{seconds:.6e},{},{},{},{},{},{:.6e},{}",
                quoted(&self.adapter),
                quoted(&self.driver),
                line.rows,
                line.classes,
                line.op,
                line.dtype,
                line.labels.unwrap_or("none"),
                line.options,
                line.kernel.unwrap_or_default(),
                line.chosen,
                number(line.spread),
                line.runs.unwrap_or(0),
                self.clock,
                line.bytes,
                number(line.gigabytes_per_second),
                line.yardstick_bytes_per_second.unwrap_or(f64::NAN),
                number(line.share),
            );
        }
        text
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("| {} |\n", NAMES.join(" | "));
        text += "|---|---|--:|--:|---|--:|--:|--:|--:|\n";
        for line in &self.cases {
            let mut columns = line.columns();
            if let Some(remark) = line.remark() {
                columns[5] = remark;
            }
            let columns = columns.map(|column| one_line(&column).replace('|', "\\|"));
            let _ = writeln!(text, "| {} |", columns.join(" | "));
        }
        let _ = write!(
            text,
            "\n<sub>{}, {}, {}, softxent {} (commit {}), {}, {} clock, `{}`. {CEILING}</sub>\n",
            one_line(&self.adapter),
            one_line(&self.driver),
            self.machine,
            self.version,
            self.commit,
            self.date,
            self.clock,
            one_line(&self.command),
        );
        text
    }
}

/// What shares are shares of.
pub const CEILING: &str = "Shares are of the rate of a copy between buffers of the same size, for loss \
                           alone of a read of them, in the same run.";

fn cold_in_words(cold: &ColdStart) -> String {
    format!(
        "{} to open the device and test it, then {} to the first result",
        duration(cold.engine_seconds),
        duration(cold.first_result_seconds)
    )
}

fn recording_in_words(recording: &Recording) -> String {
    format!(
        "{} of the host for a step in an encoder of its own, {} for one of many",
        duration(recording.alone_seconds),
        duration(recording.one_of_many_seconds)
    )
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", one_line(text).replace('"', "\"\""))
}
