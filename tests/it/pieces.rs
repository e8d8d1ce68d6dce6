//! Files that are larger than the memory they get, and runs that are cut off: the bits of a run in one piece,
//! a bounded process, and never a torn file or one too many.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use safetensors::Dtype;

use crate::cli::Folder;
use crate::common::{Rng, engine, long, report};

/// The devices that there are: an adapter, where tests may have one, and the processor.
fn devices() -> Vec<&'static str> {
    match engine("pieces") {
        Some(_) => vec!["0", "cpu"],
        None => vec!["cpu"],
    }
}

/// Every kind of input and output, whole and through so little memory that rows come in parts.
#[test]
fn files_in_pieces_give_the_same_files() {
    let folder = Folder::empty();
    let mut rng = Rng(3);
    let (rows, classes) = (24, 1500);
    let mut logits = rng.normals(rows * classes);
    // A bad row that is in no first chunk, and of which the command says where it is.
    logits[20 * classes + 3] = f32::NAN;
    let halves: Vec<u8> = logits
        .iter()
        .flat_map(|&x| softxent::half::bf16::from_f32(x).to_le_bytes())
        .collect();
    let labels: Vec<i64> = (0..rows)
        .map(|i| {
            if i == 5 {
                -100
            } else {
                (i * 37 % classes) as i64
            }
        })
        .collect();
    folder.save_f32("x.npy", "(24, 1500)", &logits);
    folder.save_f32("dense.npy", "(24, 1500)", &rng.normals(rows * classes));
    folder.save_f32("images.npy", "(2, 3, 100, 60)", &logits);
    let pixels: Vec<i64> = (0..2 * 100 * 60).map(|i| i % 3).collect();
    folder.save_i64("pixels.npy", "(2, 100, 60)", &pixels);
    let wide: Vec<u8> = logits
        .iter()
        .flat_map(|&x| f64::from(x).to_be_bytes())
        .collect();
    folder.save("wide.npy", ">f8", "(24, 1500)", &wide);
    folder.save_i64("y.npy", "(24,)", &labels);
    folder.save_f32("w.npy", "(1500,)", &vec![0.5; classes]);
    folder.save_f32("g.npy", "(24,)", &rng.normals(rows));
    folder.save_tensors(
        "x.safetensors",
        &[("x", Dtype::BF16, &[rows, classes], &halves)],
    );
    let row_outputs = "--losses l.npy --lse s.npy --predictions c.npy --correct r.npy";
    for device in devices() {
        for line in [
            &format!("x.npy y.npy --grad p.npy --softmax q.npy {row_outputs}"),
            "wide.npy y.npy --class-weights w.npy --grad p.safetensors --log-softmax p.safetensors:q",
            "x.safetensors y.npy --dtype-out same --grad p.safetensors --entropy p.safetensors:e",
            "x.npy y.npy --reduction none --grad-output g.npy --grad p.npy --loss l.npy --z-loss 0.1 \
             --z-loss-out z.npy",
            "x.npy dense.npy --grad p.npy --softcap 3",
            "images.npy pixels.npy --grad p.npy --predictions c.npy",
        ] {
            let mut found = Vec::new();
            for memory in ["1GiB", "100 kB"] {
                let line = format!("run {line} --device {device} --json");
                let mut command = folder.command(&line);
                command.arg("--memory").arg(memory);
                let output = command.output().unwrap();
                let message = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{line}: {message}");
                let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
                let keys = [
                    "loss",
                    "z_loss",
                    "correct",
                    "bad_rows",
                    "valid_rows",
                    "denominator",
                ];
                let totals = keys.map(|key| &report[key]);
                let mut results = vec![format!("{totals:?}, {message}")];
                for name in folder.names() {
                    if !is_input(&name) {
                        results.push(format!(
                            "{name}: {:?}",
                            fs::read(folder.path(&name)).unwrap()
                        ));
                        fs::remove_file(folder.path(&name)).unwrap();
                    }
                }
                found.push(results);
            }
            let (whole, pieces) = (&found[0], &found[1]);
            assert!(whole.len() > 1, "{line}");
            for (whole, pieces) in whole.iter().zip(pieces) {
                assert!(
                    whole == pieces,
                    "{line} on {device}: {whole:.200} and {pieces:.200}"
                );
            }
        }
    }
}

