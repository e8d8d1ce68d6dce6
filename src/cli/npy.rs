//! Strict `.npy` files: one array in, one array out. Only the command line uses them.
//!
//! Reading takes versions 1.0 to 3.0, integers and floats of either byte order, in C order. A file
//! is believed once its length is exactly that of its header and data; until then its first 64 KiB
//! are all that is on the heap. The values then pass through a buffer of 64 KiB into memory that is
//! reserved once, fallibly. No bytes cause a panic.
//! Writing is whole or not at all: a temporary file in the target's folder, synced, then renamed
//! over the target. Only a process that is killed leaves its `.softxent-*.tmp` behind.
//! Every error names the file, what was found there and what to type instead.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf, is_separator};

use tempfile::TempPath;

const MAGIC: &[u8] = b"\x93NUMPY";
/// Bytes moved by one read or write; also the longest header, six times what NumPy trusts.
const CHUNK: usize = 1 << 16;
/// As in NumPy 2; it bounds the heap that a hostile shape can take.
const MAX_DIMENSIONS: usize = 64;

const FORMAT: &str = "supported is .npy 1.0, 2.0 or 3.0, one array in C order per file; \
                      convert with np.save('x.npy', np.ascontiguousarray(a))";
const DTYPE: &str = "supported are float32, float64, int8 to int64 and uint8 to uint64";

/// Why an array could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NpyError {
    /// The operating system would not.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        path: PathBuf,
        action: &'static str,
        source: io::Error,
    },
    /// Not an array that can be used here, or not a place for one.
    #[error("{path}: {why}")]
    Refused { path: PathBuf, why: String },
    /// The array does not fit in memory.
    #[error("{path}: no memory for {values} values; save fewer: np.save('x.npy', a[:1000])")]
    Memory { path: PathBuf, values: usize },
}

fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> NpyError {
    let path = path.into();
    move |source| NpyError::Io {
        path,
        action,
        source,
    }
}

fn refuse<T>(path: &Path, why: String) -> Result<T, NpyError> {
    let path = path.into();
    Err(NpyError::Refused { path, why })
}

/// What to type for an array of another type.
fn astype(dtype: &str) -> String {
    format!("convert with np.save('x.npy', np.ascontiguousarray(a.astype(np.{dtype})))")
}

/// The stored type, displayed by NumPy's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
}

impl Dtype {
    /// Whether it holds floats; integers otherwise.
    pub fn is_float(self) -> bool {
        matches!(self, Dtype::F32 | Dtype::F64)
    }
}

/// Code less byte order, type, bytes, NumPy's name.
const DTYPES: [(&[u8], Dtype, usize, &str); 10] = [
    (b"f4", Dtype::F32, 4, "float32"),
    (b"f8", Dtype::F64, 8, "float64"),
    (b"i1", Dtype::I8, 1, "int8"),
    (b"i2", Dtype::I16, 2, "int16"),
    (b"i4", Dtype::I32, 4, "int32"),
    (b"i8", Dtype::I64, 8, "int64"),
    (b"u1", Dtype::U8, 1, "uint8"),
    (b"u2", Dtype::U16, 2, "uint16"),
    (b"u4", Dtype::U32, 4, "uint32"),
    (b"u8", Dtype::U64, 8, "uint64"),
];

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let row = DTYPES.iter().find(|(_, dtype, ..)| dtype == self);
        f.pad(row.map_or("", |(.., name)| name))
    }
}

/// An open array: its header agrees with the length of its source, its values are still to be read.
#[derive(Debug)]
pub struct Npy<S = File> {
    /// As given to [`open`], or the name of an array in memory.
    pub path: PathBuf,
    /// What is stored, whatever it is read as.
    pub dtype: Dtype,
    /// Outermost dimension first; empty for a single value.
    pub shape: Vec<usize>,
    values: usize,
    big_endian: bool,
    source: S,
}

/// Opens a file and checks everything but its values.
pub fn open(path: &Path) -> Result<Npy, NpyError> {
    let no = |why: &str| refuse(path, format!("{why}; {FORMAT}"));
    // Before it is opened: to open a pipe is to wait for its writer.
    let kind = fs::metadata(path).map_err(io(path, "open it"))?;
    if kind.is_dir() {
        return no("a directory, not a file");
    }
    if !kind.is_file() {
        return no("a pipe or device, not a regular file");
    }
    let file = File::open(path).map_err(io(path, "open it"))?;
    let found = file.metadata().map_err(io(path, "measure it"))?.len();
    parse(path, file, found)
}

