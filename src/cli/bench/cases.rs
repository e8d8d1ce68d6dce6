//! Which cases are timed: the axes, and the grids that have a name.

use clap::ValueEnum;
use softxent::plan::DeviceProfile;
use softxent::{Dtype, Error, Plan, Problem, ProblemBuilder, Strategy, Upstream, Wanted};

use super::args::BenchArgs;

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Op {
    Softmax,
    Loss,
    LossGrad,
    SoftmaxBackward,
}

impl Op {
    pub const ALL: [Op; 4] = [Op::Softmax, Op::Loss, Op::LossGrad, Op::SoftmaxBackward];

    pub fn name(self) -> &'static str {
        match self {
            Op::Softmax => "softmax",
            Op::Loss => "loss",
            Op::LossGrad => "loss-grad",
            Op::SoftmaxBackward => "softmax-backward",
        }
    }

    pub fn has_loss(self) -> bool {
        matches!(self, Op::Loss | Op::LossGrad)
    }

    /// Whether it writes anything of the shape of the logits.
    pub fn has_matrix(self) -> bool {
        self != Op::Loss
    }
}

/// What the labels of a loss are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LabelsOf {
    Index,
    Dense,
}

impl LabelsOf {
    pub fn name(self) -> &'static str {
        match self {
            LabelsOf::Index => "index",
            LabelsOf::Dense => "dense",
        }
    }
}

/// Which options are on, at values that are usual in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum With {
    Plain,
    Scale,
    Softcap,
    Smoothing,
    ZLoss,
    Weights,
    All,
}

pub const SCALE: f32 = 0.7;
pub const SOFTCAP: f32 = 30.0;
pub const SMOOTHING: f32 = 0.1;
pub const Z_LOSS: f32 = 1e-4;

impl With {
    pub fn name(self) -> &'static str {
        match self {
            With::Plain => "plain",
            With::Scale => "scale",
            With::Softcap => "softcap",
            With::Smoothing => "smoothing",
            With::ZLoss => "z-loss",
            With::Weights => "weights",
            With::All => "all",
        }
    }

    /// Whether an option is one of these.
    pub fn has(self, option: With) -> bool {
        self == option || self == With::All
    }

    /// Whether an op can have them: all but two are of losses.
    fn suits(self, op: Op) -> bool {
        match self {
            With::Plain => true,
            With::Scale | With::Softcap => op != Op::SoftmaxBackward,
            With::Smoothing | With::ZLoss | With::Weights | With::All => op.has_loss(),
        }
    }

    fn set(self, problem: ProblemBuilder) -> ProblemBuilder {
        type Set = fn(ProblemBuilder) -> ProblemBuilder;
        let options: [(With, Set); 5] = [
            (With::Scale, |problem| problem.logit_scale(SCALE)),
            (With::Softcap, |problem| problem.softcap(SOFTCAP)),
            (With::Smoothing, |problem| {
                problem.label_smoothing(SMOOTHING)
            }),
            (With::ZLoss, |problem| problem.z_loss(Z_LOSS)),
            (With::Weights, ProblemBuilder::class_weights),
        ];
        let on = options.into_iter().filter(|&(option, _)| self.has(option));
        on.fold(problem, |problem, (_, set)| set(problem))
    }
}

/// Who owns a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    Planned,
    All,
    One(Strategy),
}

/// One line of the table, but for its kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    pub op: Op,
    pub dtype: Dtype,
    /// Of a loss.
    pub labels: Option<LabelsOf>,
    pub options: With,
    pub rows: usize,
    pub classes: usize,
}

impl Case {
    /// The gradient is p − y, a mean's times its rows, so that it is no number that 16 bits cannot hold.
    pub fn problem(&self) -> softxent::Result<Problem> {
        let problem = match self.op {
            Op::SoftmaxBackward => Problem::softmax_backward(self.rows, self.classes),
            _ => Problem::of(self.rows, self.classes),
        };
        let problem = match self.op {
            Op::Softmax => problem.want([Wanted::Softmax]),
            Op::Loss => problem.want([Wanted::Loss]),
            Op::LossGrad => problem
                .want([Wanted::Loss, Wanted::Grad])
                .upstream(Upstream::Number(self.rows as f32)),
            Op::SoftmaxBackward => problem,
        };
        let problem = match self.labels {
            None => problem,
            Some(LabelsOf::Index) => problem.index_labels(-100),
            Some(LabelsOf::Dense) => problem.dense_labels(),
        };
        let problem = self.options.set(problem);
        problem.dtype(self.dtype).same_dtype_out(true).build()
    }

