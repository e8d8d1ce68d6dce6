//! The `softxent` command from end to end: what it prints, what it writes, how it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use softxent::half::{bf16, f16};
use tempfile::{TempDir, tempdir};

/// A folder with the digits in it, and the command run there.
pub struct Folder(TempDir);

pub struct Run {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Folder {
    pub fn empty() -> Folder {
        Folder(tempdir().unwrap())
    }

    fn new() -> Folder {
        let folder = Folder::empty();
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

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Files in the folder; a failed run leaves no litter.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_softxent"));
        command
            .args(line.split_whitespace())
            .current_dir(self.0.path())
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, line: &str) -> Run {
        finish(&mut self.command(line))
    }

    /// As on a system without a Vulkan driver.
    pub fn run_without_adapter(&self, line: &str) -> Run {
        finish(
            self.command(line)
                .env("VK_DRIVER_FILES", "/nonexistent")
                .env("VK_ICD_FILENAMES", "/nonexistent")
                .env("WGPU_BACKEND", "vulkan"),
        )
    }

    pub fn json(&self, line: &str) -> Value {
        let run = self.run(&format!("{line} --json"));
        assert_eq!(run.code, Some(0), "{line}: {}", run.err);
        serde_json::from_str(&run.out).unwrap()
    }

    /// Runs what has to fail, and returns its message.
    pub fn refused(&self, code: i32, line: &str) -> String {
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

    pub fn save(&self, name: &str, descr: &str, shape: &str, data: &[u8]) {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        let mut file = b"\x93NUMPY\x01\0".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.bytes());
        file.extend(data);
        fs::write(self.path(name), file).unwrap();
    }

    pub fn save_f32(&self, name: &str, shape: &str, values: &[f32]) {
        self.save(name, "<f4", shape, &bytes(values));
    }

    pub fn save_i64(&self, name: &str, shape: &str, values: &[i64]) {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.save(name, "<i8", shape, &data);
    }

    /// A file of tensors: name, type, shape, bytes.
    pub fn save_tensors(&self, name: &str, tensors: &[(&str, Dtype, &[usize], &[u8])]) {
        let views = tensors.iter().map(|&(name, dtype, shape, data)| {
            (name, TensorView::new(dtype, shape.to_vec(), data).unwrap())
        });
        fs::write(
            self.path(name),
            safetensors::serialize(views, None).unwrap(),
        )
        .unwrap();
    }

