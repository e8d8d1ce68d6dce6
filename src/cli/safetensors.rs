//! The headers of `.safetensors` files, strictly.
//!
//! What the crate `safetensors` checks comes after checks of our own: it would take a name twice, and
//! believes the length of a header. Offsets have to cover the file without gap or overlap.

use std::fmt;
use std::io::Read;
use std::path::Path;

use ::safetensors::SafeTensorError;
use ::safetensors::tensor::{Metadata, TensorInfo};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::array::{
    ArrayError, Dtype, Format, Header, MAX_DIMENSIONS, excerpt, fill, refuse, reserve, volume,
};

/// The length of a header precedes it, as a u64.
const PREAMBLE: u64 = 8;
/// Bytes of the longest header, which hold some 100 000 tensors.
const MAX_HEADER: u64 = 1 << 24;
/// Tensors that a message names.
const MAX_NAMES: usize = 20;
/// What a name cannot be: that of the notes in a header.
const NOTES: &str = "__metadata__";

pub const FORMAT: &str = "supported is .safetensors; convert with safetensors.torch.save_file(\
                          {'x': x.contiguous()}, 'x.safetensors')";
const DTYPE: &str = "supported are F16, BF16, F32, F64, I8 to I64 and U8 to U64";

/// Reads what a file of `found` bytes says of a tensor, which needs no name where it is the only one.
pub fn read(
    path: &Path,
    tensor: Option<&str>,
    source: &mut impl Read,
    found: u64,
) -> Result<Header, ArrayError> {
    let no = |why: String| refuse(path, format!("{why}; {FORMAT}"));
    let Some(rest) = found.checked_sub(PREAMBLE) else {
        return no(format!("{found} bytes, too short for a header"));
    };
    let mut length = [0; PREAMBLE as usize];
    fill(source, path, &mut length)?;
    let length = u64::from_le_bytes(length);
    if length > rest.min(MAX_HEADER) {
        return no(format!(
            "{found} bytes with a header of {length}, {MAX_HEADER} at most"
        ));
    }
    let mut text = reserve(path, length as usize)?;
    text.resize(length as usize, 0);
    fill(source, path, &mut text)?;

    let bad = |error: &dyn fmt::Display| {
        let error = error.to_string();
        format!("a bad header: {}", excerpt(error.as_bytes(), 200))
    };
    let Tensors(mut tensors) = match serde_json::from_slice(&text) {
        Ok(tensors) => tensors,
        Err(error) => return no(bad(&error)),
    };
    tensors.sort_by(|(one, _), (other, _)| one.cmp(other));
    if let Some((name, _)) = tensors
        .iter()
        .zip(tensors.iter().skip(1))
        .find_map(|(one, next)| (one.0 == next.0).then_some(one))
    {
        return no(format!("two tensors of the name {}", quoted(name)));
    }
    let names: Vec<String> = tensors.iter().map(|(name, _)| name.clone()).collect();
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let all = match Metadata::new(None, tensors) {
        Ok(all) => all,
        Err(error) => return no(bad(&error)),
    };
    let (header, data) = (PREAMBLE + length, all.data_len() as u64);
    if found - header != data {
        return no(format!(
            "{found} bytes, not {header} of header and {data} of data"
        ));
    }

    let name = match (tensor, &names[..]) {
        (_, []) => return no("no tensor in it".to_owned()),
        (Some(name), _) => name,
        (None, [name]) => name,
        (None, [name, ..]) => {
            let such = format!("{}:{}", path.display(), name.escape_debug());
            let count = names.len();
            return refuse(
                path,
                format!(
                    "{count} tensors; name one, such as {such}; {}",
                    list(&names)
                ),
            );
        }
    };
    let Some(info) = all.info(name) else {
        let name = quoted(name);
        return refuse(path, format!("no tensor {name}; {}", list(&names)));
    };
    let Some(dtype) = Dtype::of_safetensors(info.dtype) else {
        let convert = Format::Safetensors.convert("float32");
        return refuse(path, format!("dtype {}; {DTYPE}; {convert}", info.dtype));
    };
    if info.shape.len() > MAX_DIMENSIONS {
        let dimensions = info.shape.len();
        return no(format!("{dimensions} dimensions, {MAX_DIMENSIONS} at most"));
    }
    let shape = info.shape.clone();
    let Some(values) = volume(&shape, dtype.size()) else {
        return no(format!("shape {shape:?} of {dtype} overflows"));
    };
    Ok(Header {
        dtype,
        shape,
        values,
        big_endian: false,
        start: header + info.data_offsets.0 as u64,
    })
}

