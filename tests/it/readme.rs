//! Tables of the README that are made from committed results.
//!
//! `SOFTXENT_BLESS=1 cargo test --release --test it readme` writes them anew.

use serde_json::Value;

use crate::common::set;

/// What `softxent check --exhaustive --json` said.
const CHECK: &str = "benches/results/2026-11-25_llvmpipe_check.json";
const BEGIN: &str = "<!-- Made from the results of `softxent check` by tests/it/readme.rs -->\n";
const END: &str = "<!-- end -->\n";

fn path(name: &str) -> String {
    format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key}"))
}

/// The largest `found` of the rows of this name and these dtypes, and what is allowed.
fn worst(check: &Value, name: &str, dtypes: &[&str]) -> (f64, f64) {
    let rows = check["rows"].as_array().unwrap().iter();
    let rows = rows.filter(|row| row["name"] == name && dtypes.contains(&text(row, "dtype")));
    // "Infinity" is what is no number.
    let pair = |row: &Value| {
        let found = row["found"].as_f64().unwrap_or(f64::INFINITY);
        (found, row["allowed"].as_f64().unwrap())
    };
    rows.map(pair)
        .reduce(|a, b| if b.0 > a.0 { b } else { a })
        .unwrap_or_else(|| panic!("no {name} of {dtypes:?}"))
}

/// 1120927745 as 1 120 927 745.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let group = |group: &[u8]| String::from_utf8(group.to_vec()).unwrap();
    let groups: Vec<String> = digits.as_bytes().rchunks(3).rev().map(group).collect();
    groups.join(" ")
}

fn table(file: &str) -> String {
    let check: Value = serde_json::from_str(&read(file)).unwrap();
    assert_eq!(check["verdict"], "kept", "{file}");
    let mut lines = vec![
        "| promise | allowed | worst, f32 logits | worst, f16 and bf16 logits |".to_owned(),
        "|---|---|---|---|".to_owned(),
    ];
    for (name, label, digits) in [
        ("softmax", "softmax", None),
        ("loss", "loss of a row, index labels", None),
        ("gradient", "gradient, index labels", None),
        ("|1 - sum of softmax|", "\\|1 − Σp\\| of a row", Some(1)),
        ("|sum of gradient|", "\\|Σ gradient\\| of a row", Some(1)),
    ] {
        let number = |value: f64| match digits {
            None => format!("{value:.2} ULP"),
            Some(digits) => format!("{value:.digits$e}"),
        };
        let (single, allowed) = worst(&check, name, &["f32"]);
        let (half, _) = worst(&check, name, &["f16", "bf16"]);
        let allowed = match digits {
            None => format!("{allowed} ULP"),
            Some(_) => format!("{allowed:e}"),
        };
        let (single, half) = (number(single), number(half));
        lines.push(format!("| {label} | {allowed} | {single} | {half} |"));
    }
    for (key, label) in [
        ("kernels", "rows with other bits in another kernel"),
        ("batches", "rows with other bits in another batch"),
    ] {
        let count = |count: &str| grouped(check[key][count].as_u64().unwrap());
        let (differing, rows) = (count("differing"), count("rows"));
        lines.push(format!(
            "| {label} | 0 | {differing} of {rows}, all dtypes | |"
        ));
    }
    let runs = |key: &str| check["runs"][key].as_u64().unwrap();
    lines.push(format!(
        "| different results of {} runs | 1 | {}, all dtypes | |",
        runs("runs"),
        runs("hashes")
    ));
    lines.push(String::new());

    for (name, range) in [("exp", "[−104, −0]"), ("log1p", "[0, 2³²]")] {
        let (found, allowed) = worst(&check, name, &["f32"]);
        let rows = check["rows"].as_array().unwrap().iter();
        let of = rows.filter(|row| row["name"] == name);
        let values: u64 = of.map(|row| row["values"].as_u64().unwrap()).sum();
        let which = match check["exhaustive"].as_bool() {
            Some(true) => "every",
            _ => "a sample of the",
        };
        lines.push(format!(
            "`{name}` of {which} f32 in {range}, {} values: {found:.2} ULP, {allowed} allowed.  ",
            grouped(values)
        ));
    }
    lines.push(String::new());
    lines.push(format!(
        "<sub>{}, {}, {}, up to {} classes, {}, `{}`; all of it: [{file}]({file}).</sub>",
        text(&check, "adapter"),
        text(&check, "driver"),
        text(&check, "machine"),
        check["max_classes"],
        text(&check, "date"),
        text(&check, "command"),
    ));
    let indented = |line: String| match line.is_empty() {
        true => "\n".to_owned(),
        false => format!("  {line}\n"),
    };
    lines.into_iter().map(indented).collect()
}

#[test]
fn the_accuracy_table_of_the_readme() {
    let readme = read("README.md");
    let (before, rest) = readme.split_once(BEGIN).expect("no beginning of the table");
    let (found, after) = rest.split_once(END).expect("no end of the table");
    // The markers are indented as the table is.
    let expected = format!("\n{}\n  ", table(CHECK));
    if set("SOFTXENT_BLESS") {
        let whole = format!("{before}{BEGIN}{expected}{END}{after}");
        std::fs::write(path("README.md"), whole).unwrap();
        return;
    }
    assert!(
        found == expected,
        "README.md has another table than {}, which is\n{expected}\
         SOFTXENT_BLESS=1 cargo test --release --test it readme puts it there",
        CHECK
    );
}
