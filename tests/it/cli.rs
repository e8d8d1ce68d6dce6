//! The `softxent` command from end to end: what it prints, what it writes, how it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::{TempDir, tempdir};

/// A folder with the digits in it, and the command run there.
struct Folder(TempDir);

struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Folder {
    fn new() -> Folder {
        let folder = Folder(tempdir().unwrap());
        for name in ["logits", "labels"] {
            let data = format!("tests/data/digits_{name}.npy");
            fs::copy(
                Path::new(env!("CARGO_MANIFEST_DIR")).join(data),
                folder.path(&format!("{name}.npy")),
            )
            .unwrap();
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Files in the folder; a failed run leaves no litter.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_softxent"));
        command
            .args(line.split_whitespace())
            .current_dir(self.0.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Run {
        finish(&mut self.command(line))
    }

    /// As on a system without a Vulkan driver.
    fn run_without_adapter(&self, line: &str) -> Run {
        finish(
            self.command(line)
                .env("VK_DRIVER_FILES", "/nonexistent")
                .env("VK_ICD_FILENAMES", "/nonexistent")
                .env("WGPU_BACKEND", "vulkan"),
        )
    }

    fn json(&self, line: &str) -> Value {
        let run = self.run(&format!("{line} --json"));
        assert_eq!(run.code, Some(0), "{line}: {}", run.err);
        serde_json::from_str(&run.out).unwrap()
    }

    /// Runs what has to fail, and returns its message.
    fn refused(&self, code: i32, line: &str) -> String {
        let before = self.names();
        let run = self.run(line);
        assert_eq!(run.code, Some(code), "{line}: {}{}", run.out, run.err);
        assert_eq!(run.out, "", "{line}");
        // Without an adapter a note comes first.
        let mut lines = run.err.lines();
        assert!(
            lines.any(|line| line.starts_with("error: ")),
            "{line}: {}",
            run.err
        );
        assert_eq!(self.names(), before, "{line}");
        run.err
    }

    fn save(&self, name: &str, descr: &str, shape: &str, data: &[u8]) {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        let mut file = b"\x93NUMPY\x01\0".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.bytes());
        file.extend(data);
        fs::write(self.path(name), file).unwrap();
    }

    fn save_f32(&self, name: &str, shape: &str, values: &[f32]) {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.save(name, "<f4", shape, &data);
    }

    fn save_i64(&self, name: &str, shape: &str, values: &[i64]) {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.save(name, "<i8", shape, &data);
    }

    /// The data of a file whose header says this type and shape.
    fn load(&self, name: &str, descr: &str, shape: &str) -> Vec<u8> {
        let file = fs::read(self.path(name)).unwrap();
        let length = usize::from(u16::from_le_bytes([file[8], file[9]]));
        let header = str::from_utf8(&file[10..10 + length]).unwrap();
        let expected =
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        assert_eq!(header.trim_end(), expected);
        file[10 + length..].to_vec()
    }

    fn load_f32(&self, name: &str, shape: &str) -> Vec<f32> {
        let data = self.load(name, "<f4", shape);
        let value = |word: &[u8]| f32::from_le_bytes(word.try_into().unwrap());
        data.chunks_exact(4).map(value).collect()
    }
}

fn finish(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    Run {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The devices to test on. Without an adapter that is a failure, unless it is asked to be none.
fn devices() -> Vec<&'static str> {
    let info = Folder(tempdir().unwrap()).json("info");
    if !info["adapters"].as_array().unwrap().is_empty() {
        return vec!["auto", "cpu"];
    }
    assert!(
        std::env::var_os("SOFTXENT_SKIP_GPU").is_some_and(|skip| skip == "1"),
        "no adapter: {}; SOFTXENT_SKIP_GPU=1 tests the processor only",
        info["error"]
    );
    eprintln!("SKIPPED: no adapter, only the processor is tested");
    vec!["cpu"]
}

fn expected() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/digits_expected.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn assert_close(found: &Value, expected: &Value) {
    let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
    let error = ((found - expected) / expected).abs();
    assert!(error < 1e-7, "{found}, not {expected}");
}

/// Within 10 ULPs, and what flushing 10 terms may cost.
fn assert_near(found: f32, expected: f64) {
    let smallest = f64::from(f32::MIN_POSITIVE);
    let exponent = expected.abs().max(smallest).log2().floor();
    let most = 10.0 * (exponent - 23.0).exp2() + 10.0 * smallest;
    let error = (f64::from(found) - expected).abs();
    assert!(error <= most, "{found:e}, not {expected:e}");
}

#[test]
fn digits_on_every_device() {
    let (folder, expected) = (Folder::new(), expected());
    for device in devices() {
        let report = folder.json(&format!(
            "run logits.npy labels.npy --device {device} --loss loss.npy --grad grad.npy \
             --losses losses.npy --predictions predictions.npy --softmax p.npy \
             --log-softmax log_p.npy --lse lse.npy"
        ));
        assert_close(&report["loss"], &expected["loss_mean"]);
        for (key, value) in [("rows", 1797), ("valid_rows", 1797), ("denominator", 1797)] {
            assert_eq!(report[key], value);
        }
        assert_eq!(
            (&report["classes"], &report["bad_rows"]),
            (&10.into(), &0.into())
        );
        assert_eq!(report["correct"], expected["correct"]);

        let loss = folder.load_f32("loss.npy", "()");
        assert_eq!(loss.len(), 1);
        assert_eq!(
            Some(loss[0]),
            report["loss"].as_f64().map(|loss| loss as f32)
        );
        let losses = folder.load_f32("losses.npy", "(1797,)");
        let grad = folder.load_f32("grad.npy", "(1797, 10)");
        let sample = expected["sample"].as_array().unwrap();
        assert!(!sample.is_empty());
        for row in sample {
            let at = row["row"].as_u64().unwrap() as usize;
            assert_near(losses[at], row["loss"].as_f64().unwrap());
            for (k, value) in row["gradient"].as_array().unwrap().iter().enumerate() {
                assert_near(grad[10 * at + k], value.as_f64().unwrap());
            }
        }
        let p = folder.load_f32("p.npy", "(1797, 10)");
        for row in p.chunks_exact(10) {
            assert_near(row.iter().sum(), 1.0);
        }
        let log_p = folder.load_f32("log_p.npy", "(1797, 10)");
        for (p, log_p) in p.iter().zip(&log_p) {
            let exact = f64::from(*log_p).exp();
            let error = (f64::from(*p) - exact).abs();
            assert!(error <= 1e-4 * exact + 1e-37, "{p:e}, not {exact:e}");
        }
        let lse = folder.load_f32("lse.npy", "(1797,)");
        let logits = folder.load_f32("logits.npy", "(1797, 10)");
        let data = folder.load("predictions.npy", "<i8", "(1797,)");
        for (row, prediction) in data.chunks_exact(8).enumerate() {
            let k = i64::from_le_bytes(prediction.try_into().unwrap()) as usize;
            let logits = &logits[10 * row..][..10];
            assert!(logits.iter().all(|&z| z <= logits[k]));
            assert!(lse[row] >= logits[k]);
        }
    }
}

#[test]
fn json_keys() {
    let folder = Folder::new();
    for device in devices() {
        let run = folder.run(&format!(
            "run logits.npy labels.npy --json --device {device}"
        ));
        assert_eq!(run.out.lines().count(), 1);
        let report: Value = serde_json::from_str(&run.out).unwrap();
        let keys = |value: &Value| {
            let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
            keys.sort();
            keys.join(" ")
        };
        assert_eq!(
            keys(&report),
            "adapter bad_rows classes correct denominator device driver loss rows seconds software \
             strategy valid_rows version"
        );
        assert_eq!(
            keys(&report["seconds"]),
            "download kernels setup total upload"
        );
        assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
        if device == "cpu" {
            assert_eq!(report["device"], "cpu");
            assert_eq!(report["strategy"], "reference");
            assert_eq!(report["software"], false);
            assert!(report["adapter"].is_null() && report["driver"].is_null());
        } else {
            assert_eq!(report["device"], "gpu");
            assert!(report["adapter"].is_string() && report["driver"].is_string());
        }
    }
}

#[test]
fn reductions() {
    let (folder, expected) = (Folder::new(), expected());
    for device in devices() {
        let run = |rest: &str| {
            folder.json(&format!(
                "run logits.npy labels.npy --device {device} {rest}"
            ))
        };
        let sum = run("--reduction sum");
        assert_close(&sum["loss"], &expected["loss_sum"]);
        assert_eq!(sum["denominator"], 1);

        let none = run("--reduction none --loss none.npy --losses losses.npy");
        assert!(none["loss"].is_null() && none["denominator"].is_null());
        assert_eq!(none["correct"], expected["correct"]);
        let losses = folder.load_f32("none.npy", "(1797,)");
        assert_eq!(losses, folder.load_f32("losses.npy", "(1797,)"));
        let total: f64 = losses.iter().map(|&loss| f64::from(loss)).sum();
        assert_close(&total.into(), &expected["loss_sum"]);

        // One upstream gradient per row: the same gradients as one for all where they are equal.
        folder.save_f32("upstream.npy", "(1797,)", &[-0.5; 1797]);
        run("--reduction none --grad-output upstream.npy --grad a.npy");
        run("--reduction none --grad-output -0.5 --grad b.npy");
        assert_eq!(
            folder.load_f32("a.npy", "(1797, 10)"),
            folder.load_f32("b.npy", "(1797, 10)")
        );
        run("--reduction sum --grad-output 1 --grad c.npy");
        let halves = folder.load_f32("c.npy", "(1797, 10)");
        for (half, whole) in folder.load_f32("b.npy", "(1797, 10)").iter().zip(&halves) {
            assert_near(*half, -0.5 * f64::from(*whole));
        }
    }
}

#[test]
fn labels_of_every_kind() {
    let folder = Folder::new();
    folder.save_f32("x.npy", "(2, 3)", &[1.0, 2.0, 3.0, 0.0, 0.0, 0.0]);
    folder.save_i64("column.npy", "(2, 1)", &[2, -1]);
    folder.save("bytes.npy", "|u1", "(2,)", &[2, 0]);
    folder.save_f32("one_hot.npy", "(2, 3)", &[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
    let loss = [f64::exp(-1.0) + f64::exp(-2.0), 2.0].map(f64::ln_1p);
    for device in devices() {
        let run = |rest: &str| folder.json(&format!("run x.npy {rest} --device {device}"));
        let ignoring = run("column.npy --ignore-index -1");
        assert_close(&ignoring["loss"], &loss[0].into());
        assert_eq!(
            (&ignoring["valid_rows"], &ignoring["denominator"]),
            (&1.into(), &1.into())
        );
        assert_eq!(ignoring["correct"], 1);
        let mean = (loss[0] + loss[1]) / 2.0;
        assert_close(&run("bytes.npy")["loss"], &mean.into());
        let dense = run("one_hot.npy --predictions k.npy");
        assert_close(&dense["loss"], &mean.into());
        assert!(dense["correct"].is_null());
        let bare = run("--lse lse.npy");
        assert!(
            bare["loss"].is_null() && bare["denominator"].is_null() && bare["correct"].is_null()
        );
        assert_near(folder.load_f32("lse.npy", "(2,)")[1], 3.0_f64.ln());
    }
}

#[test]
fn refused_inputs_say_what_to_do() {
    let folder = Folder::new();
    folder.save_f32("x.npy", "(2, 3)", &[0.0; 6]);
    folder.save_f32("row.npy", "(3,)", &[0.0; 3]);
    folder.save_f32("cube.npy", "(1, 2, 3)", &[0.0; 6]);
    folder.save_f32("none.npy", "(2, 0)", &[]);
    folder.save_i64("y.npy", "(2,)", &[0, 1]);
    folder.save_f32("float_y.npy", "(2,)", &[0.0, 1.0]);
    folder.save_i64("one_hot.npy", "(2, 3)", &[0; 6]);
    folder.save_i64("three.npy", "(3,)", &[0; 3]);
    folder.save_f32("wide.npy", "(2, 4)", &[0.0; 8]);
    folder.save_f32("nan.npy", "(2,)", &[0.0, f32::NAN]);
    for (line, expected) in [
        ("run x.npy float_y.npy", "labels.astype('int64')"),
        ("run x.npy one_hot.npy", "labels.astype('float32')"),
        ("run x.npy three.npy", "shape [3], where [2] is needed"),
        ("run x.npy wide.npy", "shape [2, 4], where [2, 3] is needed"),
        ("run row.npy y.npy", "logits.reshape(1, -1)"),
        ("run cube.npy y.npy", "logits.reshape(-1, logits.shape[-1])"),
        ("run y.npy x.npy", "are LOGITS and LABELS swapped?"),
        ("run one_hot.npy y.npy", "int64, where floats are needed"),
        ("run none.npy y.npy", "none.npy: a row has 0 classes"),
        ("run missing.npy y.npy", "missing.npy: cannot open it"),
        ("run x.npy y.npy --device 99", "adapter"),
        (
            "run x.npy y.npy --grad missing/grad.npy",
            "missing/grad.npy: cannot",
        ),
        (
            "run x.npy y.npy --reduction none --grad-output row.npy --grad g.npy",
            "row.npy: shape [3], where [2] is needed",
        ),
        (
            "run x.npy y.npy --reduction none --grad-output nan.npy --grad g.npy",
            "upstream gradient of row 1 is NaN",
        ),
    ] {
        let message = folder.refused(1, line);
        assert!(message.contains(expected), "{line}: {message}");
    }
}

#[test]
fn usage_errors() {
    let folder = Folder::new();
    for (line, expected) in [
        ("run", "<LOGITS>"),
        ("run logits.npy", "give LABELS for the loss"),
        ("run logits.npy --grad grad.npy", "--grad needs LABELS"),
        (
            "run logits.npy --losses l.npy --lse e.npy",
            "--losses needs LABELS",
        ),
        (
            "run logits.npy labels.npy --grad a.npy --log-softmax ./a.npy",
            "name the same file",
        ),
        (
            "run logits.npy labels.npy --grad-output 0,5 --grad g.npy",
            "0,5 is not a number",
        ),
        (
            "run logits.npy labels.npy --grad-output inf --grad g.npy",
            "has to be finite",
        ),
        (
            "run logits.npy labels.npy --ignore-index 1.5",
            "invalid value '1.5'",
        ),
        (
            "run logits.npy labels.npy --reduction average",
            "mean, sum, none",
        ),
        (
            "run logits.npy labels.npy --explain --quiet",
            "cannot be used with",
        ),
        (
            "run logits.npy logits.npy --ignore-index 3",
            "--ignore-index is for labels",
        ),
        ("run logits.npy labels.npy --gard g.npy", "'--grad'"),
        ("runn", "'run'"),
    ] {
        let message = folder.refused(2, line);
        assert!(message.contains(expected), "{line}: {message}");
    }
}

#[test]
fn a_bad_label_leaves_the_old_output() {
    let folder = Folder::new();
    folder.save_f32("x.npy", "(3, 2)", &[0.0; 6]);
    folder.save_i64("y.npy", "(3,)", &[0, -100, 7]);
    fs::write(folder.path("old.npy"), "old").unwrap();
    for device in devices() {
        let line = format!("run x.npy y.npy --device {device} --grad old.npy --lse new.npy");
        let message = folder.refused(1, &line);
        assert!(
            message.contains("y.npy: row 2 has the label 7: labels are 0 to 1, or -100"),
            "{message}"
        );
        assert_eq!(fs::read(folder.path("old.npy")).unwrap(), b"old");
    }
}

#[test]
fn nan_rows_warn_or_fail() {
    let folder = Folder::new();
    folder.save_f32(
        "x.npy",
        "(3, 2)",
        &[0.0, 1.0, f32::NAN, 0.0, 1.0, f32::INFINITY],
    );
    folder.save_i64("y.npy", "(3,)", &[0, 1, 1]);
    fs::write(folder.path("old.npy"), "old").unwrap();
    for device in devices() {
        let line = format!("run x.npy y.npy --device {device} --predictions k.npy");
        let run = folder.run(&line);
        assert_eq!(run.code, Some(0));
        assert!(
            run.err
                .contains("warning: 2 rows are NaN, the first is row 1"),
            "{}",
            run.err
        );
        assert!(run.out.contains("loss      NaN"), "{}", run.out);
        let report = folder.json(&line);
        assert_eq!(
            (&report["loss"], &report["bad_rows"]),
            (&"NaN".into(), &2.into())
        );
        let k = folder.load("k.npy", "<i8", "(3,)");
        assert_eq!(k[8..], [0xff; 16]);

        fs::remove_file(folder.path("k.npy")).unwrap();
        let line = format!("run x.npy y.npy --device {device} --strict --json --grad old.npy");
        let message = folder.refused(1, &line);
        assert!(message.contains("2 rows are NaN"), "{message}");
        assert_eq!(fs::read(folder.path("old.npy")).unwrap(), b"old");
    }
    folder.save_f32("x.npy", "(1, 2)", &[0.0, f32::NEG_INFINITY]);
    folder.save_i64("y.npy", "(1,)", &[1]);
    assert_eq!(
        folder.json("run x.npy y.npy --device cpu --strict")["loss"],
        "Infinity"
    );
}

#[test]
fn an_output_may_replace_an_input() {
    let folder = Folder::new();
    folder.json("run logits.npy labels.npy --device cpu --grad grad.npy");
    folder.json("run logits.npy labels.npy --device cpu --grad logits.npy");
    assert_eq!(
        fs::read(folder.path("grad.npy")).unwrap(),
        fs::read(folder.path("logits.npy")).unwrap()
    );
}

#[test]
fn float64_is_rounded_and_said_once() {
    let folder = Folder::new();
    let wide = |values: [f64; 4]| values.map(f64::to_le_bytes).concat();
    folder.save("x.npy", "<f8", "(2, 2)", &wide([0.1, 1.0, 2.0, 3.0]));
    folder.save("y.npy", ">f8", "(2, 2)", &[0; 32]);
    let run = folder.run("run x.npy y.npy --device cpu");
    assert_eq!(
        run.err,
        "note: rounded from float64 to float32: x.npy, y.npy\n"
    );
}

#[test]
fn quiet_is_silent() {
    let folder = Folder::new();
    folder.save("x.npy", "<f8", "(1, 1)", &f64::NAN.to_le_bytes());
    folder.save_i64("y.npy", "(1,)", &[0]);
    let run = folder.run_without_adapter("run x.npy y.npy --quiet --lse lse.npy");
    assert_eq!((run.code, &run.out[..], &run.err[..]), (Some(0), "", ""));
    let run = folder.run("run x.npy y.npy --quiet --json --device cpu");
    assert_eq!((run.out.lines().count(), &run.err[..]), (1, ""));
    let run = folder.run("run x.npy --quiet");
    assert_eq!(run.code, Some(2));
    assert_ne!(run.err, "");
}

#[test]
fn explain_prints_the_plan() {
    let folder = Folder::new();
    for device in devices() {
        let line = format!("run logits.npy labels.npy --explain --device {device}");
        let run = folder.run(&line);
        assert!(
            run.out.contains("\n\n1797 rows × 10 classes "),
            "{}",
            run.out
        );
        let run = folder.run(&format!("{line} --json"));
        assert!(run.err.contains("1797 rows × 10 classes "), "{}", run.err);
        assert!(serde_json::from_str::<Value>(&run.out).is_ok());
    }
}

#[test]
fn without_an_adapter() {
    let (folder, expected) = (Folder::new(), expected());
    let run = folder.run_without_adapter("run logits.npy labels.npy --json");
    assert_eq!(run.code, Some(0));
    assert!(run.err.contains("no GPU adapter was found"), "{}", run.err);
    assert!(run.err.contains("on the processor instead"), "{}", run.err);
    let report: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(report["device"], "cpu");
    assert_close(&report["loss"], &expected["loss_mean"]);
    for device in ["gpu", "0", "nvidia"] {
        let line = format!("run logits.npy labels.npy --device {device} --grad grad.npy");
        let run = folder.run_without_adapter(&line);
        assert_eq!((run.code, &run.out[..]), (Some(1), ""));
        assert!(
            run.err.contains("no GPU adapter was found. "),
            "{}",
            run.err
        );
        assert!(run.err.contains("--device cpu"), "{}", run.err);
        assert!(!folder.path("grad.npy").exists());
    }
    for line in ["", "demo", "info"] {
        let run = folder.run_without_adapter(line);
        assert_eq!(run.code, Some(0), "{line}: {}", run.err);
        assert!(run.out.contains("none"), "{line}: {}", run.out);
    }
    let run = folder.run_without_adapter("info --json");
    let info: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(
        (run.code, &info["adapters"]),
        (Some(0), &Value::Array(vec![]))
    );
}

#[test]
fn demo_and_info() {
    let folder = Folder(tempdir().unwrap());
    for device in devices() {
        let run = folder.run(&format!("demo --device {device}"));
        assert_eq!((run.code, &run.err[..]), (Some(0), ""));
        for expected in [
            "CC BY 4.0",
            "0.115027",
            "1761 of 1797",
            "2.34445",
            "softxent run logits.npy",
        ] {
            assert!(run.out.contains(expected), "{expected}: {}", run.out);
        }
        assert!(folder.names().is_empty());
        if device != "cpu" {
            let info = folder.json("info");
            assert_eq!((&info["auto"], &info["error"]), (&0.into(), &Value::Null));
            for key in ["name", "backend", "driver", "type"] {
                assert!(info["adapters"][0][key].is_string(), "{key}");
            }
            let name = info["adapters"][0]["name"].as_str().unwrap();
            for line in ["info", ""] {
                assert!(folder.run(line).out.contains(name));
            }
        }
    }
    for line in ["--help", "run --help", "help run", "--version"] {
        let run = folder.run(line);
        assert_eq!((run.code, &run.err[..]), (Some(0), ""), "{line}");
    }
}

#[test]
fn a_closed_pipe_is_no_fault() {
    let folder = Folder::new();
    for line in [
        "",
        "info --json",
        "demo --device cpu",
        "run logits.npy labels.npy --device cpu --explain",
        "run logits.npy labels.npy --device cpu --json",
    ] {
        let mut child = folder
            .command(line)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{line}");
        assert_eq!(output.stderr, b"", "{line}");
    }
    // And nobody to read the warnings.
    let mut child = folder
        .command("run logits.npy logits.npy --device cpu --grad-output 2")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_standard_output_is_a_failure() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let child = Folder::new()
        .command("demo --device cpu")
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        output
            .stderr
            .starts_with(b"error: cannot write to standard output")
    );
}
