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
use softxent::{Denominator, Dtype, EmptyMean, Results, Strategy, Wanted};

use crate::browser;
use crate::cases::{self, Golden, Kind, Shape, digits, generate, golden, some_weights};
use crate::common::{Case, bits, engine, long, report, same_bits, set};
use crate::job::{Job, pipeline, promised};
use crate::judge::{Worst, check_rounded};
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

/// Jobs with options, each by one strategy: few, as a pipeline takes the browser half a second, and such
/// that every option and every kind of array is among them.
fn with_options() -> Vec<(Golden, Strategy)> {
    use Strategy::{RowPerInvocation, RowPerSubgroup, RowPerWorkgroup, SplitRow};
    let mut all: Vec<_> = [
        (Kind::Index, 24, 5, 8, RowPerInvocation),
        (Kind::Index, 24, 33, 9, RowPerSubgroup),
        (Kind::Dense, 24, 130, 11, RowPerWorkgroup),
        (Kind::Index, 6, 2500, 41, SplitRow),
        (Kind::Signed, 24, 7, 31, RowPerInvocation),
        (Kind::Vector, 24, 40, 2, RowPerSubgroup),
        (Kind::FromSoftmax, 6, 1500, 4, RowPerWorkgroup),
        (Kind::Index, 24, 1100, 28, RowPerWorkgroup),
    ]
    .map(|(kind, rows, k, turn, strategy)| {
        let case = cases::with_options(generate(Shape::Wide, kind, rows, k), turn);
        (case, strategy)
    })
    .into();
    // The mean of nothing, and what is left of the z-loss; one pipeline for all that follow.
    let mut case = generate(Shape::Confident, Kind::Index, 24, 5);
    case.z_loss = 0.5;
    case = case.want([Wanted::Loss, Wanted::Losses, Wanted::ZLoss, Wanted::Grad]);
    for empty_mean in [EmptyMean::Nan, EmptyMean::Zero] {
        (case.class_weights, case.empty_mean) = (vec![0.0; 5], empty_mean);
        all.push((case.clone(), RowPerInvocation));
    }
    case.class_weights = some_weights(5);
    for denominator in [
        Denominator::Weights,
        Denominator::ValidRows,
        Denominator::Number(37.5),
        Denominator::Buffer,
    ] {
        (case.denominator, case.denominator_value) = (denominator, 37.5);
        all.push((case.clone(), RowPerInvocation));
    }
    (case.denominator, case.shared) = (Denominator::Weights, true);
    case.upstream = vec![-2.5];
    all.push((case, RowPerInvocation));
    let golden = |(mut case, strategy): (Case, Strategy)| {
        case.name += &format!(", {:?}", case.denominator);
        // What a buffer holds is for the device alone.
        let mut told = case.clone();
        if case.denominator == Denominator::Buffer {
            told.denominator = Denominator::Number(case.denominator_value);
        }
        let expect = told.oracle();
        (Golden { case, expect }, strategy)
    };
    all.into_iter().map(golden).collect()
}

/// The gradient of one job in f32, in 16 bits, and in those over the logits: odd widths, whose rows share
/// words.
fn in_halves() -> Vec<(Golden, Strategy)> {
    let jobs = [
        (Dtype::F16, Kind::Index, 7, 33, Strategy::RowPerInvocation),
        (Dtype::Bf16, Kind::Dense, 5, 1029, Strategy::RowPerSubgroup),
        (Dtype::Bf16, Kind::Vector, 3, 67, Strategy::RowPerWorkgroup),
        (Dtype::F16, Kind::Index, 3, 2051, Strategy::SplitRow),
    ];
    let three = |(dtype, kind, rows, k, strategy)| {
        let mut wide = generate(Shape::Wide, kind, rows, k).store(dtype);
        wide.logits[k / 2] = f32::NAN;
        wide = wide.want([Wanted::Grad]);
        let narrow = Case {
            same_dtype_out: true,
            ..wide.clone()
        };
        let over = Case {
            over_logits: true,
            ..narrow.clone()
        };
        [wide, narrow, over].map(|case| {
            let expect = case.oracle();
            (Golden { case, expect }, strategy)
        })
    };
    jobs.into_iter().flat_map(three).collect()
}

