//! What can be typed after `softxent bench`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::TypedValueParser;
use clap::{Args, ValueEnum};
use softxent::plan::Tuning;
use softxent::{AdapterChoice, Dtype, MOST_CLASSES, Strategy};

use super::cases::{Kernel, LabelsOf, Op, Preset, With};
use crate::cli::args::adapter;

pub const BENCH_EXAMPLES: &str = "\
Example: softxent bench --preset vocab --csv bench.csv --svg bench.svg. More with --help.";

pub const BENCH_HELP: &str = "\
Examples:
  A minute's look at the best adapter:
    softxent bench
  Large vocabularies, with files for a spreadsheet, a page and a drawing:
    softxent bench --preset vocab --csv bench.csv --md bench.md --svg bench.svg
  One shape, every kernel:
    softxent bench --rows 4096 --classes 1000 --op loss-grad --kernel all
  What options cost:
    softxent bench --classes 1024 --op loss-grad --options plain,scale,softcap,smoothing,z-loss,weights,all

Presets, of which --op, --dtype, --labels, --options, --rows and --classes replace one axis each:
  quick   loss-grad from 2 to 262144 classes, loss and softmax at three of them; f32
  small   softmax, loss and loss-grad from 2 to 100 classes; f32 and bf16
  vocab   loss and loss-grad from 32000 to 262144 classes, also for few rows; f32 and bf16
  full    every op and dtype from 2 to 262144 classes, few rows, dense labels

Ops: softmax; loss, a mean; loss-grad, the mean and its gradient; softmax-backward, p·(v − <p, v>). In f16 and \
bf16 softmax and gradients are stored alike; dense labels and vectors v are f32.

Options, at values that are usual in training: scale 0.7, softcap 30, smoothing 0.1, z-loss 1e-4, class weights \
from 0.5 to 1.5, or all of these; an op is left out where it cannot have them.

Before a case is timed its results are verified, without the f64 reference of `softxent check`: no row is \
NaN and every row counts; another kernel, where the device has one for the shape, gives the same bits; the \
loss, and the sum of each row of softmax or gradient, are those of the plain formulas in f64, which lose nothing \
on logits as harmless as these, N(0, 1), as near as the promised accuracy of each value and its rounding imply. \
What fails is printed, and the exit code is 1.

Times are of the device's clock where it can be read, else of the host's, which is said. One job is timed at \
a time, all its passes together, in up to 64 sets of buffers that take turns, so that the cache of one run \
does not serve the next (it still may where a case is below a few megabytes), until the median is known to 1 \
% (95 % confidence) or --max-time is over. The spread is from the first to the last decile, as a share of \
the median. GB/s counts the bytes that no kernel can do without: each matrix once, and 16 bytes a row. Their \
rate is given as a share of that of a copy between buffers of the same size, or, for loss alone, of a shader \
that only reads.

Columns of --csv: adapter, driver, rows, classes, op, dtype, labels, options, kernel, chosen (by the planner), \
seconds, spread, runs, clock, bytes, gigabytes_per_second, yardstick_bytes_per_second, share. What does not fit \
the device is a comment there. --json has the same, what it takes to open the device (cold_start) and to record a step \
(recording), and for each case what it was verified with, or why it was skipped or is wrong.

Exit codes: 0 done, 1 a case is wrong or could not be measured, 2 wrong usage.";

