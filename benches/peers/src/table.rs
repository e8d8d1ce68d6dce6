//! Results as lines, as CSV, and as a table of ratios.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::child::Peer;
use crate::locked_version;

/// One read of the logits and one write of their gradient.
const BYTES_PER_LOGIT: f64 = 8.0;
/// Contestants that have columns in the CSV, whoever takes part.
const NAMES: [&str; 3] = ["softxent", "burn", "torch"];

pub enum Outcome {
    /// The median and the spread from the first to the last decile, relative to it.
    Seconds {
        median: f64,
        spread: f64,
        /// What is wrong with the results that took so long.
        wrong: Option<String>,
    },
    Failed(String),
}

impl Outcome {
    pub fn of(mut seconds: Vec<f64>, wrong: Option<String>) -> Outcome {
        if seconds.is_empty() {
            return Outcome::Failed("no run".to_owned());
        }
        seconds.sort_by(f64::total_cmp);
        let at = |share: f64| seconds[((seconds.len() - 1) as f64 * share).round() as usize];
        let median = at(0.5);
        Outcome::Seconds {
            median,
            spread: (at(0.9) - at(0.1)) / median,
            wrong,
        }
    }

    fn seconds(&self) -> Option<f64> {
        match self {
            Outcome::Seconds { median, .. } => Some(*median),
            Outcome::Failed(_) => None,
        }
    }
}

pub struct Measured {
    /// What was asked for; rows times classes is at most this, or one row.
    pub elements: usize,
    pub rows: usize,
    pub classes: usize,
    /// In the order of the table's contestants.
    pub outcomes: Vec<Outcome>,
}

impl Measured {
    fn rate(&self, outcome: &Outcome) -> Option<f64> {
        let bytes = BYTES_PER_LOGIT * (self.rows * self.classes) as f64;
        Some(bytes / outcome.seconds()? / 1e9)
    }

    /// How many times as fast as a contestant softxent is.
    fn ratio(&self, contestant: usize) -> Option<f64> {
        Some(self.outcomes.get(contestant)?.seconds()? / self.outcomes[0].seconds()?)
    }
}

pub struct Table {
    adapter: [String; 2],
    cores: usize,
    command: String,
    date: String,
    /// Names and versions, softxent first.
    contestants: Vec<(&'static str, String)>,
    cases: Vec<Measured>,
}

impl Table {
    pub fn new(adapter: [String; 2], cores: usize, peers: &[Peer]) -> Table {
        // Where files are on this machine is nobody's matter.
        let name = |word: String| word.rsplit(['/', '\\']).next().map(str::to_owned);
        let words: Vec<String> = std::env::args().skip(1).filter_map(name).collect();
        let ours = format!("{}{}", locked_version("softxent"), commit());
        let peers = peers.iter().map(|peer| (peer.name, peer.version.clone()));
        Table {
            adapter,
            cores,
            command: format!("cargo run --release -- {}", words.join(" ")),
            date: today(),
            contestants: [("softxent", ours)].into_iter().chain(peers).collect(),
            cases: Vec::new(),
        }
    }

    pub fn push(&mut self, measured: Measured) {
        self.cases.push(measured);
    }

    fn versions(&self) -> String {
        let name_version = |(name, version): &(&str, String)| format!("{name} {version}");
        let all: Vec<_> = self.contestants.iter().map(name_version).collect();
        all.join(", ")
    }

    pub fn heading(&self) -> String {
        let [adapter, driver] = &self.adapter;
        let mut line = format!("{:>9} {:>8}", "rows", "classes");
        for (name, _) in &self.contestants {
            write!(line, " {:>26}", format!("{name}: ms, GB/s, spread")).expect("a string grows");
        }
        let (versions, cores) = (self.versions(), self.cores);
        format!("{adapter}, {driver}, {cores} cores; {versions}\n{line} ratios")
    }

    pub fn line(&self, case: &Measured) -> String {
        let mut line = format!("{:>9} {:>8}", case.rows, case.classes);
        let mut reasons = String::new();
        for (i, outcome) in case.outcomes.iter().enumerate() {
            let cell = match outcome {
                Outcome::Failed(reason) => {
                    let name = self.contestants[i].0;
                    write!(reasons, "\n{:>18} {name} failed: {reason}", "")
                        .expect("a string grows");
                    "failed".to_owned()
                }
                Outcome::Seconds {
                    median,
                    spread,
                    wrong,
                } => {
                    if let Some(reason) = wrong {
                        let name = self.contestants[i].0;
                        write!(reasons, "\n{:>18} {name} is wrong: {reason}", "")
                            .expect("a string grows");
                    }
                    format!(
                        "{:>9.2} {:>7.2} {:>6.0} %",
                        median * 1e3,
                        case.rate(outcome).unwrap_or(f64::NAN),
                        spread * 100.0
                    )
                }
            };
            write!(line, " {cell:>26}").expect("a string grows");
        }
        for contestant in 1..case.outcomes.len() {
            let ratio = case.ratio(contestant).map_or("–".to_owned(), significant);
            write!(line, " {ratio:>5}").expect("a string grows");
        }
        line + &reasons
    }

