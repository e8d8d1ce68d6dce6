// A team: TEAM neighbouring invocations of a workgroup, a power of two from 4 to LANES, that share the
// blocks of a row. Member t takes the lanes t, t + TEAM, …, so that neighbours read neighbours.
//
// `partner_word` and `partner_sums` return the value of the member whose number differs in one bit:
// the pairs of the canonical tree, in which a + b is b + a, so all members end with the same bits.
// All invocations of a workgroup meet in them: no control flow around them may differ. What has no
// row to work on takes part with `end` = 0.

// Number of the invocation in its workgroup.
var<private> local: u32;

fn team_max(value: u32) -> u32 {
    var all = value;
    for (var apart = 1u; apart < TEAM; apart *= 2u) {
        all = max(all, partner_word(all, apart));
    }
    return all;
}

fn team_or(value: u32) -> u32 {
    var all = value;
    for (var apart = 1u; apart < TEAM; apart *= 2u) {
        all |= partner_word(all, apart);
    }
    return all;
}

fn team_sum(value: Sums) -> Sums {
    var all = value;
    for (var apart = 1u; apart < TEAM; apart *= 2u) {
        all += partner_sums(all, apart);
    }
    return all;
}

// The order key of the maximum of the columns from `start` to `end`, at most a block.
fn team_key(row: u32, start: u32, end: u32) -> u32 {
    var top = Top(LOWEST, false);
    for (var column = start + SLOT * (local % TEAM); column < end; column += SLOT * TEAM) {
        top = raise(top, read_slot(row, column));
    }
    return team_max(key_of(top));
}

// The state of the block of the columns from `start` to `end`.
fn team_block(row: u32, start: u32, end: u32) -> RowState {
    let key = team_key(row, start, end);
    let top = peak(from_order_key(key));
    var groups: array<Sums, 8>;
    var first = NO_COLUMN;
    for (var group = 0u; group < LANES / TEAM; group += 1u) {
        let column = start + SLOT * (group * TEAM + local % TEAM);
        groups[group] = team_sum(lane_sums(row, column, end, top));
        if WITH_PREDICTIONS {
            first = min(first, lane_first(row, column, end, top));
        }
    }
    if WITH_PREDICTIONS {
        first = ~team_max(~first);
    }
    return close_block(key, first, fold_groups(groups));
}

// Writes the columns from `start` to `end` of a block; each member those that it alone reads.
fn team_write(row: u32, start: u32, end: u32, done: Row) {
    for (var column = start + SLOT * (local % TEAM); column < end; column += SLOT * TEAM) {
        write_slot(row, column, done);
    }
}

// The label's logit may be overwritten only when all have read it.
fn wait_for_label_readers() {
    if GRAD_OVER_LOGITS {
        storageBarrier();
    }
}
