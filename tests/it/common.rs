//! What the GPU tests share: one engine, one job with its values, random numbers, exact sums.

use std::io::Write;
use std::sync::OnceLock;

use softxent::half::{bf16, f16};
use softxent::plan::DeviceProfile;
use softxent::reference::{self, RowOptions, Target, row_with};
use softxent::{
    AdapterChoice, Batch, Denominator, Dtype, EmptyMean, Engine, Error, Labels, Logits, Padding,
    Plan, Problem, Reduction, Results, Strategy, Upstream, Wanted,
};

/// What labels of both kinds have without options; [`Case::everything`] knows what else a case has.
pub const ALL: [Wanted; 8] = [
    Wanted::Softmax,
    Wanted::LogSoftmax,
    Wanted::Grad,
    Wanted::Losses,
    Wanted::Lse,
    Wanted::Loss,
    Wanted::Predictions,
    Wanted::Entropy,
];
pub const MASKED: f32 = f32::NEG_INFINITY;

/// Whether a variable is 1.
pub fn set(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|value| value == "1")
}

/// Whether the full grids were asked for.
pub fn long() -> bool {
    set("SOFTXENT_LONG")
}

/// Says something that the test harness does not swallow when the test passes.
pub fn report(text: &str) {
    // A closed stderr is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The engine of this process; `None` where GPU tests are to be skipped. No adapter is a failure.
pub fn engine(test: &str) -> Option<&'static Engine> {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    if set("SOFTXENT_SKIP_GPU") {
        report(&format!(
            "SKIPPED, nothing was tested: {test} (SOFTXENT_SKIP_GPU=1)"
        ));
        return None;
    }
    Some(
        ENGINE.get_or_init(|| match Engine::new_blocking(&AdapterChoice::Auto) {
            Ok(engine) => with_checks(engine),
            Err(error) => panic!("{error} (SOFTXENT_SKIP_GPU=1 skips the tests that need a GPU)"),
        }),
    )
}

/// The shared engine, or a return from the test where GPU tests are skipped.
macro_rules! gpu {
    () => {
        match crate::common::engine(std::thread::current().name().unwrap_or(module_path!())) {
            Some(engine) => engine,
            None => return,
        }
    };
}
pub(crate) use gpu;

/// Another engine on the device of this one, with pipelines of its own and no self-test.
pub fn sibling(engine: &Engine) -> Engine {
    with_checks(Engine::from_device(
        engine.device().clone(),
        engine.queue().clone(),
    ))
}

/// With the checks in shaders, if `SOFTXENT_SHADER_CHECKS` asks for all tests with them.
fn with_checks(engine: Engine) -> Engine {
    match set("SOFTXENT_SHADER_CHECKS") {
        true => engine.with_shader_checks(),
        false => engine,
    }
}

/// The same with limits as tests want them.
pub fn limited(engine: &Engine, change: impl Fn(&mut DeviceProfile)) -> Engine {
    let mut profile = engine.profile().clone();
    change(&mut profile);
    sibling(engine).with_profile(profile)
}

/// What WebGPU promises: no subgroups, small buffers.
pub fn web(profile: &mut DeviceProfile) {
    profile.subgroup = None;
    profile.pairs = false;
    profile.max_binding = profile.max_binding.min(128 << 20);
    profile.max_buffer = profile.max_buffer.min(256 << 20);
    profile.max_invocations = profile.max_invocations.min(256);
    profile.max_workgroups = profile.max_workgroups.min(65_535);
    profile.workgroup_memory = profile.workgroup_memory.min(16 << 10);
    profile.max_storage_buffers = profile.max_storage_buffers.min(8);
}

/// Less than that.
pub fn small(profile: &mut DeviceProfile) {
    web(profile);
    profile.max_invocations = 64;
    profile.max_workgroups = 200;
    profile.workgroup_memory = 2 << 10;
}

// ---- one job and its values --------------------------------------------------------------------

