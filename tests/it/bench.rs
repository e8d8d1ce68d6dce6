//! `softxent bench`: what it refuses, what it plans, and the files that it writes.

use std::fs;

use serde_json::Value;

use crate::cli::{Folder, devices, finish, keys};

#[test]
fn usage_errors() {
    let folder = Folder::empty();
    for (line, expected) in [
        (
            "bench --device cpu",
            "bench is about an adapter; `cpu` is the reference",
        ),
        ("bench --op median", "softmax-backward"),
        ("bench --dtype f64", "there is: f32, f16, bf16"),
        ("bench --labels soft", "index, dense"),
        (
            "bench --options cap",
            "plain, scale, softcap, smoothing, z-loss, weights, all",
        ),
        ("bench --plan vectors", "NAME=VALUE is asked for"),
        ("bench --plan lanes=8", "there is: narrow, many, "),
        ("bench --plan vectors=maybe", "vectors is yes or no"),
        (
            "bench --plan row_workgroup=4",
            "row_workgroup is a power of two from 8 to 1024",
        ),
        ("bench --plan narrow=-1", "invalid digit"),
        ("bench --kernel fast", "there is: planned, all, row_per_"),
        ("bench --preset huge", "quick, small, vocab, full"),
        ("bench --classes 2,0", "0 is not in 1..=2147483647"),
        ("bench --rows 0", "0 is not in 1.."),
        ("bench --max-time 1e9", "seconds from 0 to 3600"),
        (
            "bench --min-time 2",
            "--min-time 2 is more than --max-time 1",
        ),
        (
            "bench --csv - --svg -",
            "--csv and --svg both go to standard output",
        ),
        ("bench --explain --csv b.csv", "cannot be used with"),
        ("bench --check --svg b.svg", "cannot be used with"),
    ] {
        let message = folder.refused(2, line);
        assert!(message.contains(expected), "{line}: {message}");
        let usage = "Usage: softxent bench";
        assert!(
            message.contains(usage) || message.contains("invalid value"),
            "{message}"
        );
    }
    let run = folder.run_without_adapter("bench");
    assert_eq!((run.code, &run.out[..]), (Some(1), ""));
    assert!(run.err.starts_with("error: no GPU adapter"), "{}", run.err);
    assert!(!run.err.contains("--device cpu"), "{}", run.err);
}

#[test]
fn a_software_driver_has_to_be_named() {
    if devices() == ["cpu"] {
        return;
    }
    let folder = Folder::empty();
    let info = folder.json("info");
    if info["adapters"][0]["software"] == true {
        for line in ["bench", "bench --device gpu"] {
            let message = folder.refused(2, line);
            assert!(message.contains("softxent bench --device 0"), "{message}");
        }
    }
    // A place that cannot be written is known before the first case.
    let message = folder.refused(1, "bench --device 0 --csv nowhere/bench.csv");
    assert!(message.contains("nowhere/bench.csv"), "{message}");
}

#[test]
fn explain_prints_the_plans() {
    if devices() == ["cpu"] {
        return;
    }
    let line = "bench --explain --op loss,softmax-backward --dtype f16 --rows 3,200000 --classes 7,1000000";
    let run = Folder::empty().run(line);
    assert_eq!((run.code, &run.err[..]), (Some(0), ""));
    for expected in [
        "loss f16 3 × 7: row_per_invocation\n",
        "  count_labels ",
        " 1 workgroup of ",
        "\n  4 dispatches, ",
        " bytes of scratch; a host call has ",
        "softmax-backward f16 3 × 1000000: ",
        "loss f16 200000 × 1000000\n  skipped: needs 400000000000 bytes in logits, and",
    ] {
        assert!(run.out.contains(expected), "{expected}: {}", run.out);
    }
}

#[test]
fn the_plan_takes_values_in_place_of_its_own() {
    if devices() == ["cpu"] {
        return;
    }
    let line = "bench --explain --op loss --dtype f32 --rows 64 --classes 64";
    for (plan, expected) in [
        ("narrow=64", "row_per_invocation/vectors"),
        ("narrow=64,vectors=no", "row_per_invocation/index"),
        ("narrow=63,many=65,subgroup=64", "row_per_subgroup"),
        ("narrow=63,many=65,subgroup=63", "row_per_workgroup"),
        ("narrow=64,workgroup=32", " 2 workgroups of 32"),
    ] {
        let run = Folder::empty().run(&format!("{line} --plan {plan}"));
        assert_eq!((run.code, &run.err[..]), (Some(0), ""));
        // Only some devices let a kernel finish its rows.
        let out = run.out.replace("/finishes", "");
        assert!(out.contains(expected), "{plan}: {out}");
    }
}

