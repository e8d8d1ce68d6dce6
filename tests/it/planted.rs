//! Planted bugs: each edits the text of the shaders, and a named check has to notice. Tests that
//! no bug can fail are no tests.
//!
//! Whether a missing barrier shows is the driver's affair. A driver on the processor runs the SIMD
//! groups of a workgroup one after the other from barrier to barrier, so there a group that reads
//! what later ones write reads it too early, every time; elsewhere these bugs may get by. Whether
//! (a + b) − a is simplified is the driver's affair too: Mesa does it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use naga::valid::{Capabilities, ValidationFlags, Validator};
use softxent::Strategy;
use softxent::kernel::Variant;

use crate::checks::named;
use crate::common::{gpu, limited, long, report, sibling, web};

const INVOCATION: &[Strategy] = &[Strategy::RowPerInvocation];
const SUBGROUP: &[Strategy] = &[Strategy::RowPerSubgroup];
const WORKGROUP: &[Strategy] = &[Strategy::RowPerWorkgroup];
const SPLIT: &[Strategy] = &[Strategy::SplitRow];
/// In text that all kernels share: one with a team and one without.
const SHARED: &[Strategy] = &[Strategy::RowPerInvocation, Strategy::RowPerSubgroup];
/// In text of labels, options, and of where an element is and how it is stored, which all kernels share:
/// one that does all in one shader, and one that hands what it knows of a row from shader to shader; in
/// both, other invocations read and write the neighbours of an element. The tree of the sums is not in this
/// text, and the other two differ in nothing else. These two compile the fastest on a processor.
const OPTIONS: &[Strategy] = &[Strategy::RowPerSubgroup, Strategy::SplitRow];
/// In text that each kernel has in a loop of its own.
const EACH: &[Strategy] = &Strategy::ALL;
/// In text of the teams.
const TEAMS: &[Strategy] = &[
    Strategy::RowPerSubgroup,
    Strategy::RowPerWorkgroup,
    Strategy::SplitRow,
];

/// A bug, the kernels it is planted in, the text it replaces and by what, and the check that fails.
pub type Bug = (
    &'static str,
    &'static [Strategy],
    &'static str,
    &'static str,
    &'static str,
);

