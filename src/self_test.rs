//! Does this device compute what the shaders say? Asked before the first result.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::kernel::{LANES, Options, Params, Slot, Variant};
use crate::plan::{Pass, Plan};
use crate::problem::{Batch, Problem, Results, Wanted};
use crate::reference;
use crate::stream::BAD_LABELS;

/// How far the results of an engine can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accuracy {
    /// As documented.
    Full,
    /// The driver rearranges floating-point arithmetic, so that confident rows lose digits.
    Reduced,
}

/// A function that the shaders compute with arithmetic of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MathFunction {
    /// `exp`, for x from −104 to 0: within 1 ULP where it is at least 2⁻¹²⁶, else in [0, 2⁻¹²⁶].
    Exp,
    /// `log1p`, for finite x of at least 0: within 2 ULP; where x is below 2⁻¹²⁶ it may be 0.
    Log1p,
}

/// Bytes of function values that are asked of the device at once, at most.
const VALUES_SIZE: u64 = 64 << 20;

/// What is in the place of a probe before the device writes it: a signalling NaN, which no arithmetic gives.
const UNWRITTEN: u32 = 0x7f8b_ad00;

/// One probe: its name, the word expected, how many units of the last place it may be off, and
/// whether a miss makes results wrong or only less accurate.
struct Probe {
    check: &'static str,
    expected: u32,
    ulps: u32,
    vital: bool,
}

const fn probe(check: &'static str, expected: u32, ulps: u32, vital: bool) -> Probe {
    Probe {
        check,
        expected,
        ulps,
        vital,
    }
}

const PROBES: [Probe; 7] = [
    probe("the rounding error of 1 + 2^-30", 0x3080_0000, 0, false),
    probe("the rounding error of -2^24 - 1", 0xbf80_0000, 0, false),
    probe("telling NaN and infinity by their bits", 4, 0, true),
    probe("a tree across a workgroup", 0x4404_0000, 0, true),
    probe("arithmetic of integers", INTEGERS, 0, true),
    probe("atomic additions", u32::MAX, 0, true),
    probe(
        "an array that is indexed by its values",
        0x4837_2615,
        0,
        true,
    ),
];

/// What [`PROBES`] does with integers.
const INTEGERS: u32 = {
    let (large, small) = (0xffff_fff1_u32, 37);
    let negative = (large as i32 >> 2) as u32;
    0x0100_0000 ^ (large / small) ^ (large % small) << 24 ^ negative ^ large >> 27
};

/// Entries of each table that follows [`PROBES`].
const TABLE: u32 = 32;

/// The tables: exp at 0, −2.75, −5.5, …, log1p and 1/(1 + s) at 1.375·2⁻²⁴, 1.375·2⁻²³, ….
fn tables() -> impl Iterator<Item = Probe> {
    let s = |i: u32| f64::from(f32::from_bits((103 + i) << 23 | 0x30_0000));
    let entry = |check, ulps, exact: f64| probe(check, (exact as f32).to_bits(), ulps, false);
    let exp = (0..TABLE).map(move |i| entry("exp", 1, (-2.75 * f64::from(i)).exp()));
    let log1p = (0..TABLE).map(move |i| entry("log1p", 2, s(i).ln_1p()));
    let reciprocal = (0..TABLE).map(move |i| entry("1/(1 + s)", 1, 1.0 / (1.0 + s(i))));
    exp.chain(log1p).chain(reciprocal)
}

/// The pass that gives [`PROBES`].
fn probes_pass() -> Pass {
    Pass::new(Variant::SelfTest, 32, Options::PLAIN)
}

/// The pass in which the members of a team ask each other for their places.
fn shuffle_pass(subgroup: u32) -> Pass {
    Pass {
        team: subgroup.min(LANES as u32),
        ..Pass::new(Variant::ShuffleTest, 64, Options::PLAIN)
    }
}

/// Rows and classes of a batch whose results are known: more than a workgroup takes.
const KNOWN: (usize, usize) = (70, 5);
/// The label of a row to ignore.
const IGNORED: i64 = -100;

