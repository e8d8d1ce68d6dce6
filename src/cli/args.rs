//! What can be typed.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use softxent::{AdapterChoice, EmptyMean, Reduction, Wanted};

use super::array::{Format, Location};
use super::bench::args::{BENCH_EXAMPLES, BENCH_HELP, BenchArgs};
use super::safetensors;

/// Softmax, cross-entropy and its gradient on any GPU.
#[derive(Debug, Parser)]
#[command(name = "softxent", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Loss, gradient and accuracy of a real data set inside this program
    Demo(DemoArgs),
    /// Loss, gradient, softmax and more of your own .npy and .safetensors files
    #[command(after_help = EXAMPLES, after_long_help = LONG_EXAMPLES)]
    Run(Box<RunArgs>),
    /// The adapters of this system and whether they compute correctly
    Info(InfoArgs),
    /// Measures on an adapter what is promised of accuracy and reproducibility
    #[command(after_long_help = CHECK_HELP)]
    Check(CheckArgs),
    /// Times the kernels on an adapter, beside what its memory can do
    #[command(after_help = BENCH_EXAMPLES, after_long_help = BENCH_HELP)]
    Bench(Box<BenchArgs>),
}

impl Command {
    /// What is typed for it.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Demo(_) => "demo",
            Command::Run(_) => "run",
            Command::Info(_) => "info",
            Command::Check(_) => "check",
            Command::Bench(_) => "bench",
        }
    }
}

const EXAMPLES: &str = "\
Example: softxent run logits.npy labels.npy --grad grad.npy
Files from Python: numpy.save('logits.npy', logits.astype('float32')). More with --help.";

const LONG_EXAMPLES: &str = "\
Examples:
  The mean loss, the accuracy and the gradient of the mean loss:
    softxent run logits.npy labels.npy --grad grad.npy
  The loss of each row:
    softxent run logits.npy labels.npy --reduction none --loss loss.npy
  Softmax, which needs no labels:
    softxent run logits.npy --softmax p.npy
  The classes on another axis than the last, such as [N, K, height, width]:
    softxent run images.npy --axis 1 --softmax p.npy
  Tensors of one file in, tensors of one file out, in the logits' float16 or bfloat16:
    softxent run batch.safetensors:logits batch.safetensors:labels --dtype-out same \\
      --grad out.safetensors --softmax out.safetensors:p

Files from Python:
    numpy.save('logits.npy', logits.astype('float32'))
    numpy.save('labels.npy', labels.astype('int64'))
    safetensors.torch.save_file({'logits': logits, 'labels': labels}, 'batch.safetensors')

Floats are float16, bfloat16 (.safetensors only), float32, or float64, which is rounded to float32. An \
output in a .safetensors file replaces the file, and so do all that name it, together; a tensor without \
a name is called as its flag, with _ for -. `mean` divides by the rows that are not ignored, with \
--class-weights and class indices by the weights of those, or by --denominator. Rows are counted from 0, \
as in labels.ravel().

A row whose logits hold a NaN, +inf or nothing but -inf comes out NaN, with a warning; with --strict \
that is an error.

Outputs are replaced only once all of them are computed and on the disk, one right after the other: \
until then an error leaves every file as it was before.

