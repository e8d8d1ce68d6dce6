//! Every shader is translated to what Vulkan, Metal and DX12 read, for devices of no more than
//! WebGPU's defaults; only shaders with subgroup operations, which no browser offers through wgpu,
//! may use those. No GPU.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use naga::back::{hlsl, msl, pipeline_constants::process_overrides, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{Module, ResourceBinding, ShaderStage};
use softxent::Dtype;
use softxent::kernel::{
    Access, Curve, GradOutput, LabelInput, Options, Slot, SoftmaxOutput, Variant,
};
use softxent::plan::Pass;

/// Every variant with its override constants at either end; [`more_options`] has what is between.
pub fn every_pass() -> Vec<Pass> {
    let everything = Options {
        labels: LabelInput::Index,
        softmax: SoftmaxOutput::Softmax,
        grad: GradOutput::Own,
        dtype: Dtype::F16,
        losses: true,
        lse: true,
        predictions: true,
        entropy: true,
        class_weights: true,
        smoothed: true,
        z_loss: true,
        low_cap: true,
        more: true,
        upstream: true,
        denominator_known: true,
        from_softmax: false,
        strided: true,
        padded: true,
    };
    let both = |variant| {
        let plain = Pass {
            team: 4,
            ..Pass::new(variant, 64, Options::PLAIN)
        };
        let all = Pass {
            team: 8,
            held: 8,
            resident: true,
            one_block: true,
            ..Pass::new(variant, 256, everything)
        };
        [plain, all]
    };
    Variant::all().into_iter().flat_map(both).collect()
}

/// Choices of options in which any two levels of any two options meet: labels, softmax, gradient and
/// dtype by Latin squares, what is on or off as in R. Plackett and J. Burman, *The design of optimum
/// multifactorial experiments*, 1946; and the same once more with on for off.
fn more_options() -> Vec<Options> {
    const LABELS: [LabelInput; 4] = [
        LabelInput::None,
        LabelInput::Index,
        LabelInput::Dense,
        LabelInput::Vector,
    ];
    const SOFTMAX: [SoftmaxOutput; 3] = [
        SoftmaxOutput::None,
        SoftmaxOutput::Softmax,
        SoftmaxOutput::LogSoftmax,
    ];
    const GRAD: [GradOutput; 3] = [GradOutput::None, GradOutput::Own, GradOutput::OverLogits];
    const ON: [bool; 11] = [
        true, true, false, true, true, true, false, false, false, true, false,
    ];
    let choice = |i: usize| {
        let (again, i) = (i / 12 == 1, i % 12);
        let (a, b) = (i % 4, i / 4);
        let on = |option: usize| (i < 11 && ON[(i + option) % 11]) != again;
        Options {
            labels: LABELS[a],
            softmax: SOFTMAX[b],
            grad: GRAD[(a + b) % 3],
            dtype: Dtype::ALL[(a + 2 * b) % 3],
            predictions: on(0),
            entropy: on(1),
            class_weights: on(2),
            smoothed: on(3),
            z_loss: on(4),
            low_cap: on(8),
            from_softmax: on(5),
            strided: on(6),
            padded: on(7),
            more: on(8),
            losses: on(9),
            lse: on(9),
            upstream: on(10),
            denominator_known: on(10),
        }
    };
    (0..24).map(choice).collect()
}

#[test]
fn any_two_options_meet() {
    let levels = |options: &Options| {
        let on = [
            options.predictions,
            options.entropy,
            options.class_weights,
            options.smoothed,
            options.z_loss,
            options.from_softmax,
            options.strided,
            options.padded,
            options.more,
        ];
        let mut levels = vec![
            (4, options.labels as usize),
            (3, options.softmax as usize),
            (3, options.grad as usize),
            (3, options.dtype as usize),
        ];
        levels.extend(on.map(|on| (2, usize::from(on))));
        levels
    };
    let all: Vec<_> = more_options().iter().map(levels).collect();
    for a in 0..all[0].len() {
        for b in 0..a {
            let pairs: BTreeSet<_> = all.iter().map(|l| (l[a].1, l[b].1)).collect();
            let most = all[0][a].0 * all[0][b].0;
            assert_eq!(pairs.len(), most, "options {b} and {a}");
        }
    }
}

/// Whether a shader has subgroup operations or built-in values: `subgroupAdd`, `subgroup_size`, outside
/// of a comment.
pub fn uses_subgroups(text: &str) -> bool {
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    let names = |code: &str| {
        let mut after = code.split("subgroup").skip(1);
        after.any(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase() || c == '_'))
    };
    text.lines().map(code).any(|code| names(&code))
}

/// What a browser allows every shader. `unpack2x16float` is WGSL without an extension.
const WEB: Capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;

fn resource(slot: Slot) -> ResourceBinding {
    ResourceBinding {
        group: 0,
        binding: slot as u32,
    }
}

