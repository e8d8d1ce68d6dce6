//! An array in a file, whatever the format: where it is, what it holds, how its values are read.
//!
//! A file is believed once its length is exactly that of its header and data; until then it gets less
//! than 64 KiB of heap. The values then pass through a buffer of 64 KiB into memory that is reserved
//! once, fallibly. No bytes cause a panic.
//! Every error names the file, what was found there and what to type instead.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use ::safetensors::Dtype as Stored;
use softxent::half::{bf16, f16};

use super::{npy, safetensors};

/// Bytes moved by one read or write.
pub const CHUNK: usize = 1 << 16;
/// As in NumPy 2; it bounds the heap that a hostile shape can take.
pub const MAX_DIMENSIONS: usize = 64;

/// Why an array could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArrayError {
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
    #[error("{path}: no memory for {values} values; save fewer, such as a[:1000]")]
    Memory { path: PathBuf, values: usize },
}

pub fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> ArrayError {
    let path = path.into();
    move |source| ArrayError::Io {
        path,
        action,
        source,
    }
}

pub fn refuse<T>(path: &Path, why: String) -> Result<T, ArrayError> {
    let path = path.into();
    Err(ArrayError::Refused { path, why })
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Npy,
    Safetensors,
}

impl Format {
    /// What can be read, and how to get it.
    pub fn supported(self) -> &'static str {
        match self {
            Format::Npy => npy::FORMAT,
            Format::Safetensors => safetensors::FORMAT,
        }
    }

    /// What to type for an array of another type.
    pub fn convert(self, dtype: &str) -> String {
        match self {
            Format::Npy => {
                format!("convert with np.save('x.npy', np.ascontiguousarray(a.astype(np.{dtype})))")
            }
            Format::Safetensors => format!(
                "convert with save_file({{'x': x.to(torch.{dtype}).contiguous()}}, 'x.safetensors')"
            ),
        }
    }
}

/// Where an array is, as it was typed: `file`, or `file.safetensors:tensor`.
#[derive(Clone, Copy, Debug)]
pub struct Location<'a> {
    pub file: &'a Path,
    pub format: Format,
    /// The tensor, where it is named.
    pub tensor: Option<&'a str>,
}

impl<'a> Location<'a> {
    pub fn of(path: &'a Path) -> Self {
        const EXTENSION: &str = ".safetensors";
        let named = path.to_str().and_then(|text| {
            let colon = text.find(".safetensors:")? + EXTENSION.len();
            Some((text.get(..colon)?, text.get(colon + 1..)?))
        });
        let plain = path.extension().is_some_and(|end| end == &EXTENSION[1..]);
        let (file, format, tensor) = match named {
            Some((file, tensor)) => (Path::new(file), Format::Safetensors, Some(tensor)),
            None if plain => (path, Format::Safetensors, None),
            None => (path, Format::Npy, None),
        };
        Location {
            file,
            format,
            tensor,
        }
    }

    /// The file that the path leads to, whether it is there yet or not.
    pub fn target(&self) -> PathBuf {
        let there = || self.file.canonicalize().ok();
        let folder = || {
            let folder = match self.file.parent()? {
                folder if folder == Path::new("") => Path::new("."),
                folder => folder,
            };
            Some(folder.canonicalize().ok()?.join(self.file.file_name()?))
        };
        there()
            .or_else(folder)
            .unwrap_or_else(|| self.file.to_owned())
    }
}

/// The stored type, displayed by NumPy's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    F16,
    Bf16,
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
    /// Written, never read.
    Bool,
}

/// What the formats call a type; `.npy` codes are without the byte order.
struct Names {
    npy: Option<&'static str>,
    safetensors: Stored,
    numpy: &'static str,
    size: usize,
}

impl Dtype {
    const READABLE: [Dtype; 12] = [
        Dtype::F16,
        Dtype::Bf16,
        Dtype::F32,
        Dtype::F64,
        Dtype::I8,
        Dtype::I16,
        Dtype::I32,
        Dtype::I64,
        Dtype::U8,
        Dtype::U16,
        Dtype::U32,
        Dtype::U64,
    ];