    /// Bytes of the logits, and of what is written in their shape.
    pub fn matrix_bytes(&self) -> u64 {
        (self.rows as u64)
            .saturating_mul(self.classes as u64)
            .saturating_mul(self.dtype.size() as u64)
    }

    /// Bytes of their buffers: the reading yardstick takes 16 at a time.
    pub fn buffer_bytes(&self) -> u64 {
        self.matrix_bytes().saturating_add(15) / 16 * 16
    }

    /// Bytes of the f32 matrix beside the logits: label weights or vectors.
    pub fn beside_bytes(&self) -> u64 {
        let has_it = self.op == Op::SoftmaxBackward || self.labels == Some(LabelsOf::Dense);
        let f32s = 4 / self.dtype.size() as u64;
        if has_it {
            self.matrix_bytes().saturating_mul(f32s)
        } else {
            0
        }
    }

    /// Bytes that have to move.
    pub fn bytes(&self) -> u64 {
        let read = self.matrix_bytes();
        let written = if self.op.has_matrix() { read } else { 0 };
        read.saturating_add(written)
            .saturating_add(self.beside_bytes())
            .saturating_add(16 * self.rows as u64)
    }

    /// What will be run, by the strategy that suits or a given one. Fails where the device cannot have all
    /// of the case at once, which no chunks help.
    pub fn plan(
        &self,
        device: &DeviceProfile,
        strategy: Option<Strategy>,
    ) -> softxent::Result<Plan> {
        let fits = |what, needed| match device.max_binding {
            limit if needed > limit => Err(Error::RowTooWide {
                what,
                needed,
                limit,
            }),
            _ => Ok(()),
        };
        fits("logits", self.buffer_bytes())?;
        fits("labels", self.beside_bytes())?;
        let problem = self.problem()?;
        let plan = match strategy {
            None => Plan::new(&problem, device)?,
            Some(strategy) => Plan::with_strategy(&problem, device, strategy)?,
        };
        fits("scratch", plan.scratch_size(device, self.rows))?;
        Ok(plan)
    }

    /// The op, its labels if they are not the usual ones, and its options.
    pub fn job(&self) -> String {
        let mut job = self.op.name().to_owned();
        if self.labels == Some(LabelsOf::Dense) {
            job += " dense";
        }
        if self.options != With::Plain {
            job += " ";
            job += self.options.name();
        }
        job
    }

    /// What it is called in messages.
    pub fn name(&self) -> String {
        let (job, dtype) = (self.job(), self.dtype.name());
        format!("{job} {dtype} {} × {}", self.rows, self.classes)
    }
}

/// A grid with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preset {
    #[default]
    Quick,
    Small,
    Vocab,
    Full,
}

/// Every one of some ops and dtypes at every one of some shapes.
struct Grid {
    ops: &'static [Op],
    dtypes: &'static [Dtype],
    labels: LabelsOf,
    shapes: &'static [Shape],
}

/// Rows, or as many as the megabytes hold, and classes.
type Shape = (Option<u32>, u32);

/// Within a word, powers of two and their neighbours, class counts of data sets and vocabularies.
const LADDER: &[Shape] = &[
    (None, 2),
    (None, 10),
    (None, 16),
    (None, 64),
    (None, 100),
    (None, 1000),
    (None, 1024),
    (None, 4096),
    (None, 8192),
    (None, 32_000),
    (None, 50_257),
    (None, 128_256),
    (None, 262_144),
];
/// What one batch of a small model, or one token of a large one, has.
const FEW_ROWS: &[Shape] = &[
    (Some(1), 1000),
    (Some(16), 1000),
    (Some(1), 32_768),
    (Some(4), 32_768),
    (Some(16), 50_257),
    (Some(1), 262_144),
    (Some(4), 262_144),
    (Some(1), 2_000_000),
];
/// Within a lane, a row that ends within a word, past a block, whole blocks, and many of them.
const CHECKED: &[Shape] = &[
    (Some(2048), 2),
    (Some(2048), 100),
    (Some(255), 1025),
    (Some(64), 4096),
    (Some(1), 70_001),
];
const F32: &[Dtype] = &[Dtype::F32];
const F32_BF16: &[Dtype] = &[Dtype::F32, Dtype::Bf16];

