//! One case run by one strategy, spelled out as buffers and dispatches for a WebGPU that is not
//! wgpu's, and its results from the words that come back.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use softxent::kernel::{
    ACCUMULATOR_WORDS, Access, BLOCK, DENOMINATOR_IN_BUFFER, DENOMINATOR_IS_COUNT, NOT_WANTED,
    Params, STATE_WORDS, STATUS_WORDS, Slot, Variant,
};
use softxent::plan::{DeviceProfile, Pass, Plan};
use softxent::{Reduction, Results, Status, Strategy, Wanted};

use crate::cases::Golden;
use crate::common::Case;
use crate::judge::{Worst, judge};

/// A pass as the page knows it: its module is its variant's place among all.
pub fn pipeline(pass: &Pass) -> Value {
    let module = Variant::all().iter().position(|&v| v == pass.variant);
    let constants: BTreeMap<_, _> = pass.constants().into_iter().collect();
    json!({ "module": module, "constants": constants })
}

/// What WebGPU promises.
const WEB: DeviceProfile = DeviceProfile {
    software: false,
    max_binding: 128 << 20,
    max_buffer: 256 << 20,
    offset_alignment: 256,
    max_invocations: 256,
    max_workgroups: 65_535,
    workgroup_memory: 16 << 10,
    max_storage_buffers: 8,
    subgroup: None,
};

/// A case run by one strategy: its words per slot, all of which come back.
pub struct Job<'a> {
    pub golden: &'a Golden,
    pub strategy: Strategy,
    pub plan: Plan,
    buffers: BTreeMap<Slot, Vec<u32>>,
}

impl<'a> Job<'a> {
    pub fn new(golden: &'a Golden, strategy: Strategy) -> Job<'a> {
        let case = &golden.case;
        let problem = case
            .problem()
            .unwrap_or_else(|why| panic!("{}: {why}", case.name));
        let plan = Plan::with_strategy(&problem, &WEB, strategy)
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
        let row_output = |wanted| {
            poison(if case.wanted.contains(&wanted) {
                rows
            } else {
                1
            })
        };
        let blocks = case.classes.div_ceil(BLOCK);
        let buffers = [
            (
                Slot::Params,
                bytemuck::cast::<Params, [u32; 24]>(params(case)).to_vec(),
            ),
            (Slot::Logits, floats(&case.logits)),
            (Slot::Labels, labels),
            (Slot::Upstream, floats(&case.upstream)),
            (Slot::Denominator, vec![0]),
            (Slot::Softmax, poison(matrix)),
            (Slot::LogSoftmax, poison(matrix)),
            (Slot::Grad, poison(matrix)),
            (Slot::States, poison(STATE_WORDS * rows * (1 + blocks))),
            (Slot::Losses, row_output(Wanted::Losses)),
            (Slot::Lse, row_output(Wanted::Lse)),
            (Slot::Predictions, row_output(Wanted::Predictions)),
            (Slot::Loss, poison(1)),
            (Slot::Accumulators, vec![0; ACCUMULATOR_WORDS]),
            (Slot::Status, vec![0; STATUS_WORDS]),
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
        let counted = self.plan.count.iter().chain(&self.plan.passes);
        counted.chain([&self.plan.reduce])
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
            let mut step = pipeline(pass);
            step["bindings"] = slots.map(binding).collect();
            let (rows, classes) = (self.plan.rows as u32, self.plan.classes as u32);
            step["workgroups"] = json!(pass.workgroups(rows, classes, WEB.max_workgroups));
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
        let array = |slot: Slot, wanted| wants(wanted).then(|| words(slot).clone());
        for slot in [Slot::Params, Slot::Logits, Slot::Labels, Slot::Upstream] {
            if *words(slot) != self.buffers[&slot] {
                return Err(fail(&format!("the input {} was written", slot.name())));
            }
        }
        if words(Slot::Accumulators).iter().any(|&word| word != 0) {
            return Err(fail("the sums were not emptied"));
        }
        let status: [u32; STATUS_WORDS] = words(Slot::Status)[..]
            .try_into()
            .map_err(|_| fail("no status"))?;
        let status = Status::from_words(&status);
        let with_loss = wants(Wanted::Loss) && case.reduction != Reduction::None;
        let with_correct = case.index.is_some() && wants(Wanted::Predictions);
        let signed = |words: Vec<u32>| words.iter().map(|&word| i64::from(word as i32)).collect();
        Ok(Results {
            softmax: array(Slot::Softmax, Wanted::Softmax),
            log_softmax: array(Slot::LogSoftmax, Wanted::LogSoftmax),
            grad: array(Slot::Grad, Wanted::Grad),
            losses: array(Slot::Losses, Wanted::Losses),
            lse: array(Slot::Lse, Wanted::Lse),
            predictions: array(Slot::Predictions, Wanted::Predictions).map(signed),
            loss: with_loss.then(|| words(Slot::Loss)[0]),
            correct: with_correct.then(|| status.correct.into()),
            valid_rows: status.valid_rows.into(),
            nan_rows: status.nan_rows.into(),
            first_nan_row: status.first_nan_row.map(u64::from),
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

/// Every array begins at 0 of a buffer of its own; the device counts the labels.
fn params(case: &Case) -> Params {
    let start = |wanted| match case.wanted.contains(&wanted) {
        true => 0,
        false => NOT_WANTED,
    };
    let counted = case.reduction == Reduction::Mean && case.index.is_some();
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
        denominator: match case.reduction {
            Reduction::Mean => case.rows as u32,
            _ => 1,
        },
        denominator_flags: match counted {
            true => DENOMINATOR_IN_BUFFER | DENOMINATOR_IS_COUNT,
            false => DENOMINATOR_IS_COUNT,
        },
        ..Params::default()
    }
}