    fn names(self) -> Names {
        let (npy, safetensors, numpy, size) = match self {
            Dtype::F16 => (Some("f2"), Stored::F16, "float16", 2),
            Dtype::Bf16 => (None, Stored::BF16, "bfloat16", 2),
            Dtype::F32 => (Some("f4"), Stored::F32, "float32", 4),
            Dtype::F64 => (Some("f8"), Stored::F64, "float64", 8),
            Dtype::I8 => (Some("i1"), Stored::I8, "int8", 1),
            Dtype::I16 => (Some("i2"), Stored::I16, "int16", 2),
            Dtype::I32 => (Some("i4"), Stored::I32, "int32", 4),
            Dtype::I64 => (Some("i8"), Stored::I64, "int64", 8),
            Dtype::U8 => (Some("u1"), Stored::U8, "uint8", 1),
            Dtype::U16 => (Some("u2"), Stored::U16, "uint16", 2),
            Dtype::U32 => (Some("u4"), Stored::U32, "uint32", 4),
            Dtype::U64 => (Some("u8"), Stored::U64, "uint64", 8),
            Dtype::Bool => (Some("b1"), Stored::BOOL, "bool", 1),
        };
        Names {
            npy,
            safetensors,
            numpy,
            size,
        }
    }

    /// The type of a `.npy` code, if it can be read.
    pub fn of_npy(code: &[u8]) -> Option<Dtype> {
        let is = |dtype: &Dtype| dtype.npy().is_some_and(|npy| npy.as_bytes() == code);
        Dtype::READABLE.into_iter().find(is)
    }

    /// The type that `.safetensors` files call so, if it can be read.
    pub fn of_safetensors(stored: Stored) -> Option<Dtype> {
        let is = |dtype: &Dtype| dtype.safetensors() == stored;
        Dtype::READABLE.into_iter().find(is)
    }

    /// What `.npy` files call it, if they can hold it.
    pub fn npy(self) -> Option<&'static str> {
        self.names().npy
    }

    /// What `.safetensors` files call it.
    pub fn safetensors(self) -> Stored {
        self.names().safetensors
    }

    /// Bytes of one value.
    pub fn size(self) -> usize {
        self.names().size
    }

    /// Whether it holds floats; integers otherwise.
    pub fn is_float(self) -> bool {
        matches!(self, Dtype::F16 | Dtype::Bf16 | Dtype::F32 | Dtype::F64)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self.names().numpy)
    }
}

/// What is known of an array before its values are read.
#[derive(Debug)]
pub struct Header {
    pub dtype: Dtype,
    /// Outermost dimension first; empty for a single value.
    pub shape: Vec<usize>,
    pub values: usize,
    pub big_endian: bool,
    /// The byte that the values start at.
    pub start: u64,
}

/// An open array: its header agrees with the length of its source, its values are still to be read.
#[derive(Debug)]
pub struct Array<S = File> {
    /// As given to [`open`], or the name of an array in memory.
    pub path: PathBuf,
    /// What is stored, whatever it is read as.
    pub dtype: Dtype,
    /// Outermost dimension first; empty for a single value.
    pub shape: Vec<usize>,
    values: usize,
    big_endian: bool,
    format: Format,
    /// The byte that the values start at.
    start: u64,
    source: S,
}

/// Opens a file and checks everything but its values.
pub fn open(path: &Path) -> Result<Array, ArrayError> {
    let location = Location::of(path);
    let no = |why: &str| refuse(path, format!("{why}; {}", location.format.supported()));
    let check = |found: &fs::Metadata| match found.is_file() {
        true => Ok(()),
        false if found.is_dir() => no("a directory, not a file"),
        false => no("a pipe or device, not a regular file"),
    };
    // Before it is opened too: to open a pipe is to wait for its writer.
    check(&fs::metadata(location.file).map_err(io(path, "open it"))?)?;
    let file = File::open(location.file).map_err(io(path, "open it"))?;
    let found = file.metadata().map_err(io(path, "measure it"))?;
    check(&found)?;
    Array::of(path, location, file, found.len())
}

impl<S: Read + Seek> Array<S> {
    /// The array of a source of this length.
    pub fn of(
        path: &Path,
        location: Location<'_>,
        mut source: S,
        length: u64,
    ) -> Result<Self, ArrayError> {
        let header = match location.format {
            Format::Npy => npy::read(path, &mut source, length),
            Format::Safetensors => safetensors::read(path, location.tensor, &mut source, length),
        }?;
        Ok(Array {
            path: path.into(),
            dtype: header.dtype,
            shape: header.shape,
            values: header.values,
            big_endian: header.big_endian,
            format: location.format,
            start: header.start,
            source,
        })
    }

    /// The values of a float array. Those of float64 are rounded to nearest, if too large to infinity.
    pub fn read_f32(mut self) -> Result<Vec<f32>, ArrayError> {
        let mut values = reserve(&self.path, self.values)?;
        self.f32s(0..self.values, &mut |some| values.extend(some))?;
        Ok(values)
    }

    /// The values of an integer array, exactly.
    pub fn read_i64(mut self) -> Result<Vec<i64>, ArrayError> {
        let mut values = reserve(&self.path, self.values)?;
        self.i64s(0..self.values, &mut |some| values.extend(some))?;
        Ok(values)
    }