#[test]
fn every_file_has_every_case() {
    if devices() == ["cpu"] {
        return;
    }
    let folder = Folder::empty();
    let line = "bench --device 0 --op loss-grad --labels index --rows 8 --classes 10,1000000000 --min-time 0 \
                --max-time 0.01 --json b.json --csv b.csv --md b.md --svg b.svg";
    let run = folder.run(line);
    assert_eq!((run.code, &run.err[..]), (Some(0), ""), "{}", run.out);
    let skipped = "skipped: needs 32000000000 bytes in logits, and this device allows ";
    for expected in [
        "\ncold start  ",
        "\nrecording   ",
        "\nop                   dtype ",
        "\nloss-grad            f32            8        10  row_per_invocation ",
        skipped,
        "\n1 of 2 cases verified, 1 skipped\n",
        "\ncopy ",
    ] {
        assert!(run.out.contains(expected), "{expected}: {}", run.out);
    }
    assert_eq!(folder.names(), ["b.csv", "b.json", "b.md", "b.svg"]);
    let read = |name: &str| fs::read_to_string(folder.path(name)).unwrap();

    let report: Value = serde_json::from_str(&read("b.json")).unwrap();
    assert_eq!(
        keys(&report),
        "accuracy adapter backend cases clock cold_start command commit date driver machine pinned_threads recording \
         software subgroup version"
    );
    assert_eq!(
        report["command"].as_str(),
        Some(&*format!("softxent {line}"))
    );
    assert!(report["cold_start"]["engine_seconds"].as_f64().unwrap() > 0.0);
    assert!(report["recording"]["alone_seconds"].as_f64().unwrap() > 0.0);
    let [timed, not_timed] = &report["cases"].as_array().unwrap()[..] else {
        panic!("{report}");
    };
    for case in [timed, not_timed] {
        assert_eq!(
            keys(case),
            "bytes chosen classes dtype gigabytes_per_second kernel labels op options rows runs seconds share skipped \
             spread verified verified_with wrong yardstick yardstick_bytes_per_second"
        );
    }
    assert_eq!(timed["bytes"], 2 * 4 * 8 * 10 + 16 * 8);
    assert_eq!(
        (&timed["verified"], &timed["yardstick"]),
        (&true.into(), &"copy".into())
    );
    assert_ne!(timed["verified_with"], timed["kernel"]);
    let number = |key: &str| timed[key].as_f64().unwrap();
    let rate = number("bytes") / number("seconds");
    assert!((number("gigabytes_per_second") * 1e9 / rate - 1.0).abs() < 1e-9);
    assert!((number("share") * number("yardstick_bytes_per_second") / rate - 1.0).abs() < 1e-9);
    assert!(
        not_timed["skipped"]
            .as_str()
            .unwrap()
            .starts_with("needs 32000000000 bytes")
    );
    assert_eq!(
        (&not_timed["seconds"], &not_timed["verified"]),
        (&Value::Null, &false.into())
    );

    let csv = read("b.csv");
    let (comments, lines): (Vec<_>, Vec<_>) = csv.lines().partition(|line| line.starts_with('#'));
    assert_eq!(comments[0], format!("# softxent {line}"));
    let origin = format!(", softxent {}, commit ", env!("CARGO_PKG_VERSION"));
    assert!(comments[1].contains(&origin), "{}", comments[1]);
    let last = comments.last().unwrap();
    assert!(last.contains(skipped), "{last}");
    assert_eq!(
        lines[0],
        "adapter,driver,rows,classes,op,dtype,labels,options,kernel,chosen,seconds,spread,runs,clock,bytes,\
         gigabytes_per_second,yardstick_bytes_per_second,share"
    );
    let quoted = |key: &str| format!("\"{}\",", report[key].as_str().unwrap());
    let names = quoted("adapter") + &quoted("driver");
    let rest = lines[1].strip_prefix(&names).unwrap();
    assert!(
        rest.starts_with("8,10,loss-grad,f32,index,plain,row_per_invocation,true,"),
        "{rest}"
    );
    assert_eq!(rest.split(',').count(), lines[0].split(',').count() - 2);
    assert_eq!(lines.len(), 2);

    let md = read("b.md");
    let table: Vec<_> = md
        .lines()
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert_eq!(table.len(), 4, "{md}");
    for line in table {
        assert_eq!(line.matches('|').count(), 10, "{line}");
    }
    assert!(md.contains(skipped), "{md}");

    let svg = read("b.svg");
    well_formed(&svg);
    for expected in [">loss-grad f32</text>", ">10</text>", ">100 %</text>"] {
        assert!(svg.contains(expected), "{expected}: {svg}");
    }
}