/// [`open`] for an array in memory, under a name for messages.
pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Npy<Cursor<&'static [u8]>>, NpyError> {
    parse(Path::new(name), Cursor::new(bytes), bytes.len() as u64)
}

fn parse<S: Read + Seek>(path: &Path, mut source: S, found: u64) -> Result<Npy<S>, NpyError> {
    let no = |why: String| refuse(path, format!("{why}; {FORMAT}"));
    let mut start = vec![0; found.min(CHUNK as u64) as usize];
    fill(&mut source, path, &mut start)?;
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
            let start = excerpt(&start);
            return no(format!(
                "not an array but {found} bytes that start \"{start}\""
            ));
        }
    };
    let Some(text) = start[preamble..].get(..length) else {
        return no(format!(
            "{found} bytes with a header of {length}, {CHUNK} at most"
        ));
    };
    let mut literal = Literal(text);
    let (descr, fortran_order, shape) = match literal.header() {
        Ok(header) => header,
        Err(needed) => {
            let rest = literal.0.trim_ascii_start();
            let (at, rest) = (text.len() - rest.len(), excerpt(rest));
            return no(format!(
                "expected {needed} at header byte {at}, found \"{rest}\""
            ));
        }
    };
    let (order, code) = descr.split_first().unwrap_or((&0, &[]));
    let known = DTYPES.iter().find(|(known, ..)| *known == code);
    let (Some(&(_, dtype, size, _)), b'<' | b'>' | b'|' | b'=') = (known, order) else {
        let wide = if code == b"b1" { "uint8" } else { "float32" };
        let (descr, convert) = (excerpt(descr), astype(wide));
        return refuse(path, format!("dtype '{descr}'; {DTYPE}; {convert}"));
    };
    let Some(values) = volume(&shape, size) else {
        return no(format!("shape {shape:?} of {dtype} overflows"));
    };
    // Up to one dimension longer than 1, both orders are one layout.
    if fortran_order && shape.iter().filter(|&&extent| extent > 1).count() > 1 {
        return no(format!("shape {shape:?} in Fortran order"));
    }
    let (header, data) = ((preamble + length) as u64, (values * size) as u64);
    if found != header + data {
        let why = format!("{found} bytes, not {header} of header and {data} of data");
        return no(format!("{why} ({dtype}, shape {shape:?})"));
    }
    source
        .seek(SeekFrom::Start(header))
        .map_err(io(path, "read it"))?;
    Ok(Npy {
        path: path.into(),
        dtype,
        shape,
        values,
        big_endian: *order == b'>',
        source,
    })
}

impl<S: Read> Npy<S> {
    /// The values of a float array. Those of `f8` are rounded to nearest, if too large to infinity.
    pub fn read_f32(mut self) -> Result<Vec<f32>, NpyError> {
        match self.dtype {
            Dtype::F32 => self.decode(f32::from_le_bytes),
            Dtype::F64 => self.decode(|b| f64::from_le_bytes(b) as f32),
            _ => self.refuse("floats", "float32"),
        }
    }

    /// The values of an integer array, exactly.
    pub fn read_i64(mut self) -> Result<Vec<i64>, NpyError> {
        match self.dtype {
            Dtype::I8 => self.decode(|b| i8::from_le_bytes(b).into()),
            Dtype::I16 => self.decode(|b| i16::from_le_bytes(b).into()),
            Dtype::I32 => self.decode(|b| i32::from_le_bytes(b).into()),
            Dtype::I64 => self.decode(i64::from_le_bytes),
            Dtype::U8 => self.decode(|b| u8::from_le_bytes(b).into()),
            Dtype::U16 => self.decode(|b| u16::from_le_bytes(b).into()),
            Dtype::U32 => self.decode(|b| u32::from_le_bytes(b).into()),
            Dtype::U64 => {
                let values = self.decode(i64::from_le_bytes)?;
                let Some(at) = values.iter().position(|&value| value < 0) else {
                    return Ok(values);
                };
                let why = format!("a.flat[{at}] is {}", values[at] as u64);
                refuse(
                    &self.path,
                    format!("{why}; supported is up to {}", i64::MAX),
                )
            }
            _ => self.refuse("integers", "int64"),
        }
    }

    fn refuse<T>(&self, needed: &str, name: &str) -> Result<T, NpyError> {
        let (dtype, convert) = (self.dtype, astype(name));
        let why = format!("dtype {dtype}, where {needed} are needed; {convert}");
        refuse(&self.path, why)
    }

