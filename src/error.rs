//! What can go wrong, each with what was asked, what is there, and what to do.

use std::time::Duration;

use crate::problem::Wanted;

/// Everything this crate can fail with. Nothing in it panics on input or on a fault of the device.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    // ---- the problem itself, found by `Problem::build` --------------------------------------
    /// Rows without classes have no softmax.
    #[error("a row has 0 classes: softmax needs at least one")]
    NoClasses,
    /// More classes than a 32-bit label and a 32-bit column can name.
    #[error("{classes} classes asked for, at most {most} are supported")]
    TooManyClasses {
        /// Classes asked for.
        classes: usize,
        /// The most there can be.
        most: usize,
    },
    /// `rows × classes` does not fit the address space.
    #[error("{rows} rows of {classes} classes overflow the address space")]
    TooLarge {
        /// Rows asked for.
        rows: usize,
        /// Classes asked for.
        classes: usize,
    },
    /// No output was asked for.
    #[error("nothing is wanted: ask for at least one output, such as the loss")]
    NothingWanted,
    /// An output that is defined by labels, and no labels.
    #[error("{output} needs labels, and the problem has none: give labels or leave {output} out")]
    LabelsNeeded {
        /// The output.
        output: Wanted,
    },
    /// A shape that is none.
    #[error("{what} is {value}; it has to be {needed}")]
    BadShape {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: usize,
        /// What would do.
        needed: String,
    },
    /// An option with a value that it cannot have.
    #[error("the {option} is {value}; it has to be {needed}")]
    BadOption {
        /// Which option.
        option: &'static str,
        /// Its value.
        value: f32,
        /// What would do.
        needed: &'static str,
    },
    /// Options that do not go together.
    #[error("{what}: {instead}")]
    Conflict {
        /// Which, and why.
        what: &'static str,
        /// What to do instead.
        instead: &'static str,
    },
    /// One upstream gradient a row makes sense only where each row has a loss of its own.
    #[error(
        "an upstream gradient per row needs the reduction `none`; with `{reduction}` the loss is one number, so give one number"
    )]
    UpstreamPerRow {
        /// The reduction asked for.
        reduction: &'static str,
    },
    /// A denominator, and nothing to divide.
    #[error(
        "a denominator is what `mean` divides by; the reduction is `{reduction}`, so leave it out"
    )]
    DenominatorWithoutMean {
        /// The reduction asked for.
        reduction: &'static str,
    },
    /// A denominator that nothing can be divided by.
    #[error("the denominator is {value}; it has to be finite and at least 2^-126")]
    BadDenominator {
        /// The value given.
        value: f32,
    },
    /// An upstream gradient that is NaN or infinite.
    #[error("the upstream gradient{} is {value}; it has to be finite", at_row(*row))]
    UpstreamNotFinite {
        /// The row, where there is one gradient per row.
        row: Option<usize>,
        /// The value found.
        value: f32,
    },

    // ---- the batch, found before anything is dispatched --------------------------------------
    /// A slice of another length than the problem says.
    #[error("{what}: {found} values given, {expected} expected ({shape})")]
    Length {
        /// Which argument.
        what: &'static str,
        /// The length that the problem implies.
        expected: usize,
        /// The length of the slice.
        found: usize,
        /// Where the expected length comes from.
        shape: String,
    },
    /// Labels of another kind than the problem was built for.
    #[error("the problem was built for {expected}, the batch holds {found}")]
    LabelKind {
        /// What the problem says.
        expected: &'static str,
        /// What the batch holds.
        found: &'static str,
    },
    /// Logits of another type than the problem was built for.
    #[error("the problem was built for logits in {expected}, the batch holds {found}")]
    LogitsDtype {
        /// What the problem says.
        expected: &'static str,
        /// What the batch holds.
        found: &'static str,
    },
    /// A class weight that is negative, NaN or infinite.
    #[error("the weight of class {class} is {value}; it has to be finite and not negative")]
    BadClassWeight {
        /// The first such class.
        class: usize,
        /// Its weight.
        value: f32,
    },
    /// A label that names no class and is not `ignore_index`.
    #[error(
        "row {row} has the label {value}: labels are 0 to {}, or {ignore_index} for a row to ignore",
        classes - 1
    )]
    BadLabel {
        /// The first such row, counted from 0.
        row: usize,
        /// Its label.
        value: i128,
        /// The number of classes.
        classes: usize,
        /// The label of ignored rows.
        ignore_index: i64,
    },
    /// A batch of the host for a problem whose denominator is on the device.
    #[error(
        "the denominator of this problem is in a buffer of the device: bind the problem there, or give a number"
    )]
    OnlyOnDevice,
    /// A part of a batch whose rows that are not ignored would have to be counted, and the rest is not
    /// there.
    #[error(
        "{rows} of {of} rows bound, and the mean divides by the rows of all that are not ignored: give the denominator as a number or in a buffer"
    )]
    ChunkDenominator {
        /// Rows in the chunk.
        rows: usize,
        /// Rows of the problem.
        of: usize,
    },
    /// A buffer that the problem needs was not given, or one it does not use was.
    #[error("the buffer for {what} is {}", if *needed { "missing: this problem reads or writes it" } else { "not used by this problem: leave it out" })]
    Buffer {
        /// Which buffer.
        what: &'static str,
        /// Whether the problem needs it.
        needed: bool,
    },
    /// A buffer that is too small, or at an offset that no 4-byte value can have.
    #[error(
        "the buffer for {what}: {size} bytes at offset {offset} given, {needed} bytes at a multiple of 4 needed"
    )]
    BufferRange {
        /// Which buffer.
        what: &'static str,
        /// Bytes given.
        size: u64,
        /// Their offset.
        offset: u64,
        /// Bytes needed.
        needed: u64,
    },

    /// A buffer that shaders may not use.
    #[error("the buffer for {what} was made without the usage STORAGE")]
    BufferUsage {
        /// Which buffer.
        what: &'static str,
    },
    /// An array that is written lies over another one.
    #[error("the buffers for {one} and {other} overlap, and one of them is written")]
    BuffersOverlap {
        /// Which buffer.
        one: &'static str,
        /// Which other.
        other: &'static str,
    },

    // ---- the device --------------------------------------------------------------------------
    /// No adapter at all.
    #[error("no GPU adapter was found. {advice}")]
    NoAdapter {
        /// What to install on this system.
        advice: String,
    },
    /// Adapters, but not the one asked for.
    #[error("no adapter matches `{wanted}`; there is: {available}")]
    AdapterNotFound {
        /// The index or name asked for.
        wanted: String,
        /// The adapters there are.
        available: String,
    },
    /// The adapter refused to make a device.
    #[error("the adapter `{adapter}` gave no device: {reason}")]
    DeviceRefused {
        /// Its name.
        adapter: String,
        /// What the driver said.
        reason: String,
    },
    /// The device cannot hold even one row.
    #[error(
        "one row needs {needed} bytes in {what}, and this device allows {limit}; run it on the CPU, or on a device with larger buffers"
    )]
    RowTooWide {
        /// Which buffer.
        what: &'static str,
        /// Bytes of one row.
        needed: u64,
        /// The limit.
        limit: u64,
    },
    /// A budget that no chunk fits.
    #[error("a memory budget of {given} bytes is too small: this problem needs at least {needed}")]
    BudgetTooSmall {
        /// The budget, bytes.
        given: u64,
        /// The least that works.
        needed: u64,
    },
    /// Values could not be had from where a batch comes from, or taken to where results go.
    #[error("{what}: {source}")]
    Stream {
        /// What was read or written.
        what: &'static str,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A limit of the device that no plan can do without.
    #[error("this device allows {found} {limit}, and at least {needed} are needed")]
    DeviceTooSmall {
        /// Which limit.
        limit: &'static str,
        /// Its value here.
        found: u64,
        /// The least that works.
        needed: u64,
    },
    /// The device has no memory left.
    #[error("out of memory on the {place} for {what}: {bytes} bytes; use fewer rows at a time")]
    OutOfMemory {
        /// `device` or `host`.
        place: &'static str,
        /// What the memory was for.
        what: String,
        /// How much.
        bytes: u64,
    },
    /// The device is gone, and with it this engine.
    #[error("the device was lost ({reason}); this engine is dead: make a new one")]
    DeviceLost {
        /// What the driver said.
        reason: String,
    },
    /// The driver refused an operation.
    #[error("the driver refused {what}: {reason}")]
    Driver {
        /// The operation.
        what: String,
        /// What the driver said.
        reason: String,
    },
    /// The device did not answer.
    #[error("the device did not finish {what} within {limit:?}")]
    Timeout {
        /// The operation.
        what: &'static str,
        /// The limit, as [`Engine::with_patience`](crate::Engine::with_patience) gives it.
        limit: Duration,
    },
    /// The device computes something else than the shaders say.
    #[error("the self-test failed on `{adapter}`: {check} gave {found}, expected {expected}")]
    SelfTest {
        /// The adapter.
        adapter: String,
        /// The step that failed.
        check: &'static str,
        /// What came back.
        found: String,
        /// What should have.
        expected: String,
    },
}

