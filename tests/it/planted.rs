//! Planted bugs: each edits the text of the shaders, and a named check has to notice. Tests that
//! no bug can fail are no tests.
//!
//! Whether a missing barrier shows is the driver's affair. A driver on the processor runs the SIMD
//! groups of a workgroup one after the other from barrier to barrier, so there a group that reads
//! what later ones write reads it too early, every time, but where the team that shares it is hardly
//! larger than a group; elsewhere these bugs may get by. Whether (a + b) − a is simplified is the
//! driver's affair too: Mesa does it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use naga::valid::{Capabilities, ValidationFlags, Validator};
use softxent::Strategy;
use softxent::kernel::Variant;
use softxent::plan::Tuning;

use crate::checks::named;
use crate::common::{gpu, limited, long, report, web};

const INVOCATION: &[Strategy] = &[Strategy::RowPerInvocation];
const SUBGROUP: &[Strategy] = &[Strategy::RowPerSubgroup];
const WORKGROUP: &[Strategy] = &[Strategy::RowPerWorkgroup];
const SPLIT: &[Strategy] = &[Strategy::SplitRow];
/// In text that all kernels share: one with a team and one without.
const SHARED: &[Strategy] = &[Strategy::RowPerInvocation, Strategy::RowPerSubgroup];
/// In text of labels, options, and of where an element is and how it is stored, which all kernels share:
/// one that does all in one shader, and one that hands what it knows of a row from shader to shader; in
/// both, other invocations read and write the neighbours of an element. The tree of the sums is not in this
/// text, and the other two kernels differ in nothing else.
const OPTIONS: &[Strategy] = &[Strategy::RowPerSubgroup, Strategy::SplitRow];
/// The other half of these, so that no kernel's test takes long.
const MORE_OPTIONS: &[Strategy] = &[Strategy::RowPerWorkgroup, Strategy::SplitRow];
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
        "columns >= vec4<u32>(end)",
        "columns + 1u >= vec4<u32>(end)",
        "last_columns",
    ),
    (
        "a vector of the last columns is dropped",
        SHARED,
        "let inside = column < end;",
        "let inside = column + SLOT < end;",
        "last_columns",
    ),
    (
        "columns past the last class count",
        SHARED,
        "columns >= vec4<u32>(end)",
        "columns >= vec4<u32>(0xfffffff0u)",
        "last_columns",
    ),
    (
        "vectors past the end count as the row's first",
        SHARED,
        "let inside = column < end;",
        "let inside = true;",
        "last_columns",
    ),
    (
        "a slot is cut out one column late",
        SHARED,
        "let shift = params.logits_start + element(row, column);",
        "let shift = params.logits_start + element(row, column) + 1u;",
        "last_columns",
    ),
    (
        "the second half of a slot that is cut out stays behind",
        SHARED,
        "vec4<u32>(a.zw, b.xy)",
        "vec4<u32>(a.zw, a.xy)",
        "last_columns",
    ),
    (
        "what is before a row is written with it",
        SUBGROUP,
        "return select(0u, 0u - column, column >= 0x80000000u);",
        "return 0u;",
        "last_columns",
    ),
    (
        "the last vector of a row that begins inside one is not written",
        INVOCATION,
        "select(first > start, whole < to, edge == 1u)",
        "select(first > start, whole < to && lead == 0u, edge == 1u)",
        "shifted_rows",
    ),
    (
        "the first vector of a row that begins inside one is not written",
        INVOCATION,
        "select(first > start, whole < to, edge == 1u)",
        "select(first > start && lead > 1u, whole < to, edge == 1u)",
        "shifted_rows",
    ),
    (
        "the last vector of a row is written as a whole with its neighbours",
        INVOCATION,
        "let whole = to - to % SLOT;",
        "let whole = (to + SLOT - 1u) / SLOT * SLOT;",
        "shifted_rows",
    ),
    (
        "every other slot of a team is left out",
        SUBGROUP,
        "at < whole; at += SLOT * members",
        "at < whole; at += 2u * SLOT * members",
        "last_columns",
    ),
    (
        "the last edge of a row is nobody's",
        SUBGROUP,
        "var edge = member; edge < 2u;",
        "var edge = member; edge < 1u;",
        "last_columns",
    ),
    (
        "a vector of two rows is put as a whole by the first",
        SHARED,
        "if inside.x == 0u && inside.y == SLOT {\n        grad",
        "if inside.x == 0u {\n        grad",
        "shifted_rows",
    ),
    (
        "a vector of two rows is put as a whole by the second",
        SHARED,
        "if inside.x == 0u && inside.y == SLOT {\n        softmax",
        "if inside.y == SLOT {\n        softmax",
        "shifted_rows",
    ),
    (
        "a component of a vector is put in the place of another",
        SHARED,
        "grad[(params.grad_start + at) / 4u][i] = bits[i];",
        "grad[(params.grad_start + at) / 4u][i] = bits[3u - i];",
        "shifted_rows",
    ),
    (
        "a component of a vector of probabilities is put in the place of another",
        SHARED,
        "softmax[at / 4u][i] = bits[i];",
        "softmax[at / 4u][i] = bits[3u - i];",
        "shifted_rows",
    ),
    (
        "vectors of a row that begins inside one end where its columns do",
        SUBGROUP,
        "let to = select(end, written_columns() + lead, is_last);",
        "let to = select(end, written_columns(), is_last);",
        "last_columns",
    ),
    (
        "rows that begin inside a vector are written as if they did not",
        SHARED,
        "return (params.logits_start + element(row, 0u)) % 4u;",
        "return params.logits_start % 4u;",
        "last_columns",
    ),
    (
        "a window stays where it is",
        INVOCATION,
        "        let bits = next_bits(&window, row",
        "        var still = window;\n        let bits = next_bits(&still, row",
        "last_columns",
    ),
    (
        "a vector's neighbour is read",
        SHARED,
        "var bits = logit_vector(at / in_vector());",
        "var bits = logit_vector(at / in_vector() + 1u);",
        "last_columns",
    ),
    (
        "a label's logit is the first of its vector",
        SHARED,
        "        return logit_vector(at / 4u)[at % 4u];",
        "        return logit_vector(at / 4u)[0];",
        "every_label",
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
        "no barrier between runs of parts and their reader",
        SPLIT,
        "        workgroupBarrier();\n        if local % (2u * apart) == 0u {",
        "        if local % (2u * apart) == 0u {",
        "block_maxima",
    ),
    (
        "a label's logit is read after the gradient has taken its place",
        WORKGROUP,
        "    if local == 0u {\n        hand_over(row, done);",
        "    if GRAD_OVER_LOGITS {\n        team_write_held(row, team * BLOCK, done);\n        storageBarrier();\n    }\n    if local == 0u {\n        hand_over(row, finish_row(row, row_state));",
        "in_place",
    ),
    (
        "a partner in workgroup memory is oneself",
        SUBGROUP,
        "return words_of_all[local ^ apart];",
        "return words_of_all[local];",
        "last_columns",
    ),
    (
        "a partner of sums in workgroup memory is the next one",
        SUBGROUP,
        "return sums_of_all[local ^ apart];",
        "return sums_of_all[local ^ 1u];",
        "one_tree",
    ),
    (
        "partners are twice as far apart",
        SUBGROUP,
        "u32) -> u32 {\n    return subgroupShuffleXor(value, apart);",
        "u32) -> u32 {\n    return subgroupShuffleXor(value, 2u * apart);",
        "last_columns",
    ),
    (
        "partners whose sums are added up are three apart",
        SUBGROUP,
        "Sums {\n    return subgroupShuffleXor(value, apart);",
        "Sums {\n    return subgroupShuffleXor(value, 3u * apart);",
        "one_tree",
    ),
    (
        "members add up in another order",
        TEAMS,
        "for (var apart = 1u; apart < TEAM; apart *= 2u) {\n        all = add_sums",
        "for (var apart = TEAM / 2u; apart > 0u; apart /= 2u) {\n        all = add_sums",
        "one_tree",
    ),
    (
        "a team of half a block forgets its other lanes",
        SUBGROUP,
        "sums = add_sums(sums, groups[1]);",
        "",
        "last_columns",
    ),
    (
        "a team of half a block writes one half twice",
        SUBGROUP,
        "held[group * STRIPES + stripe], done, false);",
        "held[stripe], done, false);",
        "last_columns",
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
        "the label's logit is not left by the part that it is in",
        SPLIT,
        "if label / params.part == part {",
        "if label / params.part == part + 1u {",
        "every_label",
    ),
    (
        "the label's logit is looked for in the first part",
        SPLIT,
        "return states[part_at(row, column / params.part) + 7u];",
        "return states[part_at(row, 0u) + 7u];",
        "last_columns",
    ),
    (
        "the label's class weight is not left",
        SPLIT,
        "states[at + 8u] = bitcast<u32>(label_class_weight(row, label));",
        "",
        "class_weights",
    ),
    (
        "a split row loads its sums in another order",
        SPLIT,
        "states[at + 3u], states[at + 4u]);",
        "states[at + 4u], states[at + 3u]);",
        "dense_weights",
    ),
    (
        "runs of parts overlap",
        SPLIT,
        "min(parts, (local + 1u) * run)",
        "min(parts, (local + 1u) * run + 1u)",
        "block_maxima",
    ),
    (
        "a part has a block too few",
        SPLIT,
        "block < (given.part | workgroup.z) / BLOCK;",
        "block < (given.part | workgroup.z) / BLOCK - 1u;",
        "last_columns",
    ),
    (
        "parts are as long as blocks where they are read",
        SPLIT,
        "let start = part * params.part + block * BLOCK;",
        "let start = part * BLOCK + block * BLOCK;",
        "last_columns",
    ),
    (
        "every other span is left out",
        SPLIT,
        "unit % spans_here() * params.span;",
        "unit % spans_here() * 2u * params.span;",
        "last_columns",
    ),
    (
        "parts of a row lie among those of the next",
        SPLIT,
        "(params.rows + row * parts_per_row() + part)",
        "(params.rows + row + part)",
        "last_columns",
    ),
    (
        "a part without a logit is live",
        SPLIT,
        "states[at] = select(0u, order_key(state.top), state.live);",
        "states[at] = order_key(state.top);",
        "poisoned_rows",
    ),
    (
        "an edge of a row is read again after it was written",
        INVOCATION,
        "write_slot(row, at - lead, bits_to_write(row, at - lead), done, false);",
        "write_slot(row, at - lead, bits_to_write(row, at - lead), done, false);\nwrite_slot(row, at - lead, bits_to_write(row, at - lead), done, false);",
        "in_place",
    ),
    (
        "a slot is read again after it was written",
        SHARED,
        "write_slot(row, at - lead, bits_to_write(row, at - lead), done, true);",
        "write_slot(row, at - lead, bits_to_write(row, at - lead), done, true);\nwrite_slot(row, at - lead, bits_to_write(row, at - lead), done, true);",
        "in_place",
    ),
    (
        "a stripe's maximum is that of its last slot",
        INVOCATION,
        "top = max(top, slot_top(slot_of(noted(bits))));",
        "top = slot_top(slot_of(noted(bits)));",
        "block_maxima",
    ),
    (
        "a member's maximum is that of its last slot",
        SUBGROUP,
        "top = max(top, slot_top(slot_of(bits)));",
        "top = slot_top(slot_of(bits));",
        "block_maxima",
    ),
    (
        "a slot's maximum is that of two columns",
        SHARED,
        "return max(pair.x, pair.y);",
        "return pair.x;",
        "block_maxima",
    ),
    (
        "of negative maxima the least is the largest",
        SUBGROUP,
        "select(bits | 0x80000000u, ~bits, bits >= 0x80000000u)",
        "(bits | 0x80000000u)",
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
        "a slot's probabilities are relative to its own maximum",
        SHARED,
        "exp_slot(slot, place, done.reference) * done.share;",
        "exp_slot(slot, place, reference_of(point(slot_top(slot)), done.reference.base)) * done.share;",
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
        "stripes overlap",
        SHARED,
        "const STRIPE = 32u;",
        "const STRIPE = 28u;",
        "last_columns",
    ),
    (
        "stripes are read where blocks are",
        SUBGROUP,
        "return start + stripe * STRIPE +",
        "return start + stripe * SLOT +",
        "last_columns",
    ),
    (
        "of two equal largest both are left out",
        SHARED,
        "(a.y + b.y) + min(a.x, b.x)",
        "(a.y + b.y) + select(min(a.x, b.x), 0.0, a.x == b.x)",
        "ties",
    ),
    (
        "of two equal largest in a slot both are left out",
        SHARED,
        "(low.x + low.y) + min(high.x, high.y)",
        "(low.x + low.y) + select(min(high.x, high.y), 0.0, high.x == high.y)",
        "ties",
    ),
    (
        "the smaller of two largest is left out",
        SHARED,
        "return vec2<f32>(max(a.x, b.x),",
        "return vec2<f32>(min(a.x, b.x),",
        "last_columns",
    ),
    (
        "the smaller of two halves' largest is dropped",
        SHARED,
        "(low.x + low.y) + min(high.x, high.y)",
        "(low.x + low.y)",
        "last_columns",
    ),
    (
        "the largest but one is dropped",
        SHARED,
        "(a.y + b.y) + min(a.x, b.x)",
        "(a.y + b.y)",
        "last_columns",
    ),
    (
        "sums are taken for sums in other units",
        SHARED,
        "Sums(lanes.y * scale.x, 0.0)",
        "Sums(lanes.y * scale.y, 0.0)",
        "last_columns",
    ),
    (
        "the full sums are taken for sums in other units",
        SHARED,
        "vec2<f32>(lanes.pair.y * scale.x, 0.0),",
        "vec2<f32>(lanes.pair.y * scale.y, 0.0),",
        "entropy",
    ),
    (
        "the entropy of a block stays in units of its reference",
        SHARED,
        "lanes.entropy * scale.y,",
        "lanes.entropy,",
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
        "let gap = high.weighted.x + (low.weighted.x + veil(low.weighted.y * drop));",
        "let gap = high.weighted.x + low.weighted.x;",
        "dense_weights",
    ),
    (
        "a slot with a larger maximum leaves the gaps before it where they were",
        SHARED,
        "a.weighted.x + select(0.0, veil(a.weighted.y * rise), rise > 0.0)",
        "a.weighted.x",
        "dense_weights",
    ),
    (
        "a slot with a smaller maximum leaves its gaps where they were",
        SHARED,
        "b.weighted.x - select(0.0, veil(b.weighted.y * rise), rise < 0.0)",
        "b.weighted.x",
        "dense_weights",
    ),
    (
        "the gaps of a lane stay with its first maximum",
        SHARED,
        "select(a.top, b.top, rise > 0.0)",
        "a.top",
        "dense_weights",
    ),
    (
        "a label that is no number goes unnoticed",
        OPTIONS,
        "    seen |= select(0u, BAD_WEIGHT, bad);\n    return bitcast<f32>(select(bits, 0u",
        "    return bitcast<f32>(select(bits, 0u",
        "bad_weights",
    ),
    (
        "masked classes count as the lowest number",
        SHARED,
        "bits > lowest);",
        "vec4<bool>(false));",
        "poisoned_rows",
    ),
    (
        "a block without a logit is live",
        SHARED,
        "largest(lanes) > 0.0,",
        "true,",
        "poisoned_rows",
    ),
    (
        "NaN and infinity go unnoticed",
        SHARED,
        "        seen |= POISONED;\n    }\n    extremes",
        "        seen |= 0u;\n    }\n    extremes",
        "poisoned_rows",
    ),
    (
        "an invocation does not look for NaN",
        INVOCATION,
        "    note_poison();\n    return close_block",
        "    return close_block",
        "poisoned_rows",
    ),
    (
        "a team does not look for NaN",
        SUBGROUP,
        "    note_poison();\n    top = from_order_key",
        "    top = from_order_key",
        "poisoned_rows",
    ),
    (
        "infinity goes unnoticed",
        SHARED,
        "max(signed.x, signed.y) >= 0x7f800000",
        "max(signed.x, signed.y) > 0x7f800000",
        "poisoned_rows",
    ),
    (
        "NaN with a sign goes unnoticed",
        SHARED,
        "max(unsigned.x, unsigned.y) > MINUS_INF",
        "0u > MINUS_INF",
        "poisoned_rows",
    ),
    (
        "NaN goes unnoticed in half of the columns",
        SHARED,
        "max(extremes.signed, extremes.signed.zwxy)",
        "extremes.signed",
        "poisoned_rows",
    ),
    (
        "sums keep the reference of the maximum before",
        INVOCATION,
        "add_sums(lowered(lanes[v], by), sums)",
        "add_sums(lanes[v], sums)",
        "block_maxima",
    ),
    (
        "sums without a term are far above those of the first",
        INVOCATION,
        "Reference(base, NOTHING_YET)",
        "Reference(base, 0.0)",
        "all_sizes",
    ),
    (
        "a wrong guess of the base stays",
        INVOCATION,
        "guess < 2u",
        "guess < 1u",
        "all_sizes",
    ),
    (
        "the base is always 0",
        SHARED,
        "abs(top.x) > params.rebase",
        "false",
        "all_sizes",
    ),
    (
        "the base is always the maximum",
        SHARED,
        "abs(top.x) > params.rebase",
        "true",
        "confident_rows",
    ),
    (
        "a maximum of half the size is a base",
        SHARED,
        "abs(top.x) > params.rebase",
        "abs(top.x) > 0.25 * params.rebase",
        "confident_rows",
    ),
    (
        "a base is a maximum above 0",
        SHARED,
        "abs(top.x) > params.rebase",
        "top.x > params.rebase",
        "all_sizes",
    ),
    (
        "gaps have no least",
        SHARED,
        "Four(max(max(at, vec4<f32>(least)) - base.x, vec4<f32>(-FAR)), vec4<f32>(0.0))",
        "Four(max(at, vec4<f32>(least)) - base.x, vec4<f32>(0.0))",
        "all_sizes",
    ),
    (
        "no gap is above 100",
        SHARED,
        "const FAR = 1000.0;",
        "const FAR = 100.0;",
        "all_sizes",
    ),
    (
        "what is below the smallest power of two wraps",
        SHARED,
        "bitcast<vec4<u32>>(max(n, vec4<f32>(0.0)) + 0x1p23)",
        "bitcast<vec4<u32>>(n + 0x1p23)",
        "all_sizes",
    ),
    (
        "terms are lifted by a power of two too few",
        INVOCATION,
        "raised.lift + UP",
        "raised.lift + UP - 1.0",
        "last_columns",
    ),
    (
        "terms of a team are not lifted",
        SUBGROUP,
        "reference.lift += UP;",
        "",
        "last_columns",
    ),
    (
        "a resident row is written from one slot",
        INVOCATION,
        "write_slot(row, SLOT * v, held[v], done, false);",
        "write_slot(row, SLOT * v, held[0], done, false);",
        "last_columns",
    ),
    (
        "a resident block is written from one stripe",
        SUBGROUP,
        "held[group * STRIPES + stripe], done, false);",
        "held[group * STRIPES], done, false);",
        "last_columns",
    ),
    (
        "a resident row is written to its first block",
        WORKGROUP,
        "team_write_held(row, team * BLOCK, done);",
        "team_write_held(row, 0u, done);",
        "last_columns",
    ),
    (
        "a team holds its slots a stripe apart",
        SUBGROUP,
        "held[group * STRIPES + stripe] = bits;",
        "held[group * STRIPES] = bits;",
        "last_columns",
    ),
    (
        "any row is one block",
        SHARED,
        "    if ONE_BLOCK {",
        "    if true {",
        "one_tree",
    ),
    (
        "a row is finished twice",
        INVOCATION,
        "    hand_over(row, done);\n    if writes_matrix",
        "    hand_over(row, done);\n    hand_over(row, done);\n    if writes_matrix",
        "last_columns",
    ),
    (
        "every member of a team finishes its row",
        SUBGROUP,
        "if local % TEAM == 0u {\n            hand_over",
        "if true {\n            hand_over",
        "last_columns",
    ),
    (
        "every team of a workgroup finishes its row",
        WORKGROUP,
        "if local == 0u {\n        hand_over",
        "if local % TEAM == 0u {\n        hand_over",
        "last_columns",
    ),
    (
        "a split row is not finished",
        SPLIT,
        "if local == 0u && start == 0u {",
        "if local == 0u && start != 0u {",
        "last_columns",
    ),
    (
        "every span hands its row over",
        SPLIT,
        "if local == 0u && start == 0u {",
        "if local == 0u {",
        "last_columns",
    ),
    (
        "a span writes into the next",
        SPLIT,
        "start + params.span);",
        "start + params.span + SLOT);",
        "in_place",
    ),
    (
        "a span ends a slot early",
        SPLIT,
        "start + params.span);",
        "start + params.span - SLOT);",
        "last_columns",
    ),
    (
        "no barrier before the state of a row is read",
        SPLIT,
        "    atomicOr(&seen_by_any, seen);\n    workgroupBarrier();",
        "    atomicOr(&seen_by_any, seen);",
        "poisoned_rows",
    ),
    (
        "lse is written where losses are wanted",
        INVOCATION,
        "if WITH_LSE {",
        "if WITH_LOSSES {",
        "entropy",
    ),
    (
        "losses are written where lse is wanted",
        INVOCATION,
        "if WITH_LOSSES {",
        "if WITH_LSE {",
        "exact_sums",
    ),
    (
        "what is seldom wanted is not written",
        INVOCATION,
        "if WITH_MORE {",
        "if !WITH_MORE {",
        "entropy",
    ),
    (
        "the label's gap and weight change places",
        INVOCATION,
        "done.label.half_gap, done.label.weight);",
        "done.label.weight, done.label.half_gap);",
        "every_label",
    ),
    (
        "the state of a row forgets the label's weight",
        INVOCATION,
        "    states[at + 8u] = bitcast<u32>(done.label.weight);",
        "",
        "class_weights",
    ),
    (
        "the state of a row forgets the label's gap",
        INVOCATION,
        "    states[at + 7u] = bitcast<u32>(done.label.half_gap);",
        "",
        "every_label",
    ),
    (
        "the state of a row forgets that it is correct",
        INVOCATION,
        "    states[at + 5u] = seen;\n    states[at + 6u] = prediction;",
        "    states[at + 5u] = seen & ~HIT;\n    states[at + 6u] = prediction;",
        "correct_rows",
    ),
    (
        "the state of a row forgets its prediction",
        INVOCATION,
        "    states[at + 6u] = prediction;",
        "",
        "ties",
    ),
    (
        "what was seen is taken for the prediction",
        INVOCATION,
        "        states[at + 5u],\n        states[at + 6u],",
        "        states[at + 6u],\n        states[at + 5u],",
        "ties",
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
        "NaN counts as infinity",
        INVOCATION,
        "select(bits >> 31u, 2u, fraction != 0u)",
        "(bits >> 31u)",
        "poisoned_rows",
    ),
    (
        "infinity counts nothing",
        INVOCATION,
        "        low = 1u;\n",
        "",
        "masks",
    ),
    (
        "infinity counts as its neighbour too",
        INVOCATION,
        "        high = 0u;\n",
        "",
        "masks",
    ),
    (
        "the count of labels stays for the next batch",
        INVOCATION,
        "            denominator[params.denominator_start + word] = 0u;",
        "",
        "resident_steps",
    ),
    (
        "the sum of the weights stays for the next batch",
        INVOCATION,
        "word < COUNTED_WORDS; word += 1u",
        "word < WEIGHT_SUM; word += 1u",
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
        "vectors of logits are looked for at the start of their binding",
        SUBGROUP,
        "let at = params.logits_start + element(row, select(params.first_column, column, inside));",
        "let at = element(row, select(params.first_column, column, inside));",
        "resident_steps",
    ),
    (
        "vectors of the gradient go to the start of their binding",
        SUBGROUP,
        "grad[(params.grad_start + at) / 4u] =",
        "grad[at / 4u] =",
        "resident_steps",
    ),
    (
        "the second word of 64 bits is the first",
        INVOCATION,
        "let high = vec2<u32>(vector >> vec2<u32>(32u));",
        "let high = vec2<u32>(vector);",
        "last_columns",
    ),
    (
        "the second word of 64 bits is lost where they are written",
        INVOCATION,
        "return u64(words.x) | (u64(words.y) << 32u);",
        "return u64(words.x);",
        "last_columns",
    ),
    (
        "the second 64 bits of a vector are the first",
        INVOCATION,
        "half_vector_of(words.zw)",
        "half_vector_of(words.xy)",
        "last_columns",
    ),
    (
        "slots are cut out as at the start of their binding",
        SUBGROUP,
        "let shift = params.logits_start + element(row, column);",
        "let shift = element(row, column);",
        "resident_steps",
    ),
    (
        "a vector of the gradient over the logits is the next one",
        SUBGROUP,
        "logits[(params.logits_start + at) / 4u] = vector_of(bits);",
        "logits[(params.logits_start + at) / 4u + 1u] = vector_of(bits);",
        "in_place",
    ),
    (
        "a denominator in its buffer is known",
        INVOCATION,
        "!DENOMINATOR_KNOWN && has_flag(DENOMINATOR_IN_BUFFER)",
        "DENOMINATOR_KNOWN && has_flag(DENOMINATOR_IN_BUFFER)",
        "resident_steps",
    ),
    (
        "the rows of a weighted mean are known",
        INVOCATION,
        "!DENOMINATOR_KNOWN && CLASS_WEIGHTS && has_flag(DENOMINATOR_IS_WEIGHTS)",
        "DENOMINATOR_KNOWN && CLASS_WEIGHTS && has_flag(DENOMINATOR_IS_WEIGHTS)",
        "weighted_denominators",
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
        "of the rows of an invocation one is counted",
        INVOCATION,
        "own += 1u;",
        "own = 1u;",
        "weighted_denominators",
    ),
    (
        "rows are counted by two workgroups",
        INVOCATION,
        "(group * ROWS_EACH + i) * WORKGROUP_SIZE",
        "(group + i) * WORKGROUP_SIZE",
        "weighted_denominators",
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
        "class_weights[params.class_weights_start + column]",
        "class_weights[params.class_weights_start + min(column + 1u, params.classes - 1u)]",
        "class_weights",
    ),
    (
        "class weights are looked for at the start of their binding",
        OPTIONS,
        "class_weights[params.class_weights_start + column]",
        "class_weights[column]",
        "resident_steps",
    ),
    (
        "a vector of class weights is the last one",
        OPTIONS,
        "(params.class_weights_start + min(column, params.classes - SLOT)) / 4u",
        "(params.class_weights_start + params.classes - SLOT) / 4u",
        "class_weights",
    ),
    (
        "the label's weight is the first of its vector",
        OPTIONS,
        "words_of(class_weights[at / 4u])[at % 4u]",
        "words_of(class_weights[at / 4u])[0]",
        "class_weights",
    ),
    (
        "class weights that are no whole vectors end before the last class",
        OPTIONS,
        "vec4<u32>(params.classes - 1u));\n    return vec4<u32>(\n        class_weight_bits",
        "vec4<u32>(params.classes - 2u));\n    return vec4<u32>(\n        class_weight_bits",
        "class_weights",
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
        "vec2<f32>(row.weight, 0.0)",
        "vec2<f32>(1.0, 0.0)",
        "class_weights",
    ),
    (
        "dense labels are not weighted",
        OPTIONS,
        "a = veil4(a * checked_weights(class_weights_bits(column)));",
        "",
        "class_weights",
    ),
    (
        "a weight of -0 is none",
        OPTIONS,
        "(bits >= vec4<u32>(EXPONENT)) & (bits != vec4<u32>(0x80000000u));",
        "bits >= vec4<u32>(EXPONENT);",
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
        "    seen |= select(0u, BAD_WEIGHT, any(bad));\n    return bitcast<vec4<f32>>(select(bits & vec4<u32>(0x7fffffffu)",
        "    return bitcast<vec4<f32>>(select(bits & vec4<u32>(0x7fffffffu)",
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
        "ties of the weights' sum round up",
        INVOCATION,
        "(bits & 0xffu) > 0x80u ||",
        "(bits & 0xffu) >= 0x80u ||",
        "weight_sums",
    ),
    (
        "ties of the weights' sum round down",
        INVOCATION,
        "|| (bits & 0x1ffu) == 0x180u",
        "",
        "weight_sums",
    ),
    (
        "of the weights' sum two words are looked at",
        INVOCATION,
        "let lost = rest | (low << shift);",
        "let lost = low << shift;",
        "weight_sums",
    ),
    (
        "of the weights' sum what the second word has too much is lost",
        INVOCATION,
        "let lost = rest | (low << shift);",
        "let lost = rest;",
        "weight_sums",
    ),
    (
        "the second word of the weights' sum is shifted by one too many",
        INVOCATION,
        "((low >> 1u) >> (31u - shift))",
        "((low >> 1u) >> (32u - shift))",
        "weight_sums",
    ),
    (
        "a small word of the weights' sum is taken for all of it",
        INVOCATION,
        "if power == 0u && high < 0x1000000u {",
        "if high < 0x1000000u {",
        "weight_sums",
    ),
    (
        "a carry between the weights of workgroups is dropped",
        INVOCATION,
        "is_limb && before + more < before",
        "false",
        "weight_sums",
    ),
    (
        "a negative weight is any weight",
        INVOCATION,
        "denominator[specials + 2u] != 0u",
        "false",
        "bad_weights",
    ),
    (
        "an infinite weight is no weight",
        INVOCATION,
        "if denominator[specials] != 0u",
        "if false",
        "bad_weights",
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
        "let rows = denominator[params.denominator_start + COUNTED_ROWS];",
        "let rows = weight_sum();",
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
        "pair_sum(c, pair_product(h, vec2<f32>(row.sums.w, 0.0)))",
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
        "fma(vec4<f32>(params.keep_high), a, vec4<f32>(share.x))",
        "(params.keep_high * a)",
        "smoothing",
    ),
    (
        "weights are summed up in other units",
        OPTIONS,
        "var a = vec4<f32>(params.share_unit);",
        "var a = vec4<f32>(1.0);",
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
        "seen |= select(0u, LOSS_UP, any(slot.masked & (a > vec4<f32>(0.0))));",
        "",
        "smoothing",
    ),
    (
        "columns past the last class have its weight",
        OPTIONS,
        "a = select(vec4<f32>(0.0), a, columns < vec4<u32>(params.classes));",
        "",
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
        "scales.y = over(given, z_divisor());",
        "scales.y = over(given, by);",
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
        WORKGROUP,
        "gap.y += here.y - top.y;",
        "",
        "scale_and_cap",
    ),
    (
        "the rounding error of tanh is dropped from gaps",
        WORKGROUP,
        "- base.x, here.y - base.y);",
        "- base.x, 0.0);",
        "scale_and_cap",
    ),
    (
        "the maximum's own rounding error is dropped",
        WORKGROUP,
        "exp_mantissa(vec2<f32>(gap.high.x, gap.low.x))",
        "exp_mantissa(vec2<f32>(gap.high.x, 0.0))",
        "scale_and_cap",
    ),
    (
        "the rounding error of tanh is dropped in the loss",
        WORKGROUP,
        "gap.y += 0.5 * (top.y - here.y);",
        "",
        "scale_and_cap",
    ),
    (
        "the rounding error of -2u is dropped",
        WORKGROUP,
        "fma(n, -LN_2_TINY, t.y)",
        "(n * -LN_2_TINY)",
        "scale_and_cap",
    ),
    (
        "the second part of 1/c is dropped",
        WORKGROUP,
        "veil(product.y + veil(size * params.inverse_cap_low))",
        "product.y",
        "scale_and_cap",
    ),
    (
        "the slope of the cap is 1 - tanh²",
        WORKGROUP,
        "all.slope[i] = veil(veil(4.0 * q * inverse) * inverse);",
        "all.slope[i] = 1.0 - tanh.x * tanh.x;",
        "scale_and_cap",
    ),
    (
        "the slope of the cap is forgotten",
        MORE_OPTIONS,
        "grad * slopes(place)",
        "grad",
        "scale_and_cap",
    ),
    (
        "the slope of the scale is forgotten",
        MORE_OPTIONS,
        "scales *= params.slope;",
        "",
        "scale_and_cap",
    ),
    (
        "a scale below 1 is applied to the whole difference",
        WORKGROUP,
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
        WORKGROUP,
        "< -params.gone",
        "< -52.0",
        "scale_and_cap",
    ),
    (
        "x is not bounded before tanh",
        WORKGROUP,
        "min(abs(x), params.bound)",
        "abs(x)",
        "scale_and_cap",
    ),
    (
        "lse past the largest f32 is finite",
        INVOCATION,
        "infinite, is_past(row.top)",
        "infinite, false",
        "scale_and_cap",
    ),
    (
        "tanh is even",
        WORKGROUP,
        "select(tanh, -tanh, x < 0.0)",
        "tanh",
        "scale_and_cap",
    ),
    (
        "tanh under a low cap is even",
        WORKGROUP,
        "(high | sign)",
        "(high)",
        "scale_and_cap",
    ),
    (
        "the second part of tanh has no sign",
        WORKGROUP,
        "(low ^ sign)",
        "(low)",
        "scale_and_cap",
    ),
    (
        "x is not bounded before tanh under a low cap",
        WORKGROUP,
        "min(abs(x), vec4<f32>(params.bound))",
        "abs(x)",
        "scale_and_cap",
    ),
    (
        "the slope of a low cap is 1 - tanh²",
        WORKGROUP,
        "let slope = veil4((h + t_rest) * exact) * veil4(power * veil4((1.0 - t) - t_rest) * exact);",
        "let slope = 1.0 - tanh * tanh;",
        "scale_and_cap",
    ),
    (
        "the rest of s/c is dropped",
        WORKGROUP,
        "fma(size, vec4<f32>(params.inverse_cap_rest), (size - short) * params.inverse_cap_head)",
        "(size - short) * params.inverse_cap_head",
        "scale_and_cap",
    ),
    (
        "the rest of x is dropped before tanh",
        WORKGROUP,
        "(size - short) * params.inverse_cap_head",
        "vec4<f32>(0.0)",
        "scale_and_cap",
    ),
    (
        "half of log 2 has one part",
        WORKGROUP,
        "fma(n, vec4<f32>(-HALF_LN_2_LOW), u_rest)",
        "u_rest",
        "scale_and_cap",
    ),
    (
        "the rest of r goes without its square",
        WORKGROUP,
        "fma(square * square * r, q, -(r_rest * (r * t)))",
        "(square * square * r * q)",
        "scale_and_cap",
    ),
    (
        "the rest of f is dropped",
        WORKGROUP,
        "fma(-0.25 * power, t_rest, veil4(f - f_high))",
        "(-0.25 * power * t_rest)",
        "scale_and_cap",
    ),
    (
        "the quotient of tanh has 12 bits",
        WORKGROUP,
        "bitcast<vec4<u32>>(residual * inverse)",
        "bitcast<vec4<u32>>(vec4<f32>(0.0) * inverse)",
        "scale_and_cap",
    ),
    (
        "the rest of a low cap is dropped",
        WORKGROUP,
        "fma(tanh.high, vec4<f32>(params.factor_rest), params.factor * tanh.low)",
        "params.factor * tanh.low",
        "scale_and_cap",
    ),
    (
        "gaps under a low cap have one part",
        WORKGROUP,
        "veil4(there.high - here.high) + veil4(there.low - here.low)",
        "veil4(there.high - here.high)",
        "scale_and_cap",
    ),
    (
        "the rest of the scale is dropped",
        WORKGROUP,
        "fma(gap, vec4<f32>(params.factor_rest), (gap - short) * params.factor_head)",
        "(gap - short) * params.factor_head",
        "scale_and_cap",
    ),
    (
        "the rest of a gap is dropped before the scale",
        WORKGROUP,
        "(gap - short) * params.factor_head",
        "vec4<f32>(0.0)",
        "scale_and_cap",
    ),
    (
        "a scale below 1 is applied to whole gaps",
        WORKGROUP,
        "let gap = params.unit * max(",
        "let gap = max(",
        "scale_and_cap",
    ),
    // ---- entropy and predictions
    (
        "a merge leaves the entropy where it was",
        MORE_OPTIONS,
        "let moved = low.entropy + veil(low.pair.x * (2.0 * min(drop, 64.0)));",
        "let moved = low.entropy;",
        "entropy",
    ),
    (
        "the maximum that the lower state left out moves without entropy",
        MORE_OPTIONS,
        "veil(low.pair.x * (2.0 * min(drop, 64.0)))",
        "veil((low.pair.x - 1.0) * (2.0 * min(drop, 64.0)))",
        "entropy",
    ),
    (
        "a merge does not rescale the entropy",
        MORE_OPTIONS,
        "let entropy = high.entropy + veil(moved * rescale);",
        "let entropy = high.entropy + moved;",
        "entropy",
    ),
    (
        "gaps of the entropy are halves",
        MORE_OPTIONS,
        "veil4(weight * (2.0 * min(gap, vec4<f32>(64.0))))",
        "veil4(weight * min(gap, vec4<f32>(64.0)))",
        "entropy",
    ),
    (
        "large gaps of the entropy are cut off",
        MORE_OPTIONS,
        "(2.0 * min(gap, vec4<f32>(64.0)))",
        "(2.0 * min(gap, vec4<f32>(8.0)))",
        "entropy",
    ),
    (
        "the entropy is not normalised",
        INVOCATION,
        "veil(row.sums.y * reciprocal_sum(row.sums.x))",
        "row.sums.y",
        "entropy",
    ),
    (
        "ignored rows are correct",
        MORE_OPTIONS,
        "if done.state.first == done.label.column && (seen & (IGNORED | BAD_LABEL)) == 0u {",
        "if done.state.first == done.label.column || (seen & IGNORED) != 0u {",
        "correct_rows",
    ),
    (
        "a NaN row is correct",
        MORE_OPTIONS,
        "        return NO_COLUMN;\n    }\n    if done.state.first",
        "        seen |= select(0u, HIT, done.state.first == done.label.column);\n        return NO_COLUMN;\n    }\n    if done.state.first",
        "correct_rows",
    ),
    (
        "ignored rows are counted among the correct",
        INVOCATION,
        "        if WITH_PREDICTIONS && (seen & HIT) != 0u {\n            count(slot, CORRECT_ROWS);\n        }\n    }",
        "    }\n    if WITH_PREDICTIONS && (seen & (HIT | IGNORED)) != 0u {\n        count(slot, CORRECT_ROWS);\n    }",
        "correct_rows",
    ),
    // ---- logits and outputs of 16 bits
    (
        "the halves of a word are swapped",
        OPTIONS,
        "logit_word(at / 2u) >> (16u * (at % 2u))",
        "logit_word(at / 2u) >> (16u * (1u - at % 2u))",
        "half_logits",
    ),
    (
        "the halves of a vector's words are swapped",
        OPTIONS,
        "vec4<u32>(widened(pair.x), widened(pair.x >> 16u), widened(pair.y), widened(pair.y >> 16u))",
        "vec4<u32>(widened(pair.x >> 16u), widened(pair.x), widened(pair.y >> 16u), widened(pair.y))",
        "half_logits",
    ),
    (
        "a slot of halves is the other one of its vector",
        OPTIONS,
        "select(bits.xy, bits.zw, (at & 4u) != 0u)",
        "select(bits.xy, bits.zw, (at & 4u) == 0u)",
        "half_logits",
    ),
    (
        "a label's half is looked for in another word",
        OPTIONS,
        "[at / 2u % 4u]",
        "[at % 4u]",
        "half_logits",
    ),
    (
        "halves that are written by vectors are swapped",
        OPTIONS,
        "return low | (high << vec2<u32>(16u));",
        "return high | (low << vec2<u32>(16u));",
        "half_outputs",
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
        MORE_OPTIONS,
        "(row / params.inner * params.row_length + column) * params.inner + row % params.inner",
        "(row % params.inner * params.row_length + column) * params.inner + row / params.inner",
        "strided",
    ),
    (
        "the step between classes is forgotten where they are read",
        MORE_OPTIONS,
        "min(columns, vec4<u32>(params.end_column - 1u)) * column_step()",
        "min(columns, vec4<u32>(params.end_column - 1u))",
        "strided",
    ),
    (
        "the step between classes is forgotten in softmax",
        MORE_OPTIONS,
        "put_softmax(params.softmax_start + at, column_step(),",
        "put_softmax(params.softmax_start + at, 1u,",
        "strided",
    ),
    (
        "the step between classes is forgotten in log-softmax",
        MORE_OPTIONS,
        "put_softmax(params.log_softmax_start + at, column_step(),",
        "put_softmax(params.log_softmax_start + at, 1u,",
        "strided",
    ),
    (
        "the step between classes is forgotten in the gradient",
        MORE_OPTIONS,
        "put_grad(at, column_step(),",
        "put_grad(at, 1u,",
        "strided",
    ),
    (
        "rows are as long as their classes",
        MORE_OPTIONS,
        "return row * params.row_length + column;",
        "return row * params.classes + column;",
        "padded",
    ),
    (
        "interleaved rows are as long as their classes",
        MORE_OPTIONS,
        "(row / params.inner * params.row_length + column)",
        "(row / params.inner * params.classes + column)",
        "padded",
    ),
    (
        "padded columns are not written",
        MORE_OPTIONS,
        "select(params.classes, params.row_length, PADDED)",
        "params.classes",
        "padded",
    ),
    (
        "padding that is to be kept is written",
        MORE_OPTIONS,
        "select(params.classes, params.row_length, PADDED)",
        "params.row_length",
        "padded",
    ),
    (
        "the padding of a NaN row is NaN in softmax",
        MORE_OPTIONS,
        "inside, select(bits, vec4<u32>(0u), past)",
        "inside, bits",
        "padded",
    ),
    (
        "the padding of a NaN row is NaN in the gradient",
        MORE_OPTIONS,
        "        if PADDED {",
        "        if false {",
        "padded",
    ),
    (
        "the padding of log-softmax is 0",
        MORE_OPTIONS,
        "inside, select(bits, vec4<u32>(MINUS_INF), past)",
        "inside, select(bits, vec4<u32>(0u), past)",
        "padded",
    ),
    // ---- products of the Jacobian
    (
        "a merge does not rescale the product with the vector",
        MORE_OPTIONS,
        "high.weighted.x + veil(low.weighted.x * rescale)",
        "high.weighted.x + low.weighted.x",
        "softmax_backward",
    ),
    (
        "the mean of the vector is forgotten",
        MORE_OPTIONS,
        "(column_weights(row, column, slot) - pull.mean)",
        "column_weights(row, column, slot)",
        "softmax_backward",
    ),
    (
        "the mean of the vector is not normalised",
        MORE_OPTIONS,
        "veil(sums.z * inverse)",
        "sums.z",
        "softmax_backward",
    ),
    (
        "softmax is normalised once more",
        MORE_OPTIONS,
        "    if !FROM_SOFTMAX {\n        inverse",
        "    if FROM_SOFTMAX || !FROM_SOFTMAX {\n        inverse",
        "softmax_backward",
    ),
    (
        "blocks of softmax are rescaled by their maxima",
        MORE_OPTIONS,
        "return RowState(0.0, true, first,",
        "return RowState(top, true, first,",
        "softmax_backward",
    ),
    (
        "a vector is weighed by softmax as by e",
        MORE_OPTIONS,
        "select(0x1p-90f, 1.0, FROM_SOFTMAX)",
        "0x1p-90f",
        "softmax_backward",
    ),
    (
        "the product with the vector stays in units of its reference",
        MORE_OPTIONS,
        "        weighted *= scale.y;",
        "",
        "softmax_backward",
    ),
    (
        "each row has the upstream gradient of all",
        MORE_OPTIONS,
        "if !UPSTREAM_GIVEN {",
        "if true {",
        "softmax_backward",
    ),
    (
        "-inf in place of a probability goes unnoticed",
        MORE_OPTIONS,
        "MINUS_INF - u32(FROM_SOFTMAX)",
        "MINUS_INF",
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
        MORE_OPTIONS,
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

/// Whether the driver may hide a bug. What a team exchanges goes through arrays `…_of_all`, and a team is one
/// SIMD group or two.
fn may_hide(bug: &str, from: &str, software: bool) -> bool {
    let barrier = bug.starts_with("no barrier");
    (barrier && from.contains("_of_all"))
        || ((barrier || bug.starts_with("a compiler")) && !software)
}

/// Every text of a shader, with what it is.
fn texts() -> &'static [(Variant, String)] {
    static TEXTS: OnceLock<Vec<(Variant, String)>> = OnceLock::new();
    TEXTS.get_or_init(|| {
        let all = |pairs| {
            let all = Variant::all().into_iter();
            all.map(move |variant| (variant, variant.wgsl(pairs)))
        };
        all(false).chain(all(true)).collect()
    })
}