/// Numbers as a batch holds them.
enum Stored<'a> {
    F32(&'a [f32]),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Stored<'_> {
    fn of(dtype: Dtype, values: &[f32]) -> Stored<'_> {
        match dtype {
            Dtype::F32 => Stored::F32(values),
            Dtype::F16 => Stored::F16(values.iter().map(|&value| f16::from_f32(value)).collect()),
            Dtype::Bf16 => Stored::Bf16(values.iter().map(|&v| bf16::from_f32(v)).collect()),
        }
    }

    fn logits(&self) -> Logits<'_> {
        match self {
            Stored::F32(values) => Logits::F32(values),
            Stored::F16(values) => Logits::F16(values),
            Stored::Bf16(values) => Logits::Bf16(values),
        }
    }
}

/// The bytes of numbers as they are in memory in this dtype.
pub fn stored_bytes(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    match Stored::of(dtype, values) {
        Stored::F32(values) => bytemuck::cast_slice(values).to_vec(),
        Stored::F16(values) => bytemuck::cast_slice(&values).to_vec(),
        Stored::Bf16(values) => bytemuck::cast_slice(&values).to_vec(),
    }
}

/// What a mean divides by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Divisor {
    /// Rows; 0 where nothing counts.
    Count(u32),
    /// A number that was given, or the weights' sum, which is 0 where nothing counts.
    Number(f32),
}

impl Divisor {
    pub fn value(self) -> f64 {
        match self {
            Divisor::Count(count) => count.into(),
            Divisor::Number(number) => number.into(),
        }
    }

    /// `Σ losses / self`, rounded once; the mean of nothing as the case wants it, unless a row that
    /// weighs nothing is NaN.
    pub fn quotient(self, losses: &[f32], empty: EmptyMean) -> f32 {
        let zero = empty == EmptyMean::Zero && !exact_quotient(losses, 1).is_nan();
        match self {
            _ if self.value() == 0.0 => {
                if zero {
                    0.0
                } else {
                    f32::NAN
                }
            }
            Divisor::Count(count) => exact_quotient(losses, count),
            Divisor::Number(number) => exact_quotient_by(losses, number),
        }
    }
}

/// A problem and its batch. `upstream` holds one number, or one per row with `per_row`.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub rows: usize,
    pub classes: usize,
    /// In the layout of the problem, and numbers that the dtype holds.
    pub logits: Vec<f32>,
    pub dtype: Dtype,
    pub same_dtype_out: bool,
    pub inner: usize,
    /// 0 for as many columns as classes.
    pub row_length: usize,
    pub padding: Padding,
    pub index: Option<Vec<i64>>,
    pub ignore_index: i64,
    /// In the layout of the problem, as `vector`.
    pub dense: Option<Vec<f32>>,
    /// What the Jacobian is multiplied by.
    pub vector: Option<Vec<f32>>,
    pub from_softmax: bool,
    /// Empty for none.
    pub class_weights: Vec<f32>,
    pub label_smoothing: f32,
    pub z_loss: f32,
    pub logit_scale: f32,
    pub softcap: Option<f32>,
    pub reduction: Reduction,
    pub empty_mean: EmptyMean,
    pub upstream: Vec<f32>,
    pub per_row: bool,
    /// The one upstream gradient is given with the batch.
    pub shared: bool,
    pub denominator: Denominator,
    /// What the buffer holds with [`Denominator::Buffer`].
    pub denominator_value: f32,
    pub wanted: Vec<Wanted>,
    pub over_logits: bool,
}

impl Default for Case {
    /// No rows, no labels, no options, nothing wanted.
    fn default() -> Self {
        Case {
            name: String::new(),
            rows: 0,
            classes: 0,
            logits: Vec::new(),
            dtype: Dtype::F32,
            same_dtype_out: false,
            inner: 1,
            row_length: 0,
            padding: Padding::Masked,
            index: None,
            ignore_index: -100,
            dense: None,
            vector: None,
            from_softmax: false,
            class_weights: Vec::new(),
            label_smoothing: 0.0,
            z_loss: 0.0,
            logit_scale: 1.0,
            softcap: None,
            reduction: Reduction::Mean,
            empty_mean: EmptyMean::Nan,
            upstream: vec![1.0],
            per_row: false,
            shared: false,
            denominator: Denominator::Weights,
            denominator_value: 0.0,
            wanted: Vec::new(),
            over_logits: false,
        }
    }
}

impl Case {
    /// Rows of these logits without labels: softmax, log-softmax, lse, entropy and predictions.
    pub fn new(name: impl Into<String>, classes: usize, logits: Vec<f32>) -> Case {
        let case = Case {
            name: name.into(),
            rows: logits.len() / classes.max(1),
            classes,
            logits,
            ..Case::default()
        };
        case.want_everything()
    }