impl Preset {
    pub fn name(self) -> &'static str {
        match self {
            Preset::Quick => "quick",
            Preset::Small => "small",
            Preset::Vocab => "vocab",
            Preset::Full => "full",
        }
    }

    fn grids(self) -> Vec<Grid> {
        let index = |ops, dtypes, shapes| Grid {
            ops,
            dtypes,
            labels: LabelsOf::Index,
            shapes,
        };
        let (losses, all) = (&[Op::Loss, Op::LossGrad], &Op::ALL);
        match self {
            Preset::Quick => vec![
                index(&[Op::LossGrad], F32, LADDER),
                index(
                    &[Op::Loss, Op::Softmax],
                    F32,
                    &[(None, 16), (None, 1000), (None, 50_257)],
                ),
            ],
            Preset::Small => vec![index(
                &[Op::Softmax, Op::Loss, Op::LossGrad],
                F32_BF16,
                &[(None, 2), (None, 10), (None, 16), (None, 64), (None, 100)],
            )],
            Preset::Vocab => vec![
                index(
                    losses,
                    F32_BF16,
                    &[
                        (None, 32_000),
                        (None, 50_257),
                        (None, 128_256),
                        (None, 262_144),
                    ],
                ),
                index(losses, F32_BF16, &[(Some(1), 128_256), (Some(16), 128_256)]),
            ],
            Preset::Full => vec![
                index(all, &Dtype::ALL, LADDER),
                index(all, F32, FEW_ROWS),
                Grid {
                    ops: losses,
                    dtypes: F32,
                    labels: LabelsOf::Dense,
                    shapes: LADDER,
                },
            ],
        }
    }
}

/// The cases that are asked for, each once; `megabytes` of logits where nothing is said of rows.
pub fn cases(args: &BenchArgs, megabytes: u32) -> Vec<Case> {
    let grids = match args.check {
        true => vec![Grid {
            ops: &Op::ALL,
            dtypes: F32,
            labels: LabelsOf::Index,
            shapes: CHECKED,
        }],
        false => args.preset.grids(),
    };
    let mut cases = Vec::new();
    for grid in &grids {
        for &op in given(&args.op, grid.ops) {
            for &dtype in given(&args.dtype, grid.dtypes) {
                for &labels in given(&args.labels, &[grid.labels]) {
                    for (rows, classes) in shapes(args, grid.shapes) {
                        let row_bytes = u64::from(classes) * dtype.size() as u64;
                        let filled = (u64::from(megabytes) << 20) / row_bytes;
                        for &options in given(&args.options, &[With::Plain]) {
                            let case = Case {
                                op,
                                dtype,
                                labels: op.has_loss().then_some(labels),
                                options,
                                rows: rows.map_or(filled.max(1) as usize, |rows| rows as usize),
                                classes: classes as usize,
                            };
                            if options.suits(op) && !cases.contains(&case) {
                                cases.push(case);
                            }
                        }
                    }
                }
            }
        }
    }
    cases
}

fn given<'a, T>(typed: &'a [T], otherwise: &'a [T]) -> &'a [T] {
    if typed.is_empty() { otherwise } else { typed }
}

/// Those of a grid, or all pairs of what was typed; rows alone go with every number of classes.
fn shapes(args: &BenchArgs, otherwise: &[Shape]) -> Vec<Shape> {
    if args.rows.is_empty() && args.classes.is_empty() {
        return otherwise.to_vec();
    }
    let rows = args.rows.iter().copied().map(Some).collect::<Vec<_>>();
    let of_grid = otherwise.iter().map(|&(_, classes)| classes);
    let of_grid = of_grid.collect::<Vec<_>>();
    let mut shapes = Vec::new();
    for &classes in given(&args.classes, &of_grid) {
        for &rows in given(&rows, &[None]) {
            shapes.push((rows, classes));
        }
    }
    shapes
}