    /// Some values of a float array as [`read_f32`](Self::read_f32) gives them, in parts.
    pub fn f32s(
        &mut self,
        range: Range<usize>,
        put: &mut dyn FnMut(&[f32]),
    ) -> Result<(), ArrayError> {
        match self.dtype {
            Dtype::F16 => self.decode(range, |b| f16::from_le_bytes(b).to_f32(), put),
            Dtype::Bf16 => self.decode(range, |b| bf16::from_le_bytes(b).to_f32(), put),
            Dtype::F32 => self.decode(range, f32::from_le_bytes, put),
            Dtype::F64 => self.decode(range, |b| f64::from_le_bytes(b) as f32, put),
            _ => self.refuse("floats", "float32"),
        }
    }

    /// Some values of a float array in the byte order of this machine, as they are stored where logits
    /// can be so, else in f32.
    pub fn floats(
        &mut self,
        range: Range<usize>,
        put: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ArrayError> {
        let halves = &mut |some: &[u16]| put(bytemuck::cast_slice(some));
        match self.dtype {
            Dtype::F16 | Dtype::Bf16 => self.decode(range, u16::from_le_bytes, halves),
            _ => self.f32s(range, &mut |some| put(bytemuck::cast_slice(some))),
        }
    }

    /// Some values of an integer array, exactly, in parts.
    pub fn i64s(
        &mut self,
        range: Range<usize>,
        put: &mut dyn FnMut(&[i64]),
    ) -> Result<(), ArrayError> {
        match self.dtype {
            Dtype::I8 => self.decode(range, |b| i8::from_le_bytes(b).into(), put),
            Dtype::I16 => self.decode(range, |b| i16::from_le_bytes(b).into(), put),
            Dtype::I32 => self.decode(range, |b| i32::from_le_bytes(b).into(), put),
            Dtype::I64 => self.decode(range, i64::from_le_bytes, put),
            Dtype::U8 => self.decode(range, |b| u8::from_le_bytes(b).into(), put),
            Dtype::U16 => self.decode(range, |b| u16::from_le_bytes(b).into(), put),
            Dtype::U32 => self.decode(range, |b| u32::from_le_bytes(b).into(), put),
            Dtype::U64 => {
                let (mut at, mut large) = (range.start, None);
                self.decode(range, i64::from_le_bytes, &mut |some| {
                    let found = some.iter().position(|&value| value < 0);
                    large = large.or(found.map(|i| (at + i, some[i] as u64)));
                    at += some.len();
                    put(some);
                })?;
                let Some((at, value)) = large else {
                    return Ok(());
                };
                let why = format!("a.flat[{at}] is {value}");
                refuse(
                    &self.path,
                    format!("{why}; supported is up to {}", i64::MAX),
                )
            }
            _ => self.refuse("integers", "int64"),
        }
    }

    fn refuse<T>(&self, needed: &str, name: &str) -> Result<T, ArrayError> {
        let (dtype, convert) = (self.dtype, self.format.convert(name));
        let why = format!("dtype {dtype}, where {needed} are needed; {convert}");
        refuse(&self.path, why)
    }

    /// `N` is the size of the stored type.
    fn decode<T, const N: usize>(
        &mut self,
        range: Range<usize>,
        value: impl Fn([u8; N]) -> T,
        put: &mut dyn FnMut(&[T]),
    ) -> Result<(), ArrayError> {
        let start = self.start + (range.start * N) as u64;
        let sought = self.source.seek(SeekFrom::Start(start));
        sought.map_err(io(&self.path, "read it"))?;
        let mut buffer = vec![0; CHUNK.min(range.len() * N)];
        let mut values = Vec::with_capacity(buffer.len() / N);
        let mut left = range.len();
        while left > 0 {
            let count = left.min(CHUNK / N);
            let chunk = &mut buffer[..count * N];
            fill(&mut self.source, &self.path, chunk)?;
            values.clear();
            values.extend(chunk.chunks_exact(N).map(|stored| {
                let mut bytes = [0; N];
                bytes.copy_from_slice(stored);
                if self.big_endian {
                    bytes.reverse();
                }
                value(bytes)
            }));
            put(&values);
            left -= count;
        }
        Ok(())
    }
}

pub fn reserve<T>(path: &Path, values: usize) -> Result<Vec<T>, ArrayError> {
    let (path, mut memory) = (path.into(), Vec::new());
    let reserved = memory.try_reserve_exact(values);
    reserved.map_err(|_| ArrayError::Memory { path, values })?;
    Ok(memory)
}

/// A file that shrinks while it is read ends up here as an unexpected end.
pub fn fill(source: &mut impl Read, path: &Path, bytes: &mut [u8]) -> Result<(), ArrayError> {
    let read = source
        .read_exact(bytes)
        .map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => {
                let why =
                    "it is shorter than when it was opened; read it once nothing writes to it";
                io::Error::new(ErrorKind::UnexpectedEof, why)
            }
            _ => error,
        });
    read.map_err(io(path, "read all of it"))
}

