//! Does this device compute what the shaders say? Asked before the first result.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::kernel::{Options, Params, Slot, Variant};
use crate::plan::Pass;
use crate::problem::{Batch, Problem, Wanted};

/// How far the results of an engine can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accuracy {
    /// As documented.
    Full,
    /// The driver rearranges floating-point arithmetic, so that confident rows lose digits.
    Reduced,
}

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

    /// Whether a shuffle reaches the invocation that the kernels take for its partner.
    async fn shuffles_between_neighbours(&self, subgroup: u32) -> Result<bool> {
        let team = subgroup.min(32);
        let pass = Pass {
            variant: Variant::ShuffleTest,
            workgroup_size: 64,
            team,
            options: Options::PLAIN,
        };
        let rounds = team.ilog2();
        let words = self.probe(pass, 64 * rounds as usize).await?;
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
        let pass = Pass {
            variant: Variant::SelfTest,
            workgroup_size: 32,
            team: 1,
            options: Options::PLAIN,
        };
        self.probe(pass, PROBES.len()).await
    }

    /// What one workgroup of a self-test writes.
    async fn probe(&self, pass: Pass, count: usize) -> Result<Vec<u32>> {
        use wgpu::BufferUsages as Usage;
        let pipeline = self.pipeline(pass).await?;
        let size = 4 * count as u64;
        let results = self
            .buffer("self-test", size, Usage::STORAGE | Usage::COPY_SRC)
            .await?;
        let staging = self
            .buffer("self-test", size, Usage::MAP_READ | Usage::COPY_DST)
            .await?;
        let params = self
            .buffer(
                "self-test",
                size_of::<Params>() as u64,
                Usage::UNIFORM | Usage::COPY_DST,
            )
            .await?;
        self.guarded("the self-test", size, |device| {
            self.queue()
                .write_buffer(&params, 0, bytemuck::bytes_of(&Params::default()));
            let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(pass.variant.entry_point()),
                layout: &pipeline.layout,
                entries: &[
                    wgpu::BindGroupEntry {
                        binding: Slot::Params as u32,
                        resource: params.as_entire_binding(),
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
                pass.dispatch_workgroups(1, 1, 1);
            }
            encoder.copy_buffer_to_buffer(&results, 0, &staging, 0, size);
            self.queue().submit([encoder.finish()]);
        })
        .await?;
        let mut words = Vec::new();
        self.read_back(&staging, size, |bytes| {
            words = bytemuck::pod_collect_to_vec(bytes);
        })
        .await?;
        Ok(words)
    }

    /// The row (−1, 20, −∞, 2) with the label 1, whose loss a naive kernel gives as 0.
    async fn known_row(&self, accuracy: Accuracy) -> Result<()> {
        let problem = Problem::of(1, 4)
            .index_labels(-100)
            .want([Wanted::Loss, Wanted::Grad, Wanted::Predictions])
            .build()?;
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