impl Error {
    /// There is no room on the host for so many values.
    pub(crate) fn no_room<T>(what: impl Into<String>, count: usize) -> Error {
        Error::OutOfMemory {
            place: "host",
            what: what.into(),
            bytes: (count as u64).saturating_mul(size_of::<T>() as u64),
        }
    }
}

fn at_row(row: Option<usize>) -> String {
    row.map_or_else(String::new, |row| format!(" of row {row}"))
}

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
mod tests {
    use super::Error;

    /// Which variants there are. One more does not compile until it is among them.
    macro_rules! variants {
        ($($variant:ident)*) => {
            const VARIANTS: &[&str] = &[$(stringify!($variant)),*];

            #[allow(dead_code)]
            fn all_are_listed(error: &Error) {
                match error {
                    $(Error::$variant { .. } => {})*
                }
            }
        };
    }

    variants! {
        NoClasses TooManyClasses TooLarge NothingWanted LabelsNeeded BadShape BadOption Conflict
        UpstreamPerRow DenominatorWithoutMean BadDenominator UpstreamNotFinite
        Length LabelKind LogitsDtype BadClassWeight BadLabel OnlyOnDevice ChunkDenominator Buffer
        BufferRange BufferUsage BuffersOverlap
        NoAdapter AdapterNotFound DeviceRefused RowTooWide BudgetTooSmall Stream DeviceTooSmall
        OutOfMemory DeviceLost Driver Timeout SelfTest
    }

    #[test]
    fn each_is_raised_by_a_test() {
        // However its lines are broken.
        let tests: String = include_str!("../tests/it/errors.rs")
            .split_whitespace()
            .collect();
        for variant in VARIANTS {
            let raised = format!("raises!({variant},");
            assert!(
                tests.contains(&raised),
                "{variant}: not in tests/it/errors.rs"
            );
        }
    }
}