The keys of --json: loss and z_loss (a number, \"NaN\", \"Infinity\", \"-Infinity\" or null), rows, \
valid_rows (not ignored), bad_rows (NaN), classes, axis, dtype, correct, denominator, device (\"gpu\" or \"cpu\"), adapter, driver, \
software (whether the driver computes on the processor), accuracy (\"full\", or \"reduced\" where the driver \
rearranges floating-point sums), strategy, seconds (setup, upload, waiting \
for the device, download; total with the files), version.

Exit codes: 0 done, 1 failed, 2 wrong usage.";

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Logits, floats [N, K], N rows of K classes: x.npy, or x.safetensors:TENSOR, whose name may be
    /// left out where it is the only one. With more axes the classes are on the one that the shape of
    /// the labels leaves out, or on --axis
    pub logits: PathBuf,
    /// Labels, [N] integers (class indices) or [N, K] floats (label weights). Not needed for
    /// softmax, log-softmax, lse, entropy and predictions
    pub labels: Option<PathBuf>,

    /// How the losses of the rows become one: `mean` divides by the rows that are not ignored
    #[arg(long, value_enum, default_value_t)]
    pub reduction: ReductionArg,
    /// Rows with this label have loss 0, gradient 0 and no part in the mean [default: -100]
    #[arg(long, value_name = "I", allow_negative_numbers = true)]
    pub ignore_index: Option<i64>,
    /// The axis of the classes, from 0, or from the end if negative
    #[arg(long, value_name = "A", allow_negative_numbers = true)]
    pub axis: Option<i64>,
    /// Class weights, [K] floats: labels are multiplied by them, and `mean` divides by the weights of
    /// the class indices
    #[arg(long, value_name = "FILE")]
    pub class_weights: Option<PathBuf>,
    /// E, from 0 to 1: labels become (1 - E)·y + E/K
    #[arg(long, value_name = "E", allow_negative_numbers = true)]
    pub label_smoothing: Option<f32>,
    /// C, 0 or more: adds C·lse² to the loss of each row
    #[arg(long, value_name = "C", allow_negative_numbers = true)]
    pub z_loss: Option<f32>,
    /// S, above 0: the logits are multiplied by it first
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    pub logit_scale: Option<f32>,
    /// C, above 0: the scaled logits become C·tanh(z/C)
    #[arg(long, value_name = "C", allow_negative_numbers = true)]
    pub softcap: Option<f32>,
    /// What `mean` divides by, such as the rows of a larger batch
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub denominator: Option<f32>,
    /// What the mean is where all rows are ignored or weigh nothing [default: nan]
    #[arg(long, value_enum)]
    pub empty_mean: Option<EmptyMeanArg>,
    /// Gradient of what follows the loss: one number, or with `--reduction none` a file of [N]
    /// floats. --grad is multiplied by it, the losses are not
    #[arg(long, value_name = "NUMBER|FILE", allow_negative_numbers = true)]
    pub grad_output: Option<GradOutput>,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Memory for rows on their way through the device, such as 64MiB; a file may be of any size [default:
    /// 64 MiB and up to as much again for each output, more where one row is larger, or a group of
    /// interleaved ones]
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub memory: Option<u64>,

    /// Softmax, [N, K]
    #[arg(long, value_name = "FILE", help_heading = OUTPUTS)]
    pub softmax: Option<PathBuf>,
    /// Log-softmax, [N, K]
    #[arg(long, value_name = "FILE", help_heading = OUTPUTS)]
    pub log_softmax: Option<PathBuf>,
    /// Loss of each row, [N]
    #[arg(long, value_name = "FILE", help_heading = OUTPUTS)]
    pub losses: Option<PathBuf>,
    /// Log of the sum of exponentials of each row, [N]
    #[arg(long, value_name = "FILE", help_heading = OUTPUTS)]
    pub lse: Option<PathBuf>,
    /// The reduced loss, a 0-d array; with `--reduction none` the losses, [N]
    #[arg(long, value_name = "FILE", help_heading = OUTPUTS)]
    pub loss: Option<PathBuf>,
    /// Gradient of the loss with respect to the logits, [N, K]
    #[arg(long, value_name = "FILE", help_heading = OUTPUTS)]
    pub grad: Option<PathBuf>,
    /// First class with the largest logit of each row, -1 for a NaN row, [N] int64
    #[arg(long, value_name = "FILE", help_heading = OUTPUTS)]
    pub predictions: Option<PathBuf>,
    /// Whether the prediction is the class index, [N] bool
    #[arg(long, value_name = "FILE", help_heading = OUTPUTS)]
    pub correct: Option<PathBuf>,
    /// Entropy of softmax of each row, [N]
    #[arg(long, value_name = "FILE", help_heading = OUTPUTS)]
    pub entropy: Option<PathBuf>,
    /// The part of --loss that is due to --z-loss, in the same shape
    #[arg(long, value_name = "FILE", help_heading = OUTPUTS)]
    pub z_loss_out: Option<PathBuf>,
    /// How --softmax, --log-softmax and --grad are stored: `same` is float16 or bfloat16 where the
    /// logits are
    #[arg(long, value_enum, default_value_t, help_heading = OUTPUTS)]
    pub dtype_out: DtypeOutArg,

    /// One JSON object instead of the summary
    #[arg(long, help_heading = REPORT)]
    pub json: bool,
    /// Also print what will run on the device: after the summary, with --json on standard error
    #[arg(long, conflicts_with = "quiet", help_heading = REPORT)]
    pub explain: bool,
    /// No summary, no notes, no warnings
    #[arg(long, help_heading = REPORT)]
    pub quiet: bool,
    /// Fail on a NaN row and write nothing
    #[arg(long, help_heading = REPORT)]
    pub strict: bool,
}

/// Bytes, or kilo-, mega- and gigabytes by thousands (`MB`) or by 1024 (`MiB`, `M`).
fn memory(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..].trim_start().to_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return Err("a number of bytes, or with a unit: KiB, MiB, GiB, kB, MB, GB".into()),
    };
    let number: u64 = digits.parse().map_err(|error| format!("{error}"))?;
    number
        .checked_mul(unit)
        .ok_or_else(|| "more than any memory has".into())
}

