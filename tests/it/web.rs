//! Every shader in a browser: its compiler, which is stricter than naga, and its results.
//!
//! A headless Chromium computes WebGPU on the processor. Without one the test is skipped, loudly;
//! `SOFTXENT_WEB=1` makes that a failure, `SOFTXENT_SKIP_WEB=1` skips it always, and
//! `SOFTXENT_CHROMIUM` names another browser.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use softxent::kernel::{Access, Slot, Variant};
use softxent::plan::Pass;
use softxent::{Results, Strategy};

use crate::browser;
use crate::cases::{Golden, Kind, Shape, digits, generate, golden};
use crate::common::{bits, engine, long, report, same_bits, set};
use crate::job::{Job, pipeline};
use crate::judge::Worst;
use crate::planted::BUGS;
use crate::portable::{every_pass, uses_subgroups};

/// Ten times what it takes on two cores.
const LIMIT: Duration = Duration::from_secs(600);

// ---- what the page is asked ------------------------------------------------------------------------

/// A module of the page, the text of a variant as a rule.
fn module(name: &str, variant: Variant, text: &str) -> Value {
    let binding = |(slot, access): (Slot, Access)| {
        let kind = match access {
            Access::Uniform => "uniform",
            Access::Read => "read-only-storage",
            Access::ReadWrite => "storage",
        };
        json!([slot as u32, kind])
    };
    json!({
        "name": name,
        "wgsl": text,
        "entry": variant.entry_point(),
        "subgroups": uses_subgroups(text),
        "bindings": variant.slots().into_iter().map(binding).collect::<Vec<_>>(),
    })
}

/// The golden rows, a trained classifier, and rows of several blocks and workgroups.
fn goldens() -> Vec<Golden> {
    let large = [
        digits(),
        generate(Shape::Confident, Kind::Index, 70, 130),
        generate(Shape::Ascending, Kind::Index, 9, 3001),
        generate(Shape::Wide, Kind::Dense, 5, 2500),
        generate(Shape::Masked, Kind::Index, 3, 10_000),
    ];
    let mut all: Vec<Golden> = golden()
        .into_iter()
        .filter(|one| one.case.rows > 0)
        .collect();
    all.extend(large.map(|case| Golden {
        expect: case.oracle(),
        case,
    }));
    all
}

/// Pipelines that no job needs, each of which takes the browser half a second: only where time is no
/// matter. That a shader is uniform is known from its module.
fn passes(jobs: &[Job]) -> Vec<Pass> {
    let run: HashSet<&Pass> = jobs.iter().flat_map(Job::passes).collect();
    let mut all = every_pass();
    all.retain(|pass| long() && !run.contains(pass));
    all
}

// ---- what has to be noticed ------------------------------------------------------------------------

/// Shaders that the page has to say something of: naga takes all of them.
const SUSPICIOUS: [(&str, &str, &str); 3] = [
    (
        "a barrier for a few",
        "if local < 4u { workgroupBarrier(); }",
        "error: 'workgroupBarrier' must only be called from uniform control flow",
    ),
    (
        "a subgroup operation for a few",
        "if local < 4u { _ = subgroupAdd(local); }",
        "error: 'subgroupAdd' must only be called from subgroup uniform control flow",
    ),
    (
        "code that is never reached",
        "return; workgroupBarrier();",
        "warning: code is unreachable",
    ),
];

/// One of [`BUGS`] that shows in any row with an index label.
const BUG: &str = "the label is off by one";

fn suspicious(name: &str, body: &str) -> Value {
    let text = format!(
        "@compute @workgroup_size(32)
        fn reduce(@builtin(local_invocation_index) local: u32) {{
            {body}
        }}"
    );
    module(name, Variant::Reduce, &text)
}

/// The job with a planted bug, in a module of its own.
fn buggy(job: &Job, modules: &mut Vec<Value>) -> Value {
    let bug = BUGS.iter().find(|bug| bug.0 == BUG);
    let (_, _, from, to, _) = bug.unwrap_or_else(|| panic!("no such bug: {BUG}"));
    let variants: Vec<Variant> = job.passes().map(|pass| pass.variant).collect();
    let at = variants
        .iter()
        .position(|variant| variant.wgsl().contains(from));
    let at = at.unwrap_or_else(|| panic!("{BUG}: the text to replace is gone: {from}"));
    let mut value = job.value();
    value["dispatches"][at]["module"] = modules.len().into();
    modules.push(module(
        BUG,
        variants[at],
        &variants[at].wgsl().replace(from, to),
    ));
    value
}

// ---- the test --------------------------------------------------------------------------------------

fn skip(why: &str) {
    assert!(!set("SOFTXENT_WEB"), "{why} (SOFTXENT_WEB=1)");
    report(&format!(
        "SKIPPED, nothing was tested: shaders in a browser: {why}"
    ));
}