pub const BUGS: &[Bug] = &[
    // ---- the row state and its tree
    (
        "the last column is dropped",
        SHARED,
        "let last = params.classes - 1u;",
        "let last = max(params.classes, 2u) - 2u;",
        "last_columns",
    ),
    (
        "columns past the last class count as it",
        SHARED,
        "columns > vec4<u32>(last)",
        "columns > vec4<u32>(0xfffffff0u)",
        "last_columns",
    ),
    (
        "no barrier between a word and the partner who reads it",
        TEAMS,
        "words_of_all[local] = value;\n    workgroupBarrier();",
        "words_of_all[local] = value;",
        "last_columns",
    ),
    (
        "no barrier between sums and the partner who reads them",
        TEAMS,
        "sums_of_all[local] = value;\n    workgroupBarrier();",
        "sums_of_all[local] = value;",
        "one_tree",
    ),
    (
        "no barrier between the blocks' states and their reader",
        WORKGROUP,
        "            workgroupBarrier();\n            if local < teams",
        "            if local < teams",
        "block_maxima",
    ),
    (
        "no barrier between the row's flags and their reader",
        WORKGROUP,
        "        row_state = pop_all();\n    }\n    workgroupBarrier();",
        "        row_state = pop_all();\n    }",
        "poisoned_rows",
    ),
    (
        "no barrier between runs of blocks and their reader",
        SPLIT,
        "        workgroupBarrier();\n        if local % (2u * apart) == 0u {",
        "        if local % (2u * apart) == 0u {",
        "block_maxima",
    ),
    (
        "a label's logit is read after the gradient has taken its place",
        WORKGROUP,
        "start + BLOCK), done);\n        }\n    }",
        "start + BLOCK), done);\n        }\n    }\n    storageBarrier();\n    if local == 0u {\n        store_row(row, finish_row(row, row_state));\n    }",
        "in_place",
    ),
    (
        "partners are three apart",
        SUBGROUP,
        "u32) -> u32 {\n    return subgroupShuffleXor(value, apart);",
        "u32) -> u32 {\n    return subgroupShuffleXor(value, 3u * apart);",
        "last_columns",
    ),
    (
        "members merge in another order",
        TEAMS,
        "for (var apart = 1u; apart < TEAM; apart *= 2u) {\n        all += ",
        "for (var apart = TEAM / 2u; apart > 0u; apart /= 2u) {\n        all += ",
        "one_tree",
    ),
    (
        "a team reads the lanes of its neighbour group",
        SUBGROUP,
        "let column = start + SLOT * (group * TEAM + local % TEAM);",
        "let column = start + SLOT * ((group + 1u) % (LANES / TEAM) * TEAM + local % TEAM);",
        "one_tree",
    ),
    (
        "what a member saw stays its own",
        SUBGROUP,
        "all |= partner_word(all, apart);",
        "_ = partner_word(all, apart);",
        "poisoned_rows",
    ),
    (
        "a split row forgets what its blocks saw",
        SPLIT,
        "seen |= states[at + 5u];",
        "",
        "poisoned_rows",
    ),
    (
        "a split row forgets the label's column",
        SPLIT,
        "states[at + 10u] = done.label.column;",
        "",
        "every_label",
    ),
    (
        "a split row forgets what the label leaves to the others",
        SPLIT,
        "states[at + 9u] = bitcast<u32>(done.label.others);",
        "",
        "every_label",
    ),
    (
        "a split row loads its sums in another order",
        SPLIT,
        "states[at + 3u], states[at + 4u]);",
        "states[at + 4u], states[at + 3u]);",
        "dense_weights",
    ),
    (
        "runs of blocks overlap",
        SPLIT,
        "min(blocks, (local + 1u) * run)",
        "min(blocks, (local + 1u) * run + 1u)",
        "block_maxima",
    ),
    (
        "a slot is read again after it was written",
        EACH,
        "write_slot(row, column, done);",
        "write_slot(row, column, done);\nwrite_slot(row, column, done);",
        "in_place",
    ),
    (
        "a lane keeps its first slot's maximum",
        SHARED,
        "return Top(max(top.x, highest),",
        "return Top(select(highest, top.x, top.live),",
        "block_maxima",
    ),
    (
        "sums are not brought to the larger maximum",
        SHARED,
        "rescale = exp_gap(here, top);",
        "rescale = 1.0;",
        "block_maxima",
    ),
    (
        "a slot's probabilities keep the slot's own maximum",
        SHARED,
        "let p = exp_slot(slot, done.top) * done.inverse;",
        "let own = peak(max(max(slot.x.x, slot.x.y), max(slot.x.z, slot.x.w)));\n    let p = exp_slot(slot, own) * done.inverse;",
        "block_maxima",
    ),
    (
        "a block is merged twice",
        SHARED,
        "        state = merge(pile[level], state);\n        level += 1u;",
        "        state = merge(pile[level], merge(pile[level], state));\n        level += 1u;",
        "block_maxima",
    ),
    (
        "the maximum that the lower state left out is forgotten",
        SHARED,
        "low.sums = with_maximum(low.sums);",
        "",
        "block_maxima",
    ),
    (
        "steps of a lane overlap",
        SHARED,
        "const LANE_STEP = 128u;",
        "const LANE_STEP = 124u;",
        "last_columns",
    ),
    (
        "all entries at the maximum are left out",
        SHARED,
        "max(lanes.y - 1.0, 0.0)",
        "0.0",
        "ties",
    ),
    (
        "all entries at the maximum are left out of the full sums",
        SHARED,
        "max(lanes[0].y - 1.0, 0.0)",
        "0.0",
        "entropy",
    ),
    (
        "of equal maxima the later block's wins",
        SHARED,
        "right.top > left.top",
        "right.top >= left.top",
        "ties",
    ),
    (
        "of equal maxima in a slot the last wins",
        SHARED,
        "select(select(select(3u, 2u, tie.z), 1u, tie.y), 0u, tie.x)",
        "select(select(select(0u, 1u, tie.y), 2u, tie.z), 3u, tie.w)",
        "ties",
    ),
    (
        "of a team's first maxima the largest counts",
        TEAMS,
        "first = ~team_max(~first);",
        "first = team_max(first);",
        "ties",
    ),
    (
        "the label is off by one",
        SHARED,
        "let column = u32(label);",
        "let column = u32(label) + 1u;",
        "every_label",
    ),
    (
        "ignored rows are not",
        SHARED,
        "if label == params.ignore_index {",
        "if label == params.ignore_index && params.zero != 0u {",
        "ignored_rows",
    ),
    (
        "the gradient at the label is p - 1",
        SHARED,
        "var at_label = vec4<f32>(-pull.others);",
        "var at_label = (p - vec4<f32>(1.0)) * pull.all;",
        "confident_rows",
    ),
    (
        "1 + s rounds away the s",
        SHARED,
        "let one_plus = two_sum(1.0, s);",
        "let one_plus = vec2<f32>(1.0 + s, 0.0);",
        "confident_rows",
    ),
    (
        "the rounding error of z - m is dropped",
        SHARED,
        "let r_low = fma(n, vec4<f32>(-LN_2_LOW), gap.low);",
        "let r_low = n * vec4<f32>(-LN_2_LOW);",
        "confident_rows",
    ),
    (
        "a compiler sees through sums that must round",
        SHARED,
        "return bitcast<f32>(bitcast<u32>(value) ^ params.zero);",
        "return value;",
        "confident_rows",
    ),
    (
        "the gradient forgets the sum of the weights",
        SHARED,
        "veil(sums.w * scales.x)",
        "scales.x",
        "dense_weights",
    ),
    (
        "a merge leaves the weighted gaps where they were",
        SHARED,
        "let gap = high[1].x + (low[1].x + veil(low[1].y * drop));",
        "let gap = high[1].x + low[1].x;",
        "dense_weights",
    ),
    (
        "NaN and masked classes count as finite",
        SHARED,
        "let live = (bits & vec4<u32>(EXPONENT)) != vec4<u32>(EXPONENT);",
        "let live = bits != vec4<u32>(0x7f800000u);",
        "poisoned_rows",
    ),
    (
        "NaN and infinity go unnoticed",
        SHARED,
        "    if any(!live & (bits != vec4<u32>(MINUS_INF))) {\n        seen |= POISONED;",
        "    if any(!live & (bits != vec4<u32>(MINUS_INF))) {\n        seen |= 0u;",
        "poisoned_rows",
    ),
    // ---- the sums of a batch, which no row kernel sees
    (
        "a carry is dropped",
        INVOCATION,
        "let carry = add_limb(at, low);",
        "let carry = min(add_limb(at, low), 0u);",
        "exact_sums",
    ),
    (
        "ties round up",
        INVOCATION,
        "half && (sticky || (kept & 1u) == 1u)",
        "half",
        "exact_sums",
    ),
    (
        "what is below a tie is not looked at",
        INVOCATION,
        "sticky |= larger[l] != 0u;",
        "",
        "exact_sums",
    ),
    (
        "the sums of a batch stay for the next",
        INVOCATION,
        "atomicExchange(&accumulators[slot * SLOT_WORDS + word], 0u)",
        "atomicLoad(&accumulators[slot * SLOT_WORDS + word])",
        "resident_steps",
    ),
    (
        "the count of labels stays for the next batch",
        INVOCATION,
        "        denominator[params.denominator_start + select(1u, 0u, has_flag(DENOMINATOR_IS_COUNT))] = 0u;",
        "",
        "resident_steps",
    ),
    (
        "beside weights it is their sum that is cleared, not the count",
        INVOCATION,
        "select(1u, 0u, has_flag(DENOMINATOR_IS_COUNT))",
        "0u",
        "resident_steps",
    ),
    (
        "the denominator is looked for at the start of its binding",
        INVOCATION,
        "word = denominator[params.denominator_start];",
        "word = denominator[0];",
        "resident_steps",
    ),
    (
        "the upstream gradient is looked for at the start of its binding",
        INVOCATION,
        "return upstream[params.upstream_start + row * params.upstream_stride];",
        "return upstream[row * params.upstream_stride];",
        "resident_steps",
    ),
    (
        "ignored rows are counted",
        INVOCATION,
        "if label != params.ignore_index {",
        "if label != params.ignore_index - 1 {",
        "resident_steps",
    ),
    (
        "a borrow is dropped",
        INVOCATION,
        "borrow = select(0u, 1u, wrapped || minuend < taken);",
        "borrow = 0u;",
        "exact_sums",
    ),
    // ---- class weights
    (
        "the weight is that of the next class",
        OPTIONS,
        "class_weights[params.class_weights_start + min(column, params.classes - 1u)]",
        "class_weights[params.class_weights_start + min(column + 1u, params.classes - 1u)]",
        "class_weights",
    ),
    (
        "class weights are looked for at the start of their binding",
        OPTIONS,
        "class_weights[params.class_weights_start + min(column, params.classes - 1u)]",
        "class_weights[min(column, params.classes - 1u)]",
        "resident_steps",
    ),
    (
        "the gradient at the label forgets its weight",
        OPTIONS,
        "veil(veil(label.others * inverse) * pulled)",
        "veil(veil(label.others * inverse) * scales.x)",
        "class_weights",
    ),
    (
        "the gradient beside the label forgets its weight",
        OPTIONS,
        "saturated(veil(pulled + at_label))",
        "saturated(veil(scales.x + at_label))",
        "class_weights",
    ),
    (
        "the loss forgets the label's weight",
        INVOCATION,
        "vec2<f32>(state_f32(row, 8u), 0.0)",
        "vec2<f32>(1.0, 0.0)",
        "class_weights",
    ),
    (
        "dense labels are not weighted",
        OPTIONS,
        "a = veil(a * class_weight(column));",
        "",
        "class_weights",
    ),
    (
        "a weight of -0 is none",
        OPTIONS,
        "if bits >= EXPONENT && bits != 0x80000000u {",
        "if bits >= EXPONENT {",
        "class_weights",
    ),
    (
        "a weight of -0 is none for the denominator",
        INVOCATION,
        "weight > 0x80000000u",
        "weight >= 0x80000000u",
        "class_weights",
    ),
    (
        "a masked label loses whatever its weight",
        OPTIONS,
        "if weight > 0.0 && params.keep_high > 0.0 {",
        "if params.keep_high > 0.0 {",
        "class_weights",
    ),
    (
        "what is no weight goes unnoticed",
        OPTIONS,
        "        seen |= BAD_WEIGHT;\n        return 0.0;\n    }\n    return abs",
        "        return 0.0;\n    }\n    return abs",
        "bad_weights",
    ),
    (
        "a negative weight counts in the denominator",
        INVOCATION,
        "select(weight, 0x7fc00000u, weight > 0x80000000u)",
        "select(weight, 0x7fc00000u, false)",
        "bad_weights",
    ),
    (
        "a gradient that is scaled by NaN is 0",
        OPTIONS,
        "done.bad_scale ||",
        "false ||",
        "bad_weights",
    ),
    (
        "the denominator counts labels and forgets their weights",
        INVOCATION,
        "let bits = select(weight,",
        "let bits = select(0x3f800000u,",
        "weighted_denominators",
    ),
    (
        "the denominator weighs class 0 alone",
        INVOCATION,
        "class_weights[params.class_weights_start + u32(label)]",
        "class_weights[params.class_weights_start]",
        "weighted_denominators",
    ),
    (
        "carries of the weights' sum get lost",
        INVOCATION,
        "carry = totals_high[first + l] + select(0u, 1u, sum < carry);",
        "carry = select(0u, 1u, sum < carry);",
        "weighted_denominators",
    ),
    (
        "a denominator that is an f32 loses its leading bit",
        INVOCATION,
        "(by.word & 0x7fffffu) | 0x800000u",
        "by.word & 0x7fffffu",
        "weighted_denominators",
    ),
    (
        "the z-loss is divided by the sum of the weights",
        INVOCATION,
        "let rows = denominator[params.denominator_start + 1u];",
        "let rows = denominator[params.denominator_start];",
        "weighted_denominators",
    ),
    (
        "the z-loss is summed with the loss that is divided by weights",
        INVOCATION,
        "select(whole, loss, apart)",
        "whole",
        "weighted_denominators",
    ),
    (
        "the z-loss is left out of a mean by weights",
        INVOCATION,
        "bits = sum_bits(bits, z);",
        "",
        "weighted_denominators",
    ),
    // ---- label smoothing
    (
        "the gradient keeps all of the label",
        OPTIONS,
        "kept = veil(params.keep_high * kept);",
        "",
        "smoothing",
    ),
    (
        "the loss keeps all of the label",
        INVOCATION,
        "vec2<f32>(params.keep_high, params.keep_low)",
        "vec2<f32>(1.0, 0.0)",
        "smoothing",
    ),
    (
        "the loss forgets the share of the other classes",
        INVOCATION,
        "pair_product(h, vec2<f32>(sum_gap, 0.0))",
        "vec2<f32>(0.0)",
        "smoothing",
    ),
    (
        "the loss forgets the sum of the weights",
        INVOCATION,
        "pair_sum(c, pair_product(h, vec2<f32>(state_f32(row, 4u), 0.0)))",
        "pair_sum(c, h)",
        "smoothing",
    ),
    (
        "the gradient at the label forgets the sum of the weights",
        OPTIONS,
        "at_label = veil(veil(sums.w * back) + z);",
        "at_label = veil(back + z);",
        "smoothing",
    ),
    (
        "the gradient at the label forgets its own share",
        OPTIONS,
        "at_label -= back;",
        "",
        "smoothing",
    ),
    (
        "the gradient beside the label forgets its share",
        OPTIONS,
        "grad = veil4(grad) - back;",
        "",
        "smoothing",
    ),
    (
        "the share is divided by one class less",
        OPTIONS,
        "back = veil(params.share_high * scales.x);",
        "back = veil(params.share_high * scales.x * f32(params.classes) / f32(max(params.classes, 2u) - 1u));",
        "smoothing",
    ),
    (
        "dense labels get no share",
        OPTIONS,
        "fma(params.keep_high, y, share.x)",
        "(params.keep_high * y)",
        "smoothing",
    ),
    (
        "weights are summed up in other units",
        OPTIONS,
        "class_weight(column) * params.share_unit",
        "class_weight(column)",
        "smoothing",
    ),
    (
        "dense labels get a share in other units",
        OPTIONS,
        "vec2<f32>(params.share_high, params.share_low) * params.share_unit",
        "vec2<f32>(params.share_high, params.share_low)",
        "smoothing",
    ),
    (
        "a masked class with a share goes unnoticed",
        OPTIONS,
        "if any(!slot.live & (a > vec4<f32>(0.0))) {\n            seen |= LOSS_UP;",
        "if any(!slot.live & (a > vec4<f32>(0.0))) {\n            seen |= 0u;",
        "smoothing",
    ),
    (
        "columns past the last class have its weight",
        OPTIONS,
        "if column >= params.classes {\n        return 0.0;",
        "if column >= params.classes + 4u {\n        return 0.0;",
        "smoothing",
    ),
    // ---- z-loss
    (
        "the gradient of the square has no factor 2",
        OPTIONS,
        "veil(2.0 * veil(params.z_loss * lse))",
        "veil(params.z_loss * lse)",
        "z_loss",
    ),
    (
        "the z-loss is not squared",
        INVOCATION,
        "pair_product(pair_product(lse, vec2<f32>(params.z_loss, 0.0)), lse)",
        "pair_product(lse, vec2<f32>(params.z_loss, 0.0))",
        "z_loss",
    ),
    (
        "the gradient of the z-loss is divided by the weights",
        OPTIONS,
        "scales.y = over(upstream_of(row), z_divisor());",
        "scales.y = over(upstream_of(row), divisor());",
        "z_loss",
    ),
    (
        "the gradient at the label forgets the z-loss",
        OPTIONS,
        "at_label = veil4(at_label + veil4(p * pull.at_label));",
        "",
        "z_loss",
    ),
    (
        "the gradient of dense labels forgets the z-loss",
        OPTIONS,
        "veil(veil(sums.w * scales.x) + z)",
        "veil(sums.w * scales.x)",
        "z_loss",
    ),
    (
        "lse is the maximum",
        OPTIONS,
        "lse = veil(m.x + (m.y + log_sum));",
        "lse = m.x;",
        "z_loss",
    ),
    (
        "ignored rows have a z-loss",
        INVOCATION,
        "row_bits(z.bits, seen, (seen & POISONED) != 0u));\n    }",
        "row_bits(z.bits, 0u, (seen & POISONED) != 0u));\n    }",
        "z_loss",
    ),
    (
        "a huge z-loss is lost",
        INVOCATION,
        "return Term(vec2<f32>(0.0), true, bitcast<u32>(whole));",
        "return Term(vec2<f32>(0.0), false, 0u);",
        "z_loss",
    ),
    // ---- scale and cap
    (
        "the rounding error of tanh is dropped",
        OPTIONS,
        "gap.y += here.y - top.y;",
        "",
        "scale_and_cap",
    ),
    (
        "the rounding error of tanh is dropped in the loss",
        OPTIONS,
        "gap.y += 0.5 * (top.y - here.y);",
        "",
        "scale_and_cap",
    ),
    (
        "the rounding error of -2u is dropped",
        OPTIONS,
        "fma(n, -LN_2_TINY, t.y)",
        "(n * -LN_2_TINY)",
        "scale_and_cap",
    ),
    (
        "the second part of 1/c is dropped",
        OPTIONS,
        "veil(product.y + veil(size * params.inverse_cap_low))",
        "product.y",
        "scale_and_cap",
    ),
    (
        "the slope of the cap is 1 - tanh²",
        OPTIONS,
        "slopes[i] = veil(veil(4.0 * q * inverse) * inverse);",
        "let t = point(x[i]).x;\n        slopes[i] = 1.0 - t * t;",
        "scale_and_cap",
    ),
    (
        "the slope of the cap is forgotten",
        OPTIONS,
        "grad * cap_slopes(slot.x)",
        "grad",
        "scale_and_cap",
    ),
    (
        "the slope of the scale is forgotten",
        OPTIONS,
        "scales *= params.slope;",
        "",
        "scale_and_cap",
    ),
    (
        "a scale below 1 is applied to the whole difference",
        OPTIONS,
        "two_sum(params.unit * select(here.x, top.x, gone), -params.unit * top.x)",
        "two_sum(select(here.x, top.x, gone), -top.x)",
        "scale_and_cap",
    ),
    (
        "a scale below 1 is applied to all of z",
        INVOCATION,
        "times_factor(params.unit * here)",
        "times_factor(here)",
        "scale_and_cap",
    ),
    (
        "what is gone does not depend on the scale",
        OPTIONS,
        "< -params.gone",
        "< -52.0",
        "scale_and_cap",
    ),
    (
        "x is not bounded before tanh",
        OPTIONS,
        "min(abs(x), params.bound)",
        "abs(x)",
        "scale_and_cap",
    ),
    (
        "lse past the largest f32 is finite",
        INVOCATION,
        "infinite, is_past(point(state_f32(row, 0u)))",
        "infinite, false",
        "scale_and_cap",
    ),
    (
        "tanh is even",
        OPTIONS,
        "select(tanh, -tanh, x < 0.0)",
        "tanh",
        "scale_and_cap",
    ),
    // ---- entropy and predictions
    (
        "a merge leaves the entropy where it was",
        OPTIONS,
        "let moved = low[0].z + veil(low[0].x * (2.0 * min(drop, 64.0)));",
        "let moved = low[0].z;",
        "entropy",
    ),
    (
        "the maximum that the lower state left out moves without entropy",
        OPTIONS,
        "veil(low[0].x * (2.0 * min(drop, 64.0)))",
        "veil((low[0].x - 1.0) * (2.0 * min(drop, 64.0)))",
        "entropy",
    ),
    (
        "a merge does not rescale the entropy",
        OPTIONS,
        "let entropy = high[0].z + veil(moved * rescale);",
        "let entropy = high[0].z + moved;",
        "entropy",
    ),
    (
        "gaps of the entropy are halves",
        OPTIONS,
        "veil4(e * (2.0 * min(gap, vec4<f32>(64.0))))",
        "veil4(e * min(gap, vec4<f32>(64.0)))",
        "entropy",
    ),
    (
        "large gaps of the entropy are cut off",
        OPTIONS,
        "(2.0 * min(gap, vec4<f32>(64.0)))",
        "(2.0 * min(gap, vec4<f32>(8.0)))",
        "entropy",
    ),
    (
        "the entropy is not normalised",
        INVOCATION,
        "veil(state_f32(row, 2u) * reciprocal_sum(state_f32(row, 1u)))",
        "state_f32(row, 2u)",
        "entropy",
    ),
    (
        "ignored rows are correct",
        OPTIONS,
        "} else if prediction == done.label.column && (seen & (IGNORED | BAD_LABEL)) == 0u {",
        "} else if prediction == done.label.column || (seen & IGNORED) != 0u {",
        "correct_rows",
    ),
    (
        "a NaN row is correct",
        OPTIONS,
        "    } else if prediction == done.label.column",
        "    }\n    if done.state.first == done.label.column",
        "correct_rows",
    ),
    (
        "ignored rows are counted among the correct",
        INVOCATION,
        "        if (seen & HIT) != 0u {\n            count(slot, CORRECT_ROWS);\n        }\n    }",
        "    }\n    if state_u32(row, 6u) != 0xffffffffu && ((seen & HIT) != 0u || (seen & IGNORED) != 0u) {\n        count(slot, CORRECT_ROWS);\n    }",
        "correct_rows",
    ),
    // ---- logits and outputs of 16 bits
    (
        "the halves of a word are swapped",
        OPTIONS,
        ">> (16u * (at % 2u))) & 0xffffu",
        ">> (16u * (1u - at % 2u))) & 0xffffu",
        "half_logits",
    ),
    (
        "subnormal f16 are read as normal",
        OPTIONS,
        "select(select(normal, special, size >= 0x7c00u), small, size < 0x400u)",
        "select(normal, special, size >= 0x7c00u)",
        "half_logits",
    ),
    (
        "a NaN of 16 bits is read as infinity",
        OPTIONS,
        "let special = (size << 13u) | 0x7f800000u;",
        "let special = 0x7f800000u;",
        "half_logits",
    ),
    (
        "the sign of f16 is lost",
        OPTIONS,
        "return sign | select(select(normal",
        "return select(select(normal",
        "half_logits",
    ),
    (
        "bf16 ties round away from 0",
        OPTIONS,
        "(bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u",
        "(bits + 0x8000u) >> 16u",
        "half_rounding",
    ),
    (
        "bf16 are cut off",
        OPTIONS,
        "(bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u",
        "bits >> 16u",
        "half_rounding",
    ),
    (
        "f16 ties round away from 0",
        OPTIONS,
        "0xfffu + ((size >> 13u) & 1u)",
        "0x1000u",
        "half_rounding",
    ),
    (
        "subnormal f16 ties round away from 0",
        OPTIONS,
        "rest > half || (rest == half && (kept & 1u) == 1u)",
        "rest >= half",
        "half_rounding",
    ),
    (
        "what is below the smallest f16 is not rounded",
        OPTIONS,
        "max(size >> 23u, 102u)",
        "max(size >> 23u, 103u)",
        "half_rounding",
    ),
    (
        "past the largest f16 the exponent wraps",
        OPTIONS,
        "if size >= 0x477ff000u {",
        "if size > 0x7f800000u {",
        "half_rounding",
    ),
    (
        "NaN is stored as an infinity of 16 bits",
        OPTIONS,
        "select(0x7e00u, 0x7fc0u, DTYPE == BF16)",
        "select(0x7c00u, 0x7f80u, DTYPE == BF16)",
        "half_rounding",
    ),
    (
        "a half that is written clears its neighbour",
        OPTIONS,
        "piece.kept &= ~(0xffffu << shift);",
        "piece.kept = 0u;",
        "half_outputs",
    ),
    (
        "a half in place of a logit is mixed with it",
        OPTIONS,
        "atomicAnd(&logits[piece.word], piece.kept);",
        "",
        "half_outputs",
    ),
    (
        "a row that begins in the middle of a word is written from its start",
        OPTIONS,
        "let low = 2 * i32(i) - i32(start % 2u);",
        "let low = 2 * i32(i);",
        "half_outputs",
    ),
    (
        "an interleaved half clears its neighbour",
        OPTIONS,
        "return Piece(at / 2u, ~(0xffffu << shift), half << shift);",
        "return Piece(at / 2u, 0u, half << shift);",
        "strided",
    ),
    // ---- layouts
    (
        "interleaved rows are looked for the other way round",
        OPTIONS,
        "(row / params.inner * params.row_length + column) * params.inner + row % params.inner",
        "(row % params.inner * params.row_length + column) * params.inner + row / params.inner",
        "strided",
    ),
    (
        "the step between classes is forgotten where they are read",
        OPTIONS,
        "min(columns, vec4<u32>(last)) * column_step()",
        "min(columns, vec4<u32>(last))",
        "strided",
    ),
    (
        "the step between classes is forgotten in softmax",
        OPTIONS,
        "put_softmax(params.softmax_start + at, column_step(),",
        "put_softmax(params.softmax_start + at, 1u,",
        "strided",
    ),
    (
        "the step between classes is forgotten in log-softmax",
        OPTIONS,
        "put_softmax(params.log_softmax_start + at, column_step(),",
        "put_softmax(params.log_softmax_start + at, 1u,",
        "strided",
    ),
    (
        "the step between classes is forgotten in the gradient",
        OPTIONS,
        "put_grad(at, column_step(),",
        "put_grad(at, 1u,",
        "strided",
    ),
    (
        "rows are as long as their classes",
        OPTIONS,
        "return row * params.row_length + column;",
        "return row * params.classes + column;",
        "padded",
    ),
    (
        "interleaved rows are as long as their classes",
        OPTIONS,
        "(row / params.inner * params.row_length + column)",
        "(row / params.inner * params.classes + column)",
        "padded",
    ),
    (
        "padded columns are not written",
        OPTIONS,
        "select(params.classes, params.row_length, PADDED)",
        "params.classes",
        "padded",
    ),
    (
        "padding that is to be kept is written",
        OPTIONS,
        "select(params.classes, params.row_length, PADDED)",
        "params.row_length",
        "padded",
    ),
    (
        "the padding of a NaN row is NaN in softmax",
        OPTIONS,
        "count, select(bits, vec4<u32>(0u), past)",
        "count, bits",
        "padded",
    ),
    (
        "the padding of a NaN row is NaN in the gradient",
        OPTIONS,
        "past | vec4<bool>((seen & IGNORED) != 0u)",
        "vec4<bool>((seen & IGNORED) != 0u)",
        "padded",
    ),
    (
        "the padding of log-softmax is 0",
        OPTIONS,
        "count, select(bits, vec4<u32>(MINUS_INF), past)",
        "count, select(bits, vec4<u32>(0u), past)",
        "padded",
    ),
    // ---- products of the Jacobian
    (
        "a merge does not rescale the product with the vector",
        OPTIONS,
        "high[1].x + veil(low[1].x * rescale), 0.0, 0.0)",
        "high[1].x + low[1].x, 0.0, 0.0)",
        "softmax_backward",
    ),
    (
        "the mean of the vector is forgotten",
        OPTIONS,
        "(column_weights(row, column, slot) - pull.mean)",
        "column_weights(row, column, slot)",
        "softmax_backward",
    ),
    (
        "the mean of the vector is not normalised",
        OPTIONS,
        "veil(sums.z * inverse)",
        "sums.z",
        "softmax_backward",
    ),
    (
        "softmax is normalised once more",
        OPTIONS,
        "    if !FROM_SOFTMAX {\n        inverse",
        "    if FROM_SOFTMAX || !FROM_SOFTMAX {\n        inverse",
        "softmax_backward",
    ),
    (
        "blocks of softmax are rescaled by their maxima",
        OPTIONS,
        "select(order_key(top.x), order_key(0.0), FROM_SOFTMAX)",
        "order_key(top.x)",
        "softmax_backward",
    ),
    (
        "-inf in place of a probability goes unnoticed",
        OPTIONS,
        "if FROM_SOFTMAX && any(bits == vec4<u32>(MINUS_INF)) {",
        "if false {",
        "softmax_backward",
    ),
    // ---- the mean of nothing
    (
        "the mean of nothing is always NaN",
        INVOCATION,
        "select(NAN, 0u, has_flag(EMPTY_IS_ZERO))",
        "NAN",
        "empty_means",
    ),
    (
        "the mean of nothing is always 0",
        INVOCATION,
        "select(NAN, 0u, has_flag(EMPTY_IS_ZERO))",
        "0u",
        "empty_means",
    ),
    (
        "the gradient of a mean of nothing is NaN",
        OPTIONS,
        "(!by.empty && !divides(by))",
        "!divides(by) || by.empty",
        "empty_means",
    ),
    (
        "a sum of weights that is 0 is no empty denominator",
        INVOCATION,
        "word == 0u && (is_count || has_flag(DENOMINATOR_IS_WEIGHTS))",
        "word == 0u && is_count",
        "empty_means",
    ),
];