fn known_problem() -> Result<Problem> {
    Problem::of(KNOWN.0, KNOWN.1)
        .index_labels(IGNORED)
        .want([
            Wanted::Loss,
            Wanted::Losses,
            Wanted::Grad,
            Wanted::Predictions,
        ])
        .build()
}

/// Rows no two of which are alike, more and more confident: all digits of their losses, down to e⁻³⁴, are
/// beside a 1 for a naive kernel. Some have a masked class, and some are ignored.
fn known_batch() -> (Vec<f32>, Vec<i64>) {
    let (rows, classes) = KNOWN;
    let (mut logits, mut labels) = (Vec::new(), Vec::new());
    for row in 0..rows {
        let class = row * 3 % classes;
        let hash = |column: usize| ((row * 37 + column * 11) % 64) as f32 / 16.0;
        logits.extend((0..classes).map(|column| match column {
            _ if column == class => 4.0 + row as f32 / 2.0,
            _ if column == (class + 1) % classes && row % 3 == 0 => f32::NEG_INFINITY,
            _ => hash(column),
        }));
        labels.push(if row % 7 == 6 { IGNORED } else { class as i64 });
    }
    (logits, labels)
}

impl Engine {
    /// Computes known answers and compares: sums that need exact rounding errors, NaN and infinity,
    /// a tree across a workgroup, integers, atomics, tables of functions, and rows with their losses,
    /// gradients and predictions. [`Engine::new`]
    /// does it; for a borrowed device it is the caller's to ask. Takes milliseconds once its pipelines
    /// are there. Where shuffles within a subgroup go astray, the engine does without them from then on.
    ///
    /// # Errors
    /// [`Error::SelfTest`] where results would be wrong, and device faults. Where they would only be
    /// less accurate, that is the result.
    pub async fn self_test(&mut self) -> Result<Accuracy> {
        self.make_pipelines(self.self_test_passes()?).await?;
        if let Some(size) = self.profile.subgroup {
            if !self.shuffles_between_neighbours(size).await? {
                self.profile.subgroup = None;
            }
        }
        let words = self.probe_words().await?;
        let mut accuracy = Accuracy::Full;
        for (probe, found) in PROBES.into_iter().chain(tables()).zip(words) {
            if probe.expected.abs_diff(found) > probe.ulps {
                if probe.vital {
                    return Err(self.failed(
                        probe.check,
                        format!("{found:#010x}"),
                        format!("{:#010x}", probe.expected),
                    ));
                }
                accuracy = Accuracy::Reduced;
            }
        }
        self.known_rows(accuracy).await?;
        self.accuracy = accuracy;
        Ok(accuracy)
    }

    /// All passes of the self-test, if shuffles pass it: their pipelines are made together.
    fn self_test_passes(&self) -> Result<Vec<Pass>> {
        let shuffles = self.profile.subgroup.map(shuffle_pass);
        let problem = known_problem()?;
        let plan = Plan::new(&problem, &self.profile)?.counted_by_host(&problem);
        let passes = plan.passes.into_iter().chain([plan.reduce]);
        let passes = passes.chain(shuffles);
        Ok(passes.chain([probes_pass()]).collect())
    }

    /// Whether a shuffle reaches the invocation that the kernels take for its partner.
    async fn shuffles_between_neighbours(&self, subgroup: u32) -> Result<bool> {
        let pass = shuffle_pass(subgroup);
        let rounds = pass.team.ilog2();
        let words = self.probe(pass, Params::default(), 64 * rounds).await?;
        let partners = (0..rounds).flat_map(|round| (0..64).map(move |local| local ^ (1 << round)));
        Ok(words.into_iter().eq(partners))
    }

    fn failed(&self, check: &'static str, found: String, expected: String) -> Error {
        Error::SelfTest {
            adapter: self.adapter_info().name.clone(),
            check,
            found,
            expected,
        }
    }

    async fn probe_words(&self) -> Result<Vec<u32>> {
        let count = PROBES.len() as u32 + 3 * TABLE;
        self.probe(probes_pass(), Params::default(), count).await
    }