    /// With index labels, and all outputs.
    pub fn index(mut self, labels: Vec<i64>) -> Case {
        self.index = Some(labels);
        self.want_everything()
    }

    /// With dense labels, and all outputs.
    pub fn dense(mut self, labels: Vec<f32>) -> Case {
        self.dense = Some(labels);
        self.want_everything()
    }

    /// With rows that the Jacobian is multiplied by; softmax in place of the logits, if it is.
    pub fn vector(mut self, vector: Vec<f32>, from_softmax: bool) -> Case {
        self.vector = Some(vector);
        self.from_softmax = from_softmax;
        self.reduction = Reduction::None;
        self.want_everything()
    }

    pub fn want(mut self, wanted: impl IntoIterator<Item = Wanted>) -> Case {
        self.wanted = wanted.into_iter().collect();
        self
    }

    /// Every output that the labels and options have.
    pub fn everything(&self) -> Vec<Wanted> {
        if self.vector.is_some() {
            return vec![Wanted::Grad];
        }
        let labelled = self.index.is_some() || self.dense.is_some();
        let has = |output: &Wanted| match output {
            Wanted::Correct => self.index.is_some(),
            Wanted::ZLosses | Wanted::ZLoss => self.z_loss != 0.0,
            output => labelled || !output.needs_labels(),
        };
        Wanted::ALL.into_iter().filter(has).collect()
    }

    /// With all of them wanted; to be said again after a z-loss is set.
    pub fn want_everything(mut self) -> Case {
        self.wanted = self.everything();
        self
    }

    pub fn reduce(mut self, reduction: Reduction) -> Case {
        self.reduction = reduction;
        self
    }

    /// In another dtype: the logits as far as it goes, rounded to it.
    pub fn store(mut self, dtype: Dtype) -> Case {
        let most = match dtype {
            Dtype::F32 => f32::MAX,
            Dtype::F16 => f16::MAX.to_f32(),
            Dtype::Bf16 => bf16::MAX.to_f32(),
        };
        for logit in &mut self.logits {
            if logit.is_finite() {
                *logit = dtype.round(logit.clamp(-most, most));
            }
        }
        self.dtype = dtype;
        self.name += &format!(" {}", dtype.name());
        self
    }

    pub fn problem(&self) -> softxent::Result<Problem> {
        let mut problem = match self.vector {
            Some(_) => Problem::softmax_backward(self.rows, self.classes),
            None => Problem::of(self.rows, self.classes),
        };
        if self.index.is_some() {
            problem = problem.index_labels(self.ignore_index);
        } else if self.dense.is_some() {
            problem = problem.dense_labels();
        }
        if self.from_softmax {
            problem = problem.from_softmax();
        }
        if !self.class_weights.is_empty() {
            problem = problem.class_weights();
        }
        if let Some(cap) = self.softcap {
            problem = problem.softcap(cap);
        }
        problem
            .dtype(self.dtype)
            .same_dtype_out(self.same_dtype_out)
            .inner(self.inner)
            .row_length(self.columns(), self.padding)
            .label_smoothing(self.label_smoothing)
            .z_loss(self.z_loss)
            .logit_scale(self.logit_scale)
            .reduction(self.reduction)
            .denominator(self.denominator)
            .empty_mean(self.empty_mean)
            .upstream(self.upstream_kind())
            .want(self.wanted.iter().copied())
            .grad_over_logits(self.over_logits)
            .build()
    }

    pub fn upstream_kind(&self) -> Upstream {
        match (self.per_row, self.shared) {
            (true, _) => Upstream::PerRow,
            (_, true) => Upstream::Shared,
            _ => Upstream::Number(self.upstream[0]),
        }
    }

