//! What the host and the shaders must agree on, read from the text of every variant by naga:
//! bindings, the parameter block, constants, entry points, override constants. No GPU.

use std::collections::{BTreeMap, BTreeSet};

use naga::{AddressSpace, Expression, Literal, StorageAccess, TypeInner};
use softxent::Dtype;
use softxent::kernel::{
    ACCUMULATOR_WORDS, Access, BLOCK, COUNTED_WORDS, DENOMINATOR_IN_BUFFER, DENOMINATOR_IS_COUNT,
    DENOMINATOR_IS_WEIGHTS, EMPTY_IS_ZERO, Exchange, LANES, LabelInput, NOT_WANTED, Options,
    Params, ROWS_EACH, SLOT, STATE_WORDS, Slot, Variant, status,
};
use softxent::plan::Pass;

struct Parsed {
    variant: Variant,
    text: String,
    module: naga::Module,
}

fn all() -> Vec<Parsed> {
    use naga::valid::{Capabilities, ValidationFlags, Validator};
    let parse = |variant: Variant| {
        let text = variant.wgsl(false);
        let module = naga::front::wgsl::parse_str(&text)
            .unwrap_or_else(|error| panic!("{variant}: {}", error.emit_to_string(&text)));
        // Shuffles are all that goes beyond what every adapter has.
        let shuffles = match variant {
            Variant::ShuffleTest => true,
            Variant::Row { exchange, .. } => exchange == Exchange::Shuffle,
            _ => false,
        };
        let capabilities = match shuffles {
            true => Capabilities::SUBGROUP,
            false => Capabilities::empty(),
        };
        Validator::new(ValidationFlags::all(), capabilities)
            .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
            .subgroup_operations(naga::valid::SubgroupOperationSet::SHUFFLE)
            .validate(&module)
            .unwrap_or_else(|error| panic!("{variant}: {}", error.emit_to_string(&text)));
        Parsed {
            variant,
            text,
            module,
        }
    };
    Variant::all().into_iter().map(parse).collect()
}

impl Parsed {
    /// The u32 constants by name.
    fn constants(&self) -> BTreeMap<&str, u32> {
        let of = |constant: &'_ naga::Constant| match self.module.global_expressions[constant.init]
        {
            Expression::Literal(Literal::U32(value)) => Some(value),
            _ => None,
        };
        let named = self
            .module
            .constants
            .iter()
            .filter_map(|(_, constant)| Some((constant.name.as_deref()?, of(constant)?)));
        named.collect()
    }
}

#[test]
fn there_are_as_many_variants_as_the_house_allows() {
    let ids: BTreeSet<String> = Variant::all().iter().map(ToString::to_string).collect();
    // Two kinds of sums; logits and outputs by words, vectors, vectors in halves, or in words though
    // logits are shifted, of which the last two leave logits alone; and whether rows are finished. One
    // kernel without teams, two with them, in memory and by shuffles, and what finishes split rows, which write
    // shifted rows by vectors too; of split rows the states, by either.
    let (bare, writes) = (2 * (2 + 2 + 1), 2 * (2 + 2 + 1 + 2 + 1));
    let rows = (1 + 2 * 2 + 1) * (writes + 2) * 2 + 2 * bare;
    // Three ways from x to z.
    assert_eq!(Variant::all().len(), 5 + 3 * (2 + rows));
    assert_eq!(ids.len(), Variant::all().len(), "two variants have one id");
}

#[test]
fn every_variant_binds_what_it_says() {
    for Parsed {
        variant, module, ..
    } in all()
    {
        let mut bound: Vec<(u32, String, Access)> = Vec::new();
        for (_, global) in module.global_variables.iter() {
            let Some(binding) = &global.binding else {
                continue;
            };
            assert_eq!(binding.group, 0, "{variant}");
            let access = match global.space {
                AddressSpace::Uniform => Access::Uniform,
                AddressSpace::Storage { access } if access == StorageAccess::LOAD => Access::Read,
                AddressSpace::Storage { access }
                    if access == StorageAccess::LOAD | StorageAccess::STORE =>
                {
                    Access::ReadWrite
                }
                other => panic!("{variant}: a binding in {other:?}"),
            };
            bound.push((
                binding.binding,
                global.name.clone().unwrap_or_default(),
                access,
            ));
        }
        bound.sort_by_key(|(number, ..)| *number);
        let said: Vec<_> = variant
            .slots()
            .into_iter()
            .map(|(slot, access)| (slot as u32, slot.name().to_owned(), access))
            .collect();
        assert_eq!(bound, said, "{variant}");
        let storage = said
            .iter()
            .filter(|(.., access)| *access != Access::Uniform);
        // WebGPU promises 8 storage buffers; more are for devices that have them.
        let most = match variant {
            Variant::Row { finishes: true, .. } => 16,
            _ => 8,
        };
        assert!(storage.count() <= most, "{variant}");
        assert_eq!(said[0].0, Slot::Params as u32, "{variant}");
    }
}