    /// What this device makes of `function` at `count` numbers: those whose bits are `first`,
    /// `first + step`, `first + 2·step` and so on, modulo 2³². What lies outside of the function's domain
    /// has a value that means nothing.
    ///
    /// ```no_run
    /// # use softxent::{AdapterChoice, Engine, MathFunction};
    /// # let engine = Engine::new_blocking(&AdapterChoice::Auto)?;
    /// let two_from_1 = engine.math_values(MathFunction::Log1p, 1f32.to_bits(), 1, 2);
    /// let [log_2, next] = pollster::block_on(two_from_1)?[..] else { unreachable!() };
    /// assert!(log_2 <= next && next < 0.694);
    /// # Ok::<(), softxent::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], and device faults.
    pub async fn math_values(
        &self,
        function: MathFunction,
        first: u32,
        step: u32,
        count: u32,
    ) -> Result<Vec<f32>> {
        let pass = Pass::new(Variant::MathTest, 64, Options::PLAIN);
        let room = self.profile.max_binding.min(self.profile.max_buffer);
        let most = (room.min(VALUES_SIZE) / 4).max(1) as u32;
        let mut values = Vec::new();
        values
            .try_reserve_exact(count as usize)
            .map_err(|_| Error::no_room::<f32>("values", count as usize))?;
        let mut done = 0;
        while done < count {
            let now = most.min(count - done);
            let params = Params {
                rows: first.wrapping_add(done.wrapping_mul(step)),
                row_length: step,
                classes: match function {
                    MathFunction::Exp => 0,
                    MathFunction::Log1p => 1,
                },
                ..Params::default()
            };
            let words = self.probe(pass, params, now).await?;
            values.extend(words.into_iter().map(f32::from_bits));
            done += now;
        }
        Ok(values)
    }