#[test]
fn a_browser_compiles_every_shader_and_computes_what_it_should() {
    if set("SOFTXENT_SKIP_WEB") {
        return report("SKIPPED, nothing was tested: shaders in a browser (SOFTXENT_SKIP_WEB=1)");
    }
    let Some(chromium) = browser::find() else {
        return skip("there is no Chromium: install `chromium`, or name it in SOFTXENT_CHROMIUM");
    };
    let (started, variants) = (Instant::now(), Variant::all());
    let mut modules: Vec<Value> = variants
        .iter()
        .map(|&variant| module(&variant.to_string(), variant, &variant.wgsl()))
        .collect();
    modules.extend(SUSPICIOUS.map(|(name, body, _)| suspicious(name, body)));
    let (goldens, strategies) = (goldens(), Strategy::ALL);
    let mut jobs = Vec::new();
    for golden in &goldens {
        jobs.extend(
            strategies
                .iter()
                .map(|&strategy| Job::new(golden, strategy)),
        );
    }
    let mut values: Vec<Value> = jobs.iter().map(Job::value).collect();
    let passes = passes(&jobs);
    values.push(buggy(&jobs[jobs.len() - 1], &mut modules));

    let asked = json!({
        "modules": modules,
        "pipelines": passes.iter().map(pipeline).collect::<Vec<_>>(),
        "jobs": values,
    });
    let files = [
        ("/", "text/html", include_str!("../web/index.html")),
        (
            "/page.js",
            "text/javascript",
            include_str!("../web/page.js"),
        ),
        ("/jobs.json", "application/json", &asked.to_string()),
    ];
    let answer = browser::answer(&chromium, &files, LIMIT).unwrap_or_else(|why| panic!("{why}"));
    if let Some(error) = answer["error"].as_str() {
        panic!("the page failed: {error}");
    }
    let Some(adapter) = answer["adapter"].as_str() else {
        return skip("Chromium has no WebGPU adapter here");
    };

    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (messages, errors) = (list(&answer["modules"]), list(&answer["pipelines"]));
    assert_eq!(
        (messages.len(), errors.len()),
        (modules.len(), passes.len())
    );
    let (of_variants, of_suspicious) = messages.split_at(variants.len());
    for ((name, body, expected), said) in SUSPICIOUS.iter().zip(of_suspicious) {
        let left_out = said.is_null() && uses_subgroups(body);
        let heard = left_out || said.to_string().contains(expected);
        assert!(heard, "{name}: the browser says {said}");
    }
    let mut wrong = Vec::new();
    for (variant, messages) in variants.iter().zip(of_variants) {
        let messages = list(messages).into_iter();
        wrong.extend(messages.map(|text| format!("{variant}: {}", text.as_str().unwrap_or("?"))));
    }
    for (pass, error) in passes
        .iter()
        .zip(&errors)
        .filter(|(_, error)| !error.is_null())
    {
        wrong.push(format!("{}, {:?}: {error}", pass.variant, pass.constants()));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let left_out = of_variants.iter().filter(|said| said.is_null()).count();

    let (mut worst, mut found) = (Worst::default(), Vec::new());
    let results = list(&answer["jobs"]);
    assert_eq!(results.len(), values.len());
    for (job, answer) in jobs.iter().zip(&results) {
        let bits = job.results(answer).unwrap_or_else(|why| panic!("{why}"));
        job.judged(&bits, &mut worst)
            .unwrap_or_else(|why| panic!("{why}"));
        found.push(bits);
    }
    for (jobs, found) in jobs
        .chunks(strategies.len())
        .zip(found.chunks(strategies.len()))
    {
        for (job, other) in jobs.iter().zip(found) {
            let what = format!("{}, {}", job.golden.case.name, job.strategy.name());
            same_bits(&what, &found[0], other).unwrap_or_else(|why| panic!("{why}"));
        }
    }
    let (last, bug) = (&jobs[jobs.len() - 1], &results[jobs.len()]);
    let bits = last
        .results(bug)
        .unwrap_or_else(|why| panic!("{BUG}: {why}"));
    let judged = last.judged(&bits, &mut Worst::default());
    assert!(judged.is_err(), "nobody notices that {BUG}");

    report(&format!(
        "{adapter} in {}: {} shaders, {left_out} of them left out for want of subgroups; {} jobs of {} \
         strategies and {} more pipelines; seconds for shaders, pipelines, jobs {}, all {:.0}; off \
         at most by\n{worst}{}",
        chromium.display(),
        variants.len(),
        jobs.len(),
        strategies.len(),
        passes.len(),
        answer["seconds"],
        started.elapsed().as_secs_f64(),
        beside_native(&jobs, &found),
    ));
}

/// How many values have other bits than on the adapter of this machine: told, not demanded.
fn beside_native(jobs: &[Job], found: &[Results<u32>]) -> String {
    let Some(engine) = engine("a browser's bits beside the adapter's") else {
        return String::new();
    };
    let values = |results: &Results<u32>| -> Vec<u32> {
        let all = [
            &results.softmax,
            &results.log_softmax,
            &results.grad,
            &results.losses,
            &results.lse,
        ];
        all.into_iter().flatten().flatten().copied().collect()
    };
    let (mut all, mut other) = (0, 0);
    for (job, found) in jobs.iter().zip(found) {
        let native = bits(&job.golden.case.run(engine, job.strategy));
        let (native, found) = (values(&native), values(found));
        all += found.len();
        other += native.iter().zip(&found).filter(|(a, b)| a != b).count();
    }
    let name = &engine.adapter_info().name;
    format!("  {other} of {all} values have other bits than on {name}")
}
