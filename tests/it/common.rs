//! What the GPU tests share: one engine, one job with its values, random numbers, exact sums.

use std::io::Write;
use std::sync::OnceLock;

use softxent::plan::DeviceProfile;
use softxent::{
    AdapterChoice, Batch, Denominator, Engine, Labels, Problem, Reduction, Results, Strategy,
    Upstream, Wanted, reference,
};

pub const ALL: [Wanted; 7] = Wanted::ALL;
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
            Ok(engine) => engine,
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
    Engine::from_device(engine.device().clone(), engine.queue().clone())
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

/// A problem and its batch. `upstream` holds one number, or one per row with `per_row`.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub rows: usize,
    pub classes: usize,
    pub logits: Vec<f32>,
    pub index: Option<Vec<i64>>,
    pub ignore_index: i64,
    pub dense: Option<Vec<f32>>,
    pub reduction: Reduction,
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

impl Case {
    /// Rows of these logits without labels: softmax, log-softmax, lse and predictions.
    pub fn new(name: impl Into<String>, classes: usize, logits: Vec<f32>) -> Case {
        let rows = logits.len() / classes.max(1);
        Case {
            name: name.into(),
            rows,
            classes,
            logits,
            index: None,
            ignore_index: -100,
            dense: None,
            reduction: Reduction::Mean,
            upstream: vec![1.0],
            per_row: false,
            shared: false,
            denominator: Denominator::ValidRows,
            denominator_value: 0.0,
            wanted: ALL
                .into_iter()
                .filter(|wanted| !wanted.needs_labels())
                .collect(),
            over_logits: false,
        }
    }

    /// With index labels, and all outputs.
    pub fn index(mut self, labels: Vec<i64>) -> Case {
        self.index = Some(labels);
        self.want(ALL)
    }

    /// With dense labels, and all outputs.
    pub fn dense(mut self, labels: Vec<f32>) -> Case {
        self.dense = Some(labels);
        self.want(ALL)
    }

    pub fn want(mut self, wanted: impl IntoIterator<Item = Wanted>) -> Case {
        self.wanted = wanted.into_iter().collect();
        self
    }

    pub fn reduce(mut self, reduction: Reduction) -> Case {
        self.reduction = reduction;
        self
    }

    pub fn problem(&self) -> softxent::Result<Problem> {
        let mut problem = Problem::of(self.rows, self.classes);
        if self.index.is_some() {
            problem = problem.index_labels(self.ignore_index);
        } else if self.dense.is_some() {
            problem = problem.dense_labels();
        }
        problem
            .reduction(self.reduction)
            .denominator(self.denominator)
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

    pub fn batch(&self) -> Batch<'_> {
        Batch {
            logits: &self.logits,
            labels: match (&self.index, &self.dense) {
                (Some(index), _) => Labels::Index(index),
                (_, Some(dense)) => Labels::Dense(dense),
                _ => Labels::None,
            },
            upstream: match self.upstream_kind() {
                Upstream::Number(_) => &[],
                _ => &self.upstream,
            },
        }
    }

    pub fn try_run(&self, engine: &Engine, strategy: Strategy) -> softxent::Result<Results> {
        pollster::block_on(engine.run_with(&self.problem()?, &self.batch(), strategy))
    }

    #[track_caller]
    pub fn run(&self, engine: &Engine, strategy: Strategy) -> Results {
        self.try_run(engine, strategy)
            .unwrap_or_else(|error| panic!("{}, {}: {error}", self.name, strategy.name()))
    }