    /// Calls with the batch, whose logits are stored as the case says.
    pub fn with_batch<T>(&self, call: impl FnOnce(&Batch<'_>) -> T) -> T {
        let stored = Stored::of(self.dtype, &self.logits);
        call(&Batch {
            logits: stored.logits(),
            labels: match (&self.index, &self.dense, &self.vector) {
                (Some(index), ..) => Labels::Index(index),
                (_, Some(dense), _) => Labels::Dense(dense),
                (.., Some(vector)) => Labels::Vector(vector),
                _ => Labels::None,
            },
            class_weights: &self.class_weights,
            upstream: match self.upstream_kind() {
                Upstream::Number(_) => &[],
                _ => &self.upstream,
            },
        })
    }

    pub fn try_run(&self, engine: &Engine, strategy: Strategy) -> softxent::Result<Results> {
        let problem = self.problem()?;
        self.with_batch(|batch| pollster::block_on(engine.run_with(&problem, batch, strategy)))
    }

    #[track_caller]
    pub fn run(&self, engine: &Engine, strategy: Strategy) -> Results {
        self.try_run(engine, strategy)
            .unwrap_or_else(|error| panic!("{}, {}: {error}", self.name, strategy.name()))
    }

    /// All kernels; where a software driver refuses so long a row to one invocation or a few of them,
    /// those that take it.
    pub fn kernels(&self, engine: &Engine) -> Vec<Strategy> {
        let problem = self.problem();
        let problem = problem.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let takes = |strategy: &Strategy| {
            let plan = Plan::with_strategy(&problem, engine.profile(), *strategy);
            let refused = matches!(plan, Err(Error::RowTooWide { .. }));
            !(refused && engine.profile().software)
        };
        let kernels: Vec<_> = Strategy::ALL.into_iter().filter(takes).collect();
        assert!(kernels.contains(&Strategy::SplitRow), "{}", self.name);
        kernels
    }

    #[track_caller]
    pub fn oracle(&self) -> Results<f64> {
        let problem = self.problem();
        problem
            .and_then(|problem| self.with_batch(|batch| reference::run(&problem, batch)))
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    // ---- layout --------------------------------------------------------------------------------

    /// Length of the class axis in memory.
    pub fn columns(&self) -> usize {
        self.row_length.max(self.classes)
    }

    /// Whether the classes of a row are neighbours, and its last one is followed by the next row.
    pub fn is_contiguous(&self) -> bool {
        self.inner == 1 && self.columns() == self.classes
    }

    /// Where class `k` of row `i` is, written anew: what `Problem::element` has to say too.
    pub fn element(&self, i: usize, k: usize) -> usize {
        let before = i / self.inner * self.columns() * self.inner;
        before + k * self.inner + i % self.inner
    }

    /// Row `i` of a contiguous case.
    #[track_caller]
    pub fn row(&self, i: usize) -> std::ops::Range<usize> {
        assert!(self.is_contiguous(), "{}: rows have no range", self.name);
        i * self.classes..(i + 1) * self.classes
    }

    /// The classes of all rows, row after row, of an array in the layout of the case.
    pub fn gather<T: Copy>(&self, values: &[T]) -> Vec<T> {
        let row = |i| (0..self.classes).map(move |k| values[self.element(i, k)]);
        (0..self.rows).flat_map(row).collect()
    }

    /// The other way round; `rest` is what columns past the last class hold.
    fn scatter(&self, values: &[f32], rest: f32) -> Vec<f32> {
        let mut all = vec![rest; self.rows * self.columns()];
        for i in 0..self.rows {
            for k in 0..self.classes {
                all[self.element(i, k)] = values[i * self.classes + k];
            }
        }
        all
    }

    /// The same rows one after the other.
    pub fn contiguous(&self) -> Case {
        Case {
            logits: self.gather(&self.logits),
            dense: self.dense.as_deref().map(|dense| self.gather(dense)),
            vector: self.vector.as_deref().map(|vector| self.gather(vector)),
            inner: 1,
            row_length: 0,
            ..self.clone()
        }
    }

    /// The same rows interleaved and padded; NaN past the last class, where nothing is to be read.
    pub fn laid_out(&self, inner: usize, row_length: usize, padding: Padding) -> Case {
        let from = self.contiguous();
        let mut to = Case {
            inner,
            row_length,
            padding,
            ..self.clone()
        };
        to.logits = to.scatter(&from.logits, f32::NAN);
        to.dense = from.dense.map(|dense| to.scatter(&dense, f32::NAN));
        to.vector = from.vector.map(|vector| to.scatter(&vector, f32::NAN));
        to
    }

    /// The results of this case as those of [`contiguous`](Self::contiguous).
    pub fn contiguous_results<T: Copy>(&self, results: &Results<T>) -> Results<T> {
        let matrix = |values: &Option<Vec<T>>| Some(self.gather(values.as_ref()?));
        Results {
            softmax: matrix(&results.softmax),
            log_softmax: matrix(&results.log_softmax),
            grad: matrix(&results.grad),
            ..results.map(|value| value)
        }
    }

    // ---- what tolerances are made of -----------------------------------------------------------

    pub fn is_ignored(&self, i: usize) -> bool {
        self.index
            .as_ref()
            .is_some_and(|index| index[i] == self.ignore_index)
    }

    /// Rows that are not ignored.
    pub fn valid_rows(&self) -> usize {
        (0..self.rows).filter(|&i| !self.is_ignored(i)).count()
    }

    /// The oracle's account of row `i` of a contiguous case, without its label.
    pub fn reference_row(&self, i: usize) -> reference::Row<'_> {
        row_with(
            &self.logits[self.row(i)],
            Target::None,
            RowOptions {
                logit_scale: self.logit_scale,
                softcap: self.softcap,
                ..RowOptions::default()
            },
        )
    }

    /// `wₖ·((1 − ε)·|yₖ| + ε/K)`, which is `|wₖtₖ|` where no label weight is negative; 0 without a
    /// label.
    pub fn target_size(&self, i: usize, k: usize) -> f64 {
        let y = match (&self.index, &self.dense) {
            (Some(index), _) if index[i] == self.ignore_index => return 0.0,
            (Some(index), _) => f64::from(u8::from(index[i] == k as i64)),
            (_, Some(dense)) => f64::from(dense[self.element(i, k)]).abs(),
            _ => return 0.0,
        };
        let weight = self.class_weights.get(k).map_or(1.0, |&w| f64::from(w));
        let epsilon = f64::from(self.label_smoothing);
        weight * ((1.0 - epsilon) * y + epsilon / self.classes as f64)
    }

    /// `Σ|wt|` of row `i`.
    pub fn weight(&self, i: usize) -> f64 {
        match (&self.index, self.label_smoothing == 0.0) {
            (Some(index), true) if !self.is_ignored(i) => usize::try_from(index[i])
                .ok()
                .filter(|&y| y < self.classes)
                .map_or(0.0, |y| self.target_size(i, y)),
            (Some(_), true) => 0.0,
            _ => (0..self.classes).map(|k| self.target_size(i, k)).sum(),
        }
    }

    /// The weights of the labels of the rows that are not ignored, summed exactly, rounded once.
    fn weight_of_labels(&self) -> f32 {
        let labels = self.index.iter().flatten();
        let weights = labels
            .filter_map(|&y| usize::try_from(y).ok().filter(|_| y != self.ignore_index))
            .filter_map(|y| self.class_weights.get(y).copied());
        exact_quotient(&weights.collect::<Vec<_>>(), 1)
    }

    /// What the loss term of the mean is divided by, and what the z term is.
    pub fn divisors(&self) -> [Divisor; 2] {
        let rows = Divisor::Count(self.valid_rows() as u32);
        match (self.reduction, self.denominator) {
            (Reduction::None | Reduction::Sum, _) => [Divisor::Count(1); 2],
            (_, Denominator::Number(number)) => [Divisor::Number(number); 2],
            (_, Denominator::Buffer) => [Divisor::Number(self.denominator_value); 2],
            (_, Denominator::ValidRows) => [rows; 2],
            (_, Denominator::Weights) if self.index.is_some() && !self.class_weights.is_empty() => {
                [Divisor::Number(self.weight_of_labels()), rows]
            }
            (_, Denominator::Weights) => [rows; 2],
        }
    }

    /// `|g / denominator|` of row `i`, of the loss term and of the z term; 0 where nothing counts.
    pub fn scales(&self, i: usize, divisors: [Divisor; 2]) -> [f64; 2] {
        let g = f64::from(self.upstream[if self.per_row { i } else { 0 }]);
        divisors.map(|divisor| match divisor.value() {
            0.0 => 0.0,
            divisor => (g / divisor).abs(),
        })
    }

    /// The same batch with its rows in another order, one after the other: row `i` is row `from[i]` of
    /// this one.
    pub fn select(&self, from: &[usize]) -> Case {
        if !self.is_contiguous() {
            return self.contiguous().select(from);
        }
        let matrix = |values: &[f32]| -> Vec<f32> {
            from.iter()
                .flat_map(|&i| values[self.row(i)].iter().copied())
                .collect()
        };
        Case {
            rows: from.len(),
            logits: matrix(&self.logits),
            index: self
                .index
                .as_ref()
                .map(|y| from.iter().map(|&i| y[i]).collect()),
            dense: self.dense.as_deref().map(matrix),
            vector: self.vector.as_deref().map(matrix),
            upstream: match self.per_row {
                true => from.iter().map(|&i| self.upstream[i]).collect(),
                false => self.upstream.clone(),
            },
            ..self.clone()
        }
    }
}

// ---- bits --------------------------------------------------------------------------------------

/// The bits of every result, NaN and −0 included, so that equal means the same bits.
pub fn bits(results: &Results) -> Results<u32> {
    results.map(f32::to_bits)
}

/// The same values in f64, where every f32 is exact.
pub fn widen(results: &Results) -> Results<f64> {
    results.map(f64::from)
}

/// The per-row outputs of rows `from` alone, in this order, as [`Case::select`] chooses them.
pub fn select(results: &Results<u32>, classes: usize, from: &[usize]) -> Results<u32> {
    let matrix = |values: &Option<Vec<u32>>| -> Option<Vec<u32>> {
        let values = values.as_ref()?;
        Some(
            from.iter()
                .flat_map(|&i| values[i * classes..][..classes].iter().copied())
                .collect(),
        )
    };
    let vector = |values: &Option<Vec<u32>>| -> Option<Vec<u32>> {
        Some(
            from.iter()
                .map(|&i| values.as_ref().map_or(0, |v| v[i]))
                .collect(),
        )
        .filter(|_| values.is_some())
    };
    Results {
        softmax: matrix(&results.softmax),
        log_softmax: matrix(&results.log_softmax),
        grad: matrix(&results.grad),
        losses: vector(&results.losses),
        lse: vector(&results.lse),
        entropy: vector(&results.entropy),
        z_losses: vector(&results.z_losses),
        predictions: results
            .predictions
            .as_ref()
            .map(|p| from.iter().map(|&i| p[i]).collect()),
        correct_rows: results
            .correct_rows
            .as_ref()
            .map(|c| from.iter().map(|&i| c[i]).collect()),
        ..Results::default()
    }
}

/// Only the outputs that have a value per row.
pub fn per_row(results: Results<u32>) -> Results<u32> {
    Results {
        loss: None,
        z_loss: None,
        correct: None,
        valid_rows: 0,
        nan_rows: 0,
        first_nan_row: None,
        ..results
    }
}

/// Says where two results differ, if they do.
pub fn same_bits(what: &str, a: &Results<u32>, b: &Results<u32>) -> Result<(), String> {
    let vectors = |r: &Results<u32>| {
        [
            &r.softmax,
            &r.log_softmax,
            &r.grad,
            &r.losses,
            &r.lse,
            &r.entropy,
            &r.z_losses,
        ]
        .map(Clone::clone)
    };
    let names = [
        "softmax",
        "log_softmax",
        "grad",
        "losses",
        "lse",
        "entropy",
        "z_losses",
    ];
    for ((name, a), b) in names.into_iter().zip(vectors(a)).zip(vectors(b)) {
        let (Some(a), Some(b)) = (&a, &b) else {
            if a == b {
                continue;
            }
            return Err(format!("{what}: only one has {name}"));
        };
        if let Some(j) = (0..a.len().max(b.len())).find(|&j| a.get(j) != b.get(j)) {
            let value = |v: Option<&u32>| v.map(|&bits| f32::from_bits(bits));
            return Err(format!(
                "{what}: {name}[{j}] {:?} and {:?}",
                value(a.get(j)),
                value(b.get(j))
            ));
        }
    }
    if a == b {
        return Ok(());
    }
    let small = |r: &Results<u32>| {
        (
            r.loss.map(f32::from_bits),
            r.z_loss.map(f32::from_bits),
            r.correct,
            r.valid_rows,
            r.nan_rows,
            r.first_nan_row,
        )
    };
    Err(format!(
        "{what}: predictions, correct rows, or {:?} and {:?}",
        small(a),
        small(b)
    ))
}

// ---- random numbers ----------------------------------------------------------------------------

/// splitmix64: G. Steele, D. Lea, C. Flood, *Fast splittable pseudorandom number generators*, 2014.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 * 2f64.powi(-53)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// N(0, 1), by Box and Muller.
    pub fn normal(&mut self) -> f32 {
        let (a, b) = (1.0 - self.unit(), self.unit());
        ((-2.0 * a.ln()).sqrt() * (2.0 * std::f64::consts::PI * b).cos()) as f32
    }

