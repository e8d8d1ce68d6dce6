//! One case run by one strategy, spelled out as buffers and dispatches for a WebGPU that is not
//! wgpu's, and its results from the words that come back.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use softxent::kernel::{
    ACCUMULATOR_WORDS, Access, COUNTED_WORDS, DENOMINATOR_IN_BUFFER, DENOMINATOR_IS_COUNT,
    DENOMINATOR_IS_WEIGHTS, EMPTY_IS_ZERO, NOT_WANTED, Params, STATE_WORDS, STATUS_WORDS, Slot,
    Variant,
};
use softxent::plan::{DeviceProfile, Pass, Plan};
use softxent::{
    Denominator, Dtype, EmptyMean, Problem, Reduction, Results, Status, Strategy, Upstream, Wanted,
};

use crate::cases::Golden;
use crate::common::Case;
use crate::guest::{floats, kept, loaded, stored_words};
use crate::judge::{Worst, judge};

/// The shaders that bind no more than every browser lets them: 8 storage buffers, and the parameters.
pub fn promised() -> Vec<Variant> {
    let mut all = Variant::all();
    all.retain(|variant| variant.slots().len() <= 1 + 8);
    all
}

/// A pass as the page knows it: its module is its variant's place among these.
pub fn pipeline(pass: &Pass) -> Value {
    let module = promised().iter().position(|&v| v == pass.variant);
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
    stores_components: false,
    pairs: false,
    subgroup: None,
    memory: None,
    tuning: None,
};

/// No result is ever made of this.
fn poison(words: usize) -> Vec<u32> {
    vec![0x7fc0_beef; words]
}