    #[track_caller]
    pub fn oracle(&self) -> Results<f64> {
        let problem = self.problem();
        problem
            .and_then(|problem| reference::run(&problem, &self.batch()))
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    pub fn row(&self, i: usize) -> std::ops::Range<usize> {
        i * self.classes..(i + 1) * self.classes
    }

    pub fn is_ignored(&self, i: usize) -> bool {
        self.index
            .as_ref()
            .is_some_and(|index| index[i] == self.ignore_index)
    }

    /// `Σ|t|` of row `i`.
    pub fn weight(&self, i: usize) -> f64 {
        self.dense.as_ref().map_or(1.0, |dense| {
            dense[self.row(i)].iter().map(|&t| f64::from(t).abs()).sum()
        })
    }

    /// `|g / denominator|` of row `i`.
    pub fn scale(&self, i: usize, valid_rows: u64) -> f64 {
        let g = if self.per_row {
            self.upstream[i]
        } else {
            self.upstream[0]
        };
        let denominator = match (self.reduction, self.denominator) {
            (Reduction::Mean, Denominator::Number(number)) => f64::from(number),
            (Reduction::Mean, Denominator::Buffer) => f64::from(self.denominator_value),
            (Reduction::Mean, Denominator::ValidRows) => valid_rows.max(1) as f64,
            _ => 1.0,
        };
        (f64::from(g) / denominator).abs()
    }

    /// The same batch with its rows in another order: row `i` is row `from[i]` of this one.
    pub fn select(&self, from: &[usize]) -> Case {
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
        predictions: results
            .predictions
            .as_ref()
            .map(|p| from.iter().map(|&i| p[i]).collect()),
        ..Results::default()
    }
}

/// Only the outputs that have a value per row.
pub fn per_row(results: Results<u32>) -> Results<u32> {
    Results {
        loss: None,
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
        [&r.softmax, &r.log_softmax, &r.grad, &r.losses, &r.lse].map(Clone::clone)
    };
    let names = ["softmax", "log_softmax", "grad", "losses", "lse"];
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
            r.correct,
            r.valid_rows,
            r.nan_rows,
            r.first_nan_row,
        )
    };
    Err(format!(
        "{what}: predictions, or {:?} and {:?}",
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
    let any = |is: fn(&f32) -> bool| losses.iter().any(is);
    let (up, down) = (
        any(|&l| l == f32::INFINITY),
        any(|&l| l == f32::NEG_INFINITY),
    );
    if any(|l| l.is_nan()) || up && down || denominator == 0 {
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
    // Times 2³², so that the quotient has bits below 2⁻¹⁴⁹; then divided limb by limb of 32 bits.
    let mut halves: Vec<u32> = vec![0];
    halves.extend(
        plus.iter()
            .flat_map(|&limb| [limb as u32, (limb >> 32) as u32]),
    );
    let mut rest = 0u64;
    for half in halves.iter_mut().rev() {
        let dividend = rest << 32 | u64::from(*half);
        *half = (dividend / u64::from(denominator)) as u32;
        rest = dividend % u64::from(denominator);
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
    let dropped = length.saturating_sub(24).max(32);
    let mut kept = (dropped..length.max(dropped))
        .rev()
        .fold(0u32, |kept, i| kept << 1 | u32::from(bit(i)));
    let sticky = rest != 0 || (0..dropped - 1).any(bit);
    if bit(dropped - 1) && (sticky || kept & 1 == 1) {
        kept += 1;
    }
    // f64 holds this product exactly, and f32 too unless it overflows.
    let value = (f64::from(kept) * 2f64.powi(dropped as i32 - 32 - 149)) as f32;
    if negative { -value } else { value }
}

/// The same for a denominator that is an f32: its 24-bit mantissa divides, its power of two moves the
/// result, which has to be a normal number before and after.
pub fn exact_quotient_by(losses: &[f32], denominator: f32) -> f32 {
    let bits = denominator.to_bits();
    let (mantissa, power) = (bits & 0x7f_ffff | 0x80_0000, (bits >> 23) as i32 - 150);
    let quotient = exact_quotient(losses, mantissa);
    let moved = (f64::from(quotient) * 2f64.powi(-power)) as f32;
    let fits = |value: f32| value == 0.0 || !value.is_finite() || value.is_normal();
    assert!(
        fits(quotient) && fits(moved),
        "{quotient:e} / 2^{power}: {moved:e}"
    );
    moved
}

#[test]
fn exact_quotients_are_exact() {
    assert_eq!(exact_quotient_by(&[1.0, 2.0], 2.5), 3.0 / 2.5);
    assert_eq!(
        exact_quotient_by(&[7.0, 0.5], 3e-20),
        (7.5 / f64::from(3e-20f32)) as f32
    );
    let tiny = f32::from_bits(1);
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