    pub fn normals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.normal()).collect()
    }
}

// ---- exact sums --------------------------------------------------------------------------------

/// 2⁻¹⁴⁹ times an integer of 384 bits, least limb first: any sum of 2⁶⁴ finite f32 of one sign fits.
type Big = [u64; 6];

fn add(big: &mut Big, value: f32) {
    let bits = value.to_bits();
    let exponent = bits >> 23 & 0xff;
    let mantissa = u128::from(bits & 0x7f_ffff | u32::from(exponent > 0) << 23);
    let shift = exponent.max(1) - 1;
    let mut carry = mantissa << (shift % 64);
    for limb in &mut big[shift as usize / 64..] {
        carry += u128::from(*limb);
        *limb = carry as u64;
        carry >>= 64;
    }
    assert_eq!(carry, 0);
}

/// `Σ losses / denominator`, rounded once to the nearest f32, ties to even.
pub fn exact_quotient(losses: &[f32], denominator: u32) -> f32 {
    quotient(losses, denominator, 0)
}

/// The same for a denominator that is a normal f32.
pub fn exact_quotient_by(losses: &[f32], denominator: f32) -> f32 {
    assert!(denominator.is_normal() && denominator > 0.0);
    let bits = denominator.to_bits();
    let (mantissa, power) = (bits & 0x7f_ffff | 0x80_0000, (bits >> 23) as i32 - 150);
    quotient(losses, mantissa, power)
}