const AXES: &str = "Cases";
const REPORT: &str = "Report";

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Which cases
    #[arg(long, value_enum, default_value_t, help_heading = AXES)]
    pub preset: Preset,
    /// What is computed
    #[arg(long, value_enum, value_delimiter = ',', value_name = "OP,…", help_heading = AXES)]
    pub op: Vec<Op>,
    /// How logits are stored
    #[arg(long, value_delimiter = ',', value_name = "f32,f16,bf16", value_parser = dtype, help_heading = AXES)]
    pub dtype: Vec<Dtype>,
    /// What the labels of a loss are
    #[arg(long, value_enum, value_delimiter = ',', value_name = "index,dense", help_heading = AXES)]
    pub labels: Vec<LabelsOf>,
    /// Which options are on
    #[arg(long, value_enum, value_delimiter = ',', value_name = "plain,scale,…", help_heading = AXES)]
    pub options: Vec<With>,
    /// Rows, instead of as many as --megabytes hold
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "N,…",
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = AXES
    )]
    pub rows: Vec<u32>,
    /// Classes
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "K,…",
        value_parser = clap::value_parser!(u32).range(1..=MOST_CLASSES as i64),
        help_heading = AXES
    )]
    pub classes: Vec<u32>,
    /// Logits of a case without --rows, in MiB [default: 256, on a software driver 8, with --check 1]
    #[arg(
        long,
        value_name = "MIB",
        value_parser = clap::value_parser!(u32).range(1..=1 << 20),
        help_heading = AXES
    )]
    pub megabytes: Option<u32>,
    /// `planned` is the kernel that a run would take; or `all`, or names
    #[arg(long, value_delimiter = ',', value_name = "planned|all|NAME,…", value_parser = kernel, help_heading = AXES)]
    pub kernel: Vec<Kernel>,
    /// Kernels that exchange values through workgroup memory
    #[arg(long, help_heading = AXES)]
    pub no_subgroups: bool,
    /// Values of the planner's in place of those of the device's kind, such as vectors=no,narrow=32
    #[arg(long, value_delimiter = ',', value_name = "NAME=VALUE,…", value_parser = planned, help_heading = AXES)]
    pub plan: Vec<Planned>,
    /// Shaders with the bounds checks and loop counters that are proven needless
    #[arg(long, help_heading = AXES)]
    pub shader_checks: bool,

    /// `auto` and `gpu` take the best adapter, and no software driver; or the index or a part of the
    /// name of an adapter that `softxent info` lists
    #[arg(
        long,
        value_name = "auto|gpu|INDEX|NAME",
        default_value = "auto",
        value_parser = clap::builder::NonEmptyStringValueParser::new()
            .try_map(|text| adapter(&text, "bench is about an adapter; `cpu` is the reference, which nobody waits for"))
    )]
    pub device: AdapterChoice,
    /// Seconds that a case is timed, at least
    #[arg(long, value_name = "S", default_value = "0.1", value_parser = seconds)]
    pub min_time: Duration,
    /// Seconds that a case is timed, at most, if its median does not settle before
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    pub max_time: Duration,
    /// Print what each case would run, and time nothing
    #[arg(long, conflicts_with_all = ["check", "json", "csv", "md", "svg"])]
    pub explain: bool,
    /// Verify every kernel on small cases, and time nothing
    #[arg(long, conflicts_with_all = ["preset", "csv", "md", "svg"])]
    pub check: bool,

    /// One JSON object, without FILE or with - instead of the table
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-", help_heading = REPORT)]
    pub json: Option<PathBuf>,
    /// A line a case with commas between, a comment with # before; - is standard output, here and below
    #[arg(long, value_name = "FILE", help_heading = REPORT)]
    pub csv: Option<PathBuf>,
    /// A Markdown table
    #[arg(long, value_name = "FILE", help_heading = REPORT)]
    pub md: Option<PathBuf>,
    /// A drawing: the share of the yardstick over the number of classes
    #[arg(long, value_name = "FILE", help_heading = REPORT)]
    pub svg: Option<PathBuf>,
}

/// A value of the planner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    name: &'static str,
    value: usize,
}

type Put = fn(&mut Tuning, usize);

/// Numbers, sizes of workgroups with the least of them, and answers; see [`Tuning`].
const NUMBERS: [(&str, Put); 8] = [
    ("narrow", |tuning, value| tuning.narrow = value),
    ("many", |tuning, value| tuning.many = value),
    ("subgroup", |tuning, value| tuning.subgroup = value),
    ("split_classes", |tuning, value| {
        tuning.split_classes = value
    }),
    ("split_rows", |tuning, value| tuning.split_rows = value),
    ("alone", |tuning, value| tuning.alone = value),
    ("spans", |tuning, value| tuning.spans = value),
    ("parts", |tuning, value| tuning.parts = value),
];
const SIZES: [(&str, usize, Put); 3] = [
    ("workgroup", 8, |tuning, size| {
        tuning.workgroup = size as u32
    }),
    ("row_workgroup", 8, |tuning, size| {
        tuning.row_workgroup = size as u32
    }),
    ("span_workgroup", 1, |tuning, size| {
        tuning.span_workgroup = size as u32
    }),
];
const ANSWERS: [(&str, Put); 2] = [
    ("vectors", |tuning, value| tuning.vectors = value != 0),
    ("keeps", |tuning, value| tuning.keeps = value != 0),
];