fn shows_by_driver(bug: &str) -> bool {
    bug.starts_with("no barrier") || bug.starts_with("a compiler")
}

/// Plants the bugs of a kernel; with `SOFTXENT_LONG=1` those too that are planted in one or two kernels
/// for all. Bugs in what goes through workgroup memory show without subgroups. That the unedited shaders
/// pass every check has tests of its own, but for those without subgroups.
fn plant(kernel: Strategy) {
    let engine = gpu!();
    let started = Instant::now();
    let (mut passed, mut missed) = (HashSet::new(), Vec::new());
    let (mut planted, mut slowest) = (0, (Duration::ZERO, ""));
    let samples = [INVOCATION, SHARED, OPTIONS];
    let for_all = |kernels: &[Strategy]| long() && samples.contains(&kernels);
    let chosen = BUGS
        .iter()
        .filter(|bug| bug.1.contains(&kernel) || for_all(bug.1));
    for &(bug, _, from, to, check) in chosen {
        let begun = Instant::now();
        let in_memory = from.contains("_of_all");
        let plain = match in_memory {
            true => limited(engine, web),
            false => sibling(engine),
        };
        if !in_memory && from.contains("subgroup") && plain.profile().subgroup.is_none() {
            println!("{bug}: no subgroups here");
            continue;
        }
        if in_memory && passed.insert(check) {
            named(check)(&plain, kernel).unwrap_or_else(|why| panic!("{check}, unedited: {why}"));
        }
        let changed = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&changed);
        let edited = plain.with_edited_shaders(move |_, text| {
            seen.fetch_add(text.matches(from).count(), Ordering::Relaxed);
            text.replace(from, to)
        });
        let result = named(check)(&edited, kernel);
        planted += 1;
        slowest = slowest.max((begun.elapsed(), bug));
        match result {
            _ if changed.load(Ordering::Relaxed) == 0 => {
                missed.push(format!(
                    "{bug}: {check} compiles no shader with the text to replace"
                ));
            }
            Err(why) => println!("{bug}: {check}: {:.1?}: {why:.150}", begun.elapsed()),
            Ok(()) if shows_by_driver(bug) && !engine.profile().software => {
                println!("{bug}: {check} passes: the driver hides it");
            }
            Ok(()) => missed.push(format!("{bug}: {check} passes")),
        }
    }
    report(&format!(
        "{planted} bugs planted in {}: {:.1?}, the slowest {:.1?}: {}",
        kernel.name(),
        started.elapsed(),
        slowest.0,
        slowest.1
    ));
    assert!(missed.is_empty(), "not caught:\n{}", missed.join("\n"));
}

