//! The headers of `.safetensors` files, strictly.
//!
//! A header is JSON that may be longer than all the memory a file should get before it is known to be
//! good, so it passes through a small buffer and leaves 24 bytes of each tensor. Offsets have to cover
//! the file without gap or overlap. The crate `safetensors` says what types there are, writes headers,
//! and in tests agrees with what is read.

use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::path::Path;

use ::safetensors::tensor::{Metadata, TensorInfo};
use ::safetensors::{Dtype as Stored, SafeTensorError};
use serde::de::Deserialize;
use serde::de::value::{Error as UnknownName, StrDeserializer};

use super::array::{
    ArrayError, Dtype, Format, Header, MAX_DIMENSIONS, excerpt, fill, refuse, reserve, volume,
};

/// The length of a header precedes it, as a u64.
const PREAMBLE: u64 = 8;
/// Bytes of the longest header: the format's own limit.
const MAX_HEADER: u64 = 100_000_000;
/// As many as fit into 48 KiB; the shards of large models have some hundred.
const MAX_TENSORS: usize = 2048;
/// Bytes of the longest name, as it is written.
const MAX_STRING: usize = 1024;
/// Bytes of a header in memory.
const BUFFER: usize = 4096;
/// Bytes of a header in a message.
const EXCERPT: usize = 24;
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
    let Contents {
        tensors,
        names,
        data,
        wanted,
    } = Json::of(path, source, length).contents(tensor)?;
    let header = PREAMBLE + length;
    if found - header != data {
        return no(format!(
            "{found} bytes, not {header} of header and {data} of data"
        ));
    }

    let list = || list(tensors, &names);
    let info = match (tensor, wanted) {
        _ if tensors == 0 => return no("no tensor in it".to_owned()),
        (None, Some((name, _))) if tensors > 1 => {
            let such = format!("{}:{}", path.display(), name.escape_debug());
            let why = format!("{tensors} tensors; name one, such as {such}; {}", list());
            return refuse(path, why);
        }
        (_, Some((_, info))) => info,
        (name, None) => {
            let name = quoted(name.unwrap_or_default());
            return refuse(path, format!("no tensor {name}; {}", list()));
        }
    };
    let Some(dtype) = Dtype::of_safetensors(info.dtype) else {
        return refuse(path, unsupported(&info.dtype.to_string()));
    };
    Ok(Header {
        dtype,
        shape: info.shape,
        values: info.values,
        big_endian: false,
        start: header + info.start,
    })
}

fn unsupported(dtype: &str) -> String {
    let convert = Format::Safetensors.convert("float32");
    format!("dtype {dtype}; {DTYPE}; {convert}")
}

/// What there is, as far as a message can hold it.
fn list(tensors: usize, names: &[String]) -> String {
    let shown: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    let more = match tensors - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("it holds {}{more}", shown.join(", "))
}

fn quoted(name: &str) -> String {
    let start = beginning(name);
    let more = if start.len() < name.len() { "…" } else { "" };
    format!("'{}{more}'", start.escape_debug())
}

/// As much of a name as belongs in a message.
fn beginning(name: &str) -> &str {
    let end = name.char_indices().nth(64).map_or(name.len(), |(at, _)| at);
    &name[..end]
}

/// What a header says, checked but for the length of the file.
#[derive(Default)]
struct Contents {
    tensors: usize,
    /// The first few of them.
    names: Vec<String>,
    /// Bytes that they cover.
    data: u64,
    /// The tensor that was asked for, or else the first.
    wanted: Option<(String, Info)>,
}

impl Contents {
    fn add(&mut self, name: String, info: Info, asked: Option<&str>) {
        if self.names.len() < MAX_NAMES {
            self.names.push(beginning(&name).to_owned());
        }
        self.tensors += 1;
        if self.wanted.is_none() && asked.is_none_or(|asked| asked == name) {
            self.wanted = Some((name, info));
        }
    }
}

/// What a header says of a tensor.
struct Info {
    dtype: Stored,
    shape: Vec<usize>,
    values: usize,
    start: u64,
    end: u64,
}

/// What is kept of every tensor.
struct Extent {
    start: u64,
    end: u64,
    /// Of the name, with a key that is another one in each run: no file can make two of them equal.
    hash: u64,
}

/// What is left of a header, which is read as it is taken.
struct Json<'a, R> {
    path: &'a Path,
    source: &'a mut R,
    /// Bytes that are still to be read.
    left: u64,
    buffer: Vec<u8>,
    /// The next byte in the buffer, and in the header.
    next: usize,
    taken: u64,
}

