//! Tables of the README that are made from committed results.
//!
//! `SOFTXENT_BLESS=1 cargo test --release --test it readme` writes them anew.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use crate::common::set;

/// What `softxent check --exhaustive --json` said.
const CHECK: &str = "benches/results/2026-11-26_llvmpipe_check.json";
const BEGIN: &str = "<!-- Made from the results of `softxent check` by tests/it/readme.rs -->\n";
/// What `benches/peers` said.
const PEERS: &str = "benches/results/2026-11-26_llvmpipe_peers.csv";
const BEGIN_RATIOS: &str =
    "<!-- Made from the results of `benches/peers` by tests/it/readme.rs -->\n";
/// What `softxent bench --csv` said.
const RATES: &str = "benches/results/2026-11-26_llvmpipe_throughput.csv";
const BEGIN_RATES: &str =
    "<!-- Made from the results of `softxent bench` by tests/it/readme.rs -->\n";
/// What `softxent bench --options --csv` said.
const OPTIONS: &str = "benches/results/2026-11-26_llvmpipe_options.csv";
const BEGIN_OPTIONS: &str =
    "<!-- Made from the results of `softxent bench --options` by tests/it/readme.rs -->\n";
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

/// A CSV whose lines of comment begin with #: the first of these, the date that the second begins with, and
/// the other lines by column.
struct Csv {
    comment: String,
    date: String,
    lines: Vec<HashMap<String, String>>,
}

impl Csv {
    fn read(file: &str) -> Csv {
        let text = read(file);
        let (comments, lines): (Vec<_>, Vec<_>) =
            text.lines().partition(|line| line.starts_with('#'));
        let mut cells = lines.into_iter().map(cells_of);
        let names = cells.next().unwrap_or_else(|| panic!("{file}: no columns"));
        let by_name = |cells: Vec<String>| {
            assert_eq!(cells.len(), names.len(), "{file}: {cells:?}");
            names.iter().cloned().zip(cells).collect()
        };
        let said = |at: usize| {
            comments
                .get(at)
                .map_or("", |line| line.trim_start_matches(['#', ' ']))
        };
        Csv {
            comment: said(0).to_owned(),
            date: said(1).split(',').next().unwrap_or_default().to_owned(),
            lines: cells.map(by_name).collect(),
        }
    }

    /// The numbers of a column, each once, in order.
    fn numbers(&self, column: &str) -> Vec<usize> {
        let number = |line: &HashMap<String, String>| line[column].parse().unwrap();
        let all: BTreeSet<usize> = self.lines.iter().map(number).collect();
        all.into_iter().collect()
    }
}

/// The cells of a line, in which quotes hold commas together.
fn cells_of(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    for letter in line.chars() {
        match letter {
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            other => cells.last_mut().unwrap().push(other),
        }
    }
    cells
}

/// Two digits, or all before the point.
fn short(value: f64) -> String {
    let places = (1.0 - value.abs().log10().floor()).max(0.0) as usize;
    format!("{value:.places$}")
}

/// 2^20 as 2²⁰.
fn power_of_two(number: usize) -> String {
    let digits = "⁰¹²³⁴⁵⁶⁷⁸⁹";
    let raised = |digit: char| digits.chars().nth(digit as usize - '0' as usize).unwrap();
    let exponent = (number as f64).log2().round().to_string();
    format!("2{}", exponent.chars().map(raised).collect::<String>())
}

/// How many times as fast as others softxent is.
fn ratios(file: &str) -> String {
    let csv = Csv::read(file);
    // The size that was asked for; as many rows as it holds.
    let size = |line: &HashMap<String, String>| {
        let elements: f64 = line["elements"].parse().unwrap();
        elements.log2().round() as u32
    };
    let sizes: BTreeSet<u32> = csv.lines.iter().map(size).collect();
    let mut head = "| classes |".to_owned();
    for name in ["PyTorch", "burn"] {
        for size in &sizes {
            head += &format!(" {name}, {} |", power_of_two(1 << size));
        }
    }
    let mut lines = vec![head, format!("|---|{}", "---|".repeat(2 * sizes.len()))];
    let mut all: [Vec<f64>; 2] = Default::default();
    let mut wrong = false;
    for classes in csv.numbers("classes") {
        let mut text = format!("| {classes} |");
        for (name, all) in ["torch", "burn"].into_iter().zip(&mut all) {
            for of in &sizes {
                let here = |line: &&HashMap<String, String>| {
                    line["classes"] == classes.to_string() && size(line) == *of
                };
                let line = csv.lines.iter().find(here);
                let ratio =
                    line.and_then(|line| line[&format!("softxent_over_{name}")].parse().ok());
                text += &match (ratio, line) {
                    (Some(ratio), Some(line)) => {
                        all.push(ratio);
                        let mark = !line[&format!("{name}_is_wrong")].is_empty();
                        wrong |= mark;
                        format!(" {}{} |", short(ratio), if mark { " ¹" } else { "" })
                    }
                    _ => " – |".to_owned(),
                };
            }
        }
        lines.push(text);
    }
    lines.push(String::new());
    for (name, ratios) in ["PyTorch", "burn"].into_iter().zip(&all) {
        let count = |least: f64| ratios.iter().filter(|&&ratio| ratio >= least).count();
        let mean = ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64;
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        lines.push(format!(
            "{name}: {} times as fast in the geometric mean, {} at least; of {} shapes {} at 0.5 and more, \
             {} at 1, {} at 10.  ",
            short(mean.exp()),
            short(least),
            ratios.len(),
            count(0.5),
            count(1.0),
            count(10.0),
        ));
    }
    if wrong {
        lines.push(
            "¹ burn's loss or gradient is wrong there: the column burn_is_wrong says by how much.  "
                .to_owned(),
        );
    }
    let first = &csv.lines[0];
    lines.push(format!(
        "– a batch that burn cannot allocate. <sub>{}, {}, {} cores; PyTorch {}, burn {}; {}, in \
         `benches/peers`; all of it: [{file}]({file}).</sub>",
        first["adapter"],
        first["driver"],
        first["cores"],
        first["torch_version"],
        first["burn_version"],
        csv.comment,
    ));
    lines.join("\n") + "\n"
}