const OUTPUTS: &str =
    "Outputs (x.npy or x.safetensors[:TENSOR], float32 where nothing else is said)";
const REPORT: &str = "Report";

impl RunArgs {
    /// The outputs asked for and where they go.
    pub fn outputs(&self) -> Vec<(Wanted, &Path)> {
        Wanted::ALL
            .into_iter()
            .filter_map(|wanted| {
                let path = match wanted {
                    Wanted::Softmax => &self.softmax,
                    Wanted::LogSoftmax => &self.log_softmax,
                    Wanted::Grad => &self.grad,
                    Wanted::Losses => &self.losses,
                    Wanted::Lse => &self.lse,
                    Wanted::Loss => &self.loss,
                    Wanted::Predictions => &self.predictions,
                    Wanted::Correct => &self.correct,
                    Wanted::Entropy => &self.entropy,
                    Wanted::ZLoss => &self.z_loss_out,
                    Wanted::ZLosses => &None,
                };
                Some((wanted, path.as_deref()?))
            })
            .collect()
    }

    /// What is wrong with the arguments together, where one alone is fine.
    pub fn conflict(&self) -> Option<String> {
        self.without_labels()
            .or_else(|| self.without_mean())
            .or_else(|| self.shared_files())
    }

    /// What needs labels, where there are none.
    fn without_labels(&self) -> Option<String> {
        if self.labels.is_some() {
            return None;
        }
        let outputs = self.outputs();
        let options = [
            ("--ignore-index", self.ignore_index.is_some()),
            ("--class-weights", self.class_weights.is_some()),
            ("--label-smoothing", self.label_smoothing.is_some()),
            ("--z-loss", self.z_loss.is_some()),
            ("--denominator", self.denominator.is_some()),
            ("--empty-mean", self.empty_mean.is_some()),
        ];
        let options = options.into_iter().filter(|(_, given)| *given);
        let needing = outputs.iter().filter(|(wanted, _)| wanted.needs_labels());
        let needing = options
            .map(|(option, _)| option.to_owned())
            .chain(needing.map(|(wanted, _)| flag(*wanted)))
            .next();
        match needing {
            Some(flag) => Some(format!(
                "{flag} needs LABELS: softxent run {} LABELS …",
                self.logits.display()
            )),
            None if outputs.is_empty() => Some(
                "nothing is asked for: give LABELS for the loss, or ask for what needs none: \
                 --softmax, --log-softmax, --lse, --entropy, --predictions"
                    .to_owned(),
            ),
            None => None,
        }
    }

