// A kernel finishes its rows itself.

const FINISHES = true;
// Whether outputs that are seldom wanted are.
override WITH_MORE: bool = false;

fn hand_over(row: u32, done: Row) {
    let prediction = prediction_of(done);
    let sums = wide(done.state.sums);
    let outcome = Outcome(done.state.top, sums, seen, prediction, done.label.half_gap, done.label.weight);
    finish(row, outcome);
    if WITH_MORE {
        finish_more(row, outcome);
    }
}