impl<'a, R: Read> Json<'a, R> {
    fn of(path: &'a Path, source: &'a mut R, length: u64) -> Self {
        Json {
            path,
            source,
            left: length,
            buffer: Vec::new(),
            next: 0,
            taken: 0,
        }
    }

    fn contents(mut self, asked: Option<&str>) -> Result<Contents, ArrayError> {
        let (mut contents, mut notes) = (Contents::default(), false);
        let (mut extents, hasher) = (reserve(self.path, MAX_TENSORS)?, RandomState::new());
        self.demand(b'{')?;
        let mut more = !self.eat(b'}')?;
        while more {
            let name = self.string()?;
            self.demand(b':')?;
            let hash = hasher.hash_one(&name);
            let same = |extent: &Extent| extent.hash == hash;
            if name == NOTES && !notes {
                notes = true;
                self.notes()?;
            } else if name == NOTES || extents.iter().any(same) {
                return self.refuse(format!("two tensors of the name {}", quoted(&name)));
            } else if extents.len() == MAX_TENSORS {
                return self.refuse(format!("more than {MAX_TENSORS} tensors"));
            } else {
                let info = self.info(&name)?;
                let (start, end) = (info.start, info.end);
                extents.push(Extent { start, end, hash });
                contents.add(name, info, asked);
            }
            more = self.eat(b',')?;
            if !more {
                self.demand(b'}')?;
            }
        }
        self.skip_spaces()?;
        if self.peek()?.is_some() {
            return self.expected("the end of the header");
        }
        extents.sort_unstable_by_key(|extent| (extent.start, extent.end));
        for Extent { start, end, .. } in extents {
            let before = contents.data;
            if start != before {
                return self.refuse(format!(
                    "data_offsets [{start}, {end}], where the data before ends at {before}"
                ));
            }
            contents.data = end;
        }
        Ok(contents)
    }

    fn info(&mut self, name: &str) -> Result<Info, ArrayError> {
        const NEEDED: &str = "a map of dtype, shape and data_offsets";
        let (mut dtype, mut shape, mut offsets) = (None, None, None);
        for separator in *b"{,," {
            if !self.eat(separator)? {
                return self.expected(NEEDED);
            }
            let key = self.string()?;
            self.demand(b':')?;
            match &key[..] {
                "dtype" => dtype = Some(self.dtype()?),
                "shape" => shape = Some(self.integers(MAX_DIMENSIONS)?),
                "data_offsets" => offsets = Some(self.integers(2)?),
                _ => return self.expected(NEEDED),
            }
        }
        self.demand(b'}')?;
        let (Some(dtype), Some(shape), Some(offsets)) = (dtype, shape, offsets) else {
            return self.expected(NEEDED);
        };
        let name = quoted(name);
        let Some(values) = volume(&shape, dtype.bitsize()) else {
            return self.refuse(format!("{name}: shape {shape:?} of {dtype} overflows"));
        };
        let bits = values * dtype.bitsize();
        match offsets[..] {
            [start, end] if end.checked_sub(start) == Some(bits / 8) && bits % 8 == 0 => Ok(Info {
                dtype,
                shape,
                values,
                start: start as u64,
                end: end as u64,
            }),
            _ => self.refuse(format!(
                "{name}: data_offsets {offsets:?} of {dtype}, shape {shape:?}, {bits} bits"
            )),
        }
    }

    fn dtype(&mut self) -> Result<Stored, ArrayError> {
        let name = self.string()?;
        let known = Stored::deserialize(StrDeserializer::<UnknownName>::new(&name));
        known.or_else(|_| refuse(self.path, unsupported(&quoted(&name))))
    }

    /// A map from strings to strings, which nobody here needs.
    fn notes(&mut self) -> Result<(), ArrayError> {
        self.demand(b'{')?;
        let mut more = !self.eat(b'}')?;
        while more {
            self.skip_string()?;
            self.demand(b':')?;
            self.skip_string()?;
            more = self.eat(b',')?;
            if !more {
                self.demand(b'}')?;
            }
        }
        Ok(())
    }

    fn integers(&mut self, most: usize) -> Result<Vec<usize>, ArrayError> {
        let mut integers = Vec::new();
        self.demand(b'[')?;
        let mut more = !self.eat(b']')?;
        while more {
            if integers.len() == most {
                return self.expected(&format!("the end of {most} integers"));
            }
            integers.push(self.integer()?);
            more = self.eat(b',')?;
            if !more {
                self.demand(b']')?;
            }
        }
        Ok(integers)
    }