type Slots<'a> = &'a [(Slot, Access)];
type Backend = fn(&Module, &ModuleInfo, &str, Slots) -> Result<(), String>;

const BACKENDS: [(&str, Backend); 3] = [("SPIR-V", to_spirv), ("MSL", to_msl), ("HLSL", to_hlsl)];

fn translate(pass: &Pass, text: &str) -> Result<(), String> {
    let (module, info) = parsed(text)?;
    translate_parsed(pass, &module, &info)
}

fn parsed(text: &str) -> Result<(Module, ModuleInfo), String> {
    // DX12 has no subgroup barrier, so they are for nobody.
    let mut capabilities = match uses_subgroups(text) {
        true => WEB | Capabilities::SUBGROUP,
        false => WEB,
    };
    // Nor has every device numbers of 64 bits.
    capabilities.set(Capabilities::SHADER_INT64, text.contains("u64"));
    let module = naga::front::wgsl::parse_str(text).map_err(|error| error.emit_to_string(text))?;
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .map_err(|error| error.emit_to_string(text))?;
    Ok((module, info))
}

fn translate_parsed(pass: &Pass, module: &Module, info: &ModuleInfo) -> Result<(), String> {
    let entry = pass.variant.entry_point();
    let constants = pass.constants().into_iter();
    let (module, info) = process_overrides(
        module,
        info,
        Some((ShaderStage::Compute, entry)),
        &constants
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
    .map_err(|error| format!("its constants: {error}"))?;
    let refused: Vec<String> = BACKENDS
        .iter()
        .filter_map(|(name, write)| {
            let why = write(&module, &info, entry, &pass.variant.slots()).err()?;
            Some(format!("{name}: {why}"))
        })
        .collect();
    match refused.is_empty() {
        true => Ok(()),
        false => Err(refused.join("; ")),
    }
}

/// For Vulkan 1.1, with what it always has; subgroups are a feature there.
fn to_spirv(module: &Module, info: &ModuleInfo, entry: &str, slots: Slots) -> Result<(), String> {
    use spv::Capability as Can;
    let binding = |&(slot, _): &(Slot, Access)| {
        let info = spv::BindingInfo {
            descriptor_set: 0,
            binding: slot as u32,
            binding_array_size: None,
        };
        (resource(slot), info)
    };
    let options = spv::Options {
        lang_version: (1, 3),
        flags: spv::WriterFlags::empty(),
        fake_missing_bindings: false,
        binding_map: slots.iter().map(binding).collect(),
        capabilities: Some(
            [
                Can::Shader,
                Can::GroupNonUniform,
                Can::GroupNonUniformVote,
                Can::GroupNonUniformArithmetic,
                Can::GroupNonUniformBallot,
                Can::GroupNonUniformShuffle,
                Can::GroupNonUniformShuffleRelative,
            ]
            .into_iter()
            .collect(),
        ),
        ..spv::Options::default()
    };
    let pipeline = spv::PipelineOptions {
        shader_stage: ShaderStage::Compute,
        entry_point: entry.to_owned(),
    };
    let words = spv::write_vec(module, info, &options, Some(&pipeline))
        .map_err(|error| error.to_string())?;
    match words.first() {
        Some(0x0723_0203) => Ok(()),
        other => Err(format!("it starts with {other:x?}")),
    }
}

fn to_msl(module: &Module, info: &ModuleInfo, entry: &str, slots: Slots) -> Result<(), String> {
    let binding = |(number, &(slot, access)): (usize, &(Slot, Access))| {
        let target = msl::BindTarget {
            buffer: Some(number as u8),
            mutable: access == Access::ReadWrite,
            ..msl::BindTarget::default()
        };
        (resource(slot), target)
    };
    let resources = msl::EntryPointResources {
        resources: slots.iter().enumerate().map(binding).collect(),
        sizes_buffer: Some(slots.len() as u8),
        immediates_buffer: None,
    };
    let options = msl::Options {
        lang_version: (2, 4),
        fake_missing_bindings: false,
        per_entry_point_map: [(entry.to_owned(), resources)].into_iter().collect(),
        ..msl::Options::default()
    };
    let pipeline = msl::PipelineOptions {
        entry_point: Some((ShaderStage::Compute, entry.to_owned())),
        ..msl::PipelineOptions::default()
    };
    let (_, translated) =
        msl::write_string(module, info, &options, &pipeline).map_err(|error| error.to_string())?;
    named(translated.entry_point_names, entry)
}

fn to_hlsl(module: &Module, info: &ModuleInfo, entry: &str, slots: Slots) -> Result<(), String> {
    // Registers are counted by kind: b for uniforms, t for what is read, u for what is written.
    let mut used = BTreeMap::new();
    let mut binding = |&(slot, access): &(Slot, Access)| {
        let kind = match access {
            Access::Uniform => 'b',
            Access::Read => 't',
            Access::ReadWrite => 'u',
        };
        let next = used.entry(kind).or_insert(0);
        let target = hlsl::BindTarget {
            register: *next,
            restrict_indexing: true,
            ..hlsl::BindTarget::default()
        };
        *next += 1;
        (resource(slot), target)
    };
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_0,
        fake_missing_bindings: false,
        binding_map: slots.iter().map(&mut binding).collect(),
        // `num_workgroups` comes from the host there.
        special_constants_binding: Some(hlsl::BindTarget {
            space: 1,
            ..hlsl::BindTarget::default()
        }),
        ..hlsl::Options::default()
    };
    let pipeline = hlsl::PipelineOptions {
        entry_point: Some((ShaderStage::Compute, entry.to_owned())),
    };
    let mut text = String::new();
    let translated = hlsl::Writer::new(&mut text, &options, &pipeline)
        .write(module, info, None)
        .map_err(|error| error.to_string())?;
    named(translated.entry_point_names, entry)
}

