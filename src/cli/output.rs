//! Arrays into files, whole or not at all.
//!
//! A file is written beside its target, synced, then renamed over it. Only a process that is killed
//! leaves its `.softxent-*.tmp` behind.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf, is_separator};

use softxent::half::{bf16, f16};
use tempfile::TempPath;

use super::array::{ArrayError, CHUNK, Dtype, Format, Location, io, refuse, volume};
use super::{npy, safetensors};

/// The values of an output.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Floats, and what they are stored as.
    Floats(&'a [f32], softxent::Dtype),
    Integers(&'a [i64]),
    Bools(&'a [bool]),
}

impl Values<'_> {
    fn dtype(self) -> Dtype {
        match self {
            Values::Floats(_, dtype) => stored(dtype),
            Values::Integers(_) => Dtype::I64,
            Values::Bools(_) => Dtype::Bool,
        }
    }

    fn len(self) -> usize {
        match self {
            Values::Floats(values, _) => values.len(),
            Values::Integers(values) => values.len(),
            Values::Bools(values) => values.len(),
        }
    }

    fn write(self, file: &mut impl Write) -> io::Result<()> {
        use softxent::Dtype::{Bf16, F16, F32};
        match self {
            Values::Floats(values, F32) => each(file, values, f32::to_le_bytes),
            Values::Floats(values, F16) => {
                each(file, values, |value| f16::from_f32(value).to_le_bytes())
            }
            Values::Floats(values, Bf16) => {
                each(file, values, |value| bf16::from_f32(value).to_le_bytes())
            }
            Values::Integers(values) => each(file, values, i64::to_le_bytes),
            Values::Bools(values) => each(file, values, |value| [u8::from(value)]),
        }
    }
}

fn each<T: Copy, const N: usize>(
    file: &mut impl Write,
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> io::Result<()> {
    values
        .iter()
        .try_for_each(|&value| file.write_all(&bytes(value)))
}

fn stored(dtype: softxent::Dtype) -> Dtype {
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
    pub shape: Vec<usize>,
    pub values: Values<'a>,
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

/// Writes all arrays beside their targets; those that name one `.safetensors` file share it.
pub fn stage(outputs: &[Output<'_>]) -> Result<Vec<Pending>, ArrayError> {
    let mut files: Vec<(PathBuf, Vec<&Output>)> = Vec::new();
    for output in outputs {
        if volume(&output.shape, output.values.dtype().size()) != Some(output.values.len()) {
            let (values, shape) = (output.values.len(), &output.shape);
            let why = format!("{values} values for an array of shape {shape:?}");
            return refuse(output.path, format!("{why}; nothing was written"));
        }
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
    files.iter().map(|(_, file)| stage_file(file)).collect()
}

/// Refuses a place where no file can be written, before there is anything to write.
pub fn try_place(path: &Path) -> Result<(), ArrayError> {
    match fs::metadata(path) {
        // Whoever reads from a pipe would take this for all there is.
        Ok(old) if !old.is_file() && !old.is_dir() => Ok(()),
        _ => beside(path, |_| Ok(())).map(drop),
    }
}

/// Writes a text beside its target.
pub fn stage_text(path: &Path, text: &str) -> Result<Pending, ArrayError> {
    beside(path, |file| file.write_all(text.as_bytes()))
}

fn stage_file(outputs: &[&Output<'_>]) -> Result<Pending, ArrayError> {
    // Each type is aligned where wider ones come first.
    let mut outputs = outputs.to_vec();
    outputs.sort_by_key(|output| std::cmp::Reverse(output.values.dtype().size()));
    let Some(&Output { path, .. }) = outputs.first().copied() else {
        return Ok(Pending(None));
    };
    let location = Location::of(path);
    let tensors = outputs
        .iter()
        .map(|output| (output.tensor(), output.values.dtype(), &output.shape[..]));
    let header = match (location.format, outputs.as_slice()) {
        (Format::Npy, [output, ..]) => npy::write(output.values.dtype(), &output.shape)
            .ok_or_else(|| unknown_to_npy(output.values.dtype())),
        _ => safetensors::write(&tensors.collect::<Vec<_>>()).map_err(|error| error.to_string()),
    };
    let header = match header {
        Ok(header) => header,
        Err(why) => return refuse(path, why),
    };
    beside(location.file, |file| {
        file.write_all(&header)?;
        outputs
            .iter()
            .try_for_each(|output| output.values.write(file))
    })
}

/// A whole file that waits beside its target. Dropped, it leaves nothing.
#[derive(Debug)]
#[must_use = "the target changes at commit"]
pub struct Pending(Option<(TempPath, PathBuf)>);

impl Pending {
    /// Replaces the target at once. A pipe or device has had its values already.
    pub fn commit(self) -> Result<(), ArrayError> {
        let Some((temporary, target)) = self.0 else {
            return Ok(());
        };
        let renamed = temporary.persist(&target);
        renamed.map_err(|refusal| io(&target, "replace it")(refusal.error))
    }
}

/// Writes a file beside its target: all are staged before one is committed.
fn beside(
    path: &Path,
    content: impl Fn(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<Pending, ArrayError> {
    let no = |why: &str| refuse(path, format!("{why}; nothing was written"));
    let write = |file: &File| {
        let mut file = BufWriter::with_capacity(CHUNK, file);
        content(&mut file)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::array::open;
    use std::fmt;
    use tempfile::{TempDir, tempdir};

    fn stage_one(path: &Path, shape: &[usize], values: Values) -> Result<Pending, ArrayError> {
        let mut staged = stage(&[Output {
            path,
            name: "x".to_owned(),
            shape: shape.to_vec(),
            values,
        }])?;
        assert_eq!(staged.len(), 1);
        Ok(staged.remove(0))
    }

    fn stage_i64(path: &Path, shape: &[usize], data: &[i64]) -> Result<Pending, ArrayError> {
        stage_one(path, shape, Values::Integers(data))
    }

    fn write_i64(path: &Path, shape: &[usize], data: &[i64]) -> Result<(), ArrayError> {
        stage_i64(path, shape, data)?.commit()
    }

    fn write_f32(path: &Path, shape: &[usize], data: &[f32]) -> Result<(), ArrayError> {
        stage_one(path, shape, Values::Floats(data, softxent::Dtype::F32))?.commit()
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
        let output = |path, name: &str, values| Output {
            path,
            name: name.to_owned(),
            shape: vec![3],
            values,
        };
        let floats = [0.0, 1.5, f32::NEG_INFINITY];
        let paths = [
            "a.safetensors:right",
            "b.npy",
            "a.safetensors",
            "a.safetensors:k",
        ]
        .map(at);
        let outputs = [
            output(&paths[0], "correct", Values::Bools(&[true, false, true])),
            output(
                &paths[1],
                "lse",
                Values::Floats(&floats, softxent::Dtype::F32),
            ),
            output(
                &paths[2],
                "grad",
                Values::Floats(&floats, softxent::Dtype::Bf16),
            ),
            output(&paths[3], "predictions", Values::Integers(&[1, -1, 2])),
        ];
        let staged = stage(&outputs).unwrap();
        assert_eq!((staged.len(), names(&folder).len()), (2, 2));
        staged.into_iter().try_for_each(Pending::commit).unwrap();
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

        let bf16 = Values::Floats(&floats, softxent::Dtype::Bf16);
        let message = complaint(stage(&[output(&paths[1], "grad", bf16)]));
        assert!(
            message.contains(".npy has no bfloat16: name a .safetensors"),
            "{message}"
        );
    }
}