/// Each bug is one edit, in one file or in one that takes its place, and what comes of it compiles: a
/// check that fails because nothing runs has noticed nothing.
#[test]
fn every_bug_is_one_edit_that_compiles() {
    let variants = Variant::all();
    let texts: Vec<String> = variants.iter().map(|variant| variant.wgsl()).collect();
    let mut names = HashSet::new();
    for &(bug, kernels, from, to, check) in BUGS {
        assert!(names.insert(bug), "{bug}: twice");
        assert!(!kernels.is_empty(), "{bug}: planted nowhere");
        named(check);
        let found: Vec<&String> = texts.iter().filter(|text| text.contains(from)).collect();
        assert!(
            !found.is_empty(),
            "{bug}: the text to replace is gone: {from}"
        );
        for text in &found {
            assert_eq!(text.matches(from).count(), 1, "{bug}: {from}");
        }
        for text in [found[0], found[found.len() - 1]] {
            let edited = text.replace(from, to);
            let module = naga::front::wgsl::parse_str(&edited)
                .unwrap_or_else(|error| panic!("{bug}: {}", error.emit_to_string(&edited)));
            Validator::new(ValidationFlags::all(), Capabilities::SUBGROUP)
                .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
                .subgroup_operations(naga::valid::SubgroupOperationSet::SHUFFLE)
                .validate(&module)
                .unwrap_or_else(|error| panic!("{bug}: {}", error.emit_to_string(&edited)));
        }
    }
}

#[test]
fn every_bug_in_row_per_invocation_fails_its_check() {
    plant(Strategy::RowPerInvocation);
}

#[test]
fn every_bug_in_row_per_subgroup_fails_its_check() {
    plant(Strategy::RowPerSubgroup);
}

#[test]
fn every_bug_in_row_per_workgroup_fails_its_check() {
    plant(Strategy::RowPerWorkgroup);
}

#[test]
fn every_bug_in_split_row_fails_its_check() {
    plant(Strategy::SplitRow);
}