/// GB/s of the kernels that the planner chooses.
fn rates(file: &str) -> String {
    let csv = Csv::read(file);
    let columns = [
        ("loss", "f32"),
        ("softmax", "f32"),
        ("loss-grad", "f32"),
        ("loss-grad", "f16"),
        ("loss-grad", "bf16"),
    ];
    let names = columns.map(|(op, dtype)| format!(" {op}, {dtype} |"));
    let mut lines = vec![
        format!("| classes |{}", names.concat()),
        format!("|---|{}", "---|".repeat(columns.len())),
    ];
    for classes in csv.numbers("classes") {
        let cell = |(op, dtype): (&str, &str)| {
            let here = |line: &&HashMap<String, String>| {
                line["classes"] == classes.to_string()
                    && line["op"] == op
                    && line["dtype"] == dtype
                    && line["chosen"] == "true"
            };
            // Of several numbers of rows the most.
            let most = csv
                .lines
                .iter()
                .filter(here)
                .max_by_key(|line| line["rows"].parse::<usize>().unwrap());
            most.map_or(" |".to_owned(), |line| {
                format!(
                    " {} |",
                    short(line["gigabytes_per_second"].parse().unwrap())
                )
            })
        };
        lines.push(format!("| {classes} |{}", columns.map(cell).concat()));
    }
    let first = &csv.lines[0];
    lines.push(String::new());
    lines.push(format!(
        "<sub>GB/s of the bytes that have to move. {}, {}, {}; `{}`; all of it: [{file}]({file}).</sub>",
        first["adapter"], first["driver"], csv.date, csv.comment,
    ));
    lines.join("\n") + "\n"
}

/// What options cost: GB/s, and that as a share of the same labels without any.
fn options(file: &str) -> String {
    let csv = Csv::read(file);
    let rate = |labels: &str, options: &str| -> f64 {
        let here = |line: &&HashMap<String, String>| {
            line["labels"] == labels && line["options"] == options
        };
        let line = csv.lines.iter().find(here);
        let line = line.unwrap_or_else(|| panic!("{file}: no {labels} with {options}"));
        line["gigabytes_per_second"].parse().unwrap()
    };
    let mut lines = vec![
        "| options | index labels | dense labels |".to_owned(),
        "|---|---|---|".to_owned(),
    ];
    let mut seen = Vec::new();
    for line in &csv.lines {
        let options = &line["options"];
        if seen.contains(options) {
            continue;
        }
        seen.push(options.clone());
        let cell = |labels| {
            let (found, plain) = (rate(labels, options), rate(labels, "plain"));
            format!(" {} GB/s, {:.0} % |", short(found), 100.0 * found / plain)
        };
        lines.push(format!("| {options} |{}{}", cell("index"), cell("dense")));
    }
    let first = &csv.lines[0];
    lines.push(String::new());
    lines.push(format!(
        "<sub>{}, {}, {} × {} f32, {}; `{}`; all of it: [{file}]({file}).</sub>",
        first["adapter"], first["driver"], first["rows"], first["classes"], csv.date, csv.comment,
    ));
    lines.join("\n") + "\n"
}

/// Puts a table between its marks into the README, or compares.
fn current(begin: &str, indent: &str, table: &str) {
    let readme = read("README.md");
    let (before, rest) = readme.split_once(begin).expect("no beginning of the table");
    let (found, after) = rest.split_once(END).expect("no end of the table");
    // The marks are indented as the table is.
    let expected = format!("\n{table}\n{indent}");
    if set("SOFTXENT_BLESS") {
        let whole = format!("{before}{begin}{expected}{END}{after}");
        std::fs::write(path("README.md"), whole).unwrap();
        return;
    }
    assert!(
        found == expected,
        "README.md has another table than its results, which is\n{expected}\
         SOFTXENT_BLESS=1 cargo test --release --test it readme puts it there"
    );
}

#[test]
fn the_tables_of_the_readme() {
    current(BEGIN, "  ", &table(CHECK));
    current(BEGIN_RATIOS, "", &ratios(PEERS));
    current(BEGIN_RATES, "", &rates(RATES));
    current(BEGIN_OPTIONS, "", &options(OPTIONS));
}

/// Each line of the guarantees names a test, and each test that it names exists.
#[test]
fn guarantees_name_tests_that_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("src/guarantees.rs")).unwrap();
    let mut named = 0;
    for line in page.lines().filter(|line| line.starts_with("//! | ")) {
        let (_, tests) = line.trim_end_matches(" |").rsplit_once(" | ").unwrap();
        if tests == "test" {
            continue;
        }
        for test in tests.split(", ") {
            let (module, function) = test.trim_matches('`').split_once("::").unwrap();
            let text = std::fs::read_to_string(root.join(format!("tests/it/{module}.rs"))).unwrap();
            let is_test = text.split("#[test]").skip(1).any(|test| {
                let (_, name) = test.split_once("fn ").unwrap();
                name.starts_with(&format!("{function}()"))
            });
            assert!(is_test, "there is no test {test}");
            named += 1;
        }
    }
    assert!(named > 40, "{named} tests");
}