/// The number of values, if they could be addressed even with every empty dimension 1.
pub fn volume(shape: &[usize], size: usize) -> Option<usize> {
    let grow = |bytes: usize, extent: &usize| bytes.checked_mul(*extent.max(&1));
    isize::try_from(shape.iter().try_fold(size, grow)?).ok()?;
    Some(shape.iter().product())
}

/// As much of a file as belongs in a message.
pub fn excerpt(bytes: &[u8], most: usize) -> impl fmt::Display {
    bytes[..bytes.len().min(most)].escape_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;
    use tempfile::tempdir;

    #[test]
    fn shrinking_after_open_is_an_error() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("x.npy");
        let header = npy::write(Dtype::I64, &[20_000]).unwrap();
        fs::write(&path, [header, vec![1; 160_000]].concat()).unwrap();
        let array = open(&path).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(100_000)
            .unwrap();
        let error = array.read_i64().unwrap_err();
        assert!(
            error
                .to_string()
                .contains("shorter than when it was opened"),
            "{error}"
        );
        assert!(error.source().unwrap().is::<io::Error>());
    }

    #[test]
    fn an_integer_that_is_too_large_is_named() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("x.npy");
        let mut data = vec![0; 8 * 50_000];
        data[8 * 40_001 + 7] = 0x80;
        let header = npy::write(Dtype::U64, &[50_000]).unwrap();
        fs::write(&path, [header, data].concat()).unwrap();
        let error = open(&path).unwrap().i64s(9..50_000, &mut |_| ());
        let message = error.unwrap_err().to_string();
        assert!(
            message.contains("a.flat[40001] is 9223372036854775808"),
            "{message}"
        );
        open(&path).unwrap().i64s(0..40_001, &mut |_| ()).unwrap();
    }

    #[test]
    fn targets_are_where_paths_lead() {
        let here = std::env::current_dir().unwrap().canonicalize().unwrap();
        let target = |path: &Path| Location::of(path).target();
        assert_eq!(target(Path::new("missing.npy")), here.join("missing.npy"));
        assert_eq!(target(Path::new("Cargo.toml")), here.join("Cargo.toml"));
        let folder = tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        fs::create_dir(real.join("sub")).unwrap();
        let round = folder.path().join("sub").join("..").join("missing.npy");
        assert_eq!(target(&round), real.join("missing.npy"));
        // Nowhere.
        let nowhere = real.join("no").join("missing.npy");
        assert_eq!(target(&nowhere), nowhere);
    }

    #[test]
    fn lack_of_memory_is_an_error() {
        let error = reserve::<i64>(Path::new("x.npy"), usize::MAX / 2).unwrap_err();
        assert!(matches!(error, ArrayError::Memory { .. }) && error.to_string().contains("x.npy"));
    }

    #[test]
    fn sources_that_cannot_be_read() {
        let folder = tempdir().unwrap();
        let error = open(&folder.path().join("missing")).unwrap_err();
        assert!(error.to_string().contains("missing: cannot open it") && error.source().is_some());
        let message = open(folder.path()).unwrap_err().to_string();
        assert!(
            message.contains("a directory") && message.contains("np.save("),
            "{message}"
        );
    }

    #[test]
    fn locations() {
        for (path, file, tensor) in [
            ("x.safetensors", "x.safetensors", None),
            ("a/x.safetensors:y", "a/x.safetensors", Some("y")),
            ("x.safetensors:a:b.npy", "x.safetensors", Some("a:b.npy")),
            ("x.safetensors:é", "x.safetensors", Some("é")),
            ("x.safetensors:", "x.safetensors", Some("")),
            (
                "x.safetensors:y.safetensors",
                "x.safetensors",
                Some("y.safetensors"),
            ),
        ] {
            let location = Location::of(Path::new(path));
            assert_eq!(location.format, Format::Safetensors, "{path}");
            assert_eq!(location.file, Path::new(file), "{path}");
            assert_eq!(location.tensor, tensor, "{path}");
        }
        for path in [
            "x.npy",
            "x.npy:y",
            "safetensors",
            "x.safetensors.npy",
            "",
            "C:\\x.npy",
        ] {
            let location = Location::of(Path::new(path));
            assert_eq!(location.format, Format::Npy, "{path}");
            assert_eq!(location.file, Path::new(path), "{path}");
        }
    }
}