    /// As JSON writes it: no sign, no leading zero.
    fn integer(&mut self) -> Result<usize, ArrayError> {
        const NEEDED: &str = "an integer that can be addressed";
        self.skip_spaces()?;
        let mut integer: Option<usize> = None;
        while let Some(digit @ b'0'..=b'9') = self.peek()? {
            let grown = match integer {
                None => Some(0),
                Some(0) => None,
                Some(before) => before.checked_mul(10),
            };
            let grown = grown.and_then(|tens| tens.checked_add(usize::from(digit - b'0')));
            if grown.is_none() {
                return self.expected(NEEDED);
            }
            integer = grown;
            self.take()?;
        }
        match integer {
            Some(integer) => Ok(integer),
            None => self.expected(NEEDED),
        }
    }

    /// A string of at most `MAX_STRING` bytes as it is written.
    fn string(&mut self) -> Result<String, ArrayError> {
        self.demand(b'"')?;
        let mut text = vec![b'"'];
        while text.len() <= MAX_STRING {
            let (byte, escaped) = self.character()?;
            text.push(byte);
            text.extend(escaped);
            if byte == b'"' {
                return serde_json::from_slice(&text).or_else(|error| {
                    let (text, error) = (excerpt(&text, EXCERPT), error.to_string());
                    self.refuse(format!("the string {text}, which is no JSON: {error}"))
                });
            }
        }
        self.expected(&format!("the end of a string of {MAX_STRING} bytes"))
    }

    /// A string of any length.
    fn skip_string(&mut self) -> Result<(), ArrayError> {
        self.demand(b'"')?;
        while self.character()?.0 != b'"' {}
        Ok(())
    }

    /// The next byte of a string, and the one that it escapes.
    fn character(&mut self) -> Result<(u8, Option<u8>), ArrayError> {
        match self.take()? {
            Some(b'\\') => Ok((b'\\', self.take()?)),
            Some(byte) => Ok((byte, None)),
            None => self.expected("a closed string"),
        }
    }

    fn demand(&mut self, byte: u8) -> Result<(), ArrayError> {
        match self.eat(byte)? {
            true => Ok(()),
            false => self.expected(&char::from(byte).to_string()),
        }
    }

    fn eat(&mut self, byte: u8) -> Result<bool, ArrayError> {
        self.skip_spaces()?;
        let is_next = self.peek()? == Some(byte);
        if is_next {
            self.take()?;
        }
        Ok(is_next)
    }