/// A case run by one strategy: its words per slot, all of which come back.
pub struct Job<'a> {
    pub golden: &'a Golden,
    pub strategy: Strategy,
    pub plan: Plan,
    params: Params,
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
        let (rows, matrix) = (case.rows, problem.elements());
        let label = |&y: &i64| i32::try_from(y).unwrap_or(-1) as u32;
        let labels = match (&case.index, &case.dense, &case.vector) {
            (Some(index), ..) => index.iter().map(label).collect(),
            (_, Some(values), _) | (_, _, Some(values)) => floats(values),
            _ => poison(1),
        };
        let weights = match case.class_weights.is_empty() {
            true => poison(4),
            false => floats(&case.class_weights),
        };
        let row_output = |wanted| {
            poison(if case.wanted.contains(&wanted) {
                rows
            } else {
                1
            })
        };
        let parts = case.classes.div_ceil(plan.part);
        let out = (matrix * problem.dtype_out().size()).div_ceil(4);
        // Shifted rows are read by whole vectors, the last one too.
        let mut logits = stored_words(case.dtype, &case.logits);
        if !case.over_logits {
            logits.extend(poison(logits.len().next_multiple_of(4) - logits.len()));
        }
        let params = params(case, &problem, &plan);
        let words: [u32; size_of::<Params>() / 4] = bytemuck::cast(params);
        let buffers = [
            (Slot::Params, words.to_vec()),
            (Slot::Logits, logits),
            (Slot::Labels, labels),
            (Slot::ClassWeights, weights),
            (Slot::Upstream, floats(&case.upstream)),
            (
                Slot::Denominator,
                match case.denominator {
                    Denominator::Buffer => vec![case.denominator_value.to_bits()],
                    _ => vec![0; COUNTED_WORDS],
                },
            ),
            (Slot::Softmax, poison(out)),
            (Slot::LogSoftmax, poison(out)),
            (Slot::Grad, poison(out)),
            (Slot::States, poison(STATE_WORDS * rows * (1 + parts))),
            (Slot::Losses, row_output(Wanted::Losses)),
            (Slot::Lse, row_output(Wanted::Lse)),
            (Slot::Predictions, row_output(Wanted::Predictions)),
            (Slot::Entropy, row_output(Wanted::Entropy)),
            (Slot::Correct, row_output(Wanted::Correct)),
            (Slot::ZLosses, row_output(Wanted::ZLosses)),
            (Slot::Loss, poison(1)),
            (Slot::ZLoss, poison(1)),
            (Slot::Accumulators, vec![0; ACCUMULATOR_WORDS]),
            (Slot::Status, vec![0; STATUS_WORDS]),
        ];
        Job {
            golden,
            strategy,
            plan,
            params,
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
                let array = pass.array(slot);
                json!([
                    slot as u32,
                    self.place(array),
                    0,
                    4 * self.buffers[&array].len()
                ])
            };
            let slots = pass.variant.slots().into_iter();
            let mut step = pipeline(pass);
            step["bindings"] = slots.map(binding).collect();
            step["workgroups"] = json!(pass.workgroups(&self.params, WEB.max_workgroups));
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
        let dtype_out = if case.same_dtype_out {
            case.dtype
        } else {
            Dtype::F32
        };
        let matrix = |slot: Slot, wanted| -> Result<Option<Vec<u32>>, String> {
            if !wants(wanted) {
                return Ok(None);
            }
            let of = |words: &[u32]| loaded(dtype_out, words, case.logits.len());
            let ((mut values, rest), before) = (of(words(slot)), of(&self.buffers[&slot]));
            if rest != before.1 {
                return Err(fail(&format!("the half after {} was written", slot.name())));
            }
            kept(case, slot.name(), &mut values, &before.0)?;
            Ok(Some(values))
        };
        let grad = match case.over_logits {
            true => Slot::Logits,
            false => Slot::Grad,
        };
        for slot in [
            Slot::Params,
            Slot::Logits,
            Slot::Labels,
            Slot::ClassWeights,
            Slot::Upstream,
        ] {
            if slot != grad && *words(slot) != self.buffers[&slot] {
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
        let reduced = |slot: Slot, wanted| {
            (wants(wanted) && case.reduction != Reduction::None).then(|| words(slot)[0])
        };
        let with_correct =
            case.index.is_some() && (wants(Wanted::Predictions) || wants(Wanted::Correct));
        let flags = |words: Vec<u32>| words.iter().map(|&word| word == 1).collect();
        let signed = |words: Vec<u32>| words.iter().map(|&word| i64::from(word as i32)).collect();
        Ok(Results {
            softmax: matrix(Slot::Softmax, Wanted::Softmax)?,
            log_softmax: matrix(Slot::LogSoftmax, Wanted::LogSoftmax)?,
            grad: matrix(grad, Wanted::Grad)?,
            losses: array(Slot::Losses, Wanted::Losses),
            lse: array(Slot::Lse, Wanted::Lse),
            predictions: array(Slot::Predictions, Wanted::Predictions).map(signed),
            entropy: array(Slot::Entropy, Wanted::Entropy),
            correct_rows: array(Slot::Correct, Wanted::Correct).map(flags),
            z_losses: array(Slot::ZLosses, Wanted::ZLosses),
            loss: reduced(Slot::Loss, Wanted::Loss),
            z_loss: reduced(Slot::ZLoss, Wanted::ZLoss),
            correct: with_correct.then_some(status.correct),
            valid_rows: status.valid_rows,
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

/// Every array begins at 0 of a buffer of its own; the device counts and weighs the labels.
fn params(case: &Case, problem: &Problem, plan: &Plan) -> Params {
    let start = |wanted| match case.wanted.contains(&wanted) {
        true => 0,
        false => NOT_WANTED,
    };
    let reduced = |wanted| match case.reduction {
        Reduction::None => NOT_WANTED,
        _ => start(wanted),
    };
    let weighed = plan.count.is_some_and(|pass| pass.options.class_weights);
    let (denominator, flags) = match (case.reduction, case.denominator) {
        (Reduction::None | Reduction::Sum, _) => (1, DENOMINATOR_IS_COUNT),
        (_, Denominator::Number(number)) => (number.to_bits(), 0),
        (_, Denominator::Buffer) => (0, DENOMINATOR_IN_BUFFER),
        _ if weighed => (0, DENOMINATOR_IN_BUFFER | DENOMINATOR_IS_WEIGHTS),
        _ if plan.count.is_some() => (0, DENOMINATOR_IN_BUFFER | DENOMINATOR_IS_COUNT),
        _ => (case.rows as u32, DENOMINATOR_IS_COUNT),
    };
    let (upstream_stride, upstream) = match case.upstream_kind() {
        Upstream::Number(number) => (NOT_WANTED, number),
        Upstream::Shared => (0, 0.0),
        Upstream::PerRow => (1, 0.0),
    };
    Params {
        rows: case.rows as u32,
        part: plan.part as u32,
        span: plan.span as u32,
        losses_start: start(Wanted::Losses),
        lse_start: start(Wanted::Lse),
        predictions_start: start(Wanted::Predictions),
        entropy_start: start(Wanted::Entropy),
        correct_start: start(Wanted::Correct),
        z_losses_start: start(Wanted::ZLosses),
        loss_start: reduced(Wanted::Loss),
        z_loss_start: reduced(Wanted::ZLoss),
        upstream_stride,
        upstream,
        denominator,
        denominator_flags: match case.empty_mean {
            EmptyMean::Nan => flags,
            EmptyMean::Zero => flags | EMPTY_IS_ZERO,
        },
        ..Params::of(problem)
    }
}
