//! Arrays into files, whole or not at all, in whatever order their values come.
//!
//! A file is written beside its target and renamed over it once it is complete and on the disk. Only a
//! process that is killed without a word leaves its `.softxent-*.tmp` behind. What can only be written from
//! its start to its end, a pipe or a device, is written once all values are there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf, is_separator};
use std::sync::{Mutex, MutexGuard, PoisonError};

use softxent::half::slice::HalfFloatSliceExt;
use softxent::{Logits, Sink, StreamError, Values, Wanted};
use tempfile::TempPath;

use super::array::{ArrayError, CHUNK, Dtype, Format, Location, io, refuse, volume};
use super::{npy, safetensors};

/// What floats in this dtype are stored as.
pub fn stored(dtype: softxent::Dtype) -> Dtype {
    match dtype {
        softxent::Dtype::F32 => Dtype::F32,
        softxent::Dtype::F16 => Dtype::F16,
        softxent::Dtype::Bf16 => Dtype::Bf16,
    }
}

/// One array to write.
#[derive(Clone, Debug)]
pub struct Output<'a> {
    /// As it was typed.
    pub path: &'a Path,
    /// What a tensor is called that the path does not name.
    pub name: String,
    /// Whose values it has.
    pub of: Wanted,
    pub shape: Vec<usize>,
    pub dtype: Dtype,
}

impl Output<'_> {
    fn tensor(&self) -> &str {
        Location::of(self.path).tensor.unwrap_or(&self.name)
    }
}

/// Refuses a file that cannot hold such floats.
pub fn check(path: &Path, dtype: softxent::Dtype) -> Result<(), ArrayError> {
    match Location::of(path).format {
        Format::Npy if stored(dtype).npy().is_none() => refuse(path, unknown_to_npy(stored(dtype))),
        Format::Npy | Format::Safetensors => Ok(()),
    }
}

fn unknown_to_npy(dtype: Dtype) -> String {
    format!(".npy has no {dtype}: name a .safetensors file, or leave out --dtype-out")
}

/// Where the values of an output go.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    of: Wanted,
    dtype: Dtype,
    file: usize,
    /// The byte of the file that the values start at.
    start: u64,
    values: usize,
    /// Values that have come.
    came: usize,
}

/// All output files of a run. Dropped before they are committed, they leave nothing.
#[derive(Debug, Default)]
pub struct Outputs {
    files: Vec<Pending>,
    places: Vec<Place>,
}

