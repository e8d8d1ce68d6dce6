//! What fuzzers call (tests/fuzz), and tests with their seeds: any bytes in, a panic where something
//! does not hold.

use std::ffi::OsString;
use std::io::Cursor;
use std::path::Path;

use clap::Parser;
use softxent::half::{bf16, f16};

use super::args::{Cli, Command};
use super::array::{Array, ArrayError, Dtype, Format, Header, Location};
use super::{heap, npy as npy_file, safetensors as safetensors_file};

/// What a file gets before it is known to be good.
pub const HEAP: usize = 1 << 16;

/// The bytes of a `.npy` file. Whether it is one.
pub fn npy(bytes: &[u8]) -> bool {
    file("x.npy", bytes).is_some()
}

/// The bytes of a `.safetensors` file, of which the only tensor is read, and `a`. Whether there is one.
pub fn safetensors(bytes: &[u8]) -> bool {
    let mut read = false;
    for (name, path) in [(None, "x.safetensors"), (Some("a"), "x.safetensors:a")] {
        let Some((header, data)) = file(path, bytes) else {
            continue;
        };
        read = true;
        let theirs = match ::safetensors::SafeTensors::deserialize(bytes) {
            Ok(theirs) => theirs,
            // Notes are passed over here, and read there.
            Err(_) if contains(bytes, "\"__metadata__\"") || contains(bytes, "\\u") => continue,
            Err(error) => panic!("read, and yet {error}"),
        };
        let name = name.unwrap_or_else(|| theirs.names()[0]);
        let tensor = theirs.tensor(name).expect("a tensor that was read");
        assert_eq!(tensor.shape(), header.shape);
        assert_eq!(tensor.dtype(), header.dtype.safetensors());
        assert_eq!(tensor.data(), data);
    }
    read
}

fn contains(bytes: &[u8], text: &str) -> bool {
    let mut windows = bytes.windows(text.len());
    windows.any(|window| window == text.as_bytes())
}

/// The header and the data of an array, if it is one.
fn file<'a>(path: &str, bytes: &'a [u8]) -> Option<(Header, &'a [u8])> {
    let (path, length) = (Path::new(path), bytes.len() as u64);
    let location = Location::of(path);
    let (header, most) = heap::most_of(|| match location.format {
        Format::Npy => npy_file::read(path, &mut &*bytes, length),
        Format::Safetensors => safetensors_file::read(path, location.tensor, &mut &*bytes, length),
    });
    assert!(most <= HEAP, "{most} bytes of heap");
    let array = |bytes| Array::of(path, location, Cursor::new(bytes), length);
    let header = match header {
        Ok(header) => header,
        Err(error) => {
            check_message(path, &error);
            assert_eq!(
                array(bytes).err().map(|error| error.to_string()),
                Some(error.to_string())
            );
            return None;
        }
    };
    let start = usize::try_from(header.start).expect("within the file");
    let size = header.values * header.dtype.size();
    let data = &bytes[start..][..size];
    let is_last = start + size == bytes.len();
    if location.format == Format::Npy {
        assert!(
            is_last,
            "{} bytes, of which {start} and {size} are said to be all",
            bytes.len()
        );
    }
    assert_eq!(header.values, header.shape.iter().product::<usize>());
    check_values(array(bytes).expect("its header is good"), &header, data);

    // A file that loses its end after its length was taken is never read as if it had not.
    if let (true, Some((_, short))) = (is_last && size > 0, bytes.split_last()) {
        let error = array(short).and_then(|array| match header.dtype.is_float() {
            true => array.read_f32().map(drop),
            false => array.read_i64().map(drop),
        });
        check_message(path, &error.expect_err("its last value is cut"));
    }
    Some((header, data))
}