fn is_input(name: &str) -> bool {
    let inputs = ["x.npy", "y.npy", "w.npy", "g.npy", "dense.npy", "wide.npy"];
    inputs.contains(&name) || ["images.npy", "pixels.npy", "x.safetensors"].contains(&name)
}

/// A file of zeros that takes no room on the disk.
fn sparse(folder: &Folder, name: &str, descr: &str, shape: &str, bytes: u64) {
    folder.save(name, descr, shape, &[]);
    let file = File::options().write(true).open(folder.path(name)).unwrap();
    let header = file.metadata().unwrap().len();
    file.set_len(header + bytes).unwrap();
}

/// The most memory that a process has had resident, in MiB, seen again and again until it ended.
#[cfg(target_os = "linux")]
fn peak_memory(mut child: Child) -> u64 {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        if let Ok(status) = fs::read_to_string(&status) {
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
            peak = peak.max(kib.unwrap_or(0));
        }
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return peak >> 10;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// 300 MB in and 300 MB out take no more memory than a hundredth of them.
#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_file() {
    let folder = Folder::empty();
    let files = [("small", 750, 3_000_000), ("large", 75_000, 300_000_000)];
    for (name, rows, bytes) in files {
        sparse(
            &folder,
            &format!("{name}.npy"),
            "<f4",
            &format!("({rows}, 1000)"),
            bytes,
        );
        sparse(
            &folder,
            &format!("{name}_y.npy"),
            "|u1",
            &format!("({rows},)"),
            rows,
        );
    }
    for device in devices() {
        if device == "cpu" && !long() {
            // The processor takes minutes for it.
            continue;
        }
        let [small, large] = files.map(|(name, ..)| {
            let line = format!(
                "run {name}.npy {name}_y.npy --grad grad.npy --losses losses.npy --memory 8MiB --device \
                 {device}"
            );
            let child = folder.command(&line).stdout(Stdio::null()).spawn().unwrap();
            peak_memory(child)
        });
        report(&format!(
            "{device}: {small} MiB for 3 MB, {large} MiB for 300 MB"
        ));
        assert!(
            large <= small + 24,
            "{device}: {small} and then {large} MiB"
        );
        let losses = fs::read(folder.path("losses.npy")).unwrap();
        let losses = &losses[losses.len() - 300_000..];
        let expected = (1000f64.ln() as f32).to_le_bytes();
        assert!(losses.chunks(4).all(|loss| loss == expected));
    }
}

/// A budget that no row fits into says what it takes.
#[test]
fn too_little_memory_is_an_error() {
    let folder = Folder::empty();
    folder.save_f32("x.npy", "(1, 10)", &[0.0; 10]);
    if engine("too_little_memory_is_an_error").is_some() {
        let message = folder.refused(1, "run x.npy --lse l.npy --memory 10 --device 0");
        assert!(
            message.contains("a memory budget of 10 bytes is too small"),
            "{message}"
        );
    }
    for (size, expected) in [
        ("1x", "a number of bytes, or with a unit: KiB"),
        ("", "cannot parse integer from empty string"),
        ("99999999999GiB", "more than any memory has"),
    ] {
        let mut command = folder.command("run x.npy --lse l.npy --memory");
        let output = command.arg(size).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(expected), "{size}: {message}");
    }
}