/// What there is, as far as a message can hold it.
fn list(names: &[String]) -> String {
    let shown: Vec<String> = names
        .iter()
        .take(MAX_NAMES)
        .map(|name| quoted(name))
        .collect();
    let more = match names.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("it holds {}{more}", shown.join(", "))
}

fn quoted(name: &str) -> String {
    let start: String = name.chars().take(64).collect();
    let more = if start.len() < name.len() { "…" } else { "" };
    format!("'{}{more}'", start.escape_debug())
}

/// The tensors of a header in its order, names that come twice included.
struct Tensors(Vec<(String, TensorInfo)>);

impl<'de> Deserialize<'de> for Tensors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Tensors;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a map of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tensors, A::Error> {
                let mut tensors = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == NOTES {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        tensors.push((name, map.next_value()?));
                    }
                }
                Ok(Tensors(tensors))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Whether a tensor can be called so.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name != NOTES
}

/// All that precedes the values of these tensors, which follow in this order; their start is a
/// multiple of 8 bytes.
pub fn write(tensors: &[(&str, Dtype, &[usize])]) -> Result<Vec<u8>, SafeTensorError> {
    let mut end = 0;
    let tensors = tensors.iter().map(|&(name, dtype, shape)| {
        let start = end;
        end += shape.iter().product::<usize>() * dtype.size();
        let info = TensorInfo {
            dtype: dtype.safetensors(),
            shape: shape.to_vec(),
            data_offsets: (start, end),
        };
        (name.to_owned(), info)
    });
    let all = Metadata::new(None, tensors.collect())?;
    let mut text = serde_json::to_vec(&all)?;
    text.resize(text.len().next_multiple_of(PREAMBLE as usize), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.append(&mut text);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::array::{self, Floats};
    use std::fs;
    use tempfile::{TempDir, tempdir};

    fn file(header: &str, data: usize) -> Vec<u8> {
        let length = (header.len() as u64).to_le_bytes();
        [&length, header.as_bytes(), &vec![0; data]].concat()
    }

    /// What becomes of a tensor of a file with these bytes: "type shape" or a message.
    fn verdict(folder: &TempDir, bytes: &[u8], tensor: &str) -> String {
        let file = folder.path().join("x.safetensors");
        fs::write(&file, bytes).unwrap();
        let path = format!("{}{tensor}", file.display());
        let array = array::open(path.as_ref()).and_then(|array| {
            let kind = format!("{} {:?}", array.dtype, array.shape);
            let values: usize = array.shape.iter().product();
            let read = match array.dtype {
                dtype if dtype.is_float() => array.read_f32()?.len(),
                _ => array.read_i64()?.len(),
            };
            assert_eq!(read, values);
            Ok(kind)
        });
        array.unwrap_or_else(|error| {
            let message = error.to_string();
            assert!(message.starts_with(&format!("{path}: ")), "{message}");
            assert!(message.len() < 1000, "{message}");
            assert!(!message.contains(char::is_control), "{message}");
            message
        })
    }

    /// Headers, bytes of data, tensor, verdict.
    const TABLE: &str = r#"
{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}} |24|| float32 [2, 3]
{"a":{"dtype":"F16","shape":[],"data_offsets":[0,2]}}     |2|:a| float16 []
{"__metadata__":{"k":"v"},"b":{"dtype":"I8","shape":[1],"data_offsets":[4,5]},"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}} |5|:a| bfloat16 [2]
{"b":{"dtype":"U64","shape":[1],"data_offsets":[4,12]},"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}} |12|:b| uint64 [1]
{"a":{"dtype":"F64","shape":[0,9],"data_offsets":[0,0]}} |0|| float64 [0, 9]
{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}} |2|| 2 tensors; name one, such as
{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}} |2|| it holds 'a', 'b'
{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}} |2|:c| no tensor 'c'; it holds 'a', 'b'
{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}} |1|:| no tensor ''; it holds 'a'
{"\u001b[2J":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}} |1|:a| it holds '\u{1b}[2J'
{} |0|| no tensor in it; supported is .safetensors; convert with safetensors.torch.save_file(
{"__metadata__":{}} |0|:a| no tensor in it
{"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}} |1|| dtype F8_E4M3; supported are F16, BF16, F32, F64, I8 to I64 and U8 to U64; convert with save_file(
{"a":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}} |1|| dtype BOOL; supported
{"a":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}} |1|| a bad header
{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}} |4|| unknown variant `F31`
{"a":{"dtype":"\u001b[2J","shape":[1],"data_offsets":[0,4]}} |4|| unknown variant `\x1b[2J`
{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}} |4|| two tensors of the name 'a'
{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}} |5|| 67 bytes, not 62 of header and 4 of data
{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}} |3|| 65 bytes, not 62 of header and 4 of data
{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}} |8|| invalid offset for tensor `a`
{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}} |4|| invalid offset for tensor `a`
{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}} |4|| invalid shape, data type, or offset
{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}} |4|:a| invalid offset for tensor `b`
{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}} |4|| invalid shape, data type, or offset
{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}} |0|| overflow
{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}} |0|| overflow
{"a":{"dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[0,0]}} |0|| shape [0, 18446744073709551615] of float32 overflows
{"a":{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,0]}} |0|| a bad header
{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,0]}} |0|| a bad header
{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}} |4|| a bad header
{"a":{"dtype":"F32","shape":1,"data_offsets":[0,4]}} |4|| a bad header
{"a":{"dtype":"F32","shape":[1]}} |4|| missing field `data_offsets`
{"a":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}} |4|| duplicate field `shape`
{"a":1} |0|| a bad header
[] |0|| a map of tensors
{"a" |0|| a bad header: EOF
{}{} |0|| trailing characters
"#;

    #[test]
    fn good_and_bad_headers() {
        let folder = tempdir().unwrap();
        for line in TABLE.lines().skip(1) {
            let [header, data, tensor, expected] =
                line.splitn(4, '|').collect::<Vec<_>>().try_into().unwrap();
            let bytes = file(header.trim_end(), data.parse().unwrap());
            let verdict = verdict(&folder, &bytes, tensor);
            assert!(
                verdict.contains(expected.trim_start()),
                "{header}: {verdict}, not {expected}"
            );
        }
    }

    #[test]
    fn bad_lengths() {
        let folder = tempdir().unwrap();
        for (bytes, expected) in [
            (vec![], "0 bytes, too short"),
            (vec![0; 7], "7 bytes, too short"),
            (vec![0; 8], "a bad header: EOF"),
            (vec![1, 0, 0, 0, 0, 0, 0, 0], "8 bytes with a header of 1"),
            (vec![0xff; 9], "a header of 18446744073709551615, 16777216"),
            (b"\x93NUMPY\x01\0v\0{}".to_vec(), "with a header of"),
            (file("\u{ff}", 0), "a bad header"),
            (file(&"[".repeat(100_000), 0), "a bad header"),
            (
                file(&format!("{{\"a\":{}", "[".repeat(100_000)), 0),
                "a bad header",
            ),
        ] {
            let verdict = verdict(&folder, &bytes, "");
            assert!(verdict.contains(expected), "{verdict}, not {expected}");
        }
        let long = format!("{{{}}}", " ".repeat(MAX_HEADER as usize));
        assert!(verdict(&folder, &file(&long, 0), "").contains("16777216 at most"));
        let many: Vec<String> = (0..100)
            .map(|at| {
                format!("\"{at:0200}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}")
            })
            .collect();
        let bytes = file(&format!("{{{}}}", many.join(",")), 0);
        let path = folder.path().join("x.safetensors");
        fs::write(&path, bytes).unwrap();
        let message = array::open(&path).unwrap_err().to_string();
        assert!(message.contains(" and 80 more"), "{message}");
        assert!(message.len() < 3000, "{message}");
    }

    #[test]
    fn every_prefix_is_an_error_and_no_flip_a_panic() {
        let folder = tempdir().unwrap();
        let tensors: [(&str, Dtype, &[usize]); 2] =
            [("a", Dtype::I64, &[2, 1]), ("b", Dtype::U8, &[3])];
        let whole = [write(&tensors).unwrap(), vec![7; 19]].concat();
        assert_eq!(verdict(&folder, &whole, ":a"), "int64 [2, 1]");
        assert_eq!(verdict(&folder, &whole, ":b"), "uint8 [3]");
        for end in 0..whole.len() {
            assert!(verdict(&folder, &whole[..end], ":a").contains("; supported is"));
        }
        for at in 0..whole.len() - 19 {
            for byte in *b"\0\x01\x7f\xff \"{}[],:09-\\" {
                let mut flipped = whole.clone();
                flipped[at] = byte;
                verdict(&folder, &flipped, ":a");
            }
        }
    }

    #[test]
    fn halves_are_read_as_they_are() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let header = |dtype| write(&[("x", dtype, &[2])]).unwrap();
        fs::write(
            &path,
            [&header(Dtype::Bf16)[..], &[0x80, 0x3f, 0, 0xc0]].concat(),
        )
        .unwrap();
        let read = || array::open(&path).unwrap();
        assert!(
            matches!(read().read_floats(), Ok(Floats::Bf16(values)) if values[1].to_f32() == -2.0)
        );
        assert_eq!(read().read_f32().unwrap(), [1.0, -2.0]);
        let message = read().read_i64().unwrap_err().to_string();
        assert!(
            message.contains("bfloat16, where integers are needed; convert with save_file("),
            "{message}"
        );
    }
}