/// Values are those of the data, by a way of their own from bytes to numbers.
fn check_values(array: Array<Cursor<&[u8]>>, header: &Header, data: &[u8]) {
    let bits = data.chunks_exact(header.dtype.size()).map(|value| {
        let add = |bits: u64, byte: &u8| bits << 8 | u64::from(*byte);
        match header.big_endian {
            true => value.iter().fold(0, add),
            false => value.iter().rev().fold(0, add),
        }
    });
    let float = |bits: u64| match header.dtype {
        Dtype::F16 => f16::from_bits(bits as u16).to_f32(),
        Dtype::Bf16 => bf16::from_bits(bits as u16).to_f32(),
        Dtype::F32 => f32::from_bits(bits as u32),
        _ => f64::from_bits(bits) as f32,
    };
    let integer = |bits: u64| match header.dtype {
        Dtype::I8 => i128::from(bits as i8),
        Dtype::I16 => i128::from(bits as i16),
        Dtype::I32 => i128::from(bits as i32),
        Dtype::I64 => i128::from(bits as i64),
        _ => i128::from(bits),
    };
    if header.dtype.is_float() {
        let read = array.read_f32().expect("floats");
        let same = |(read, bits): (&f32, u64)| read.to_bits() == float(bits).to_bits();
        assert!(read.iter().zip(bits.clone()).all(same));
        assert_eq!(read.len(), bits.len());
        return;
    }
    let expected: Vec<i128> = bits.map(integer).collect();
    match array.read_i64() {
        Ok(read) => assert!(read.iter().map(|&value| i128::from(value)).eq(expected)),
        Err(_) => assert!(
            expected
                .into_iter()
                .any(|value| value > i128::from(i64::MAX))
        ),
    }
}

/// It names the file and what to do, and leaves the terminal alone.
fn check_message(path: &Path, error: &ArrayError) {
    let text = error.to_string();
    assert!(text.starts_with(&format!("{}: ", path.display())), "{text}");
    assert!(!text.contains(char::is_control), "{text}");
    let helps = [
        "supported",
        "np.save(",
        "it holds",
        "once nothing writes to it",
    ];
    assert!(helps.iter().any(|help| text.contains(help)), "{text}");
}

/// The words of a command line, one a line. Whether they go together.
pub fn options(bytes: &[u8]) -> bool {
    let words = bytes.split(|&byte| byte == b'\n').map(word);
    let typed = Cli::try_parse_from(std::iter::once(OsString::from("softxent")).chain(words));
    let command = match typed {
        Ok(typed) => typed.command,
        Err(refusal) => {
            assert!(matches!(refusal.exit_code(), 0 | 2));
            assert!(!refusal.render().to_string().is_empty());
            return false;
        }
    };
    let conflict = match &command {
        Some(Command::Run(args)) => args.conflict(),
        Some(Command::Bench(args)) => args.conflict(),
        _ => None,
    };
    if let Some(why) = conflict {
        assert!(!why.is_empty());
        return false;
    }
    if let Some(Command::Run(args)) = &command {
        let outputs = args.outputs();
        assert!(args.labels.is_some() || !outputs.is_empty());
        for (at, (_, path)) in outputs.iter().enumerate() {
            let twice = outputs[..at].iter().any(|(_, earlier)| earlier == path);
            assert!(!twice || Location::of(path).format == Format::Safetensors);
        }
    }
    true
}

#[cfg(unix)]
fn word(bytes: &[u8]) -> OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec())
}

#[cfg(not(unix))]
fn word(bytes: &[u8]) -> OsString {
    String::from_utf8_lossy(bytes).into_owned().into()
}