    /// Options of an option that is missing.
    fn without_mean(&self) -> Option<String> {
        let (reduction, mean) = (self.reduction, self.reduction == ReductionArg::Mean);
        match &self.grad_output {
            Some(GradOutput::File(path)) if reduction != ReductionArg::None => Some(format!(
                "--grad-output {} is not a number, and a file with one number per row needs \
                 --reduction none",
                path.display()
            )),
            _ if self.denominator.is_some() && !mean => Some(
                "--denominator is what the mean divides by: leave it out, or use --reduction mean"
                    .to_owned(),
            ),
            _ if self.empty_mean.is_some() && !mean => Some(
                "--empty-mean says what a mean is: leave it out, or use --reduction mean".to_owned(),
            ),
            _ if self.z_loss_out.is_some() && self.z_loss.unwrap_or(0.0) == 0.0 => Some(
                "--z-loss-out is what --z-loss adds to the loss: give its factor, such as --z-loss \
                 1e-4, or leave both out"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// Outputs that would replace each other, or inputs that hold more than they do.
    fn shared_files(&self) -> Option<String> {
        let outputs = self.outputs();
        let upstream = match &self.grad_output {
            Some(GradOutput::File(path)) => Some(path),
            _ => None,
        };
        let inputs = [
            Some(&self.logits),
            self.labels.as_ref(),
            self.class_weights.as_ref(),
            upstream,
        ];
        for (at, (wanted, path)) in outputs.iter().enumerate() {
            let (place, target) = (Location::of(path), Location::of(path).target());
            let tensors = place.format == Format::Safetensors;
            let name = |wanted: &Wanted, place: &Location<'_>| {
                let named = place.tensor.map(str::to_owned);
                named.unwrap_or_else(|| wanted.to_string())
            };
            let tensor = name(wanted, &place);
            if tensors && !safetensors::is_name(&tensor) {
                return Some(format!(
                    "{} {} names no tensor: give it a name, such as {}:{wanted}",
                    flag(*wanted),
                    path.display(),
                    place.file.display()
                ));
            }
            let mut inputs = inputs.iter().flatten().map(|input| Location::of(input));
            if tensors && inputs.any(|input| input.target() == target) {
                return Some(format!(
                    "{} {} would replace an input with all its tensors: name another file",
                    flag(*wanted),
                    path.display()
                ));
            }
            for (earlier, other) in outputs.iter().take(at) {
                let other = Location::of(other);
                let both = tensors && other.format == Format::Safetensors;
                if other.target() != target || both && name(earlier, &other) != tensor {
                    continue;
                }
                return Some(format!(
                    "{} and {} name the same {}, {}",
                    flag(*earlier),
                    flag(*wanted),
                    if both { "tensor" } else { "file" },
                    path.display()
                ));
            }
        }
        None
    }
}

/// The flag that asks for an output.
fn flag(wanted: Wanted) -> String {
    match wanted {
        // `--z-loss` is its factor.
        Wanted::ZLoss => "--z-loss-out".to_owned(),
        _ => format!("--{}", wanted.to_string().replace('_', "-")),
    }
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    #[command(flatten)]
    pub device: DeviceArgs,
}

#[derive(Debug, Args)]
pub struct InfoArgs {
    /// One JSON object instead of the table
    #[arg(long)]
    pub json: bool,
}

const CHECK_HELP: &str = "\
Every value of softmax, loss and gradient (index labels) is compared with the reference in f64, for logits \
in f32, f16 and bf16, with the classes of a ladder, and of these kinds:

  normal     N(0, 1)
  wide       N(0, 10)
  offset     N(0, 1) about 1000
  confident  one class above all others by up to 87, mostly the label
  masked     a third of the classes at -inf

One ULP is that of max(|exact|, 2^-126); each of the K terms of a row may be flushed below 2^-126. Each \
job runs in every kernel, in batches of other rows, and ten times, and has to give the same bits.

The keys of --json: adapter, driver, backend, software, machine, version, date (UTC), command, exhaustive, \
max_classes, accuracy (of the self-test, \"full\" or \"reduced\"), rows (a list; each with name, unit, dtype, \
classes, kind, values, allowed, found (the worst), where), kernels and batches (rows compared, how many \
differ, and the first of those), runs (how many, and hashes of their results), seconds, verdict (\"kept\", \"reduced\" or \
\"broken\").

Exit codes: 0 all is as promised, 1 it is not or could not be measured, 2 wrong usage.";

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// `auto` and `gpu` take the best adapter; or the index or a part of the name of an adapter that
    /// `softxent info` lists
    #[arg(
        long,
        value_name = "auto|gpu|INDEX|NAME",
        default_value = "auto",
        value_parser = clap::builder::NonEmptyStringValueParser::new()
            .try_map(|text| adapter(&text, "check is about an adapter; `cpu` is the reference that it is compared with"))
    )]
    pub device: AdapterChoice,
    /// One JSON object instead of the tables
    #[arg(long)]
    pub json: bool,
    /// exp of every f32 from -104 to -0 and log1p of every one from 0 to 2^32, not of a sample; takes
    /// minutes
    #[arg(long)]
    pub exhaustive: bool,
    /// The most classes of a row
    #[arg(
        long,
        value_name = "K",
        default_value_t = 50_257,
        value_parser = clap::value_parser!(u32).range(1..=262_144)
    )]
    pub max_classes: u32,
}