/// Pipelines that no job needs, each of which takes the browser half a second: only where time is no
/// matter. That a shader is uniform is known from its module.
fn passes(jobs: &[Job]) -> Vec<Pass> {
    let run: HashSet<&Pass> = jobs.iter().flat_map(Job::passes).collect();
    let mut all = every_pass();
    let promised = promised();
    all.retain(|pass| long() && promised.contains(&pass.variant) && !run.contains(pass));
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

/// The job with a planted bug, in modules of its own.
fn buggy(job: &Job, modules: &mut Vec<Value>) -> Value {
    let bug = BUGS.iter().find(|bug| bug.0 == BUG);
    let (_, _, from, to, _) = bug.unwrap_or_else(|| panic!("no such bug: {BUG}"));
    let (mut value, mut planted) = (job.value(), false);
    for (i, pass) in job.passes().enumerate() {
        let text = pass.variant.wgsl(false);
        if text.contains(from) {
            value["dispatches"][i]["module"] = modules.len().into();
            modules.push(module(BUG, pass.variant, &text.replace(from, to)));
            planted = true;
        }
    }
    assert!(planted, "{BUG}: the text to replace is gone: {from}");
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
    let (started, variants) = (Instant::now(), promised());
    let mut modules: Vec<Value> = variants
        .iter()
        .map(|&variant| module(&variant.to_string(), variant, &variant.wgsl(false)))
        .collect();
    modules.extend(SUSPICIOUS.map(|(name, body, _)| suspicious(name, body)));
    let (goldens, options, halves) = (goldens(), with_options(), in_halves());
    let strategies = Strategy::ALL;
    let mut jobs = Vec::new();
    for golden in &goldens {
        let all = strategies.iter();
        jobs.extend(all.map(|&strategy| Job::new(golden, strategy)));
    }
    let plain = jobs.len();
    let more = options.iter().chain(&halves);
    jobs.extend(more.map(|(golden, by)| Job::new(golden, *by)));
    let mut values: Vec<Value> = jobs.iter().map(Job::value).collect();
    let passes = passes(&jobs);
    values.push(buggy(&jobs[plain - 1], &mut modules));

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
        if !job.golden.case.same_dtype_out {
            job.judged(&bits, &mut worst)
                .unwrap_or_else(|why| panic!("{why}"));
        }
        found.push(bits);
    }
    let first_halves = plain + options.len();
    for (jobs, found) in jobs[first_halves..]
        .chunks(3)
        .zip(found[first_halves..].chunks(3))
    {
        let (case, strategy) = (&jobs[0].golden.case, jobs[0].strategy.name());
        let what = format!("{}, {strategy}", case.name);
        let of = |at: usize| found[at].map(f32::from_bits);
        check_rounded(&what, case.dtype, &of(0), &of(1))
            .and_then(|()| same_bits(&what, &found[1], &found[2]))
            .unwrap_or_else(|why| panic!("{why}"));
    }
    for (jobs, found) in jobs[..plain]
        .chunks(strategies.len())
        .zip(found[..plain].chunks(strategies.len()))
    {
        for (job, other) in jobs.iter().zip(found) {
            let what = format!("{}, {}", job.golden.case.name, job.strategy.name());
            same_bits(&what, &found[0], other).unwrap_or_else(|why| panic!("{why}"));
        }
    }
    let (last, bug) = (&jobs[plain - 1], &results[jobs.len()]);
    let bits = last
        .results(bug)
        .unwrap_or_else(|why| panic!("{BUG}: {why}"));
    let judged = last.judged(&bits, &mut Worst::default());
    assert!(judged.is_err(), "nobody notices that {BUG}");

    report(&format!(
        "{adapter} in {}: {} shaders, {left_out} of them left out for want of subgroups; {} jobs of {} \
         strategies, {} with options, and {} more pipelines; seconds for shaders, pipelines, jobs {}, all {:.0}; off \
         at most by\n{worst}{}",
        chromium.display(),
        variants.len(),
        plain,
        strategies.len(),
        jobs.len() - plain,
        passes.len(),
        answer["seconds"],
        started.elapsed().as_secs_f64(),
        beside_native(&jobs[..plain], &found),
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
        // A software driver takes no row that is too long for one invocation.
        if !job.golden.case.kernels(engine).contains(&job.strategy) {
            continue;
        }
        let native = bits(&job.golden.case.run(engine, job.strategy));
        let (native, found) = (values(&native), values(found));
        all += found.len();
        other += native.iter().zip(&found).filter(|(a, b)| a != b).count();
    }
    let name = &engine.adapter_info().name;
    format!("  {other} of {all} values have other bits than on {name}")
}