#[test]
fn every_variant_has_one_entry_point_of_its_name() {
    for Parsed {
        variant, module, ..
    } in all()
    {
        let names: Vec<&str> = module
            .entry_points
            .iter()
            .map(|entry| entry.name.as_str())
            .collect();
        assert_eq!(names, [variant.entry_point()]);
        let overrides: BTreeSet<&str> = module
            .overrides
            .iter()
            .filter_map(|(_, one)| one.name.as_deref())
            .collect();
        let pass = Pass::new(variant, 64, Options::PLAIN);
        let given: BTreeSet<&str> = pass.constants().into_iter().map(|(name, _)| name).collect();
        assert_eq!(overrides, given, "{variant}: override constants");
    }
}

/// What the planner counts on for workgroup memory is what the shaders declare, and less than 16 bytes more.
#[test]
fn workgroup_memory_is_what_the_planner_counts_on() {
    use naga::back::pipeline_constants::process_overrides;
    use naga::proc::Layouter;
    use naga::valid::{Capabilities, ValidationFlags, Validator};
    for Parsed {
        variant, module, ..
    } in all()
    {
        let Variant::Row { kernel, .. } = variant else {
            continue;
        };
        let info = Validator::new(ValidationFlags::all(), Capabilities::all())
            .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
            .subgroup_operations(naga::valid::SubgroupOperationSet::all())
            .validate(&module)
            .unwrap();
        for size in [8, 64, 256] {
            let mut pass = Pass::new(variant, size, Options::PLAIN);
            pass.team = LANES as u32;
            let constants = pass.constants().into_iter();
            let constants = constants.map(|(name, value)| (name.to_owned(), value));
            let (module, _) =
                process_overrides(&module, &info, None, &constants.collect()).unwrap();
            let mut layouter = Layouter::default();
            layouter.update(module.to_ctx()).unwrap();
            let of_workgroup = module
                .global_variables
                .iter()
                .filter(|(_, global)| global.space == AddressSpace::WorkGroup);
            let declared: u32 = of_workgroup
                .map(|(_, global)| layouter[global.ty].size)
                .sum();
            let counted = pass.memory();
            assert!(
                (declared..declared + 17).contains(&counted),
                "{variant}, {size}: {counted} for {declared} ({kernel:?})"
            );
        }
    }
}

macro_rules! members {
    ($($name:ident)*) => {
        [$((stringify!($name), core::mem::offset_of!(Params, $name)),)*]
    };
}

#[test]
fn params_are_the_same_bytes() {
    let host = members!(rows classes row_length inner zero ignore_index rows_before
        denominator_flags logits_start labels_start class_weights_start upstream_start
        denominator_start softmax_start log_softmax_start grad_start losses_start lse_start
        predictions_start entropy_start correct_start z_losses_start loss_start z_loss_start
        status_start upstream_stride upstream denominator keep_high keep_low share_high share_low share_unit
        z_loss slope factor unit gone far rebase bound inverse_cap_high inverse_cap_low
        factor_head factor_rest inverse_cap_head inverse_cap_rest first_column end_column part
        span reserved);
    assert_eq!(
        host.len() * 4,
        size_of::<Params>(),
        "a member is missing in this list"
    );
    for Parsed {
        variant, module, ..
    } in all()
    {
        let block = module
            .types
            .iter()
            .find(|(_, ty)| ty.name.as_deref() == Some("Params"));
        let Some((
            _,
            naga::Type {
                inner: TypeInner::Struct { members, span },
                ..
            },
        )) = block
        else {
            panic!("{variant}: no struct Params");
        };
        let device: Vec<_> = members
            .iter()
            .map(|member| {
                (
                    member.name.as_deref().unwrap_or_default(),
                    member.offset as usize,
                )
            })
            .collect();
        assert_eq!(device, host, "{variant}");
        assert_eq!(*span as usize, size_of::<Params>(), "{variant}");
    }
}