/// A run that is cut off at any moment leaves the old file or the new one, and nothing else.
#[cfg(unix)]
#[test]
fn signals_leave_no_litter() {
    let kills = match (long(), std::env::var("SOFTXENT_KILLS")) {
        (_, Ok(kills)) => kills.parse().unwrap(),
        (true, _) => 1000,
        (false, _) => 24,
    };
    let folder = Folder::empty();
    let rows = 4000;
    folder.save_f32("x.npy", "(4000, 100)", &Rng(1).normals(rows * 100));
    let line = "run x.npy --softmax p.npy --lse q.npy --device cpu --memory 1MB --quiet";
    let start = Instant::now();
    assert_eq!(folder.run(line).code, Some(0));
    let whole = start.elapsed();
    let new = ["p.npy", "q.npy"].map(|name| fs::read(folder.path(name)).unwrap());
    let old = [b"old".to_vec(), b"old".to_vec()];
    let names = folder.names();
    let mut rng = Rng(2);
    let mut seen = [0, 0];
    for kill in 0..kills {
        for name in ["p.npy", "q.npy"] {
            fs::write(folder.path(name), "old").unwrap();
        }
        let mut child = folder.command(line).spawn().unwrap();
        let moment = whole.mul_f64(1.1 * rng.unit());
        std::thread::sleep(moment);
        let signal = ["INT", "TERM", "HUP"][kill % 3];
        let pid = child.id().to_string();
        let sent = std::process::Command::new("kill")
            .args([&format!("-{signal}"), &pid])
            .stderr(Stdio::null())
            .status();
        sent.unwrap();
        let status = child.wait().unwrap();
        let found = ["p.npy", "q.npy"].map(|name| fs::read(folder.path(name)).unwrap());
        // One is renamed after the other, and a signal waits for both.
        let is_new = found == new;
        assert!(
            is_new || found == old,
            "SIG{signal} after {moment:?}, {status}"
        );
        assert!(
            is_new || !status.success(),
            "SIG{signal} after {moment:?}, {status}"
        );
        assert_eq!(
            folder.names(),
            names,
            "SIG{signal} after {moment:?}, {status}"
        );
        seen[usize::from(is_new)] += 1;
    }
    report(&format!(
        "{kills} signals: {} runs cut off, {} done by then; nothing torn, nothing left over",
        seen[0], seen[1]
    ));
    assert!(seen[0] > 0, "no signal came in time");
}

/// Who was told to ignore a signal does; a limit on files is an error, and leaves nothing.
#[cfg(unix)]
#[test]
fn signals_that_are_ignored_and_limits() {
    let folder = Folder::empty();
    folder.save_f32("x.npy", "(4000, 100)", &Rng(1).normals(400_000));
    let line = "run x.npy --softmax p.npy --device cpu --memory 1MB --quiet";
    let shell = |before: &str, after: &str| {
        let program = folder.command(line);
        let words = [program.get_program()]
            .into_iter()
            .chain(program.get_args());
        let words: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("{before} {} {after}", words.join(" "))]);
        shell.current_dir(folder.path("."));
        shell.output().unwrap()
    };
    let names = folder.names();
    let limited = shell("ulimit -f 100;", "");
    let message = String::from_utf8_lossy(&limited.stderr).into_owned();
    assert_eq!(limited.status.code(), Some(1), "{message}");
    assert!(message.contains("p.npy: "), "{message}");
    assert_eq!(folder.names(), names);
    // Sent again and again, from before the program has begun until after its end.
    let kills = "& child=$!; while kill -HUP $child 2>/dev/null; do :; done; wait $child";
    let ignoring = shell("trap '' HUP;", kills);
    assert!(ignoring.status.success(), "{ignoring:?}");
    assert!(folder.names().contains(&"p.npy".to_owned()));
}

/// A file that is written to while it is read is an error, or the values of the moment; never a crash.
#[test]
fn a_file_that_shrinks_is_an_error() {
    let folder = Folder::empty();
    sparse(&folder, "x.npy", "<f4", "(200000, 100)", 80_000_000);
    let line = "run x.npy --lse l.npy --device cpu --memory 1MB";
    let child = folder
        .command(line)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let mut file = File::options()
        .write(true)
        .open(folder.path("x.npy"))
        .unwrap();
    file.set_len(1000).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(b"rubbish").unwrap();
    let output = child.wait_with_output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("error: x.npy: "), "{message}");
    assert_eq!(folder.names(), ["x.npy"]);
}