/// `Σ losses / (mantissa·2^power)`, rounded once.
fn quotient(losses: &[f32], mantissa: u32, power: i32) -> f32 {
    let any = |is: fn(&f32) -> bool| losses.iter().any(is);
    let (up, down) = (
        any(|&l| l == f32::INFINITY),
        any(|&l| l == f32::NEG_INFINITY),
    );
    if any(|l| l.is_nan()) || up && down || mantissa == 0 {
        return f32::NAN;
    }
    if up || down {
        return if up { f32::INFINITY } else { f32::NEG_INFINITY };
    }
    let (mut plus, mut minus) = (Big::default(), Big::default());
    for &loss in losses {
        add(if loss < 0.0 { &mut minus } else { &mut plus }, loss.abs());
    }
    let negative = plus.iter().rev().lt(minus.iter().rev());
    if negative {
        std::mem::swap(&mut plus, &mut minus);
    }
    let mut borrow = false;
    for (a, b) in plus.iter_mut().zip(minus) {
        let (less, first) = a.overflowing_sub(b);
        let (less, second) = less.overflowing_sub(u64::from(borrow));
        (*a, borrow) = (less, first || second);
    }
    // Words of zeros below, so that at least 32 bits of the quotient are below 2⁻¹⁴⁹; then it is
    // divided limb by limb of 32 bits.
    let below = 1 + (-power).max(0) as usize / 32 + 1;
    let mut halves: Vec<u32> = vec![0; below];
    halves.extend(
        plus.iter()
            .flat_map(|&limb| [limb as u32, (limb >> 32) as u32]),
    );
    let mut rest = 0u64;
    for half in halves.iter_mut().rev() {
        let dividend = rest << 32 | u64::from(*half);
        *half = (dividend / u64::from(mantissa)) as u32;
        rest = dividend % u64::from(mantissa);
    }
    // 24 bits are kept, or those above 2⁻¹⁴⁹; the rest decides how to round.
    let bit = |i: usize| {
        halves
            .get(i / 32)
            .is_some_and(|half| half >> (i % 32) & 1 == 1)
    };
    let length = (0..32 * halves.len())
        .rev()
        .find(|&i| bit(i))
        .map_or(0, |i| i + 1);
    let least = 32 * below as i32 + power;
    let dropped = length.saturating_sub(24).max(least as usize);
    let mut kept = (dropped..length.max(dropped))
        .rev()
        .fold(0u32, |kept, i| kept << 1 | u32::from(bit(i)));
    let sticky = rest != 0 || (0..dropped - 1).any(bit);
    if bit(dropped - 1) && (sticky || kept & 1 == 1) {
        kept += 1;
    }
    // f64 holds this product exactly, and f32 too unless it overflows.
    let value = (f64::from(kept) * 2f64.powi(dropped as i32 - least - 149)) as f32;
    if negative { -value } else { value }
}