#[test]
fn constants_are_the_same_numbers() {
    let mut seen = BTreeSet::new();
    for parsed in all() {
        let (variant, constants) = (parsed.variant, parsed.constants());
        for (name, expected) in [
            ("NOT_WANTED", NOT_WANTED),
            ("DENOMINATOR_IN_BUFFER", DENOMINATOR_IN_BUFFER),
            ("DENOMINATOR_IS_COUNT", DENOMINATOR_IS_COUNT),
            ("DENOMINATOR_IS_WEIGHTS", DENOMINATOR_IS_WEIGHTS),
            ("EMPTY_IS_ZERO", EMPTY_IS_ZERO),
            ("NO_LABELS", LabelInput::None as u32),
            ("INDEX", LabelInput::Index as u32),
            ("WEIGHTS", LabelInput::Dense as u32),
            ("VECTORS", LabelInput::Vector as u32),
            ("F32", Dtype::F32 as u32),
            ("F16", Dtype::F16 as u32),
            ("BF16", Dtype::Bf16 as u32),
            ("STATE_WORDS", STATE_WORDS as u32),
            ("NAN_ROWS", status::NAN_ROWS as u32),
            ("FIRST_NAN_ROW", status::FIRST_NAN_ROW as u32),
            ("BAD_LABELS", status::BAD_LABELS as u32),
            ("FIRST_BAD_LABEL", status::FIRST_BAD_LABEL as u32),
            ("VALID", status::VALID as u32),
            ("CORRECT", status::CORRECT as u32),
            ("LANES", LANES as u32),
            ("BLOCK", BLOCK as u32),
            ("SLOT", SLOT as u32),
            ("STRIPE", (SLOT * LANES) as u32),
            ("STRIPES", (BLOCK / (SLOT * LANES)) as u32),
            ("ROWS_EACH", ROWS_EACH),
            ("COUNTED_ROWS", 0),
            ("WEIGHT_SUM", 1),
            ("COUNTED_WORDS", COUNTED_WORDS as u32),
        ] {
            if let Some(&found) = constants.get(name) {
                assert_eq!(found, expected, "{variant}: {name}");
                seen.insert(name);
            }
        }
        if let (Some(slots), Some(words), Some(limbs)) = (
            constants.get("SUM_SLOTS"),
            constants.get("SLOT_WORDS"),
            constants.get("LIMBS"),
        ) {
            assert_eq!(slots * words, ACCUMULATOR_WORDS as u32, "{variant}");
            // Bit 0 weighs 2⁻¹⁴⁹, and 2³² of the largest f32 still fit.
            assert!(32 * limbs >= 278 + 32, "{variant}");
            // Each sum with its counts, one after the other.
            let places = [
                ("LOSS_SUM", 2 * limbs),
                ("LOSS_SPECIALS", 3),
                ("Z_SUM", *limbs),
                ("Z_SPECIALS", 3),
                ("VALID_ROWS", 1),
                ("CORRECT_ROWS", 1),
                ("WORDS_IN_USE", 0),
            ];
            let mut end = 0;
            for (name, size) in places {
                assert_eq!(constants[name], end, "{variant}: {name}");
                end += size;
            }
            assert!(end <= *words, "{variant}");
            seen.insert("SUM_SLOTS");
        }
        if let Some(specials) = constants.get("WEIGHT_SPECIALS") {
            assert_eq!(*specials, constants["WEIGHT_SUM"] + constants["LIMBS"]);
            assert_eq!(constants["COUNTED_WORDS"], specials + 3);
        }
        // A state has no word past its last.
        assert!(
            !parsed.text.contains(&format!("at + {STATE_WORDS}u")),
            "{variant}"
        );
    }
    assert_eq!(
        seen.len(),
        29,
        "some constant is nowhere to be found: {seen:?}"
    );
}

/// The README's library code is the example that the compiler sees.
#[test]
fn the_readme_shows_the_minimal_example() {
    let bare = |text: &str| {
        let text: String = text.split_whitespace().collect();
        text.replace(",}", "}").replace(",)", ")")
    };
    let readme = include_str!("../../README.md");
    let (_, rest) = readme.split_once("```rust\n").expect("the README has code");
    let (snippet, _) = rest.split_once("```").expect("which ends");
    let example = bare(include_str!("../../examples/minimal.rs"));
    for statement in snippet.split_inclusive(";\n") {
        assert!(
            example.contains(&bare(statement)),
            "not in the example: {statement}"
        );
    }
    assert!(snippet.lines().count() <= 9);
}