fn values() -> impl Iterator<Item = (&'static str, Put)> {
    let sizes = SIZES.map(|(name, _, put)| (name, put));
    NUMBERS.into_iter().chain(sizes).chain(ANSWERS)
}

impl Planned {
    /// Puts the value in its place.
    pub fn put(self, tuning: &mut Tuning) {
        for (name, put) in values() {
            if name == self.name {
                put(tuning, self.value);
            }
        }
    }
}

fn planned(text: &str) -> Result<Planned, String> {
    let (given, value) = text.split_once('=').ok_or("NAME=VALUE is asked for")?;
    let Some((name, _)) = values().find(|&(name, _)| name == given) else {
        let names: Vec<&str> = values().map(|(name, _)| name).collect();
        return Err(format!("there is: {}", names.join(", ")));
    };
    let number = value.parse::<usize>();
    let value = if ANSWERS.iter().any(|&(of, _)| of == name) {
        match value {
            "yes" => 1,
            "no" => 0,
            _ => return Err(format!("{name} is yes or no")),
        }
    } else if let Some((_, least, _)) = SIZES.iter().find(|(of, ..)| *of == name) {
        let fits = |size: &usize| size.is_power_of_two() && (*least..=1024).contains(size);
        let size = number.ok().filter(fits);
        size.ok_or_else(|| format!("{name} is a power of two from {least} to 1024"))?
    } else {
        number.map_err(|error| error.to_string())?
    };
    Ok(Planned { name, value })
}

impl BenchArgs {
    /// The files that are asked for.
    pub fn files(&self) -> impl Iterator<Item = (Format, &Path)> {
        let files = [
            (Format::Json, &self.json),
            (Format::Csv, &self.csv),
            (Format::Markdown, &self.md),
            (Format::Svg, &self.svg),
        ];
        let given =
            |(format, path): (Format, &'_ Option<PathBuf>)| path.is_some().then_some(format);
        let formats: Vec<Format> = files.into_iter().filter_map(given).collect();
        formats
            .into_iter()
            .filter_map(|format| Some((format, self.file(format)?)))
    }

    fn file(&self, format: Format) -> Option<&Path> {
        match format {
            Format::Json => self.json.as_deref(),
            Format::Csv => self.csv.as_deref(),
            Format::Markdown => self.md.as_deref(),
            Format::Svg => self.svg.as_deref(),
        }
    }

    /// What is wrong with the arguments together, where one alone is fine.
    pub fn conflict(&self) -> Option<String> {
        let printed: Vec<&str> = self
            .files()
            .filter(|(_, path)| is_standard_output(path))
            .map(|(format, _)| format.flag())
            .collect();
        if let [one, other, ..] = printed[..] {
            return Some(format!(
                "{one} and {other} both go to standard output: give one of them a file"
            ));
        }
        (self.min_time > self.max_time).then(|| {
            let (min, max) = (self.min_time.as_secs_f64(), self.max_time.as_secs_f64());
            format!("--min-time {min} is more than --max-time {max}")
        })
    }
}

/// A file that results are written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Csv,
    Markdown,
    Svg,
}

impl Format {
    fn flag(self) -> &'static str {
        match self {
            Format::Json => "--json",
            Format::Csv => "--csv",
            Format::Markdown => "--md",
            Format::Svg => "--svg",
        }
    }
}

pub fn is_standard_output(path: &Path) -> bool {
    path == Path::new("-")
}

fn dtype(text: &str) -> Result<Dtype, String> {
    let found = Dtype::ALL.into_iter().find(|dtype| dtype.name() == text);
    found.ok_or_else(|| "there is: f32, f16, bf16".to_owned())
}

fn kernel(text: &str) -> Result<Kernel, String> {
    let names = Strategy::ALL.map(Strategy::name);
    match text {
        "planned" => Ok(Kernel::Planned),
        "all" => Ok(Kernel::All),
        name => Strategy::ALL
            .into_iter()
            .find(|strategy| strategy.name() == name)
            .map(Kernel::One)
            .ok_or_else(|| format!("there is: planned, all, {}", names.join(", "))),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("a number of seconds from 0 to 3600".to_owned()),
    }
}

impl ValueEnum for Preset {
    fn value_variants<'a>() -> &'a [Self] {
        &[Preset::Quick, Preset::Small, Preset::Vocab, Preset::Full]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.name()))
    }
}
