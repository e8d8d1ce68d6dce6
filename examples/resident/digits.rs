//! 1797 images of handwritten digits, in a fixed shuffled order. Source and licence (CC BY 4.0):
//! tests/data/README.md.

pub const ROWS: usize = 1797;
/// Pixels of an image.
pub const FEATURES: usize = 64;
/// Digits.
pub const CLASSES: usize = 10;

const FEATURES_FILE: &[u8] = include_bytes!("../../tests/data/digits_features.npy");
const LABELS_FILE: &[u8] = include_bytes!("../../tests/data/digits_labels.npy");

pub struct Digits {
    /// f32 `[ROWS, FEATURES]`: 0 to 1 in steps of 1/16.
    pub images: Vec<f32>,
    /// i32 `[ROWS]`.
    pub labels: Vec<i32>,
}

impl Digits {
    pub fn load() -> Result<Digits, String> {
        let pixels = npy(
            FEATURES_FILE,
            "{'descr': '|u1', 'fortran_order': False, 'shape': (1797, 64), }",
            ROWS * FEATURES,
        )?;
        let labels = npy(
            LABELS_FILE,
            "{'descr': '<i8', 'fortran_order': False, 'shape': (1797,), }",
            ROWS * size_of::<i64>(),
        )?;
        Ok(Digits {
            images: pixels
                .iter()
                .map(|&pixel| f32::from(pixel) / 16.0)
                .collect(),
            labels: labels
                .chunks_exact(size_of::<i64>())
                .map(|bytes| Some(i64::from_le_bytes(bytes.try_into().ok()?) as i32))
                .map(|label| label.filter(|label| (0..CLASSES as i32).contains(label)))
                .collect::<Option<_>>()
                .ok_or("a label is no digit")?,
        })
    }
}

/// The data of an .npy file, version 1.0, that has exactly this header and so many bytes.
fn npy<'a>(file: &'a [u8], header: &str, size: usize) -> Result<&'a [u8], String> {
    let parts = file
        .strip_prefix(b"\x93NUMPY\x01\x00")
        .and_then(|rest| rest.split_first_chunk())
        .and_then(|(&length, rest)| rest.split_at_checked(u16::from_le_bytes(length).into()));
    match parts {
        Some((head, data)) if head.trim_ascii_end() == header.as_bytes() && data.len() == size => {
            Ok(data)
        }
        _ => Err(format!(
            "not an .npy file of {size} bytes of data with the header {header}"
        )),
    }
}