/// A backend may leave out an entry point without failing.
fn named<E: ToString>(names: Vec<Result<String, E>>, entry: &str) -> Result<(), String> {
    match names.first() {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(error.to_string()),
        None => Err(format!("no entry point {entry}")),
    }
}

#[test]
fn every_variant_is_a_shader_for_vulkan_metal_and_dx12() {
    let (passes, more) = (every_pass(), more_options());
    let by_words = Variant::all().into_iter().map(|variant| (variant, false));
    let by_pairs = Variant::all().into_iter().map(|variant| (variant, true));
    // Which the way from x to z has no part in.
    let by_pairs = by_pairs.filter(|&(variant, pairs)| {
        let is_plain = matches!(
            variant,
            Variant::Row {
                curve: Curve::Plain,
                ..
            }
        );
        is_plain && variant.wgsl(pairs) != variant.wgsl(false)
    });
    for (variant, pairs) in by_words.chain(by_pairs) {
        let (module, info) =
            parsed(&variant.wgsl(pairs)).unwrap_or_else(|why| panic!("{variant}: {why}"));
        let ends = passes.iter().filter(|pass| pass.variant == variant);
        let between = more.iter().map(|&options| Pass {
            team: 8,
            held: 4,
            ..Pass::new(variant, 64, options)
        });
        let mut seen = HashSet::new();
        for pass in ends.copied().chain(between) {
            // Few shaders have all of the constants.
            let constants = pass.constants();
            if !seen.insert(format!("{constants:?}")) || (pairs && seen.len() > 1) {
                continue;
            }
            if let Err(why) = translate_parsed(&pass, &module, &info) {
                panic!("{pass}, {constants:?}: {why}");
            }
        }
    }
}

/// Who asks for a shader without subgroups by its name gets one.
#[test]
fn subgroups_are_used_where_the_name_says_so() {
    for variant in Variant::all() {
        let named = variant.to_string().contains("shuffle");
        assert_eq!(uses_subgroups(&variant.wgsl(false)), named, "{variant}");
    }
}

#[test]
fn what_is_not_portable_is_refused() {
    let pass = Pass::new(Variant::Reduce, 32, Options::PLAIN);
    let with = |slot: Slot, lines: &str| {
        format!(
            "override DENOMINATOR_KNOWN: bool = false;
             override CLASS_WEIGHTS: bool = false;
             @group(0) @binding({}) var<storage, read_write> words: array<u32>;
             @compute @workgroup_size(32)
             fn reduce(@builtin(local_invocation_index) local: u32) {{ {lines} }}",
            slot as u32
        )
    };
    let shader = |lines: &str| with(Slot::Accumulators, lines);
    for (lines, word) in [
        ("words[local] = local", "expected"),
        ("words[local] = f32(local);", "type"),
        ("words[local] = u32(f64(local));", "cast"),
        ("subgroupBarrier();", "SUBGROUP_BARRIER"),
    ] {
        let why = translate(&pass, &shader(lines)).expect_err(lines);
        assert!(why.contains(word), "{lines}: {why}");
    }
    for lines in ["words[local] = 1u;", "words[local] = subgroupAdd(local);"] {
        translate(&pass, &shader(lines)).unwrap_or_else(|why| panic!("{lines}: {why}"));
    }
    assert!(
        pass.variant
            .slots()
            .iter()
            .all(|(slot, _)| *slot != Slot::Grad)
    );
    let unbound = with(Slot::Grad, "words[local] = 1u;");
    let why = translate(&pass, &unbound).expect_err("a binding that is none of the variant's");
    for (name, _) in BACKENDS {
        assert!(
            why.contains(name),
            "{name} takes a binding of no one's: {why}"
        );
    }
}
