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
use std::time::Instant;

use softxent::Strategy;

use crate::checks::named;
use crate::common::{gpu, limited, report, sibling, web};

const INVOCATION: &[Strategy] = &[Strategy::RowPerInvocation];
const SUBGROUP: &[Strategy] = &[Strategy::RowPerSubgroup];
const WORKGROUP: &[Strategy] = &[Strategy::RowPerWorkgroup];
const SPLIT: &[Strategy] = &[Strategy::SplitRow];
/// In text that all kernels share: one with a team and one without.
const SHARED: &[Strategy] = &[Strategy::RowPerInvocation, Strategy::RowPerSubgroup];
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
    (
        "the last column is dropped",
        SHARED,
        "let last = params.classes - 1u;",
        "let last = max(params.classes, 2u) - 2u;",
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
        "partners are three apart",
        SUBGROUP,
        "subgroupShuffleXor(value, apart)",
        "subgroupShuffleXor(value, 3u * apart)",
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
        "seen |= states[at + 6u];",
        "",
        "poisoned_rows",
    ),
    (
        "runs of blocks overlap",
        SPLIT,
        "min(blocks, (local + 1u) * run)",
        "min(blocks, (local + 1u) * run + 1u)",
        "block_maxima",
    ),
    (
        "the gradient at a row's label overtakes its readers",
        SUBGROUP,
        "        write_slot(row, column, done, top, factor);",
        "        write_slot(row, column, done, top, factor);\n        write_slot(row, column, done, top, factor);",
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
        "rescale = exp_gap(low.top, high.top);",
        "rescale = 1.0;",
        "block_maxima",
    ),
    (
        "a block's probabilities keep the block's own maximum",
        SHARED,
        "return veil(exp_gap(block_top, done.state.top) * done.inverse);",
        "return done.inverse;",
        "block_maxima",
    ),
    (
        "a block is merged twice",
        SHARED,
        "            state = merge(pile[level], state);\n        }",
        "            state = merge(pile[level], merge(pile[level], state));\n        }",
        "block_maxima",
    ),
    (
        "the maximum that the lower state left out is forgotten",
        SHARED,
        "low.sums[0] = veil(low.sums[0] + 1.0);",
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
        "without_maximum(lanes, lanes[1] - 1.0)",
        "without_maximum(lanes, 0.0)",
        "ties",
    ),
    (
        "of equal maxima the later block's wins",
        SHARED,
        "right.top > left.top",
        "right.top >= left.top",
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
        "return -veil(done.label.others * done.inverse) * done.scale;",
        "return (p - 1.0) * done.scale;",
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
        "let r_low = fma(n, -LN_2_LOW, gap.y);",
        "let r_low = n * -LN_2_LOW;",
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
        "(veil(p * done.label.weight) -",
        "(veil(p) -",
        "dense_weights",
    ),
    (
        "a merge leaves the weighted gaps where they were",
        SHARED,
        "high.z + (low.z + veil(low.w * drop)),",
        "high.z + low.z,",
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
        "        seen |= POISONED;\n    }\n    return Slot(",
        "    }\n    return Slot(",
        "poisoned_rows",
    ),
    (
        "a slot is read again after it was written",
        INVOCATION,
        "                write_slot(row, column, done, top, factor);",
        "                write_slot(row, column, done, top, factor);\n                write_slot(row, column, done, top, factor);",
        "in_place",
    ),
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
        "atomicExchange(&accumulators[slot * SLOT_WORDS + local], 0u)",
        "atomicLoad(&accumulators[slot * SLOT_WORDS + local])",
        "resident_steps",
    ),
    (
        "the count of labels stays for the next batch",
        INVOCATION,
        "        denominator[params.denominator_start] = 0u;",
        "",
        "resident_steps",
    ),
    (
        "the denominator is looked for at the start of its binding",
        INVOCATION,
        "return denominator[params.denominator_start];",
        "return denominator[0];",
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
        "labels[params.labels_start + row] != params.ignore_index {",
        "labels[params.labels_start + row] != params.ignore_index - 1 {",
        "resident_steps",
    ),
    (
        "a borrow is dropped",
        INVOCATION,
        "borrow = select(0u, 1u, wrapped || minuend < taken);",
        "borrow = 0u;",
        "exact_sums",
    ),
];

fn shows_by_driver(bug: &str) -> bool {
    bug.starts_with("no barrier") || bug.starts_with("a compiler")
}

/// Plants the bugs of a kernel; those that all kernels share count as the first one's. Bugs in what
/// goes through workgroup memory show without subgroups.
fn plant(kernel: Strategy) {
    let engine = gpu!();
    let started = Instant::now();
    let (mut passed, mut missed) = (HashSet::new(), Vec::new());
    for &(bug, _, from, to, check) in BUGS.iter().filter(|bug| bug.1.contains(&kernel)) {
        let in_memory = from.contains("_of_all");
        let plain = match in_memory {
            true => limited(engine, web),
            false => sibling(engine),
        };
        if !in_memory && from.contains("subgroup") && plain.profile().subgroup.is_none() {
            println!("{bug}: no subgroups here");
            continue;
        }
        if passed.insert((check, in_memory)) {
            named(check)(&plain, kernel).unwrap_or_else(|why| panic!("{check}, unedited: {why}"));
        }
        let changed = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&changed);
        let edited = plain.with_edited_shaders(move |_, text| {
            seen.fetch_add(text.matches(from).count(), Ordering::Relaxed);
            text.replace(from, to)
        });
        match named(check)(&edited, kernel) {
            Err(why) => println!("{bug}: {check}: {why:.150}"),
            Ok(()) if shows_by_driver(bug) && !engine.profile().software => {
                println!("{bug}: {check} passes: the driver hides it");
            }
            Ok(()) => missed.push(format!("{bug}: {check} passes")),
        }
        let changed = changed.load(Ordering::Relaxed);
        assert!(changed > 0, "{bug}: the text to replace is gone: {from}");
    }
    report(&format!(
        "planted in {}: {:.1?}",
        kernel.name(),
        started.elapsed()
    ));
    assert!(missed.is_empty(), "not caught:\n{}", missed.join("\n"));
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