    /// The data of a tensor of this type and shape.
    fn load_tensor(&self, name: &str, tensor: &str, dtype: Dtype, shape: &[usize]) -> Vec<u8> {
        let file = fs::read(self.path(name)).unwrap();
        let tensors = SafeTensors::deserialize(&file).unwrap();
        let view = tensors.tensor(tensor).unwrap();
        assert_eq!((view.dtype(), view.shape()), (dtype, shape), "{tensor}");
        view.data().to_vec()
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
        singles(&self.load(name, "<f4", shape))
    }
}

fn singles(data: &[u8]) -> Vec<f32> {
    let value = |word: &[u8]| f32::from_le_bytes(word.try_into().unwrap());
    data.chunks_exact(4).map(value).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

pub fn finish(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    Run {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The devices to test on. Without an adapter that is a failure, unless it is asked to be none.
pub fn devices() -> Vec<&'static str> {
    let info = Folder::empty().json("info");
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

/// In alphabetical order.
pub fn keys(value: &Value) -> String {
    let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    keys.join(" ")
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
        assert_eq!(
            keys(&report),
            "accuracy adapter axis bad_rows classes correct denominator device driver dtype loss rows \
             seconds software strategy valid_rows version z_loss"
        );
        assert_eq!(report["accuracy"], "full");
        assert_eq!(
            keys(&report["seconds"]),
            "download setup total upload waiting"
        );
        assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(
            (&report["axis"], &report["dtype"]),
            (&1.into(), &"f32".into())
        );
        assert!(report["z_loss"].is_null());
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
fn every_option_at_once() {
    let folder = Folder::new();
    let x = [
        [1.0, -2.0, 0.5],
        [0.25, 3.0, -1.0],
        [9.0, 9.0, 9.0],
        [-0.5, 0.0, 2.0],
    ];
    let (labels, weights) = ([2, 1, -7, 0], [0.5, 2.0, 1.25]);
    let (smoothing, lambda, scale, cap) = (0.125, 0.0625, 1.5, 4.0);
    folder.save_f32(
        "x.npy",
        "(4, 3)",
        &x.as_flattened()
            .iter()
            .map(|&x| x as f32)
            .collect::<Vec<_>>(),
    );
    folder.save_i64("y.npy", "(4,)", &labels);
    folder.save_f32("w.npy", "(3,)", &weights.map(|w| w as f32));
    let weight: f64 = weights.iter().sum();

    let (mut loss, mut z_loss) = (0.0, 0.0);
    let (mut grad, mut losses, mut entropy, mut right) = (vec![], vec![], vec![], vec![]);
    for (x, label) in x.iter().zip(labels) {
        let z = x.map(|x| cap * f64::tanh(scale * x / cap));
        let sum: f64 = z.iter().map(|z| z.exp()).sum();
        let (lse, p) = (sum.ln(), z.map(|z| z.exp() / sum));
        entropy.push(lse - p.iter().zip(z).map(|(p, z)| p * z).sum::<f64>());
        if label == -7 {
            losses.push(0.0);
            grad.extend([0.0; 3]);
            right.push(0);
            continue;
        }
        let mut wt = weights.map(|w| w * smoothing / 3.0);
        wt[label as usize] += weights[label as usize] * (1.0 - smoothing);
        let row: f64 = wt.iter().zip(z).map(|(wt, z)| wt * (lse - z)).sum();
        losses.push(row + lambda * lse * lse);
        loss += row / weight;
        z_loss += lambda * lse * lse / 3.0;
        for k in 0..3 {
            let slope = scale * (1.0 - (z[k] / cap) * (z[k] / cap));
            let d = (p[k] * wt.iter().sum::<f64>() - wt[k]) / weight;
            grad.push((d + 2.0 * lambda * lse * p[k] / 3.0) * slope * 0.5);
        }
        let top = (0..3).fold(0, |top, k| if x[k] > x[top] { k } else { top });
        right.push(u8::from(top as i64 == label));
    }

    for device in devices() {
        let line = format!(
            "run x.npy y.npy --ignore-index -7 --class-weights w.npy --label-smoothing {smoothing} \
             --z-loss {lambda} --logit-scale {scale} --softcap {cap} --grad-output 0.5 \
             --device {device} --loss loss.npy --losses losses.npy --grad grad.npy \
             --entropy entropy.npy --z-loss-out z_loss.npy --correct correct.npy"
        );
        let report = folder.json(&line);
        assert_close(&report["loss"], &(loss + z_loss).into());
        assert_close(&report["z_loss"], &z_loss.into());
        assert_eq!(report["denominator"], weight);
        assert_eq!(
            (&report["valid_rows"], &report["correct"]),
            (&3.into(), &1.into())
        );
        assert_near(folder.load_f32("loss.npy", "()")[0], loss + z_loss);
        assert_near(folder.load_f32("z_loss.npy", "()")[0], z_loss);
        for (name, shape, expected) in [
            ("losses.npy", "(4,)", &losses),
            ("entropy.npy", "(4,)", &entropy),
            ("grad.npy", "(4, 3)", &grad),
        ] {
            let found = folder.load_f32(name, shape);
            for (&found, &expected) in found.iter().zip(expected) {
                // The entropy and the gradient cancel.
                let error = (f64::from(found) - expected).abs();
                assert!(error < 2e-6, "{name}: {found}, not {expected}");
            }
        }
        assert_eq!(folder.load("correct.npy", "|b1", "(4,)"), right);
        let summary = folder.run(&line).out;
        for expected in ["z-loss", "whose weights add up to 3.75", "correct, [4]"] {
            assert!(summary.contains(expected), "{expected}: {summary}");
        }

        let none = folder.json(&format!("{line} --reduction none"));
        assert!(none["z_loss"].is_null());
        let z_losses = folder.load_f32("z_loss.npy", "(4,)");
        let total: f64 = z_losses.iter().map(|&z| f64::from(z)).sum();
        assert!((total / 3.0 - z_loss).abs() < 1e-6, "{z_losses:?}");
        assert_eq!(z_losses[2], 0.0);
    }
}

#[test]
fn denominators_and_empty_means() {
    let (folder, expected) = (Folder::new(), expected());
    folder.save_f32("x.npy", "(2, 2)", &[0.0; 4]);
    folder.save_i64("y.npy", "(2,)", &[-100, -100]);
    folder.save_i64("zeros.npy", "(2,)", &[0, 0]);
    folder.save_f32("w.npy", "(2,)", &[0.0, 1.0]);
    let sum = expected["loss_sum"].as_f64().unwrap();
    for device in devices() {
        let run = |rest: &str| folder.json(&format!("run {rest} --device {device}"));
        let given = run("logits.npy labels.npy --denominator 2048");
        assert_close(&given["loss"], &(sum / 2048.0).into());
        assert_eq!(given["denominator"], 2048.0);
        assert_eq!(run("x.npy y.npy")["loss"], "NaN");
        assert_eq!(run("x.npy y.npy --empty-mean nan")["loss"], "NaN");
        assert_eq!(run("x.npy y.npy --empty-mean zero")["loss"], 0.0);
        let weightless = run("x.npy zeros.npy --class-weights w.npy --empty-mean zero");
        assert_eq!(
            (&weightless["loss"], &weightless["denominator"]),
            (&0.0.into(), &0.0.into())
        );
        assert_eq!(weightless["valid_rows"], 2);
    }
}

#[test]
fn safetensors_in_and_out() {
    let folder = Folder::new();
    let logits = folder.load_f32("logits.npy", "(1797, 10)");
    let labels = folder.load("labels.npy", "<i8", "(1797,)");
    let narrow: Vec<u8> = labels.chunks_exact(8).map(|label| label[0]).collect();
    folder.save_tensors(
        "batch.safetensors",
        &[
            ("logits", Dtype::F32, &[1797, 10], &bytes(&logits)),
            ("labels", Dtype::U8, &[1797], &narrow),
        ],
    );
    folder.save_tensors("y.safetensors", &[("only", Dtype::I64, &[1797], &labels)]);
    fs::write(folder.path("out.safetensors"), "old").unwrap();
    let before = folder.names();
    for device in devices() {
        let npy = folder.json(&format!(
            "run logits.npy labels.npy --device {device} --grad grad.npy --lse lse.npy"
        ));
        let tensors = folder.json(&format!(
            "run batch.safetensors:logits batch.safetensors:labels --device {device} \
             --grad out.safetensors --lse ./out.safetensors:z --predictions out.safetensors:k \
             --loss loss.npy --correct out.safetensors"
        ));
        for key in [
            "loss",
            "correct",
            "valid_rows",
            "denominator",
            "dtype",
            "axis",
        ] {
            assert_eq!(npy[key], tensors[key], "{key}");
        }
        let load = |tensor, dtype, shape: &[usize]| {
            folder.load_tensor("out.safetensors", tensor, dtype, shape)
        };
        let grad = load("grad", Dtype::F32, &[1797, 10]);
        assert_eq!(grad, folder.load("grad.npy", "<f4", "(1797, 10)"));
        let lse = load("z", Dtype::F32, &[1797]);
        assert_eq!(lse, folder.load("lse.npy", "<f4", "(1797,)"));
        let predictions = load("k", Dtype::I64, &[1797]);
        let right = load("correct", Dtype::BOOL, &[1797]);
        for (at, label) in labels.chunks_exact(8).enumerate() {
            let same = predictions[8 * at..][..8] == *label;
            assert_eq!(right[at], u8::from(same));
        }
        let unnamed = folder.json(&format!("run logits.npy y.safetensors --device {device}"));
        assert_eq!(unnamed["loss"], npy["loss"]);
    }
    assert_eq!(folder.names().len(), before.len() + 3);
}

#[test]
fn halves_in_and_out() {
    let folder = Folder::new();
    let logits = folder.load_f32("logits.npy", "(1797, 10)");
    let f16s: Vec<f16> = logits.iter().map(|&z| f16::from_f32(z)).collect();
    let bf16s: Vec<bf16> = logits.iter().map(|&z| bf16::from_f32(z)).collect();
    let f16_bytes: Vec<u8> = f16s.iter().flat_map(|z| z.to_le_bytes()).collect();
    let bf16_bytes: Vec<u8> = bf16s.iter().flat_map(|z| z.to_le_bytes()).collect();
    folder.save("f16.npy", "<f2", "(1797, 10)", &f16_bytes);
    folder.save_tensors(
        "half.safetensors",
        &[
            ("f16", Dtype::F16, &[1797, 10], &f16_bytes),
            ("bf16", Dtype::BF16, &[1797, 10], &bf16_bytes),
        ],
    );
    let f16s: Vec<f32> = f16s.into_iter().map(f16::to_f32).collect();
    let bf16s: Vec<f32> = bf16s.into_iter().map(bf16::to_f32).collect();
    folder.save_f32("f16_as_f32.npy", "(1797, 10)", &f16s);
    folder.save_f32("bf16_as_f32.npy", "(1797, 10)", &bf16s);
    for device in devices() {
        let run = |rest: &str| folder.json(&format!("run {rest} --device {device}"));
        let wide = run("f16_as_f32.npy labels.npy --grad wide.npy");
        let grad = folder.load_f32("wide.npy", "(1797, 10)");
        for logits in ["f16.npy", "half.safetensors:f16"] {
            let report = run(&format!("{logits} labels.npy --grad g.npy"));
            assert_eq!(
                (&report["loss"], &report["dtype"]),
                (&wide["loss"], &"f16".into())
            );
            assert_eq!(folder.load_f32("g.npy", "(1797, 10)"), grad);
        }
        run("f16.npy labels.npy --grad g.npy --lse lse.npy --dtype-out same");
        let narrow: Vec<u8> = grad
            .iter()
            .flat_map(|&g| f16::from_f32(g).to_le_bytes())
            .collect();
        assert_eq!(folder.load("g.npy", "<f2", "(1797, 10)"), narrow);
        folder.load("lse.npy", "<f4", "(1797,)");

        let wide = run("bf16_as_f32.npy labels.npy --softmax wide.npy");
        let p = folder.load_f32("wide.npy", "(1797, 10)");
        let report =
            run("half.safetensors:bf16 labels.npy --softmax p.safetensors --dtype-out same");
        assert_eq!(
            (&report["loss"], &report["dtype"]),
            (&wide["loss"], &"bf16".into())
        );
        let narrow: Vec<u8> = p
            .iter()
            .flat_map(|&p| bf16::from_f32(p).to_le_bytes())
            .collect();
        assert_eq!(
            folder.load_tensor("p.safetensors", "softmax", Dtype::BF16, &[1797, 10]),
            narrow
        );
    }
    let message = folder.refused(
        1,
        "run half.safetensors:bf16 labels.npy --grad g2.npy --dtype-out same",
    );
    assert!(
        message.contains("g2.npy: .npy has no bfloat16: name a .safetensors file"),
        "{message}"
    );
}

#[test]
fn the_class_axis() {
    let folder = Folder::new();
    // x[n, k, d] and the same with the classes last.
    let (n, classes, d) = (2, 3, 4);
    let value = |n: usize, k: usize, d: usize| ((7 * n + 5 * k * k + 3 * d * k) % 11) as f32 / 4.0;
    let middle: Vec<f32> = (0..n * classes * d)
        .map(|at| value(at / (classes * d), at / d % classes, at % d))
        .collect();
    let last: Vec<f32> = (0..n * d * classes)
        .map(|at| value(at / (d * classes), at % classes, at / classes % d))
        .collect();
    let labels = [0, 2, -100, 1, 1, 0, 2, 2];
    folder.save_f32("middle.npy", "(2, 3, 4)", &middle);
    folder.save_f32("last.npy", "(2, 4, 3)", &last);
    folder.save_f32("flat.npy", "(8, 3)", &last);
    folder.save_f32("row.npy", "(3,)", &last[..3]);
    folder.save_i64("y.npy", "(2, 4)", &labels);
    folder.save_i64("flat_y.npy", "(8,)", &labels);
    folder.save_i64("one.npy", "(1,)", &labels[..1]);
    folder.save_i64("scalar.npy", "()", &labels[..1]);
    folder.save_f32("upstream.npy", "(2, 4)", &[1.0; 8]);
    let weights: Vec<f32> = (0..24).map(|at| (at % 5) as f32 / 2.0).collect();
    folder.save_f32("flat_t.npy", "(8, 3)", &weights);
    let moved = |at: usize| weights[(at / 12 * 4 + at % 4) * 3 + at / 4 % 3];
    folder.save_f32(
        "middle_t.npy",
        "(2, 3, 4)",
        &(0..24).map(moved).collect::<Vec<_>>(),
    );

    for device in devices() {
        let run = |rest: &str| folder.json(&format!("run {rest} --device {device}"));
        let flat = run("flat.npy flat_y.npy --grad flat_grad.npy --losses flat_losses.npy");
        let grad = folder.load_f32("flat_grad.npy", "(8, 3)");
        let losses = folder.load_f32("flat_losses.npy", "(8,)");
        for (line, axis) in [
            ("middle.npy y.npy", 1),
            ("middle.npy y.npy --axis 1", 1),
            ("middle.npy y.npy --axis -2", 1),
            ("last.npy y.npy", 2),
            ("last.npy y.npy --axis -1", 2),
        ] {
            let report = run(&format!("{line} --grad grad.npy --losses losses.npy"));
            for key in ["loss", "rows", "valid_rows", "classes", "correct"] {
                assert_eq!(report[key], flat[key], "{line}: {key}");
            }
            assert_eq!(report["axis"], axis, "{line}");
            assert_eq!(folder.load_f32("losses.npy", "(2, 4)"), losses, "{line}");
            if axis == 2 {
                assert_eq!(folder.load_f32("grad.npy", "(2, 4, 3)"), grad, "{line}");
                continue;
            }
            let found = folder.load_f32("grad.npy", "(2, 3, 4)");
            for (at, found) in found.into_iter().enumerate() {
                let row = at / (classes * d) * d + at % d;
                assert_eq!(
                    found,
                    grad[row * classes + at / d % classes],
                    "{line}: {at}"
                );
            }
        }
        let dense = run("middle.npy middle_t.npy --axis 1");
        assert_eq!(dense["loss"], run("flat.npy flat_t.npy")["loss"]);
        let bare = run("middle.npy --axis 1 --lse lse.npy");
        assert_eq!((&bare["rows"], &bare["axis"]), (&8.into(), &1.into()));
        folder.load_f32("lse.npy", "(2, 4)");
        run("middle.npy y.npy --reduction none --grad-output upstream.npy --grad grad.npy");
        let across = run("flat.npy --axis 0 --lse lse.npy");
        assert_eq!(
            (&across["rows"], &across["classes"]),
            (&3.into(), &8.into())
        );
        for label in ["one.npy", "scalar.npy"] {
            let one = run(&format!("row.npy {label} --axis 0 --losses losses.npy"));
            assert_eq!(one["rows"], 1);
            assert_eq!(folder.load_f32("losses.npy", "()"), losses[..1]);
        }
    }
    let summary = folder.run("run middle.npy y.npy --device cpu").out;
    assert!(
        summary.contains("8 rows × 3 classes on axis 1, 1 ignored"),
        "{summary}"
    );

    folder.save_f32("square.npy", "(4, 4, 3)", &[0.0; 48]);
    folder.save_i64("square_y.npy", "(4, 3)", &[0; 12]);
    for (code, line, expected) in [
        (
            2,
            "run middle.npy --softmax p.npy",
            "--axis 0 (2 classes) or --axis 1 (3 classes) or --axis 2 (4 classes)",
        ),
        (
            2,
            "run middle.npy middle_t.npy",
            "no labels that leave out its class axis",
        ),
        (
            2,
            "run square.npy square_y.npy",
            "which are the classes, --axis 0 (4 classes) or --axis 1 (4 classes)\n",
        ),
        (
            2,
            "run middle.npy y.npy --axis 3",
            "whose axes are 0 to 2, or -3 to -1",
        ),
        (
            2,
            "run middle.npy y.npy --axis -4",
            "whose axes are 0 to 2, or -3 to -1",
        ),
        (
            1,
            "run middle.npy y.npy --axis 2",
            "shape [2, 4], where [2, 3] is needed",
        ),
        (
            1,
            "run middle.npy square_y.npy",
            "[3, 4] or [2, 4] or [2, 3]",
        ),
        (1, "run y.npy middle.npy", "are LOGITS and LABELS swapped?"),
        (1, "run row.npy one.npy", "or add --axis 0"),
        (
            1,
            "run scalar.npy one.npy --axis 0",
            "shape [], where [N, K] is needed",
        ),
    ] {
        let message = folder.refused(code, line);
        assert!(message.contains(expected), "{line}: {message}");
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
    folder.save_f32("minus.npy", "(3,)", &[0.0, 1.0, -1.0]);
    folder.save_tensors(
        "x.safetensors",
        &[
            ("bits", Dtype::BOOL, &[2], &[0, 1]),
            ("x", Dtype::F32, &[2, 3], &[0; 24]),
        ],
    );
    fs::write(folder.path("short.safetensors"), [9, 0, 0, 0, 0, 0, 0, 0]).unwrap();
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
            "nan.npy: the upstream gradient of row 1 is NaN",
        ),
        (
            "run x.npy y.npy --class-weights nan.npy",
            "nan.npy: shape [2], where [3] is needed: one number per class",
        ),
        (
            "run x.npy y.npy --class-weights minus.npy",
            "minus.npy: the weight of class 2 is -1",
        ),
        (
            "run x.safetensors y.npy",
            "2 tensors; name one, such as x.safetensors:x; it holds 'x', 'bits'",
        ),
        (
            "run x.safetensors:y y.npy",
            "x.safetensors:y: no tensor 'y'; it holds 'x', 'bits'",
        ),
        (
            "run x.safetensors:x x.safetensors:bits",
            "x.safetensors:bits: dtype BOOL; supported are F16, BF16",
        ),
        (
            "run short.safetensors:x y.npy",
            "short.safetensors:x: 8 bytes with a header of 9",
        ),
        (
            "run missing.safetensors:x y.npy",
            "missing.safetensors:x: cannot open it",
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
        (
            "run logits.npy logits.npy --correct c.npy",
            "--correct is for labels that are integers",
        ),
        (
            "run logits.npy --softmax p.npy --class-weights w.npy",
            "--class-weights needs LABELS",
        ),
        (
            "run logits.npy --softmax p.npy --label-smoothing 0.1",
            "--label-smoothing needs LABELS",
        ),
        (
            "run logits.npy --lse l.npy --ignore-index 3",
            "--ignore-index needs LABELS",
        ),
        (
            "run logits.npy labels.npy --label-smoothing -0.5",
            "--label-smoothing: the label smoothing is -0.5; it has to be from 0 to 1",
        ),
        (
            "run logits.npy labels.npy --z-loss nan",
            "--z-loss: the z-loss is NaN",
        ),
        (
            "run logits.npy labels.npy --logit-scale 0",
            "--logit-scale: the logit scale is 0",
        ),
        (
            "run logits.npy labels.npy --softcap inf",
            "--softcap: the softcap is inf",
        ),
        (
            "run logits.npy labels.npy --denominator 0",
            "--denominator: the denominator is 0",
        ),
        (
            "run logits.npy labels.npy --denominator 3 --reduction sum",
            "leave it out, or use --reduction mean",
        ),
        (
            "run logits.npy labels.npy --empty-mean zero --reduction none",
            "leave it out, or use --reduction mean",
        ),
        (
            "run logits.npy labels.npy --z-loss-out z.npy",
            "give its factor, such as --z-loss",
        ),
        (
            "run logits.npy labels.npy --grad o.safetensors:a --softmax ./o.safetensors:a",
            "name the same tensor",
        ),
        (
            "run logits.npy labels.npy --grad o.safetensors:",
            "a name, such as o.safetensors:grad",
        ),
        (
            "run logits.npy x.safetensors:y --grad x.safetensors:grad",
            "would replace an input with all its tensors",
        ),
        ("run logits.npy labels.npy --gard g.npy", "'--grad'"),
        (
            "check --device cpu",
            "check is about an adapter; `cpu` is the reference",
        ),
        ("check --max-classes 0", "0 is not in 1..=262144"),
        ("check --max-classes 262145", "is not in 1..=262144"),
        ("check logits.npy", "unexpected argument 'logits.npy'"),
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
    let run = folder.run_without_adapter("check --json");
    assert_eq!((run.code, &run.out[..]), (Some(1), ""));
    assert!(run.err.starts_with("error: no GPU adapter"), "{}", run.err);
    assert!(!run.err.contains("--device cpu"), "{}", run.err);
}

#[test]
fn demo_and_info() {
    let folder = Folder::empty();
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
            let doctor = folder.run("info").out;
            for part in [
                "--device auto takes this one: the first",
                "f32 logits, such as",
                "storage buffers",
                "subgroups",
                "self-test",
            ] {
                assert!(doctor.contains(part), "{part}: {doctor}");
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
fn check_measures_what_is_promised() {
    let folder = Folder::empty();
    if devices() == ["cpu"] {
        return;
    }
    let run = folder.run("check --json --max-classes 64");
    assert_eq!((run.code, &run.err[..]), (Some(0), ""), "{}", run.out);
    assert_eq!(run.out.lines().count(), 1);
    let report: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(
        keys(&report),
        "accuracy adapter backend batches command date driver exhaustive kernels machine max_classes rows \
         runs seconds software verdict version"
    );
    for (key, value) in [
        ("accuracy", Value::from("full")),
        ("command", "softxent check --json --max-classes 64".into()),
        ("exhaustive", false.into()),
        ("max_classes", 64.into()),
        ("verdict", "kept".into()),
        ("version", env!("CARGO_PKG_VERSION").into()),
    ] {
        assert_eq!(report[key], value, "{key}");
    }
    let date = report["date"].as_str().unwrap();
    assert!(date.len() == 10 && date.starts_with("20"), "{date}");

    // exp, log1p, and five numbers of each dtype, number of classes, kind.
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2 + 3 * 4 * 5 * 5);
    let mut seen = std::collections::BTreeMap::<&str, usize>::new();
    for row in rows {
        assert_eq!(
            keys(row),
            "allowed classes dtype found kind name unit values where"
        );
        let number = |key: &str| row[key].as_f64().unwrap();
        assert!(number("found") <= number("allowed"), "{row}");
        assert!(number("values") > 0.0, "{row}");
        // A check that finds nothing to measure is none.
        *seen.entry(row["name"].as_str().unwrap()).or_default() +=
            usize::from(number("found") > 0.0);
    }
    for (name, least) in [
        ("exp", 1),
        ("log1p", 1),
        ("softmax", 50),
        ("loss", 50),
        ("gradient", 50),
        ("|1 - sum of softmax|", 30),
        ("|sum of gradient|", 30),
    ] {
        assert!(seen[name] >= least, "{name}: {}", seen[name]);
    }
    for key in ["kernels", "batches"] {
        assert_eq!(keys(&report[key]), "differing first rows");
        assert_eq!(report[key]["differing"], 0);
        assert!(report[key]["rows"].as_u64().unwrap() > 10_000);
    }
    assert_eq!(keys(&report["runs"]), "hash hashes runs");
    let runs = &report["runs"];
    assert_eq!((&runs["runs"], &runs["hashes"]), (&10.into(), &1.into()));
    assert_eq!(runs["hash"].as_str().unwrap().len(), 16);
}

/// A driver that loses the rounding errors of sums: less accurate, said so, and still of use.
#[test]
fn reduced_accuracy_is_said_and_results_are_given() {
    let folder = Folder::new();
    if devices() == ["cpu"] {
        return;
    }
    let simulated = |line: &str| finish(folder.command(line).env("SOFTXENT_SIMULATE", "two_sum"));
    let run = simulated("check --max-classes 64");
    assert_eq!(run.code, Some(1), "{}", run.err);
    for expected in [
        "self-test  passed, reduced accuracy: the driver rearranges",
        // What it costs, and where.
        "log1p: ",
        "Accuracy is reduced",
    ] {
        assert!(run.out.contains(expected), "{expected}: {}", run.out);
    }
    // No terminal: one line a stage.
    assert_eq!(
        run.err.lines().collect::<Vec<_>>(),
        ["self-test", "exp", "log1p", "softmax, loss, gradient"]
    );

    let run = simulated("run logits.npy labels.npy --json");
    assert_eq!((run.code, &run.err[..]), (Some(0), ""));
    let report: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(report["accuracy"], "reduced");
    let (loss, exact) = (report["loss"].as_f64(), expected()["loss_mean"].as_f64());
    let (loss, exact) = (loss.unwrap(), exact.unwrap());
    assert!(((loss - exact) / exact).abs() < 1e-5, "{loss}, not {exact}");
    let run = simulated("run logits.npy labels.npy");
    let line = "self-test  passed, reduced accuracy: the driver rearranges floating-point sums";
    assert!(run.out.contains(line), "{}", run.out);
    let run = folder.run("run logits.npy labels.npy");
    assert!(!run.out.contains("self-test"), "{}", run.out);
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