impl Outputs {
    /// Begins all files beside their targets; arrays that name one `.safetensors` file share it.
    pub fn create(outputs: &[Output<'_>]) -> Result<Outputs, ArrayError> {
        let mut files: Vec<(PathBuf, Vec<&Output>)> = Vec::new();
        for output in outputs {
            let location = Location::of(output.path);
            let target = location.target();
            let shared = match location.format {
                Format::Safetensors => files.iter_mut().find(|(file, _)| *file == target),
                Format::Npy => None,
            };
            match shared {
                Some((_, file)) => file.push(output),
                None => files.push((target, vec![output])),
            }
        }
        let mut all = Outputs::default();
        for (_, file) in files {
            all.begin(file)?;
        }
        Ok(all)
    }

    fn begin(&mut self, mut outputs: Vec<&Output<'_>>) -> Result<(), ArrayError> {
        // Each type is aligned where wider ones come first.
        outputs.sort_by_key(|output| std::cmp::Reverse(output.dtype.size()));
        let Some(&Output { path, .. }) = outputs.first().copied() else {
            return Ok(());
        };
        let location = Location::of(path);
        let tensors = outputs
            .iter()
            .map(|output| (output.tensor(), output.dtype, &output.shape[..]));
        let header =
            match (location.format, outputs.as_slice()) {
                (Format::Npy, [output, ..]) => npy::write(output.dtype, &output.shape)
                    .ok_or_else(|| unknown_to_npy(output.dtype)),
                _ => safetensors::write(&tensors.collect::<Vec<_>>())
                    .map_err(|error| error.to_string()),
            };
        let header = match header {
            Ok(header) => header,
            Err(why) => return refuse(path, why),
        };
        let mut places = Vec::new();
        let mut start = header.len() as u64;
        for output in outputs {
            let Some(values) = volume(&output.shape, output.dtype.size()) else {
                let shape = &output.shape;
                return refuse(
                    output.path,
                    format!("no file holds the shape {shape:?}; nothing was written"),
                );
            };
            places.push(Place {
                path: output.path.to_owned(),
                of: output.of,
                dtype: output.dtype,
                file: self.files.len(),
                start,
                values,
                came: 0,
            });
            start += (values * output.dtype.size()) as u64;
        }
        let pending = Pending::at(location.file)?;
        let begun = (&pending.file)
            .write_all(&header)
            .and_then(|()| pending.file.set_len(start));
        begun.map_err(io(path, "write it"))?;
        self.files.push(pending);
        self.places.extend(places);
        Ok(())
    }

    /// Writes values of an output, from number `at` on, wherever they are wanted.
    pub fn put(&mut self, of: Wanted, at: usize, values: Values<'_>) -> Result<(), ArrayError> {
        let count = match values {
            Values::Floats(values) => values.len(),
            Values::Classes(values) => values.len(),
            Values::Flags(values) => values.len(),
        };
        for place in self.places.iter_mut().filter(|place| place.of == of) {
            if at.checked_add(count).is_none_or(|end| end > place.values) {
                let (path, all) = (&place.path, place.values);
                let why = format!("{count} values from number {at} on, where there are {all}");
                return refuse(path, format!("{why}; nothing was written"));
            }
            let Some(pending) = self.files.get(place.file) else {
                continue;
            };
            let start = place.start + (at * place.dtype.size()) as u64;
            let written = write_at(&pending.file, start, place.dtype, values);
            written.map_err(io(&place.path, "write it"))?;
            place.came += count;
        }
        Ok(())
    }

    /// Puts all files in their places, once all of them are complete and on the disk.
    pub fn commit(self) -> Result<(), ArrayError> {
        for place in &self.places {
            if place.came != place.values {
                let (came, all) = (place.came, place.values);
                return refuse(
                    &place.path,
                    format!("{came} of {all} values; nothing was written"),
                );
            }
        }
        self.files.iter().try_for_each(Pending::finish)?;
        // A signal in the midst of it would leave some of them old.
        let mut litter = litter();
        let mut files = self.files.into_iter();
        let renamed = files.try_for_each(|file| file.rename(&mut litter));
        // Those that are left, if one was refused, go.
        drop(litter);
        drop(files);
        renamed
    }
}

impl Sink for Outputs {
    fn take(&mut self, output: Wanted, at: usize, values: Values<'_>) -> Result<(), StreamError> {
        Ok(self.put(output, at, values)?)
    }
}

fn write_at(mut file: &File, start: u64, dtype: Dtype, values: Values<'_>) -> io::Result<()> {
    file.seek(SeekFrom::Start(start))?;
    match values {
        // What comes in 16 bits is stored so.
        Values::Floats(Logits::F16(values)) => {
            each(file, values.reinterpret_cast(), u16::to_le_bytes)
        }
        Values::Floats(Logits::Bf16(values)) => {
            each(file, values.reinterpret_cast(), u16::to_le_bytes)
        }
        Values::Floats(Logits::F32(values)) => each(file, values, f32::to_le_bytes),
        Values::Classes(values) => each(file, values, |value| i64::from(value).to_le_bytes()),
        Values::Flags(values) => {
            debug_assert_eq!(dtype, Dtype::Bool);
            each(file, values, |value| [u8::from(value != 0)])
        }
    }
}

fn each<T: Copy, const N: usize>(
    mut file: &File,
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> io::Result<()> {
    let mut some = Vec::with_capacity((values.len() * N).min(CHUNK));
    for values in values.chunks(CHUNK / N) {
        some.clear();
        some.extend(values.iter().flat_map(|&value| bytes(value)));
        file.write_all(&some)?;
    }
    Ok(())
}

/// Refuses a place where no file can be written, before there is anything to write.
pub fn try_place(path: &Path) -> Result<(), ArrayError> {
    Pending::at(path).map(drop)
}

/// Replaces a file by a text.
pub fn write_text(path: &Path, text: &str) -> Result<(), ArrayError> {
    let pending = Pending::at(path)?;
    let written = (&pending.file).write_all(text.as_bytes());
    written.map_err(io(path, "write it"))?;
    pending.finish()?;
    pending.rename(&mut litter())
}

/// Paths of the files that wait beside their targets: what a signal removes.
static LITTER: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn litter() -> MutexGuard<'static, Vec<PathBuf>> {
    LITTER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets signals that end the process remove what it has not finished.
#[cfg(unix)]
fn tidy_at_signals() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXCPU, SIGXFSZ};
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let ends = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXCPU, SIGXFSZ];
        let ends = ends.into_iter().filter(|&signal| !is_ignored(signal));
        let Ok(mut signals) = signal_hook::iterator::Signals::new(ends) else {
            return;
        };
        let tidy = move || {
            // That a file grew too large is said by the write that did it.
            for signal in signals.forever().filter(|&signal| signal != SIGXFSZ) {
                // Held until the end, so that no file is begun or renamed any more.
                let litter = litter();
                for path in litter.iter() {
                    let _ = fs::remove_file(path);
                }
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        };
        let _ = std::thread::Builder::new()
            .name("signals".into())
            .spawn(tidy);
    });
}