    fn skip_spaces(&mut self) -> Result<(), ArrayError> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek()? {
            self.take()?;
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Option<u8>, ArrayError> {
        let byte = self.peek()?;
        if byte.is_some() {
            self.next += 1;
            self.taken += 1;
        }
        Ok(byte)
    }

    fn peek(&mut self) -> Result<Option<u8>, ArrayError> {
        if self.next == self.buffer.len() {
            self.next = 0;
            self.buffer.resize(self.left.min(BUFFER as u64) as usize, 0);
            self.left -= self.buffer.len() as u64;
            fill(self.source, self.path, &mut self.buffer)?;
        }
        Ok(self.buffer.get(self.next).copied())
    }

    fn expected<T>(&mut self, needed: &str) -> Result<T, ArrayError> {
        let at = self.taken;
        let rest = std::iter::from_fn(|| self.take().ok().flatten());
        let rest: Vec<u8> = rest.take(EXCERPT).collect();
        let rest = excerpt(&rest, EXCERPT);
        self.refuse(format!(
            "expected {needed} at header byte {at}, found \"{rest}\""
        ))
    }

    fn refuse<T>(&self, why: String) -> Result<T, ArrayError> {
        refuse(self.path, format!("{why}; {FORMAT}"))
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
    use crate::cli::array;
    use std::fs;
    use std::io::Write;
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
{"a":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}} |1|| 'a': data_offsets [0, 1] of F4, shape [1], 4 bits
{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}} |4|| dtype 'F31'; supported are F16
{"a":{"dtype":"\u001b[2J","shape":[1],"data_offsets":[0,4]}} |4|| dtype '\u{1b}[2J'; supported are F16
{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}} |4|| two tensors of the name 'a'
{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}} |5|| 67 bytes, not 62 of header and 4 of data
{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}} |3|| 65 bytes, not 62 of header and 4 of data
{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}} |8|| data_offsets [4, 8], where the data before ends at 0
{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}} |4|| 'a': data_offsets [4, 0] of F32, shape [1], 32 bits
{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}} |4|| 'a': data_offsets [0, 4] of F32, shape [2], 64 bits
{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}} |4|:a| data_offsets [0, 4], where the data before ends at 4
{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615]}} |4|| data_offsets [0, 18446744073709551615] of F32
{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}} |0|| overflow
{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}} |0|| overflow
{"a":{"dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[0,0]}} |0|| shape [0, 18446744073709551615] of F32 overflows
{"a":{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,0]}} |0|| expected an integer that can be addressed at header byte
{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,0]}} |0|| expected an integer
{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}} |4|| expected ] at header byte 30, found ".0],
{"a":{"dtype":"F32","shape":1,"data_offsets":[0,4]}} |4|| expected [ at header byte
{"a":{"dtype":"F32","shape":[1]}} |4|| expected a map of dtype, shape and data_offsets at header byte 31
{"a":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}} |4|| expected } at header byte
{"a":1} |0|| expected a map of dtype, shape and data_offsets at header byte 5, found "1}"
[] |0|| expected { at header byte 0, found "[]"
{"a" |0|| expected : at header byte 4, found ""
{}{} |0|| expected the end of the header at header byte 2, found "{}"
"#;

    #[test]
    fn values_are_those_of_the_tensor() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let header = r#"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},
            "b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}}"#;
        let mut bytes = file(header, 0);
        bytes.extend([1, 2, 3, 4, 5]);
        fs::write(&path, bytes).unwrap();
        for (tensor, expected) in [("a", &[1, 2, 3][..]), ("b", &[4, 5])] {
            let at = format!("{}:{tensor}", path.display());
            let values = array::open(at.as_ref()).unwrap().read_i64().unwrap();
            assert_eq!(values, expected);
        }
    }

    #[test]
    fn names_of_tensors() {
        let names = ["a", "", "__metadata__", "__metadata"].map(is_name);
        assert_eq!(names, [true, false, false, true]);
    }

    #[test]
    fn names_are_quoted_as_far_as_they_fit() {
        assert_eq!(quoted("a\n"), "'a\\n'");
        assert_eq!(quoted(&"é".repeat(64)), format!("'{}'", "é".repeat(64)));
        assert_eq!(quoted(&"é".repeat(65)), format!("'{}…'", "é".repeat(64)));
    }

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
            (vec![0; 8], "expected { at header byte 0, found \"\""),
            (vec![1, 0, 0, 0, 0, 0, 0, 0], "8 bytes with a header of 1"),
            (vec![0xff; 9], "a header of 18446744073709551615, 100000000"),
            (b"\x93NUMPY\x01\0v\0{}".to_vec(), "with a header of"),
            (file("\u{ff}", 0), "expected { at header byte 0"),
            (file(&"[".repeat(100_000), 0), "expected {"),
            (
                file(&format!("{{\"a\":{}", "[".repeat(100_000)), 0),
                "expected a map of dtype, shape and data_offsets at header byte 5",
            ),
        ] {
            let verdict = verdict(&folder, &bytes, "");
            assert!(verdict.contains(expected), "{verdict}, not {expected}");
        }
        // Sparse: what is refused is the length, not what is there.
        let path = folder.path().join("x.safetensors");
        let mut long = fs::File::create(&path).unwrap();
        long.write_all(&(MAX_HEADER + 1).to_le_bytes()).unwrap();
        long.set_len(2 * MAX_HEADER).unwrap();
        let message = array::open(&path).unwrap_err().to_string();
        assert!(message.contains("100000000 at most"), "{message}");
        let many: Vec<String> = (0..100)
            .map(|at| {
                format!("\"{at:0200}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}")
            })
            .collect();
        let bytes = file(&format!("{{{}}}", many.join(",")), 0);
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
        let mut stored: Vec<u8> = Vec::new();
        read()
            .floats(0..2, &mut |some| stored.extend(some))
            .unwrap();
        assert_eq!(stored, bytemuck::cast_slice::<u16, u8>(&[0x3f80, 0xc000]));
        assert_eq!(read().read_f32().unwrap(), [1.0, -2.0]);
        let message = read().read_i64().unwrap_err().to_string();
        assert!(
            message.contains("bfloat16, where integers are needed; convert with save_file("),
            "{message}"
        );
    }
}