#[cfg(test)]
#[path = "../../tests/it/corpus.rs"]
mod corpus;
#[cfg(test)]
#[path = "../../tests/it/mutate.rs"]
mod mutate;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::{self, File};

    use super::corpus::files;
    use super::mutate::each_mutation;
    use super::*;
    use crate::cli::array::open;
    use tempfile::tempdir;

    /// Opens a file within the heap that it may take.
    fn opened(path: &Path) -> Result<Array, ArrayError> {
        let (array, most) = heap::most_of(|| open(path));
        // `open` itself makes a C string of the path.
        assert!(most <= HEAP, "{}: {most} bytes of heap", path.display());
        array
    }

    #[test]
    fn every_file_has_its_verdict() {
        let folder = tempdir().unwrap();
        let (mut accepted, mut refused, mut wrong) = (0, 0, Vec::new());
        let mut seen = BTreeSet::new();
        for file in files() {
            let what = format!("{}: {}", file.name, file.what);
            let path = folder.path().join(file.name);
            fs::write(Location::of(&path).file, &file.bytes).unwrap();
            let found = match opened(&path) {
                Ok(array) => Ok(format!("{} {:?}", array.dtype, array.shape)),
                Err(error) => {
                    check_message(&path, &error);
                    Err(error.to_string())
                }
            };
            // In memory too, with what holds of any file; its values, if it is one.
            assert_eq!(
                super::file(file.name, &file.bytes).is_some(),
                found.is_ok(),
                "{what}"
            );
            let right = match (&found, file.verdict) {
                (Ok(found), Ok(expected)) => found == expected,
                (Err(found), Err(expected)) => found.contains(expected),
                _ => false,
            };
            match found.is_ok() {
                true => accepted += 1,
                false => refused += 1,
            }
            if !right {
                wrong.push(format!("{what}: {found:?}, not {:?}", file.verdict));
            }
            if !seen.insert(what) {
                wrong.push(format!("{}: {} is there twice", file.name, file.what));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(accepted >= 70 && refused >= 170, "{accepted} and {refused}");
    }

    #[test]
    fn other_kinds_of_files() {
        let folder = tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let good = files()
            .into_iter()
            .find(|file| file.what == "float32")
            .unwrap();
        fs::write(at("good.npy"), &good.bytes).unwrap();
        fs::create_dir(at("folder.npy")).unwrap();
        fs::create_dir(at("folder.safetensors")).unwrap();
        let mut table = vec![
            (
                at("folder.npy"),
                "a directory, not a file; supported is .npy",
            ),
            (
                at("folder.safetensors"),
                "a directory, not a file; supported is .safetensors",
            ),
            (
                at("folder.safetensors:a"),
                "a directory, not a file; supported is .safetensors",
            ),
            (at("missing.npy"), "cannot open it: "),
            (at("missing.safetensors:a"), "cannot open it: "),
            (at("missing/x.npy"), "cannot open it: "),
            (at("good.npy/x.npy"), "cannot open it: "),
            ("".into(), "cannot open it: "),
        ];
        #[cfg(unix)]
        {
            use std::os::unix::{fs::symlink, net::UnixListener};
            symlink("good.npy", at("link.npy")).unwrap();
            symlink("link.npy", at("link_of_a_link.npy")).unwrap();
            for link in ["link.npy", "link_of_a_link.npy"] {
                assert_eq!(opened(&at(link)).unwrap().shape, [2, 3]);
            }
            symlink("nothing", at("lost.npy")).unwrap();
            symlink("loop.npy", at("loop.npy")).unwrap();
            symlink("folder.npy", at("to_a_folder.npy")).unwrap();
            let _socket = UnixListener::bind(at("socket.npy")).unwrap();
            let pipe = std::process::Command::new("mkfifo")
                .arg(at("pipe.npy"))
                .status();
            assert!(pipe.unwrap().success());
            symlink("pipe.npy", at("to_a_pipe.npy")).unwrap();
            table.extend([
                (at("lost.npy"), "cannot open it: "),
                (at("loop.npy"), "cannot open it: "),
                (at("to_a_folder.npy"), "a directory, not a file"),
                (
                    at("socket.npy"),
                    "a pipe or device, not a regular file; supported is .npy",
                ),
                (at("pipe.npy"), "a pipe or device, not a regular file"),
                (at("to_a_pipe.npy"), "a pipe or device, not a regular file"),
                ("/dev/null".into(), "a pipe or device, not a regular file"),
                ("/dev/zero".into(), "a pipe or device, not a regular file"),
            ]);
        }
        for (path, expected) in table {
            let message = opened(&path).unwrap_err().to_string();
            let expected = format!("{}: {expected}", path.display());
            assert!(message.starts_with(&expected), "{message}, not {expected}");
        }
    }

    /// Whatever is left of a file that was opened whole: an error, never zeros, never a crash.
    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let folder = tempdir().unwrap();
        for what in ["float32, big-endian", "bfloat16", "int64"] {
            let file = files().into_iter().find(|file| file.what == what).unwrap();
            let path = folder.path().join(file.name);
            for length in 0..file.bytes.len() as u64 {
                fs::write(&path, &file.bytes).unwrap();
                let array = opened(&path).unwrap();
                File::options()
                    .write(true)
                    .open(&path)
                    .unwrap()
                    .set_len(length)
                    .unwrap();
                let error = match array.dtype.is_float() {
                    true => array.read_f32().unwrap_err(),
                    false => array.read_i64().unwrap_err(),
                };
                let message = error.to_string();
                assert!(
                    message.contains("shorter than when it was opened"),
                    "{message}"
                );
            }
        }
    }

    fn seeds(target: &str, count: usize, call: fn(&[u8]) -> bool) {
        let accepted = each_mutation(target, count, call);
        // Of too few that are good nothing more than headers would be tested.
        assert!(accepted > count / 100, "{target}: only {accepted}");
    }

    #[test]
    fn seeds_of_npy() {
        seeds("npy", 100_000, super::npy);
    }

    #[test]
    fn seeds_of_safetensors() {
        seeds("safetensors", 100_000, super::safetensors);
    }

    #[test]
    fn seeds_of_options() {
        seeds("options", 10_000, super::options);
    }
}