/// Whether this is in the text of every kernel, or of none.
fn is_everywhere(from: &str) -> bool {
    let has = |kernel: Strategy| {
        let mut all = texts().iter();
        all.any(|(variant, text)| {
            matches!(variant, Variant::Row { .. })
                && variant.entry_point().starts_with(kernel.name())
                && text.contains(from)
        })
    };
    let found = Strategy::ALL.map(has);
    found == [true; 4] || found == [false; 4]
}

/// Whether a kernel has this text only where it leaves its rows to another kernel to finish.
fn is_of_states(kernel: Strategy, from: &str) -> bool {
    let finishes = |variant: &Variant| match *variant {
        Variant::Row {
            kernel, finishes, ..
        } => finishes || !kernel.can_finish(),
        Variant::FinishRows(_) | Variant::MoreRows(_) => false,
        _ => true,
    };
    let of_kernel = |variant: &Variant| {
        !matches!(variant, Variant::Row { .. }) || variant.entry_point().starts_with(kernel.name())
    };
    let mut found = texts().iter().filter(|(_, text)| text.contains(from));
    !found.any(|(variant, _)| of_kernel(variant) && finishes(variant))
}

/// Plants the bugs of a kernel; with `SOFTXENT_LONG=1` those too that are planted in one or two kernels
/// for all. Bugs in what goes through workgroup memory show without subgroups, bugs in what one kernel leaves
/// to another with few buffers, bugs in teams of half a block with small subgroups. That the unedited shaders
/// pass every check has tests of its own, but for those that only such a device needs.
fn plant(kernel: Strategy) {
    // A span of a split row is finished by several subgroups, which have to wait for each other.
    let engine = &limited(gpu!(), |profile| {
        profile.tuning = Some(Tuning {
            span_workgroup: 64,
            ..profile.tuning()
        });
    });
    let started = Instant::now();
    let (mut passed, mut missed) = (HashSet::new(), Vec::new());
    let (mut planted, mut slowest) = (0, (Duration::ZERO, ""));
    let samples = [INVOCATION, WORKGROUP, SHARED, OPTIONS, MORE_OPTIONS];
    let for_all = |bug: &Bug| long() && samples.contains(&bug.1) && is_everywhere(bug.2);
    let chosen = BUGS
        .iter()
        .filter(|bug| bug.1.contains(&kernel) || for_all(bug));
    for &(bug, kernels, from, to, check) in chosen {
        let begun = Instant::now();
        let in_memory =
            from.contains("_of_all") || kernels.iter().any(|&kernel| is_of_states(kernel, from));
        let in_halves = bug.starts_with("a team of half a block");
        let plain = if in_memory {
            limited(engine, web)
        } else if in_halves {
            limited(engine, |profile| {
                profile.subgroup = profile.subgroup.map(|_| 4)
            })
        } else {
            limited(engine, |_| ())
        };
        let by_subgroup = in_halves || from.contains("subgroup");
        if by_subgroup && plain.profile().subgroup.is_none() {
            println!("{bug}: no subgroups here");
            continue;
        }
        if (in_memory || in_halves) && passed.insert((check, in_halves)) {
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
            Ok(()) if may_hide(bug, from, engine.profile().software) => {
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
    let mut names = HashSet::new();
    for &(bug, kernels, from, to, check) in BUGS {
        assert!(names.insert(bug), "{bug}: twice");
        assert!(!kernels.is_empty(), "{bug}: planted nowhere");
        named(check);
        let all = texts().iter().map(|(_, text)| text);
        let found: Vec<&String> = all.filter(|text| text.contains(from)).collect();
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
            Validator::new(
                ValidationFlags::all(),
                Capabilities::SUBGROUP | Capabilities::SHADER_INT64,
            )
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