    /// `N` is the size of the stored type.
    fn decode<T, const N: usize>(
        &mut self,
        value: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, NpyError> {
        let mut values = reserve(&self.path, self.values)?;
        let mut buffer = vec![0; CHUNK];
        while values.len() < self.values {
            let chunk = &mut buffer[..(self.values - values.len()).min(CHUNK / N) * N];
            fill(&mut self.source, &self.path, chunk)?;
            values.extend(chunk.chunks_exact(N).map(|stored| {
                let mut bytes = [0; N];
                bytes.copy_from_slice(stored);
                if self.big_endian {
                    bytes.reverse();
                }
                value(bytes)
            }));
        }
        Ok(values)
    }
}

fn reserve<T>(path: &Path, values: usize) -> Result<Vec<T>, NpyError> {
    let (path, mut memory) = (path.into(), Vec::new());
    let reserved = memory.try_reserve_exact(values);
    reserved.map_err(|_| NpyError::Memory { path, values })?;
    Ok(memory)
}

/// A file that shrinks while it is read ends up here as an unexpected end.
fn fill(source: &mut impl Read, path: &Path, bytes: &mut [u8]) -> Result<(), NpyError> {
    source.read_exact(bytes).map_err(io(path, "read all of it"))
}

/// The number of values, if they could be addressed even with every empty dimension 1.
fn volume(shape: &[usize], size: usize) -> Option<usize> {
    let grow = |bytes: usize, extent: &usize| bytes.checked_mul(*extent.max(&1));
    isize::try_from(shape.iter().try_fold(size, grow)?).ok()?;
    Some(shape.iter().product())
}

/// As much of a file as belongs in a message.
fn excerpt(bytes: &[u8]) -> impl fmt::Display {
    bytes[..bytes.len().min(24)].escape_ascii()
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

/// A whole array that waits beside its target. Dropped, it leaves nothing.
#[derive(Debug)]
#[must_use = "the target changes at commit"]
pub struct Pending(Option<(TempPath, PathBuf)>);

impl Pending {
    /// Replaces the target at once. A pipe or device has had its values already.
    pub fn commit(self) -> Result<(), NpyError> {
        let Some((temporary, target)) = self.0 else {
            return Ok(());
        };
        let renamed = temporary.persist(&target);
        renamed.map_err(|refusal| io(&target, "replace it")(refusal.error))
    }
}

/// Writes a `float32` array beside its target: all outputs are staged before one is committed.
pub fn stage_f32(path: &Path, shape: &[usize], data: &[f32]) -> Result<Pending, NpyError> {
    stage(path, "<f4", shape, data, f32::to_le_bytes)
}

/// Writes an `int64` array beside its target.
pub fn stage_i64(path: &Path, shape: &[usize], data: &[i64]) -> Result<Pending, NpyError> {
    stage(path, "<i8", shape, data, i64::to_le_bytes)
}

fn stage<T: Copy, const N: usize>(
    path: &Path,
    descr: &str,
    shape: &[usize],
    data: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> Result<Pending, NpyError> {
    let no = |why: &str| refuse(path, format!("{why}; nothing was written"));
    if volume(shape, N) != Some(data.len()) {
        return no(&format!(
            "{} values for an array of shape {shape:?}",
            data.len()
        ));
    }
    let write = |file: &File| {
        let mut file = BufWriter::with_capacity(CHUNK, file);
        file.write_all(&header(descr, shape))?;
        data.iter()
            .try_for_each(|&value| file.write_all(&bytes(value)))?;
        file.flush()
    };
    let target = match fs::metadata(path) {
        Ok(old) if old.is_dir() => return no("a directory"),
        Ok(old) if old.permissions().readonly() => return no("read-only"),
        // A rename would replace the pipe or device by a file; neither can be synced.
        Ok(old) if !old.is_file() => {
            let file = OpenOptions::new().write(true).open(path);
            let written = file.and_then(|file| write(&file));
            written.map_err(io(path, "write it"))?;
            return Ok(Pending(None));
        }
        // The file behind symbolic links, which stay.
        Ok(_) => fs::canonicalize(path).map_err(io(path, "resolve it"))?,
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io(path, "write it")(error));
        }
        Err(_) if path.is_symlink() => return no("a symbolic link to nothing"),
        Err(_) if path.file_name().is_none() || path.to_string_lossy().ends_with(is_separator) => {
            return no("not the name of a file");
        }
        Err(_) => path.into(),
    };
    let folder = target.parent().filter(|folder| *folder != Path::new(""));
    let mut temporary = tempfile::Builder::new();
    temporary.prefix(".softxent-").suffix(".tmp");
    #[cfg(unix)] // As for any new file, less the umask; a temporary one would be 0600.
    temporary.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let temporary = temporary.tempfile_in(folder.unwrap_or(Path::new(".")));
    let temporary = temporary.map_err(io(path, "create a file in its folder"))?;
    let file = temporary.as_file();
    let written = write(file).and_then(|()| file.sync_all());
    written.map_err(io(path, "write it"))?;
    Ok(Pending(Some((temporary.into_temp_path(), target))))
}

/// All that precedes the values, which start at a multiple of 64 bytes.
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
    use std::error::Error;
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
            let (kind, values) = (format!("{} {:?}", array.dtype, array.shape), array.values);
            let read = match array.dtype {
                Dtype::F32 | Dtype::F64 => array.read_f32()?.len(),
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

    fn complaint<T: fmt::Debug>(result: Result<T, NpyError>) -> String {
        result.unwrap_err().to_string()
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    fn write_f32(path: &Path, shape: &[usize], data: &[f32]) -> Result<(), NpyError> {
        stage_f32(path, shape, data)?.commit()
    }

    fn write_i64(path: &Path, shape: &[usize], data: &[i64]) -> Result<(), NpyError> {
        stage_i64(path, shape, data)?.commit()
    }

    fn names(folder: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
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
"#;

    /// The values of `descr` that are refused.
    const TYPES: &str = r#"
'|b1' => dtype '|b1'; supported are float32, float64, int8 to int64 and uint8 to uint64; convert
'|b1' => np.save('x.npy', np.ascontiguousarray(a.astype(np.uint8)))
'<f2' => np.save('x.npy', np.ascontiguousarray(a.astype(np.float32)))
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
            (format!("{{'{}': 1}}", "k".repeat(60_000)), "the value of"),
            (" ".repeat(60_000), "expected { at header byte"),
            ("{".repeat(60_000), "expected a quoted string"),
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
                &file([2, 0], &[b' '; CHUNK], 0),
                "a header of 65536, 65536 at most",
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
    fn what_is_written_is_read() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("x.npy");
        let shapes: [&[usize]; 8] = [
            &[],
            &[3],
            &[0, 5],
            &[0],
            &[2, 3],
            &[1, 1, 1, 4],
            &[16_384],
            &[100_003],
        ];
        for shape in shapes {
            let count = shape.iter().product();
            let floats: Vec<f32> = (0..count)
                .map(|i| f32::from_bits(i as u32 * 40_503))
                .collect();
            write_f32(&path, shape, &floats).unwrap();
            let array = open(&path).unwrap();
            assert_eq!(
                (array.dtype, &array.shape[..], &array.path),
                (Dtype::F32, shape, &path)
            );
            let read = array.read_f32().unwrap();
            assert_eq!(bits(&read), bits(&floats));
            let integers: Vec<i64> = (0..count as i64).map(|i| (i - 7) << 40).collect();
            write_i64(&path, shape, &integers).unwrap();
            let array = open(&path).unwrap();
            assert_eq!((array.dtype, &array.shape[..]), (Dtype::I64, shape));
            assert_eq!(array.read_i64().unwrap(), integers);
            assert_eq!(
                (fs::metadata(&path).unwrap().len() - 8 * count as u64) % 64,
                0
            );
        }
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

    #[test]
    fn shrinking_after_open_is_an_error() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("x.npy");
        write_i64(&path, &[20_000], &[1; 20_000]).unwrap();
        let array = open(&path).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(100_000)
            .unwrap();
        let error = array.read_i64().unwrap_err();
        assert!(
            error.to_string().contains("cannot read all of it"),
            "{error}"
        );
        assert!(error.source().unwrap().is::<io::Error>());
    }

    #[test]
    fn lack_of_memory_is_an_error() {
        let error = reserve::<i64>(Path::new("x.npy"), usize::MAX / 2).unwrap_err();
        assert!(matches!(error, NpyError::Memory { .. }) && error.to_string().contains("x.npy"));
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_no_litter() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("x.npy");
        write_i64(&path, &[1], &[1]).unwrap();
        let old = || {
            assert_eq!(names(&folder), ["x.npy"]);
            assert_eq!(open(&path).unwrap().read_i64().unwrap(), [1]);
        };
        for (shape, count) in [
            (&[2][..], 3),
            (&[], 0),
            (&[0], 1),
            (&[usize::MAX, 2], 2),
            (&[0, usize::MAX], 0),
        ] {
            let error = complaint(write_i64(&path, shape, &vec![2; count]));
            assert!(
                error.contains("nothing was written") && error.contains("x.npy"),
                "{error}"
            );
            old();
        }
        let pending = stage_i64(&path, &[1], &[2]).unwrap();
        assert_eq!(names(&folder).len(), 2);
        drop(pending);
        old();

        let other = folder.path().join("y.npy");
        let both = [
            stage_i64(&path, &[1], &[3]).unwrap(),
            stage_i64(&other, &[1], &[4]).unwrap(),
        ];
        assert!(!other.exists());
        assert_eq!(open(&path).unwrap().read_i64().unwrap(), [1]);
        both.into_iter().try_for_each(Pending::commit).unwrap();
        assert_eq!(names(&folder), ["x.npy", "y.npy"]);
        assert_eq!(open(&path).unwrap().read_i64().unwrap(), [3]);

        let pending = stage_i64(&other, &[1], &[5]).unwrap();
        fs::remove_file(&other).unwrap();
        fs::create_dir(&other).unwrap();
        let error = pending.commit().unwrap_err();
        assert!(
            error.to_string().contains("y.npy: cannot replace it"),
            "{error}"
        );
        assert_eq!(names(&folder), ["x.npy", "y.npy"]);
    }

    #[test]
    fn targets_that_cannot_be_written() {
        let folder = tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write_i64(&at("file"), &[], &[1]).unwrap();
        write_i64(&at("read_only"), &[], &[1]).unwrap();
        let mut permissions = fs::metadata(at("read_only")).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(at("read_only"), permissions).unwrap();
        for (path, expected) in [
            (at(""), "a directory"),
            (at("missing/x.npy"), "cannot create a file in its folder"),
            (at("missing/"), "not the name of a file"),
            ("".into(), "not the name of a file"),
            (at("file/x.npy"), "cannot"),
            (at("read_only"), "read-only"),
        ] {
            let message = complaint(write_f32(&path, &[1], &[1.0]));
            assert!(message.contains(expected), "{message}");
            assert!(
                message.starts_with(&format!("{}: ", path.display())),
                "{message}"
            );
        }
        assert_eq!(names(&folder), ["file", "read_only"]);
    }

    #[test]
    fn sources_that_cannot_be_read() {
        let folder = tempdir().unwrap();
        let error = open(&folder.path().join("missing")).unwrap_err();
        assert!(error.to_string().contains("missing: cannot open it") && error.source().is_some());
        let message = complaint(open(folder.path()));
        assert!(
            message.contains("a directory") && message.contains("np.save("),
            "{message}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_a_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempdir().unwrap();
        let mode = |name| {
            fs::metadata(folder.path().join(name))
                .unwrap()
                .permissions()
                .mode()
        };
        File::create(folder.path().join("new")).unwrap();
        write_i64(&folder.path().join("array"), &[], &[1]).unwrap();
        assert_eq!(mode("array"), mode("new"));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed() {
        let folder = tempdir().unwrap();
        let [near, far, lost] = ["near", "far", "lost"].map(|name| folder.path().join(name));
        write_i64(&far, &[], &[1]).unwrap();
        std::os::unix::fs::symlink("far", &near).unwrap();
        write_i64(&near, &[], &[2]).unwrap();
        assert!(near.is_symlink() && !far.is_symlink());
        assert_eq!(open(&far).unwrap().read_i64().unwrap(), [2]);
        assert_eq!(open(&near).unwrap().read_i64().unwrap(), [2]);
        std::os::unix::fs::symlink("nothing", &lost).unwrap();
        let message = complaint(write_i64(&lost, &[], &[3]));
        assert!(message.contains("a symbolic link to nothing"), "{message}");
        assert_eq!(names(&folder), ["far", "lost", "near"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn devices_and_pipes_are_written_in_place() {
        use std::os::unix::fs::FileTypeExt;
        write_f32(Path::new("/dev/null"), &[1], &[1.0]).unwrap();
        assert!(
            fs::metadata("/dev/null")
                .unwrap()
                .file_type()
                .is_char_device()
        );
        let message = complaint(write_f32(Path::new("/dev/full"), &[1], &[1.0]));
        assert!(
            message.starts_with("/dev/full: cannot write it: No space"),
            "{message}"
        );
        let message = complaint(open(Path::new("/dev/null")));
        assert!(message.contains("a pipe or device"), "{message}");

        let folder = tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );
        assert!(complaint(open(&pipe)).contains("a pipe or device"));
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).unwrap()
        });
        write_i64(&pipe, &[20_000], &[9; 20_000]).unwrap();
        let sent = reader.join().unwrap();
        assert_eq!((sent.len(), sent[160_127]), (160_128, 0));
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
        assert_eq!(names(&folder), ["pipe"]);
    }
}
