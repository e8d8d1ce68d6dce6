//! The headers of `.npy` files, strictly.
//!
//! Reading takes versions 1.0 to 3.0, integers and floats of either byte order, in C order: Fortran
//! order is refused, with what makes C order of it. Until a header is known to be good, the first
//! 32 KiB of a file are all of it that is on the heap. Writing is what NumPy writes.

use std::io::{Cursor, Read};
use std::path::Path;

use super::array::{
    Array, ArrayError, Dtype, Format, Header, Location, MAX_DIMENSIONS, excerpt, fill, refuse,
    volume,
};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Bytes of the longest header and what precedes it. NumPy writes 128 for most arrays, and by default
/// reads 10 000.
const MAX_HEADER: usize = 1 << 15;
/// Bytes of a file in a message.
const EXCERPT: usize = 24;

pub const FORMAT: &str = "supported is .npy 1.0, 2.0 or 3.0, one array in C order per file; \
                          convert with np.save('x.npy', np.ascontiguousarray(a))";
const DTYPE: &str = "supported are float16, float32, float64, int8 to int64 and uint8 to uint64";

/// [`open`](super::array::open) for an array in memory, under a name for messages.
pub fn embedded(
    name: &str,
    bytes: &'static [u8],
) -> Result<Array<Cursor<&'static [u8]>>, ArrayError> {
    let path = Path::new(name);
    let length = bytes.len() as u64;
    Array::of(path, Location::of(path), Cursor::new(bytes), length)
}

/// Reads all that precedes the values of a file of `found` bytes.
pub fn read(path: &Path, source: &mut impl Read, found: u64) -> Result<Header, ArrayError> {
    let no = |why: String| refuse(path, format!("{why}; {FORMAT}"));
    let mut start = vec![0; found.min(MAX_HEADER as u64) as usize];
    fill(source, path, &mut start)?;
    let (preamble, length) = match start.strip_prefix(MAGIC) {
        Some(&[1, 0, a, b, ..]) => (10, u16::from_le_bytes([a, b]).into()),
        Some(&[2 | 3, 0, a, b, c, d, ..]) => (12, u32::from_le_bytes([a, b, c, d]) as usize),
        Some(&[major, minor, ..]) => {
            return no(format!("{found} bytes of .npy version {major}.{minor}"));
        }
        _ if start.starts_with(b"PK\x03\x04") => {
            let save = "save one array of it: np.save('x.npy', np.load('x.npz')['name'])";
            return refuse(path, format!("a zip archive, perhaps .npz; {save}"));
        }
        _ => {
            let start = excerpt(&start, EXCERPT);
            return no(format!(
                "not an array but {found} bytes that start \"{start}\""
            ));
        }
    };
    let Some(text) = start[preamble..].get(..length) else {
        return no(format!(
            "{found} bytes with a header of {length}, {} at most",
            MAX_HEADER - preamble
        ));
    };
    let mut literal = Literal(text);
    let (descr, fortran_order, shape) = match literal.header() {
        Ok(header) => header,
        Err(needed) => {
            let rest = literal.0.trim_ascii_start();
            let (at, rest) = (text.len() - rest.len(), excerpt(rest, EXCERPT));
            return no(format!(
                "expected {needed} at header byte {at}, found \"{rest}\""
            ));
        }
    };
    let (order, code) = descr.split_first().unwrap_or((&0, &[]));
    let (Some(dtype), b'<' | b'>' | b'|' | b'=') = (Dtype::of_npy(code), order) else {
        let wide = if code == b"b1" { "uint8" } else { "float32" };
        let (descr, convert) = (excerpt(descr, EXCERPT), Format::Npy.convert(wide));
        return refuse(path, format!("dtype '{descr}'; {DTYPE}; {convert}"));
    };
    let Some(values) = volume(&shape, dtype.size()) else {
        return no(format!("shape {shape:?} of {dtype} overflows"));
    };
    // Up to one dimension longer than 1, both orders are one layout.
    if fortran_order && shape.iter().filter(|&&extent| extent > 1).count() > 1 {
        return no(format!("shape {shape:?} in Fortran order"));
    }
    let (header, data) = ((preamble + length) as u64, (values * dtype.size()) as u64);
    if found != header + data {
        let why = format!("{found} bytes, not {header} of header and {data} of data");
        return no(format!("{why} ({dtype}, shape {shape:?})"));
    }
    Ok(Header {
        dtype,
        shape,
        values,
        big_endian: *order == b'>',
        start: header,
    })
}