/// Whether who started this program wants it to go on, as `nohup` does.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action this only writes the present one to `action`, and has done so where it
    // returns 0. There is no safe way to ask.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(not(unix))]
fn tidy_at_signals() {}

/// A file that waits to take the place of another. Dropped, it leaves nothing.
#[derive(Debug)]
struct Pending {
    /// As it was typed.
    path: PathBuf,
    file: File,
    end: End,
}

/// How a file gets to its place.
#[derive(Debug)]
enum End {
    /// From beside its target.
    Rename(Option<TempPath>, PathBuf),
    /// From where nobody sees it, value by value, as a rename would replace the pipe or device.
    Copy,
}

impl Pending {
    /// Begins an empty file.
    fn at(path: &Path) -> Result<Pending, ArrayError> {
        let no = |why: &str| refuse(path, format!("{why}; nothing was written"));
        let target = match fs::metadata(path) {
            Ok(old) if old.is_dir() => return no("a directory"),
            Ok(old) if old.permissions().readonly() => return no("read-only"),
            Ok(old) if !old.is_file() => {
                let file = tempfile::tempfile();
                return Ok(Pending {
                    path: path.into(),
                    file: file.map_err(io(path, "keep what it will get"))?,
                    end: End::Copy,
                });
            }
            // The file behind symbolic links, which stay.
            Ok(_) => fs::canonicalize(path).map_err(io(path, "resolve it"))?,
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io(path, "write it")(error));
            }
            Err(_) if path.is_symlink() => return no("a symbolic link to nothing"),
            Err(_)
                if path.file_name().is_none() || path.to_string_lossy().ends_with(is_separator) =>
            {
                return no("not the name of a file");
            }
            Err(_) => path.into(),
        };
        tidy_at_signals();
        let folder = target.parent().filter(|folder| *folder != Path::new(""));
        let mut temporary = tempfile::Builder::new();
        temporary.prefix(".softxent-").suffix(".tmp");
        #[cfg(unix)] // As for any new file, less the umask; a temporary one would be 0600.
        temporary.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut litter = litter();
        let temporary = temporary.tempfile_in(folder.unwrap_or(Path::new(".")));
        let temporary = temporary.map_err(io(path, "create a file in its folder"))?;
        litter.push(temporary.path().to_owned());
        let (file, temporary) = temporary.into_parts();
        Ok(Pending {
            path: path.into(),
            file,
            end: End::Rename(Some(temporary), target),
        })
    }

    /// Makes sure that all of it is on the disk, or where it was to be copied to.
    fn finish(&self) -> Result<(), ArrayError> {
        let mut file = &self.file;
        let done = match self.end {
            End::Rename(..) => file.sync_all(),
            End::Copy => file.rewind().and_then(|()| {
                let mut to = OpenOptions::new().write(true).open(&self.path)?;
                io::copy(&mut file, &mut to)?;
                Ok(())
            }),
        };
        done.map_err(io(&self.path, "write it"))
    }

    /// Replaces the target at once.
    fn rename(mut self, litter: &mut Vec<PathBuf>) -> Result<(), ArrayError> {
        let End::Rename(temporary, target) = &mut self.end else {
            return Ok(());
        };
        let Some(temporary) = temporary.take() else {
            return Ok(());
        };
        litter.retain(|path| *path != *temporary);
        let renamed = temporary.persist(&target);
        renamed.map_err(|refusal| io(target, "replace it")(refusal.error))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let End::Rename(temporary @ Some(_), _) = &mut self.end {
            let mut litter = litter();
            if let Some(temporary) = temporary.take() {
                litter.retain(|path| *path != *temporary);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::array::open;
    use softxent::half::bf16;
    use std::fmt;
    use tempfile::{TempDir, tempdir};

    fn stage_one(
        path: &Path,
        shape: &[usize],
        dtype: Dtype,
        values: Values,
    ) -> Result<Outputs, ArrayError> {
        let mut outputs = Outputs::create(&[Output {
            path,
            name: "x".to_owned(),
            of: Wanted::Lse,
            shape: shape.to_vec(),
            dtype,
        }])?;
        outputs.put(Wanted::Lse, 0, values)?;
        Ok(outputs)
    }

    fn stage_i64(path: &Path, shape: &[usize], data: &[i32]) -> Result<Outputs, ArrayError> {
        stage_one(path, shape, Dtype::I64, Values::Classes(data))
    }

    fn write_i64(path: &Path, shape: &[usize], data: &[i32]) -> Result<(), ArrayError> {
        stage_i64(path, shape, data)?.commit()
    }

    fn write_f32(path: &Path, shape: &[usize], data: &[f32]) -> Result<(), ArrayError> {
        stage_one(path, shape, Dtype::F32, Values::Floats(data.into()))?.commit()
    }

    fn complaint<T: fmt::Debug>(result: Result<T, ArrayError>) -> String {
        result.unwrap_err().to_string()
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    fn names(folder: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
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
            let count = shape.iter().product::<usize>() as i32;
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
            let integers: Vec<i32> = (0..count).map(|i| (i - 7) << 20).collect();
            write_i64(&path, shape, &integers).unwrap();
            let integers: Vec<i64> = integers.into_iter().map(i64::from).collect();
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
        both.into_iter().try_for_each(Outputs::commit).unwrap();
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

    #[test]
    fn tensors_share_a_file() {
        let folder = tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let output = |path, of: Wanted, dtype| Output {
            path,
            name: of.to_string(),
            of,
            shape: vec![3],
            dtype,
        };
        let floats = [0.0, 1.5, f32::NEG_INFINITY];
        let paths = [
            "a.safetensors:right",
            "b.npy",
            "a.safetensors",
            "a.safetensors:k",
        ]
        .map(at);
        let mut outputs = Outputs::create(&[
            output(&paths[0], Wanted::Correct, Dtype::Bool),
            output(&paths[1], Wanted::Lse, Dtype::F32),
            output(&paths[2], Wanted::Grad, Dtype::Bf16),
            output(&paths[3], Wanted::Predictions, Dtype::I64),
        ])
        .unwrap();
        // In any order, and in pieces.
        let bf16s = floats.map(bf16::from_f32);
        let mut grad =
            |values: &[bf16]| outputs.put(Wanted::Grad, 1, Values::Floats(values.into()));
        grad(&bf16s[1..]).unwrap();
        for (of, values) in [
            (Wanted::Lse, Values::Floats((&floats).into())),
            (Wanted::Correct, Values::Flags(&[1, 0, 1])),
            (Wanted::Predictions, Values::Classes(&[1, -1, 2])),
            (Wanted::Grad, Values::Floats((&bf16s[..1]).into())),
            (Wanted::Entropy, Values::Floats((&floats).into())),
        ] {
            outputs.put(of, 0, values).unwrap();
        }
        assert_eq!(names(&folder).len(), 2);
        outputs.commit().unwrap();
        assert_eq!(names(&folder), ["a.safetensors", "b.npy"]);

        let file = fs::read(at("a.safetensors")).unwrap();
        let tensors = ::safetensors::SafeTensors::deserialize(&file).unwrap();
        let right = tensors.tensor("right").unwrap();
        assert_eq!(
            (right.dtype(), right.data()),
            (::safetensors::Dtype::BOOL, &[1, 0, 1][..])
        );
        assert_eq!(
            tensors.tensor("grad").unwrap().data(),
            [0, 0, 0xc0, 0x3f, 0x80, 0xff]
        );
        let k = open(&at("a.safetensors:k")).unwrap();
        assert_eq!(k.read_i64().unwrap(), [1, -1, 2]);
        assert_eq!(
            open(&at("a.safetensors:grad")).unwrap().read_f32().unwrap(),
            floats
        );
        assert_eq!(open(&at("b.npy")).unwrap().read_f32().unwrap(), floats);

        let message = complaint(Outputs::create(&[output(
            &paths[1],
            Wanted::Grad,
            Dtype::Bf16,
        )]));
        assert!(
            message.contains(".npy has no bfloat16: name a .safetensors"),
            "{message}"
        );
    }
}