/// An adapter; `no_cpu` says why the reference is none.
pub fn adapter(text: &str, no_cpu: &'static str) -> Result<AdapterChoice, &'static str> {
    match text.parse() {
        Ok(DeviceArg::Auto) => Ok(AdapterChoice::Auto),
        Ok(DeviceArg::Gpu(choice)) => Ok(choice),
        Ok(DeviceArg::Cpu) => Err(no_cpu),
        Err(never) => match never {},
    }
}

#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// `auto` takes the best adapter, and the processor where there is none; `gpu` needs an
    /// adapter; `cpu` is the reference in f64; or the index or a part of the name of an adapter
    /// that `softxent info` lists
    #[arg(
        long,
        value_name = "auto|gpu|cpu|INDEX|NAME",
        default_value = "auto",
        value_parser = clap::builder::NonEmptyStringValueParser::new().try_map(|text| text.parse::<DeviceArg>())
    )]
    pub device: DeviceArg,
}

/// Where to compute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceArg {
    /// The best adapter, or the processor where there is none.
    Auto,
    /// An adapter, or failure.
    Gpu(AdapterChoice),
    /// The reference.
    Cpu,
}

impl FromStr for DeviceArg {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "auto" => DeviceArg::Auto,
            "gpu" => DeviceArg::Gpu(AdapterChoice::Auto),
            "cpu" => DeviceArg::Cpu,
            other => DeviceArg::Gpu(other.parse()?),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ReductionArg {
    #[default]
    Mean,
    Sum,
    None,
}

impl From<ReductionArg> for Reduction {
    fn from(reduction: ReductionArg) -> Self {
        match reduction {
            ReductionArg::Mean => Reduction::Mean,
            ReductionArg::Sum => Reduction::Sum,
            ReductionArg::None => Reduction::None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum EmptyMeanArg {
    #[default]
    Nan,
    Zero,
}

impl From<EmptyMeanArg> for EmptyMean {
    fn from(empty_mean: EmptyMeanArg) -> Self {
        match empty_mean {
            EmptyMeanArg::Nan => EmptyMean::Nan,
            EmptyMeanArg::Zero => EmptyMean::Zero,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum DtypeOutArg {
    #[default]
    F32,
    Same,
}

/// The value of `--grad-output`.
#[derive(Debug, Clone)]
pub enum GradOutput {
    Number(f32),
    File(PathBuf),
}

impl FromStr for GradOutput {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.parse() {
            Ok(number) => GradOutput::Number(number),
            Err(_) => GradOutput::File(text.into()),
        })
    }
}