/// What is left of a header, in the Python of headers: a dict of strings, a boolean and a tuple.
/// An error names what should have come next.
struct Literal<'a>(&'a [u8]);

impl<'a> Literal<'a> {
    /// `descr`, `fortran_order` and `shape`.
    fn header(&mut self) -> Result<(&'a [u8], bool, Vec<usize>), &'static str> {
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        self.demand("{")?;
        for _ in 0..3 {
            let key = self.string()?;
            self.demand(":")?;
            match key {
                b"descr" if self.0.trim_ascii_start().starts_with(b"[") => {
                    return Err("a plain dtype (save a structured array by field, a['field'])");
                }
                b"descr" => descr = Some(self.string()?),
                b"fortran_order" => fortran_order = Some(self.boolean()?),
                b"shape" => shape = Some(self.shape()?),
                _ => return Err("the value of descr, fortran_order or shape"),
            }
            if !self.eat(",") {
                break;
            }
        }
        self.demand("}")?;
        if !self.0.iter().all(|byte| b" \n".contains(byte)) {
            return Err("spaces and a line end");
        }
        match (descr, fortran_order, shape) {
            (Some(descr), Some(fortran_order), Some(shape)) => Ok((descr, fortran_order, shape)),
            _ => Err("each of descr, fortran_order and shape"),
        }
    }

    fn boolean(&mut self) -> Result<bool, &'static str> {
        let value = self.eat("True");
        if !value && !self.eat("False") {
            return Err("True or False");
        }
        Ok(value)
    }

    fn shape(&mut self) -> Result<Vec<usize>, &'static str> {
        let mut shape = Vec::new();
        self.demand("(")?;
        while !self.eat(")") {
            if shape.len() == MAX_DIMENSIONS {
                return Err("the end of 64 dimensions");
            }
            shape.push(self.integer()?);
            if !self.eat(",") {
                // To Python `(3)` is a number, `(3,)` a tuple.
                self.demand(if shape.len() == 1 { "," } else { ")" })?;
                break;
            }
        }
        Ok(shape)
    }

    /// As Python writes it: no sign, no leading zero; Python 2 may append an `L`.
    fn integer(&mut self) -> Result<usize, &'static str> {
        let text = self.0.trim_ascii_start();
        let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = text.split_at(digits);
        let octal = digits.len() > 1 && digits[0] == b'0';
        let number = str::from_utf8(digits).unwrap_or_default().parse();
        let (Ok(number), false) = (number, octal) else {
            return Err("a dimension that can be addressed");
        };
        self.0 = rest.strip_prefix(b"L").unwrap_or(rest);
        Ok(number)
    }

    fn string(&mut self) -> Result<&'a [u8], &'static str> {
        let Some((quote @ (b'\'' | b'"'), text)) = self.0.trim_ascii_start().split_first() else {
            return Err("a quoted string");
        };
        let end = text.iter().position(|byte| byte == quote);
        let (string, rest) = text.split_at(end.ok_or("a closed string")?);
        self.0 = &rest[1..];
        Ok(string)
    }

    fn demand(&mut self, token: &'static str) -> Result<(), &'static str> {
        if self.eat(token) { Ok(()) } else { Err(token) }
    }

    fn eat(&mut self, token: &str) -> bool {
        let rest = self.0.trim_ascii_start().strip_prefix(token.as_bytes());
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }
}

