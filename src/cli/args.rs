//! What can be typed.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use softxent::{AdapterChoice, Reduction, Wanted};

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
    /// Loss, gradient, softmax and more of your own .npy files
    #[command(after_help = EXAMPLES, after_long_help = LONG_EXAMPLES)]
    Run(Box<RunArgs>),
    /// The adapters of this system and whether they compute correctly
    Info(InfoArgs),
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

Files from Python:
    numpy.save('logits.npy', logits.astype('float32'))
    numpy.save('labels.npy', labels.astype('int64'))

A row whose logits hold a NaN, +inf or nothing but -inf comes out NaN, with a warning; with --strict \
that is an error.

After an error every output file is as it was before: outputs are replaced only once all of them \
are computed and on the disk.

The keys of --json: loss (a number, \"NaN\", \"Infinity\", \"-Infinity\" or null), rows, valid_rows \
(not ignored), bad_rows (NaN), classes, correct, denominator, device (\"gpu\" or \"cpu\"), adapter, driver, \
software (whether the driver computes on the processor), strategy, seconds (setup, upload, kernels, \
download; total with the files), version.

Exit codes: 0 done, 1 failed, 2 wrong usage.";

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Logits: .npy, [N, K] floats; N rows of K classes
    pub logits: PathBuf,
    /// Labels: .npy, [N] integers (class indices) or [N, K] floats (label weights). Not needed for
    /// softmax, log-softmax, lse and predictions
    pub labels: Option<PathBuf>,

    /// How the losses of the rows become one: `mean` divides by the rows that are not ignored
    #[arg(long, value_enum, default_value_t)]
    pub reduction: ReductionArg,
    /// Rows with this label have loss 0, gradient 0 and no part in the mean [default: -100]
    #[arg(
        long,
        value_name = "I",
        allow_negative_numbers = true,
        requires = "labels"
    )]
    pub ignore_index: Option<i64>,
    /// Gradient of what follows the loss: one number, or with `--reduction none` a .npy file of [N]
    /// floats. --grad is multiplied by it, the losses are not
    #[arg(long, value_name = "NUMBER|FILE", allow_negative_numbers = true)]
    pub grad_output: Option<GradOutput>,
    #[command(flatten)]
    pub device: DeviceArgs,

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

const OUTPUTS: &str = "Outputs (.npy, float32 where nothing else is said)";
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
                    _ => &None,
                };
                Some((wanted, path.as_deref()?))
            })
            .collect()
    }

    /// What is wrong with the arguments together, where one alone is fine.
    pub fn conflict(&self) -> Option<String> {
        let outputs = self.outputs();
        if self.labels.is_none() {
            if outputs.is_empty() {
                return Some(
                    "nothing is asked for: give LABELS for the loss, or ask for what needs none: \
                     --softmax, --log-softmax, --lse, --predictions"
                        .to_owned(),
                );
            }
            if let Some((wanted, _)) = outputs.iter().find(|(wanted, _)| wanted.needs_labels()) {
                return Some(format!(
                    "{} needs LABELS: softxent run {} LABELS …",
                    flag(*wanted),
                    self.logits.display()
                ));
            }
        }
        for (at, (wanted, path)) in outputs.iter().enumerate() {
            let same = |(_, other): &&(Wanted, &Path)| target(other) == target(path);
            if let Some((earlier, _)) = outputs[..at].iter().find(same) {
                return Some(format!(
                    "{} and {} name the same file, {}",
                    flag(*earlier),
                    flag(*wanted),
                    path.display()
                ));
            }
        }
        match &self.grad_output {
            Some(GradOutput::File(path)) if self.reduction != ReductionArg::None => Some(format!(
                "--grad-output {} is not a number, and a file with one number per row needs \
                 --reduction none",
                path.display()
            )),
            _ => None,
        }
    }
}

fn flag(wanted: Wanted) -> String {
    format!("--{}", wanted.to_string().replace('_', "-"))
}

/// The file that a path leads to, whether it is there yet or not.
fn target(path: &Path) -> PathBuf {
    let there = || path.canonicalize().ok();
    let folder = || {
        let folder = match path.parent()? {
            folder if folder == Path::new("") => Path::new("."),
            folder => folder,
        };
        Some(folder.canonicalize().ok()?.join(path.file_name()?))
    };
    there().or_else(folder).unwrap_or_else(|| path.to_owned())
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
