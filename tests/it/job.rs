//! One case run by one strategy, spelled out as buffers and dispatches for a WebGPU that is not
//! wgpu's, and its results from the words that come back.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use softxent::kernel::{
    ACCUMULATOR_WORDS, Access, NOT_WANTED, Params, ROW_STATE_WORDS, STATUS_WORDS, Slot, Variant,
    status,
};
use softxent::plan::{DeviceProfile, Pass, Plan, fold};
use softxent::{Reduction, Results, Strategy, Wanted};

use crate::cases::Golden;
use crate::common::Case;
use crate::judge::{Worst, judge};

/// A pass as the page knows it: its module is its variant's place among all.
pub fn pipeline(pass: &Pass) -> Value {
    let module = Variant::all().iter().position(|&v| v == pass.variant);
    let constants: BTreeMap<_, _> = pass.constants().into_iter().collect();
    json!({ "module": module, "constants": constants })
}

/// A case run by one strategy: its words per slot, all of which come back.
pub struct Job<'a> {
    pub golden: &'a Golden,
    pub strategy: Strategy,
    pub plan: Plan,
    buffers: BTreeMap<Slot, Vec<u32>>,
}

impl<'a> Job<'a> {
    pub fn new(golden: &'a Golden, strategy: Strategy) -> Job<'a> {
        let web = DeviceProfile::new(&softxent::wgpu::Limits::default(), false);
        let case = &golden.case;
        let problem = case
            .problem()
            .unwrap_or_else(|why| panic!("{}: {why}", case.name));
        let plan = Plan::with_strategy(&problem, &web, strategy)
            .unwrap_or_else(|why| panic!("{}, {}: {why}", case.name, strategy.name()));
        let (rows, matrix) = (case.rows, case.rows * case.classes);
        let floats = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect();
        // No result is ever made of this.
        let poison = |words: usize| vec![0x7fc0_beef; words];
        let label = |&y: &i64| i32::try_from(y).unwrap_or(-1) as u32;
        let labels = match (&case.index, &case.dense) {
            (Some(index), _) => index.iter().map(label).collect(),
            (_, Some(dense)) => floats(dense),
            _ => poison(1),
        };
        let buffers = [
            (
                Slot::Params,
                bytemuck::cast::<Params, [u32; 20]>(params(case)).to_vec(),
            ),
            (Slot::Logits, floats(&case.logits)),
            (Slot::Labels, labels),
            (Slot::Upstream, floats(&case.upstream)),
            (Slot::Softmax, poison(matrix)),
            (Slot::LogSoftmax, poison(matrix)),
            (Slot::Grad, poison(matrix)),
            (Slot::RowStates, poison(ROW_STATE_WORDS * rows)),
            (Slot::RowOutputs, poison(sections(case).count() * rows)),
            (Slot::Accumulators, vec![0; ACCUMULATOR_WORDS]),
        ];
        Job {
            golden,
            strategy,
            plan,
            buffers: buffers.into(),
        }
    }

    fn place(&self, slot: Slot) -> usize {
        self.buffers.range(..slot).count()
    }

    pub fn passes(&self) -> impl Iterator<Item = &Pass> {
        self.plan.passes.iter().chain([&self.plan.reduce])
    }

    /// What the page does, step by step.
    fn dispatches(&self) -> Vec<Value> {
        let step = |pass: &Pass| {
            let binding = |(slot, _): (Slot, Access)| {
                json!([
                    slot as u32,
                    self.place(slot),
                    0,
                    4 * self.buffers[&slot].len()
                ])
            };
            let slots = pass.variant.slots().into_iter();
            let rows = self.plan.rows as u32;
            let mut step = pipeline(pass);
            step["bindings"] = slots.map(binding).collect();
            step["workgroups"] = match pass.rows_per_workgroup() {
                Some(some) => json!(fold(rows.div_ceil(some), 65535)),
                None => json!([1, 1]),
            };
            step
        };
        self.passes().map(step).collect()
    }

    pub fn value(&self) -> Value {
        json!({
            "buffers": self.buffers.values().collect::<Vec<_>>(),
            "dispatches": self.dispatches(),
            "read": (0..self.buffers.len()).collect::<Vec<_>>(),
        })
    }

    /// The bits of the results in what came back, or what went wrong.
    pub fn results(&self, answer: &Value) -> Result<Results<u32>, String> {
        let case = &self.golden.case;
        let fail = |what: &str| format!("{}, {}: {what}", case.name, self.strategy.name());
        let back: Vec<Vec<u32>> =
            serde_json::from_value(answer.clone()).map_err(|_| fail(&answer.to_string()))?;
        let words = |slot: Slot| &back[self.place(slot)];
        let wants = |wanted: Wanted| case.wanted.contains(&wanted);
        let matrix = |slot: Slot, wanted| wants(wanted).then(|| words(slot).clone());
        let section = |wanted: Wanted| -> Option<Vec<u32>> {
            let at = sections(case).position(|one| one == wanted)?;
            Some(words(Slot::RowOutputs)[at * case.rows..][..case.rows].to_vec())
        };
        for slot in [Slot::Params, Slot::Logits, Slot::Labels, Slot::Upstream] {
            if *words(slot) != self.buffers[&slot] {
                return Err(fail(&format!("the input {} was written", slot.name())));
            }
        }
        let status_words = &words(Slot::Accumulators)[..STATUS_WORDS];
        let count = |at: usize| u64::from(status_words[at]);
        let nan_rows = count(status::NAN_ROWS);
        let with_loss = wants(Wanted::Loss) && case.reduction != Reduction::None;
        let with_correct = case.index.is_some() && wants(Wanted::Predictions);
        Ok(Results {
            softmax: matrix(Slot::Softmax, Wanted::Softmax),
            log_softmax: matrix(Slot::LogSoftmax, Wanted::LogSoftmax),
            grad: matrix(Slot::Grad, Wanted::Grad),
            losses: section(Wanted::Losses),
            lse: section(Wanted::Lse),
            predictions: section(Wanted::Predictions).map(|words| {
                words
                    .into_iter()
                    .map(|word| i64::from(word as i32))
                    .collect()
            }),
            loss: with_loss.then(|| status_words[status::LOSS]),
            correct: with_correct.then(|| count(status::CORRECT_ROWS)),
            valid_rows: count(status::VALID_ROWS),
            nan_rows,
            first_nan_row: (nan_rows > 0).then(|| u64::from(!status_words[status::FIRST_NAN_ROW])),
        })
    }

    pub fn judged(&self, found: &Results<u32>, worst: &mut Worst) -> Result<(), String> {
        let found = found.map(f32::from_bits);
        let golden = self.golden;
        judge(
            &golden.case,
            self.strategy.name(),
            &found,
            &golden.expect,
            worst,
        )
    }
}

/// The per-row outputs that are wanted, in the order of their sections.
fn sections(case: &Case) -> impl Iterator<Item = Wanted> {
    let all = [Wanted::Losses, Wanted::Lse, Wanted::Predictions];
    all.into_iter()
        .filter(|wanted| case.wanted.contains(wanted))
}

/// Every array begins at 0 of a buffer of its own.
fn params(case: &Case) -> Params {
    let denominator = match case.reduction {
        Reduction::Mean => (0..case.rows).filter(|&i| !case.is_ignored(i)).count() as u32,
        _ => 1,
    };
    let start = |wanted| match sections(case).position(|one| one == wanted) {
        Some(at) => (at * case.rows) as u32,
        None => NOT_WANTED,
    };
    Params {
        rows: case.rows as u32,
        classes: case.classes as u32,
        ignore_index: match case.index {
            Some(_) => i32::try_from(case.ignore_index).unwrap_or(-1),
            None => 0,
        },
        losses_start: start(Wanted::Losses),
        lse_start: start(Wanted::Lse),
        predictions_start: start(Wanted::Predictions),
        upstream_stride: u32::from(case.per_row),
        gradient_scale: match denominator {
            0 => 0.0,
            denominator => (1.0 / f64::from(denominator)) as f32,
        },
        denominator,
        ..Params::default()
    }
}