/// Every element is closed, every attribute quoted, every number one.
fn well_formed(svg: &str) {
    assert!(
        svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" ") && svg.ends_with("</svg>\n")
    );
    assert!(!svg.contains("NaN") && !svg.contains("inf\""), "{svg}");
    let mut open = Vec::new();
    for part in svg.split('<').skip(1) {
        let (tag, text) = part.split_once('>').unwrap();
        assert!(
            !text.contains('>') && tag.matches('"').count() % 2 == 0,
            "{part}"
        );
        let name = tag.split(' ').next().unwrap();
        if let Some(name) = name.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{part}");
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert_eq!(open, [""; 0]);
}

#[test]
fn a_check_times_nothing() {
    if devices() == ["cpu"] {
        return;
    }
    let folder = Folder::empty();
    let line = "bench --check --op loss-grad,loss --rows 5 --classes 10 --kernel planned --json";
    let run = folder.run(line);
    assert_eq!((run.code, &run.err[..]), (Some(0), ""));
    assert_eq!(run.out.lines().count(), 1, "{}", run.out);
    let report: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(
        (&report["cold_start"], &report["recording"]),
        (&Value::Null, &Value::Null)
    );
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    for case in cases {
        assert_eq!(
            (&case["verified"], &case["seconds"]),
            (&true.into(), &Value::Null)
        );
        assert!(case["verified_with"].is_string(), "{case}");
    }
    // Nothing to draw.
    let run =
        folder.run("bench --device 0 --op loss --rows 4 --classes 1000000000 --svg - --dtype f16");
    assert_eq!(run.code, Some(0), "{}", run.err);
    well_formed(&run.out);
    assert!(run.out.contains(">nothing was timed</text>"), "{}", run.out);
}

/// A driver that leaves out what one invocation should do.
#[test]
fn a_wrong_case_is_an_error_and_named() {
    if devices() == ["cpu"] {
        return;
    }
    let folder = Folder::empty();
    // The other kernel is right, and not to be trusted with results of its own that it finds there.
    let line = "bench --check --op loss-grad,softmax-backward --rows 5 --classes 10 --kernel \
                planned,row_per_subgroup";
    let run = finish(folder.command(line).env("SOFTXENT_SIMULATE", "idle"));
    assert_eq!(run.code, Some(1), "{}", run.out);
    let all = "error: 4 cases are wrong:\n";
    assert!(run.err.starts_with(all), "{}", run.err);
    for op in ["loss-grad", "softmax-backward"] {
        for kernel in ["row_per_invocation", "row_per_subgroup"] {
            let named = format!("\n  {op} f32 5 × 10, {kernel}: ");
            assert!(run.err.contains(&named), "{named}: {}", run.err);
        }
    }
    assert_eq!(run.out.matches("  WRONG: ").count(), 4, "{}", run.out);
    let summary = "\n0 of 4 cases verified\n";
    assert!(run.out.contains(summary), "{}", run.out);
}

/// The shader of the yardstick is in no list of the library's.
#[test]
fn the_yardstick_is_valid() {
    use naga::valid::{Capabilities, ValidationFlags, Validator};
    let text = include_str!("../../shaders/yardsticks/read.wgsl");
    let module = naga::front::wgsl::parse_str(text).unwrap();
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::empty());
    validator.validate(&module).unwrap();
}
