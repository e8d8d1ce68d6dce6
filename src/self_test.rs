//! Does this device compute what the shaders say? Asked before the first result.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::kernel::{LANES, Options, Params, Slot, Variant};
use crate::plan::{Pass, Plan};
use crate::problem::{Batch, Problem, Wanted};

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

const PROBES: [Probe; 7] = [
    probe("the rounding error of 1 + 2^-30", 0x3080_0000, 0, false),
    probe("the rounding error of -2^24 - 1", 0xbf80_0000, 0, false),
    probe("telling NaN and infinity by their bits", 4, 0, true),
    probe("a tree across a workgroup", 0x4404_0000, 0, true),
    probe("exp(-1)", 0x3ebc_5ab2, 1, false),
    probe("log1p(1)", 0x3f31_7218, 2, false),
    probe("1/(1 + 2)", 0x3eaa_aaab, 1, false),
];

const fn probe(check: &'static str, expected: u32, ulps: u32, vital: bool) -> Probe {
    Probe {
        check,
        expected,
        ulps,
        vital,
    }
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

/// One row with all that a naive kernel gets wrong.
fn known_problem() -> Result<Problem> {
    Problem::of(1, 4)
        .index_labels(-100)
        .want([Wanted::Loss, Wanted::Grad, Wanted::Predictions])
        .build()
}

impl Engine {
    /// Computes known answers and compares: sums that need exact rounding errors, NaN and infinity,
    /// a tree across a workgroup, and a row with its loss, gradient and prediction. [`Engine::new`]
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
        for (probe, found) in PROBES.iter().zip(words) {
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
        self.known_row(accuracy).await?;
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
        self.probe(probes_pass(), Params::default(), PROBES.len() as u32)
            .await
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
            .map_err(|_| Error::OutOfMemory {
                place: "host",
                what: "values".to_owned(),
                bytes: 4 * u64::from(count),
            })?;
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
        let [width, height] = pass.workgroups(count, 1, 1, self.profile.max_workgroups);
        let what = "the probes";
        let nothing = UNWRITTEN.to_ne_bytes().repeat(count as usize);
        let usage = Usage::STORAGE | Usage::COPY_SRC;
        let results = self.buffer_with(what, &nothing, usage).await?;
        let usage = Usage::MAP_READ | Usage::COPY_DST;
        let staging = self.buffer_with(what, &nothing, usage).await?;
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
        let mut words = Vec::new();
        self.read_back(&staging, size, |bytes| {
            words = bytemuck::pod_collect_to_vec(bytes);
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

    /// The row (−1, 20, −∞, 2) with the label 1, whose loss a naive kernel gives as 0.
    async fn known_row(&self, accuracy: Accuracy) -> Result<()> {
        let problem = known_problem()?;
        let batch = Batch::of(&[-1.0, 20.0, f32::NEG_INFINITY, 2.0]).index(&[1]);
        let results = self.run(&problem, &batch).await?;
        // s = e^−21 + e^−18, to double precision.
        let s = 7.582_560_427_911_907e-10 + 1.522_997_974_471_263e-8;
        let grad = [
            7.582_560_427_911_907e-10 / (1.0 + s),
            -s / (1.0 + s),
            0.0,
            1.522_997_974_471_263e-8 / (1.0 + s),
        ];
        // Without exact rounding errors the whole loss of this row is lost beside 1, and with it all
        // digits of the gradient at the label: then only what is of the size of 1 has to be right.
        let (ulps, slack) = match accuracy {
            Accuracy::Full => (10.0, 0.0),
            Accuracy::Reduced => (1000.0, 1e-6),
        };
        let near = |found: f32, expected: f64| {
            let allowed = ulps * f64::from(f32::EPSILON) * expected.abs() + slack;
            (f64::from(found) - expected).abs() <= allowed
        };
        let found = results.grad.unwrap_or_default();
        let loss = results.loss.unwrap_or(f32::NAN);
        if found.len() != grad.len()
            || !found.iter().zip(grad).all(|(&f, e)| near(f, e))
            || !near(loss, s)
            || results.predictions != Some(vec![1])
        {
            return Err(self.failed(
                "the loss and the gradient of a known row",
                format!("{loss:e}, {found:?}"),
                format!("{s:e}, {grad:?}"),
            ));
        }
        Ok(())
    }
}
