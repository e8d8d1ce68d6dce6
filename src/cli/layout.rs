//! Which axis of the logits the classes are on, and what that makes of the other arrays' shapes.
//!
//! It is never guessed: `[batch, time, vocabulary]` has to come out normalised over the vocabulary.

use super::Failure;
use super::array::Array;

/// Logits as `[outer, classes, inner]`; the rows are `[outer, inner]`.
#[derive(Clone, Debug)]
pub struct Layout {
    pub axis: usize,
    pub rows: usize,
    pub classes: usize,
    /// How far apart the classes of a row are; at least 1.
    pub inner: usize,
    /// The shape of the logits, and of what has their shape.
    pub shape: Vec<usize>,
    /// The shape of what there is one of per row: that of the logits less the class axis.
    pub row_shape: Vec<usize>,
}

impl Layout {
    /// With the axis that was typed, or else the only one that it can be.
    pub fn of(
        logits: &Array,
        labels: Option<&Array>,
        axis: Option<i64>,
    ) -> Result<Layout, Failure> {
        let (file, shape) = (logits.path.display(), &logits.shape);
        if let Some(labels) = labels.filter(|labels| labels.dtype.is_float()) {
            if !logits.dtype.is_float() {
                return Err(Failure::Message(format!(
                    "{file}: {}, where floats are needed, and {} holds floats; are LOGITS and LABELS \
                     swapped?",
                    logits.dtype,
                    labels.path.display()
                )));
            }
        }
        let axis = match (axis, &shape[..]) {
            (Some(axis), [_, ..]) => typed(axis, shape.len()).ok_or_else(|| {
                let last = shape.len() - 1;
                Failure::Usage(format!(
                    "--axis {axis}: {file} has the shape {shape:?}, whose axes are 0 to {last}, or \
                     -{} to -1 from the end",
                    shape.len()
                ))
            })?,
            (None, [_, _]) => 1,
            (_, [] | [_]) => {
                return Err(Failure::Message(format!(
                    "{file}: shape {shape:?}, where [N, K] is needed, rows × classes; for a single row \
                     save logits.reshape(1, -1){}",
                    if shape.is_empty() {
                        ""
                    } else {
                        ", or add --axis 0"
                    }
                )));
            }
            (None, _) => left_out(logits, labels)?,
        };
        let mut row_shape = shape.clone();
        let classes = row_shape.remove(axis);
        Ok(Layout {
            axis,
            rows: row_shape.iter().product(),
            classes,
            inner: shape.iter().skip(axis + 1).product::<usize>().max(1),
            shape: shape.clone(),
            row_shape,
        })
    }

    /// Whether an array of this shape has one value per row; the rows of a matrix may be a column.
    pub fn is_per_row(&self, shape: &[usize]) -> bool {
        let column =
            || self.row_shape.len() < 2 && shape.strip_suffix(&[1]) == Some(&self.row_shape);
        shape == self.row_shape || column()
    }
}

/// Counted from the start.
fn typed(axis: i64, axes: usize) -> Option<usize> {
    let counted = match axis {
        0.. => usize::try_from(axis).ok()?,
        _ => axes.checked_sub(usize::try_from(axis.unsigned_abs()).ok()?)?,
    };
    (counted < axes).then_some(counted)
}

/// The axis that the shape of the labels leaves out of that of the logits.
fn left_out(logits: &Array, labels: Option<&Array>) -> Result<usize, Failure> {
    let (file, shape) = (logits.path.display(), &logits.shape);
    let less = |axis: &usize| {
        let mut rest = shape.clone();
        rest.remove(*axis);
        rest
    };
    let fits = |axis: &usize| labels.is_some_and(|labels| labels.shape == less(axis));
    let fitting: Vec<usize> = (0..shape.len()).filter(fits).collect();
    let or = |axes: &[usize]| {
        let options = axes
            .iter()
            .map(|&axis| format!("--axis {axis} ({} classes)", shape[axis]));
        options.collect::<Vec<_>>().join(" or ")
    };
    match (&fitting[..], labels) {
        (&[axis], _) => Ok(axis),
        ([_, _, ..], Some(labels)) => Err(Failure::Usage(format!(
            "{file} has the shape {shape:?}, and that of {}, {:?}, may leave out more than one axis: \
             say which are the classes, {}",
            labels.path.display(),
            labels.shape,
            or(&fitting)
        ))),
        (_, Some(labels)) if labels.shape != *shape => {
            let shapes: Vec<String> = (0..shape.len())
                .map(|axis| format!("{:?}", less(&axis)))
                .collect();
            let flat = match labels.shape.len() {
                0 | 1 => "; or for labels without axes save logits.reshape(-1, logits.shape[-1])",
                _ => "",
            };
            Err(Failure::Message(format!(
                "{}: shape {:?}, where that of {file}, {shape:?}, is needed less the class axis: \
                 {}{flat}",
                labels.path.display(),
                labels.shape,
                shapes.join(" or ")
            )))
        }
        _ => Err(Failure::Usage(format!(
            "{file} has the shape {shape:?}, and no labels that leave out its class axis: say which \
             it is, {}",
            or(&(0..shape.len()).collect::<Vec<_>>())
        ))),
    }
}