    /// What a shader that only writes probes writes: `count` words.
    async fn probe(&self, pass: Pass, params: Params, count: u32) -> Result<Vec<u32>> {
        use wgpu::BufferUsages as Usage;
        let pipeline = self.pipeline(pass).await?;
        let size = 4 * u64::from(count);
        let units = Params {
            rows: count,
            ..params
        };
        let [width, height] = pass.workgroups(&units, self.profile.max_workgroups);
        let what = "the probes";
        let mut words: Vec<u32> = Vec::new();
        words
            .try_reserve_exact(count as usize)
            .map_err(|_| Error::no_room::<u32>(what, count as usize))?;
        words.resize(count as usize, UNWRITTEN);
        let nothing = bytemuck::cast_slice(&words);
        let usage = Usage::STORAGE | Usage::COPY_SRC;
        let results = self.buffer_with(what, nothing, usage).await?;
        let usage = Usage::MAP_READ | Usage::COPY_DST;
        let staging = self.buffer_with(what, nothing, usage).await?;
        let params = bytemuck::bytes_of(&params);
        let uniform = self.buffer_with(what, params, Usage::UNIFORM).await?;
        self.guarded(what, size, |device| {
            let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(pass.variant.entry_point()),
                layout: &pipeline.layout,
                entries: &[
                    wgpu::BindGroupEntry {
                        binding: Slot::Params as u32,
                        resource: uniform.as_entire_binding(),
                    },
                    wgpu::BindGroupEntry {
                        binding: Slot::Probes as u32,
                        resource: results.as_entire_binding(),
                    },
                ],
            });
            let mut encoder = device.create_command_encoder(&Default::default());
            {
                let mut pass = encoder.begin_compute_pass(&Default::default());
                pass.set_pipeline(&pipeline.pipeline);
                pass.set_bind_group(0, &bind_group, &[]);
                pass.dispatch_workgroups(width, height, 1);
            }
            encoder.copy_buffer_to_buffer(&results, 0, &staging, 0, size);
            device.submit(encoder);
        })
        .await?;
        self.read_back(&staging, size, |bytes| {
            bytemuck::cast_slice_mut(&mut words).copy_from_slice(bytes);
        })
        .await?;
        if words.contains(&UNWRITTEN) {
            return Err(Error::Driver {
                what: what.to_owned(),
                reason: "it said that they were written, and they are not".to_owned(),
            });
        }
        Ok(words)
    }

    /// A run in which a label that is no class is the driver's doing.
    async fn known_results(&self, problem: &Problem, batch: &Batch<'_>) -> Result<Results> {
        self.run(problem, batch).await.map_err(|error| match error {
            Error::Driver { what, reason } if what == BAD_LABELS => {
                self.failed("the labels of known rows", reason, "classes".to_owned())
            }
            error => error,
        })
    }

    /// A batch with all that a naive kernel gets wrong; then the same one with a row that is NaN.
    async fn known_rows(&self, accuracy: Accuracy) -> Result<()> {
        let problem = known_problem()?;
        let (mut logits, labels) = known_batch();
        let batch = Batch::of(&logits).index(&labels);
        let known = reference::run(&problem, &batch)?;
        let sound = self.known_results(&problem, &batch).await?;
        let poisoned = KNOWN.0 / 2;
        logits[poisoned * KNOWN.1] = f32::NAN;
        let batch = Batch::of(&logits).index(&labels);
        let with_nan = self.known_results(&problem, &batch).await?;

        // Without exact rounding errors the whole loss of a confident row is lost beside 1, and with it all
        // digits of the gradient at the label: then only what is of the size of 1 has to be right.
        let (ulps, slack) = match accuracy {
            Accuracy::Full => (10.0, 0.0),
            Accuracy::Reduced => (1000.0, 1e-6),
        };
        let near = |found: f32, expected: f64| {
            let allowed = ulps * f64::from(f32::EPSILON) * expected.abs() + slack;
            (f64::from(found) - expected).abs() <= allowed
        };
        let all_near = |check, found: &Option<Vec<f32>>, expected: &Option<Vec<f64>>| {
            let found = found.as_deref().unwrap_or_default();
            let expected = expected.as_deref().unwrap_or_default();
            let wrong = (0..expected.len())
                .find(|&i| !found.get(i).is_some_and(|&found| near(found, expected[i])));
            match wrong {
                None => Ok(()),
                Some(i) => Err(self.failed(
                    check,
                    format!("{:?} in place {i}", found.get(i)),
                    format!("{:e}", expected[i]),
                )),
            }
        };
        all_near("the losses of known rows", &sound.losses, &known.losses)?;
        all_near("the gradient of known rows", &sound.grad, &known.grad)?;
        if sound.predictions != known.predictions {
            return Err(self.failed(
                "the predictions of known rows",
                format!("{:?}", sound.predictions),
                format!("{:?}", known.predictions),
            ));
        }
        // The reduced loss is the sum of what the device found, rounded once.
        let losses = sound.losses.iter().flatten().map(|&loss| f64::from(loss));
        let mean = (losses.sum::<f64>() / known.valid_rows as f64) as f32;
        let loss = sound.loss.unwrap_or(f32::NAN);
        if loss.to_bits().abs_diff(mean.to_bits()) > 1 {
            return Err(self.failed(
                "the sum of the losses of known rows",
                format!("{loss:e}"),
                format!("{mean:e}"),
            ));
        }
        let is_nan = |values: &Option<Vec<f32>>, width: usize| {
            let all = values.iter().flatten().enumerate();
            let nan = all.filter(|(_, value)| value.is_nan()).map(|(i, _)| i);
            nan.eq(poisoned * width..(poisoned + 1) * width)
        };
        if !is_nan(&with_nan.losses, 1)
            || !is_nan(&with_nan.grad, KNOWN.1)
            || !with_nan.loss.is_some_and(f32::is_nan)
            || (with_nan.nan_rows, with_nan.first_nan_row) != (1, Some(poisoned as u64))
        {
            return Err(self.failed(
                "a row with NaN among others",
                format!(
                    "{} rows, from {:?}",
                    with_nan.nan_rows, with_nan.first_nan_row
                ),
                format!("row {poisoned} alone"),
            ));
        }
        Ok(())
    }
}