#[test]
fn numbers_are_stored_in_their_dtype() {
    let values = [1.0, -2.5];
    let bytes = |dtype| stored_bytes(dtype, &values);
    assert_eq!(bytes(Dtype::F32), [0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0]);
    assert_eq!(bytes(Dtype::F16), [0, 0x3c, 0, 0xc1]);
    assert_eq!(bytes(Dtype::Bf16), [0x80, 0x3f, 0x20, 0xc0]);
}

/// A layout and back: the same rows, and nothing of the padding.
#[test]
fn a_layout_is_undone() {
    let case = Case::new("", 2, (0..12).map(|x| x as f32).collect());
    for (inner, row_length) in [(1, 0), (1, 5), (2, 0), (3, 4), (6, 3)] {
        let laid_out = case.laid_out(inner, row_length, Padding::Masked);
        assert_eq!(laid_out.logits.len(), 6 * laid_out.columns());
        assert_eq!(laid_out.contiguous().logits, case.logits);
        assert_eq!(laid_out.select(&[4, 1]).logits, [8.0, 9.0, 2.0, 3.0]);
        let widest = laid_out.laid_out(1, 9, Padding::Kept);
        assert_eq!(widest.contiguous().logits, case.logits);
    }
}

#[test]
fn exact_quotients_are_exact() {
    assert_eq!(exact_quotient_by(&[1.0, 2.0], 2.5), 3.0 / 2.5);
    assert_eq!(
        exact_quotient_by(&[7.0, 0.5], 3e-20),
        (7.5 / f64::from(3e-20f32)) as f32
    );
    assert_eq!(exact_quotient_by(&[1.0], f32::MIN_POSITIVE), 2f32.powi(126));
    assert_eq!(
        exact_quotient_by(&[1.0, 0.5], 2f32.powi(127)),
        1.5 * 2f32.powi(-127)
    );
    let tiny = f32::from_bits(1);
    assert_eq!(exact_quotient_by(&[tiny; 3], 1.5), 2.0 * tiny);
    assert_eq!(exact_quotient_by(&[3.0 * tiny], 1e30), 0.0);
    assert_eq!(exact_quotient_by(&[f32::MAX; 3], 3.0), f32::MAX);
    for (losses, denominator, expected) in [
        (vec![], 1, 0.0),
        (vec![1.0, 2.0, 4.0], 7, 1.0),
        (vec![1.0], 3, 1.0 / 3.0),
        (vec![f32::MAX; 5], 5, f32::MAX),
        (vec![f32::MAX; 5], 4, f32::INFINITY),
        (vec![f32::MAX, -f32::MAX, 0.25], 1, 0.25),
        (vec![tiny; 3], 2, 2.0 * tiny), // 1.5 steps: a tie, to even
        (vec![tiny; 5], 2, 2.0 * tiny), // 2.5 steps
        (vec![tiny], 2, 0.0),
        (vec![-tiny; 3], 1, -3.0 * tiny),
        (vec![16777216.0, 1.0], 1, 16777216.0),
        (vec![16777216.0, 1.0, tiny], 1, 16777218.0),
        (vec![16777218.0, 1.0], 1, 16777220.0),
        (vec![-16777216.0, -1.0, -tiny], 1, -16777218.0),
        (vec![f32::INFINITY, 1.0], 2, f32::INFINITY),
    ] {
        let found = exact_quotient(&losses, denominator);
        assert_eq!(
            found.to_bits(),
            expected.to_bits(),
            "{losses:?} / {denominator}: {found:e}"
        );
    }
    assert!(exact_quotient(&[f32::INFINITY, f32::NEG_INFINITY], 1).is_nan());
    assert!(exact_quotient(&[1.0], 0).is_nan());
}