/// All that precedes the values, if there is such an array in `.npy` files.
pub fn write(dtype: Dtype, shape: &[usize]) -> Option<Vec<u8>> {
    let order = if dtype.size() == 1 { '|' } else { '<' };
    Some(header(&format!("{order}{}", dtype.npy()?), shape))
}

/// The values after it start at a multiple of 64 bytes.
fn header(descr: &str, shape: &[usize]) -> Vec<u8> {
    let shape = match shape {
        [extent] => format!("({extent},)"),
        _ => format!("{shape:?}").replace('[', "(").replace(']', ")"),
    };
    let dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    let long = dict.len() > 65_000;
    let preamble = if long { 12 } else { 10 };
    let end = (preamble + dict.len() + 1).next_multiple_of(64);
    let length = ((end - preamble) as u32).to_le_bytes();
    let mut header = [MAGIC, &[1 + u8::from(long), 0], &length[..preamble - 8]].concat();
    header.extend(dict.bytes());
    header.resize(end - 1, b' ');
    header.push(b'\n');
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::array::open;
    use softxent::half::f16;
    use std::fmt;
    use std::fs;
    use tempfile::{TempDir, tempdir};

    fn file(version: [u8; 2], header: &[u8], data: usize) -> Vec<u8> {
        let length = (header.len() as u32).to_le_bytes();
        let length = if version == [1, 0] {
            &length[..2]
        } else {
            &length
        };
        [MAGIC, &version, length, header, &vec![0; data]].concat()
    }

    /// What becomes of a file with these bytes: "type shape" or a message.
    fn verdict(folder: &TempDir, bytes: &[u8]) -> String {
        let path = folder.path().join("x.npy");
        fs::write(&path, bytes).unwrap();
        let array = open(&path).and_then(|array| {
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
            assert!(
                message.starts_with(&format!("{}: ", path.display())),
                "{message}"
            );
            assert!(message.len() < 700, "{message}");
            message
        })
    }

    #[test]
    fn written_headers_end_where_values_may_begin() {
        for length in 0..200 {
            let text = header(&"x".repeat(length), &[1]);
            assert_eq!(text.len() % 64, 0);
            assert_eq!(
                u16::from_le_bytes([text[8], text[9]]) as usize,
                text.len() - 10
            );
            let dict = text[10..].trim_ascii_end();
            assert!(dict.ends_with(b"'shape': (1,), }"), "{length}");
            assert!(text.ends_with(b"\n") && text.len() - 10 - dict.len() <= 64);
        }
        // The length of one of version 1 has two bytes.
        let around = header("", &[1]);
        let rest = around[10..].trim_ascii_end().len();
        for (length, version) in [(65_000, 1), (65_001, 2)] {
            let text = header(&"x".repeat(length - rest), &[1]);
            assert_eq!(text[6], version);
            assert_eq!(text.len() % 64, 0);
        }
        let descr = |dtype| String::from_utf8(write(dtype, &[1]).unwrap()[10..].to_vec()).unwrap();
        assert!(descr(Dtype::U8).starts_with("{'descr': '|u1'"));
        assert!(descr(Dtype::F32).starts_with("{'descr': '<f4'"));
    }

    fn complaint<T: fmt::Debug>(result: Result<T, ArrayError>) -> String {
        result.unwrap_err().to_string()
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    /// What makes a good file: header, bytes of data, verdict.
    const GOOD: &str = r#"
{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } |24| float32 [2, 3]
{'shape':(2,),'fortran_order':False,'descr':'<f8'} |16| float64 [2]
{"descr":"<i8","shape":(),"fortran_order":False} |8| int64 []
  { 'descr' :  '|i1' , 'fortran_order' : False , 'shape' : ( 3 , ) , } |3| int8 [3]
{'descr': '=u2', 'fortran_order': False, 'shape': (3L, 2L), } |12| uint16 [3, 2]
{'descr': '>u4', 'fortran_order': False, 'shape': (0, 5), } |0| uint32 [0, 5]
{'descr': '>i1', 'fortran_order': False, 'shape': (1, 1,), } |1| int8 [1, 1]
{'descr': '<i2', 'fortran_order': True, 'shape': (1, 3, 1), } |6| int16 [1, 3, 1]
{'descr': '<i4', 'fortran_order': True, 'shape': (), } |4| int32 []
{'descr': '|u1', 'fortran_order': True, 'shape': (0, 5), } |0| uint8 [0, 5]
{'descr': '<f2', 'fortran_order': False, 'shape': (2, 3), } |12| float16 [2, 3]
{'descr': '>f2', 'fortran_order': False, 'shape': (), } |2| float16 []
"#;

    /// The values of `descr` that are refused.
    const TYPES: &str = r#"
'|b1' => dtype '|b1'; supported are float16, float32, float64, int8 to int64 and uint8 to uint64; convert
'|b1' => np.save('x.npy', np.ascontiguousarray(a.astype(np.uint8)))
'<f1' => np.save('x.npy', np.ascontiguousarray(a.astype(np.float32)))
'<f2 ' => dtype '<f2 '
'<' => dtype '<'
'<V2' => dtype '<V2'
'<c8' => dtype '<c8'
'<f16' => dtype '<f16'
'<i16' => dtype '<i16'
'|O' => dtype '|O'
'<U5' => dtype '<U5'
'f4' => dtype 'f4'
'!f4' => dtype '!f4'
'<f' => dtype '<f'
'<' => dtype '<'
'<f4 ' => dtype '<f4 '
'<F4' => dtype '<F4'
'' => dtype ''
'é' => dtype '\xc3\xa9'
'<f4" => found "fortran_order\': False, \'"
[('x', '<f4')] => expected a plain dtype (save a structured array by field, a['field']) at header byte 10, found "[(
('<f4', (2,)) => expected a quoted string at header byte
u'<f4' => expected a quoted string at header byte
<f4 => expected a quoted string at header byte
None => expected a quoted string at header byte
'<f' '4' => expected } at header byte
'<f4 => found "fortran_order
"#;

    /// The values of `shape` that are refused.
    const SHAPES: &str = "
(2) => expected , at header byte
2 => expected ( at header byte
[2] => expected ( at header byte
(,) => expected a dimension that can be addressed at header byte
(2,,) => expected a dimension
(2 3) => expected , at header byte
(2, 3 4) => expected ) at header byte
(-1,) => expected a dimension
(+1,) => expected a dimension
(1.0,) => expected , at header byte
(1e0,) => expected , at header byte
(0x1,) => expected , at header byte
(1_0,) => expected , at header byte
(010,) => expected a dimension
(1LL,) => expected , at header byte
(1 L,) => expected , at header byte
(True,) => expected a dimension
(2, => expected a dimension
((2,),) => expected a dimension
(18446744073709551616,) => expected a dimension
(18446744073709551615,) => overflows
(4294967296, 4294967296) => overflows
(4611686018427387904,) => overflows
(2305843009213693952,) => shape [2305843009213693952] of float32 overflows
(0, 18446744073709551615) => overflows
(1125899906842624,) => of header and 4503599627370496 of data (float32, shape [1125899906842624])
";

    /// Whole headers that are refused.
    const HEADERS: &str = r#"
 => expected { at header byte 0, found ""; supported is .npy 1.0, 2.0 or 3.0
{ => expected a quoted string
{} => expected a quoted string
[1] => expected { at header byte 0, found "[1]"
{'descr => expected a closed string at header byte
{'descr' => expected : at header byte
{'descr': '<f4', 'shape': (2,)} => expected each of descr, fortran_order and shape at header byte
{'descr': '<f4', 'shape': (2,), } => expected a quoted string at header byte
{'descr': '<f4', 'descr': '<f4', 'shape': (2,)} => expected each of descr
{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'shape': (2,)} => expected } at header byte
{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'extra': 1} => expected } at header byte
{'Descr': '<f4', 'fortran_order': False, 'shape': (2,)} => expected the value of descr
{'descr ': '<f4', 'fortran_order': False, 'shape': (2,)} => expected the value of descr
{'descr': '<f4' 'fortran_order': False, 'shape': (2,)} => expected } at header byte
{'descr': '<f4',, 'fortran_order': False, 'shape': (2,)} => expected a quoted string at header byte
{'descr'; '<f4', 'fortran_order': False, 'shape': (2,)} => expected : at header byte
{'descr': '<f4', 'fortran_order': False, 'shape': (2,),,} => expected } at header byte
{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} # two => expected spaces and a line end at header byte
{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}} => expected spaces and a line end at header byte
{'descr': '<f4', 'fortran_order': False, 'shape': (2,) => expected } at header byte
{'descr': '<f4', 'fortran_order': false, 'shape': (2,)} => expected True or False at header byte
{'descr': '<f4', 'fortran_order': 0, 'shape': (2,)} => expected True or False at header byte
{'descr': '<f4', 'fortran_order': 'False', 'shape': (2,)} => expected True or False at header byte
{'descr': '<f4', 'fortran_order': Truest, 'shape': (2,)} => found "st, \'shape\': (2,)}"
{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3)} => shape [2, 3] in Fortran order
"#;

    #[test]
    fn good_headers() {
        let folder = tempdir().unwrap();
        for line in GOOD.lines().skip(1) {
            let (header, rest) = line.split_once(" |").unwrap();
            let (data, expected) = rest.split_once("| ").unwrap();
            let data = data.parse().unwrap();
            for end in ["", "\n", "      \n", "\n\n"] {
                let header = [header, end].concat();
                for version in [[1, 0], [2, 0], [3, 0]] {
                    let whole = file(version, header.as_bytes(), data);
                    assert_eq!(verdict(&folder, &whole), expected, "{header}");
                    let more = verdict(&folder, &[&whole[..], &[0]].concat());
                    let (length, all) = (whole.len() - data, whole.len() + 1);
                    let counts = format!("{all} bytes, not {length} of header and {data} of data");
                    assert!(more.contains(&counts), "{header}: {more}");
                }
            }
        }
    }

    #[test]
    fn refused_headers() {
        let of = |descr: &str, shape: &str| {
            format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n")
        };
        let ones = |count| of("'|u1'", &format!("({})", "1,".repeat(count)));
        let rows = |table: &'static str| {
            let lines = table.lines().skip(1);
            lines.map(|line| line.split_once(" => ").unwrap())
        };
        let folder = tempdir().unwrap();
        assert!(verdict(&folder, &file([1, 0], ones(64).as_bytes(), 1)).starts_with("uint8 [1,"));
        let odd = [
            (ones(65), "expected the end of 64 dimensions"),
            (of("'<f4'", "(2,)") + "\0", "expected spaces and a line end"),
            (
                of("'<f4'", "(2,)") + "\r\n",
                "expected spaces and a line end",
            ),
            (of("'\x1b[2J'", "(2,)"), r"dtype '\x1b[2J'"),
            (format!("{{'{}': 1}}", "k".repeat(30_000)), "the value of"),
            (" ".repeat(30_000), "expected { at header byte"),
            ("{".repeat(30_000), "expected a quoted string"),
        ];
        let odd = odd.into_iter();
        let types = rows(TYPES).map(|(descr, expected)| (of(descr, "(2,)"), expected));
        let shapes = rows(SHAPES).map(|(shape, expected)| (of("'<f4'", shape), expected));
        let headers = rows(HEADERS).map(|(header, expected)| (header.to_owned(), expected));
        for (header, expected) in odd.chain(types).chain(shapes).chain(headers) {
            for version in [[1, 0], [2, 0], [3, 0]] {
                let verdict = verdict(&folder, &file(version, header.as_bytes(), 8));
                assert!(
                    verdict.contains(expected),
                    "{header:.99}: {verdict}, not {expected}"
                );
            }
        }
    }

    #[test]
    fn preambles() {
        let good = b"{'descr':'|u1','fortran_order':False,'shape':(0,)}";
        let table: &[(&[u8], &str)] = &[
            (b"", "0 bytes that start \"\""),
            (b"\x93NUMP", "5 bytes"),
            (b"\x93NUMPY", "6 bytes"),
            (b"\x93NUMPY\x01", "7 bytes"),
            (b"\x93NUMPY\x01\0", "version 1.0"),
            (b"\x93NUMPY\x02\0\x01\0\0", "version 2.0"),
            (b"1.0,2.0\n3.0,4.0\n", "not an array"),
            (b"\x94NUMPY\x01\0\x02\0{}", "not an array"),
            (b"PK\x03\x04\x14\0\0\0\0\0\0\0", "np.load('x.npz')['name']"),
            (&file([0, 0], good, 0), "version 0.0"),
            (&file([1, 1], good, 0), "version 1.1"),
            (&file([4, 0], good, 0), "version 4.0"),
            (
                b"\x93NUMPY\x01\0\xff\xff{}",
                "12 bytes with a header of 65535",
            ),
            (
                b"\x93NUMPY\x02\0\xff\xff\xff\xff{}",
                "14 bytes with a header of 4294967295",
            ),
            (
                &file([2, 0], &[b' '; MAX_HEADER], 0),
                "a header of 32768, 32756 at most",
            ),
        ];
        let folder = tempdir().unwrap();
        for (bytes, expected) in table {
            let verdict = verdict(&folder, bytes);
            assert!(verdict.contains(expected), "{verdict}, not {expected}");
        }
    }

    #[test]
    fn every_prefix_is_an_error_and_no_flip_a_panic() {
        let folder = tempdir().unwrap();
        let whole = [header("<i8", &[2, 1]), vec![7; 16]].concat();
        assert_eq!(verdict(&folder, &whole), "int64 [2, 1]");
        for end in 0..whole.len() {
            assert!(verdict(&folder, &whole[..end]).contains("; supported is"));
        }
        for at in 0..whole.len() - 16 {
            for byte in *b"\0\x01\x03\x7f\x80\xff '\"(),{}L09\n\\" {
                let mut flipped = whole.clone();
                flipped[at] = byte;
                verdict(&folder, &flipped);
            }
        }
    }

    /// Well-formed pieces in a wrong order are where a parser trips.
    #[test]
    fn token_soup_is_no_panic() {
        let tokens = "{ } ( ) , : ' \" 'descr' 'shape' '<f4' True 0 3L 99999999999999999999 \u{ff} \
                      {'descr':'<f4','fortran_order':False, 'shape':(3,)}";
        let tokens: Vec<&str> = tokens.split(' ').collect();
        let mut state = 1u64;
        let mut random = |below| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (state >> 33) as usize % below
        };
        let soups = (0..50_000).filter(|_| {
            let count = random(8);
            let text: String = (0..count).map(|_| tokens[random(tokens.len())]).collect();
            Literal(text.as_bytes()).header().is_ok()
        });
        assert_ne!(soups.count(), 0);
    }

    #[test]
    fn every_type_in_both_byte_orders() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("x.npy");
        let integers: [(&str, &[i64]); 8] = [
            ("i1", &[i8::MIN as i64, -1, 0, i8::MAX as i64]),
            ("i2", &[i16::MIN as i64, -2, 258, i16::MAX as i64]),
            ("i4", &[i32::MIN as i64, -3, 16_909_060, i32::MAX as i64]),
            ("i8", &[i64::MIN, -4, 72_623_859_790_382_856, i64::MAX]),
            ("u1", &[0, 1, 128, u8::MAX as i64]),
            ("u2", &[0, 2, 32_768, u16::MAX as i64]),
            ("u4", &[0, 3, 2_147_483_648, u32::MAX as i64]),
            ("u8", &[0, 4, 72_623_859_790_382_856, i64::MAX]),
        ];
        let floats: [f64; 6] = [0.0, -0.0, 1.5, 0.1, 1e300, f64::NEG_INFINITY];
        let save = |descr: &str, shape: &[usize], bytes: Vec<Vec<u8>>| {
            let bytes = bytes.into_iter().flat_map(|mut bytes| {
                if descr.starts_with('>') {
                    bytes.reverse();
                }
                bytes
            });
            let whole: Vec<u8> = header(descr, shape).into_iter().chain(bytes).collect();
            fs::write(&path, whole).unwrap();
        };
        for order in ["<", ">", "|", "="] {
            for (code, values) in integers {
                let size = usize::from(code.as_bytes()[1] - b'0');
                let bytes = values
                    .iter()
                    .map(|value| value.to_le_bytes()[..size].to_vec());
                save(&format!("{order}{code}"), &[2, 2], bytes.collect());
                assert_eq!(
                    open(&path).unwrap().read_i64().unwrap(),
                    values,
                    "{order}{code}"
                );
                let message = complaint(open(&path).unwrap().read_f32());
                assert!(message.contains("floats are needed") && message.contains("np.float32"));
            }
            let singles = floats.map(|value| value as f32);
            save(
                &format!("{order}f4"),
                &[6],
                singles.map(|value| value.to_le_bytes().into()).into(),
            );
            let read = open(&path).unwrap().read_f32().unwrap();
            assert_eq!(bits(&read), bits(&singles));
            let halves = floats.map(f16::from_f64);
            save(
                &format!("{order}f2"),
                &[6],
                halves.map(|value| value.to_le_bytes().into()).into(),
            );
            let read = open(&path).unwrap().read_f32().unwrap();
            assert_eq!(bits(&read), bits(&halves.map(f16::to_f32)));
            let mut read: Vec<u8> = Vec::new();
            let mut array = open(&path).unwrap();
            array.floats(0..6, &mut |some| read.extend(some)).unwrap();
            assert_eq!(read, bytemuck::cast_slice::<_, u8>(&halves));
            // Some of them, from within.
            let mut read: Vec<f32> = Vec::new();
            array.f32s(2..4, &mut |some| read.extend(some)).unwrap();
            assert_eq!(read, [halves[2].to_f32(), halves[3].to_f32()]);
            save(
                &format!("{order}f8"),
                &[6],
                floats.map(|value| value.to_le_bytes().into()).into(),
            );
            let read = open(&path).unwrap().read_f32().unwrap();
            assert_eq!(bits(&read), bits(&singles));
            let message = complaint(open(&path).unwrap().read_i64());
            assert!(
                message.contains("float64, where integers are needed"),
                "{message}"
            );
        }
        save("<u8", &[2], vec![vec![0; 8], vec![0xff; 8]]);
        let message = complaint(open(&path).unwrap().read_i64());
        assert!(
            message.contains("[1] is 18446744073709551615; supported is up to 9223372036854775807"),
            "{message}"
        );
    }

    #[test]
    fn headers_are_those_of_numpy() {
        for (shape, expected) in [(&[][..], "()"), (&[3], "(3,)"), (&[3, 4], "(3, 4)")] {
            let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {expected}, }}");
            assert_eq!(
                header("<f4", shape),
                file([1, 0], format!("{text:117}\n").as_bytes(), 0)
            );
        }
        let long = header("<f4", &[1; 30_000]);
        let length = u32::from_le_bytes(long[8..12].try_into().unwrap());
        assert_eq!(
            (long[6], long.len(), long.len() % 64),
            (2, length as usize + 12, 0)
        );
    }
}
