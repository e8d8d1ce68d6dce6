// A team: TEAM neighbouring invocations of a workgroup, LANES or half of them, that share the blocks of a
// row. Member t takes the lanes t, t + TEAM, so that neighbours read neighbours. A block is read once,
// and stays with the team until the next.
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
        all = add_sums(all, partner_sums(all, apart));
    }
    return all;
}

// Stripes that a block can have.
override HELD_STRIPES: u32 = 8u;

// The bits of the block that was read last: of each lane that a member has, slot after slot.
var<private> held: array<vec4<u32>, 2u * STRIPES>;

// The first column of a slot that a member holds.
fn held_column(start: u32, group: u32, stripe: u32) -> u32 {
    return start + stripe * STRIPE + SLOT * (group * TEAM + local % TEAM);
}

// The state of the block of the columns from `start` to `end`.
fn team_block(row: u32, start: u32, end: u32) -> RowState {
    var top = LOWEST;
    for (var group = 0u; group < LANES / TEAM; group += 1u) {
        for (var stripe = 0u; stripe < HELD_STRIPES; stripe += 1u) {
            let bits = noted(slot_bits(row, held_column(start, group, stripe), end));
            held[group * STRIPES + stripe] = bits;
            top = max(top, slot_top(slot_of(bits)));
        }
    }
    note_poison();
    top = from_order_key(team_max(order_key(top)));
    let highest = peak(top);
    var reference = reference_of(highest.point, base_of(highest.point));
    reference.lift += UP;
    var groups: array<Sums, 2>;
    var first = NO_COLUMN;
    for (var group = 0u; group < LANES / TEAM; group += 1u) {
        var lane = no_sums();
        for (var stripe = 0u; stripe < HELD_STRIPES; stripe += 1u) {
            let column = held_column(start, group, stripe);
            let slot = slot_of(held[group * STRIPES + stripe]);
            lane = add_sums(lane, slot_sums(row, column, slot, highest, reference));
            if WITH_PREDICTIONS {
                first = min(first, slot_first(slot, column, top));
            }
        }
        groups[group] = team_sum(lane);
    }
    if WITH_PREDICTIONS {
        first = ~team_max(~first);
    }
    var sums = groups[0];
    if TEAM < LANES {
        sums = add_sums(sums, groups[1]);
    }
    return close_block(top, first, sums);
}

// Writes the columns of the block that was read last.
fn team_write_held(row: u32, start: u32, done: Row) {
    for (var group = 0u; group < LANES / TEAM; group += 1u) {
        for (var stripe = 0u; stripe < HELD_STRIPES; stripe += 1u) {
            write_slot(row, held_column(start, group, stripe), held[group * STRIPES + stripe], done, false);
        }
    }
}

// The label's logit may be overwritten only when all have read it.
fn wait_for_label_readers() {
    if GRAD_OVER_LOGITS {
        storageBarrier();
    }
}