    pub fn csv(&self) -> String {
        let mut csv = format!("# {}, {}\nadapter,driver,cores", self.date, self.command);
        let columns = |csv: &mut String, names: &[&str], what: &str| {
            for name in names {
                write!(csv, ",{name}_{what}").expect("a string grows");
            }
        };
        columns(&mut csv, &NAMES, "version");
        csv += ",rows,classes,elements";
        columns(&mut csv, &NAMES, "seconds");
        columns(&mut csv, &NAMES, "spread");
        columns(&mut csv, &NAMES, "gb_per_second");
        columns(&mut csv, &NAMES[1..], "is_wrong");
        csv += ",softxent_over_burn,softxent_over_torch\n";
        let place = |name: &str| self.contestants.iter().position(|(of, _)| *of == name);
        for case in &self.cases {
            let each = |cell: &dyn Fn(usize) -> Option<String>, names: &[&str]| {
                let cells = names.iter().map(|name| place(name).and_then(cell));
                let cells: Vec<_> = cells.map(Option::unwrap_or_default).collect();
                cells.join(",")
            };
            let seconds = |i: usize| match &case.outcomes[i] {
                Outcome::Seconds { median, .. } => Some(format!("{median:e}")),
                Outcome::Failed(reason) => Some(quoted(&format!("failed: {reason}"))),
            };
            let spread = |i: usize| match &case.outcomes[i] {
                Outcome::Seconds { spread, .. } => Some(format!("{spread:.3}")),
                Outcome::Failed(_) => None,
            };
            let wrong = |i: usize| match &case.outcomes[i] {
                Outcome::Seconds { wrong, .. } => wrong.as_deref().map(quoted),
                Outcome::Failed(_) => None,
            };
            let rate = |i: usize| Some(format!("{:.4}", case.rate(&case.outcomes[i])?));
            let ratio = |i: usize| Some(format!("{:.3}", case.ratio(i)?));
            let version = |i: usize| Some(quoted(&self.contestants[i].1));
            writeln!(
                csv,
                "{},{},{},{},{},{},{},{},{},{},{},{}",
                quoted(&self.adapter[0]),
                quoted(&self.adapter[1]),
                self.cores,
                each(&version, &NAMES),
                case.rows,
                case.classes,
                case.rows * case.classes,
                each(&seconds, &NAMES),
                each(&spread, &NAMES),
                each(&rate, &NAMES),
                each(&wrong, &NAMES[1..]),
                each(&ratio, &NAMES[1..]),
            )
            .expect("a string grows");
        }
        csv
    }

    /// One line for each number of classes, one column for each size and peer.
    pub fn markdown(&self) -> String {
        let distinct = |of: fn(&Measured) -> usize| {
            let mut values: Vec<usize> = self.cases.iter().map(of).collect();
            values.sort_unstable();
            values.dedup();
            values
        };
        let sizes = distinct(|case| case.elements);
        let contestants = 1..self.contestants.len();
        let columns: Vec<_> = contestants
            .flat_map(|peer| sizes.iter().map(move |&size| (peer, size)))
            .collect();
        let mut text = "| classes |".to_owned();
        for &(peer, size) in &columns {
            let size = match size.is_power_of_two() {
                true => format!("2^{}", size.trailing_zeros()),
                false => size.to_string(),
            };
            let name = self.contestants[peer].0;
            write!(text, " {name}, {size} |").expect("a string grows");
        }
        text += &format!("\n|---|{}\n", "---|".repeat(columns.len()));
        for classes in distinct(|case| case.classes) {
            write!(text, "| {classes} |").expect("a string grows");
            for &(peer, size) in &columns {
                let here = |case: &&Measured| case.classes == classes && case.elements == size;
                let cell = match self.cases.iter().find(here) {
                    None => String::new(),
                    Some(case) => match (case.ratio(peer), &case.outcomes[peer]) {
                        (Some(ratio), Outcome::Seconds { wrong: Some(_), .. }) => {
                            format!("{} ¹", significant(ratio))
                        }
                        (Some(ratio), _) => significant(ratio),
                        (None, Outcome::Failed(reason)) => {
                            format!("failed: {}", reason.replace('|', "\\|"))
                        }
                        (None, _) => "–".to_owned(),
                    },
                };
                write!(text, " {cell} |").expect("a string grows");
            }
            text += "\n";
        }
        text += "\n";
        for (peer, (name, _)) in self.contestants.iter().enumerate().skip(1) {
            let ratios: Vec<f64> = self
                .cases
                .iter()
                .filter_map(|case| case.ratio(peer))
                .collect();
            if ratios.is_empty() {
                continue;
            }
            let count = ratios.len();
            let mean = ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / count as f64;
            let faster = ratios.iter().filter(|&&ratio| ratio >= 1.0).count();
            let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
            let [mean, least] = [mean.exp(), least].map(significant);
            writeln!(
                text,
                "Times as fast as {name}: {mean} (geometric mean), {least} at least; \
                 1 or more at {faster} of {count} shapes.  "
            )
            .expect("a string grows");
        }
        let [adapter, driver] = &self.adapter;
        let (versions, cores) = (self.versions(), self.cores);
        writeln!(
            text,
            "\n<sub>Loss and gradient of f32 logits, classes by logits of a batch. {versions}; {adapter}, \
             {driver}, {cores} cores, {}, `{}`.</sub>",
            self.date, self.command
        )
        .expect("a string grows");
        text
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// Two digits, or all before the point.
fn significant(value: f64) -> String {
    let places = (1.0 - value.abs().log10().floor()).max(0.0) as usize;
    format!("{value:.places$}")
}

/// Which sources softxent was built from, where git knows.
fn commit() -> String {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--exclude=*"]);
    git.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
    let output = git.output().ok().filter(|output| output.status.success());
    let commit = output.and_then(|output| String::from_utf8(output.stdout).ok());
    commit.map_or(String::new(), |commit| format!(" ({})", commit.trim()))
}

/// The date in UTC, after Howard Hinnant's `civil_from_days`.
fn today() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let days = since.map_or(0, |since| since.as_secs() / 86_400) + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}
