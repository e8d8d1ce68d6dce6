"""The inputs of the reference set, for make_reference.py: what is asked for, by name, with every option.

Runs by itself with numpy and ml_dtypes; random inputs have a fixed seed. A case is a dict that holds what differs from
the defaults below. Logits and label weights are f32 values (or f16, bf16 ones), options are f32 values widened to f64.
MIT OR Apache-2.0, like the crate.
"""
import math

import ml_dtypes
import numpy as np

INF, NAN, MAX = math.inf, math.nan, float(np.finfo(np.float32).max)
M = -INF  # a masked class
TYPES = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
DEFAULTS = {
    "dtype": "f32", "index": None, "dense": None, "vectors": None, "ignore_index": -100, "weights": None,
    "smoothing": 0.0, "z_loss": 0.0, "scale": 1.0, "softcap": None, "reduction": "mean", "denominator": "weights",
    "empty_mean": "nan", "upstream": 1.0, "shared": False, "from_softmax": False,
}
REDUCTIONS = ("none", "sum", "mean")
CASES = []
rng = np.random.default_rng(2)


def f32(value):
    return float(np.float32(value))


def flat(values, dtype="f32"):
    """Flat list of the f64 values of the nearest numbers of this type."""
    with np.errstate(over="ignore"):
        rounded = np.asarray(values, dtype=np.float64).astype(np.float32).astype(TYPES[dtype])
    return [float(v) for v in rounded.ravel()]


def case(group, name, logits, classes=None, **options):
    dtype, rows = options.get("dtype", "f32"), len(logits)
    c = {**DEFAULTS, "group": group, "name": f"{group}/{name}", "rows": rows, "classes": classes or len(logits[0]),
         "logits": flat(logits, dtype)}
    for key, value in options.items():
        assert key in DEFAULTS, key
        if key in ("dense", "vectors", "weights") and value is not None:
            value = flat(value)
        elif key == "upstream":
            value = flat(value) if isinstance(value, list) else f32(value)
        elif key == "index" and value is not None:
            value = [int(v) for v in value]
        elif isinstance(value, float):
            value = f32(value)
        c[key] = value
    if c["vectors"] is not None:
        c["reduction"] = "none"
    size = rows * c["classes"]
    assert len(c["logits"]) == size and len(c["weights"] or []) in (0, c["classes"]), name
    assert all(len(c[k]) == n for k, n in (("index", rows), ("dense", size), ("vectors", size)) if c[k] is not None), name
    assert c["softcap"] is None or c["softcap"] > 0
    CASES.append(c)


# ---- ingredients -------------------------------------------------------------------------------------

def normal(rows, classes, scale=1.0, offset=0.0):
    return rng.standard_normal((rows, classes)) * scale + offset


def classes_of(rows, classes):
    return rng.integers(0, classes, rows).tolist()


def soft(rows, classes):
    return rng.dirichlet(np.ones(classes), rows)


def weights_of(classes):
    return rng.random(classes) * 2 + 0.125


KINDS = {"n1": (1, 0), "n10": (10, 0), "n100": (100, 0), "p1000": (3, 1000), "m1000": (3, -1000), "p10000": (10, 1e4),
         "m10000": (10, -1e4)}


def labels_of(kind, rows, classes):
    """Labels of one kind, as arguments of a case."""
    if kind == "index":
        return {"index": classes_of(rows, classes)}
    if kind == "ignored":
        index = classes_of(rows, classes)
        index[int(rng.integers(rows))] = -100
        return {"index": index}
    rows_of = {"soft": lambda: soft(rows, classes), "one_hot": lambda: np.eye(classes)[classes_of(rows, classes)],
               "loose": lambda: rng.random((rows, classes)) * 3, "signed": lambda: normal(rows, classes)}
    return {"dense": rows_of[kind]()}


def per_row(rows):
    return [[1.0, -0.5, 3.0, 0.0, 1e-3][i % 5] for i in range(rows)]


def upstream_of(reduction, rows):
    return {"none": per_row(rows), "sum": -2.5, "mean": 0.75}[reduction]


# ---- one option at a time ----------------------------------------------------------------------------

for i, k in enumerate((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 16, 17, 24, 31, 32, 33, 40)):
    for scale in (1, 10):
        case("plain", f"n{scale}_k{k}", normal(2, k, scale), index=classes_of(2, k), reduction=REDUCTIONS[(i + scale) % 3])
for k in (1, 2, 5, 13, 32):
    case("no_labels", f"k{k}", normal(2, k, 5))
case("no_labels", "scale_cap", normal(3, 4, 20), scale=1.5, softcap=30.0)
case("no_labels", "edges", [[M, 1, 2], [NAN, 1, 2], [INF, 1, 2], [M] * 3, [0, 100, -100]])

ALONE = {
    "nothing": {}, "weights": {"weights": [0.5, 2, 1, 0.25, 3]}, "weight_zero": {"weights": [0, 2, 0, 1, 0]},
    "smoothing_0.1": {"smoothing": 0.1}, "smoothing_1": {"smoothing": 1.0}, "z_1e-4": {"z_loss": 1e-4},
    "z_0.5": {"z_loss": 0.5}, "scale_0.5": {"scale": 0.5}, "scale_3": {"scale": 3.0}, "cap_30": {"softcap": 30.0},
    "cap_2": {"softcap": 2.0}, "upstream": {"upstream": -0.3}, "shared": {"upstream": 7.0, "shared": True},
}
for name, options in ALONE.items():
    for i, kind in enumerate(("ignored", "soft", "signed")):
        for red in REDUCTIONS if kind != "signed" else REDUCTIONS[len(name) % 3:][:1]:
            case("alone", f"{name}_{kind}_{red}", normal(3, 5, 2), reduction=red, **options, **labels_of(kind, 3, 5))
for kind in ("ignored", "loose", "one_hot"):
    case("alone", f"upstream_per_row_{kind}", normal(5, 4, 2), reduction="none", upstream=per_row(5), **labels_of(kind, 5, 4))
for value in (0.0, 1e-3, 65536.0, 1e20):
    for red in ("sum", "mean"):
        case("upstream", f"{value}_{red}", normal(2, 4), index=[1, 2], reduction=red, upstream=value)
for den in ("weights", "valid_rows", 7.0, 1e-3, 1e6):
    for kind in ("ignored", "soft"):
        for z in (0.0, 0.01):
            case("denominator", f"{den}_{kind}_z{z}", normal(3, 4, 2), weights=[0.5, 2, 0.125, 3], denominator=den, z_loss=z,
                 upstream=0.75, **labels_of(kind, 3, 4))
case("denominator", "valid_rows_plain", normal(4, 3), index=[0, -100, 2, -100], denominator="valid_rows")

# ---- options in combination --------------------------------------------------------------------------

count = 0
for kind in ("ignored", "loose"):
    for weights in (False, True):
        for smoothing in (0.0, 0.1, 1.0):
            for z in (0.0, 1e-3):
                for scale, cap in ((1.0, None), (2.5, None), (1.0, 30.0), (0.7, 5.0)):
                    red = REDUCTIONS[count % 3]
                    name = "_".join([kind, "w" if weights else "1", f"s{smoothing}", f"z{z}", f"x{scale}", f"c{cap}", red])
                    case("combined", name, normal(3, 5, 3), weights=weights_of(5) if weights else None, smoothing=smoothing,
                         z_loss=z, scale=scale, softcap=cap, reduction=red, upstream=upstream_of(red, 3),
                         denominator="valid_rows" if count % 4 == 2 and red == "mean" else "weights", **labels_of(kind, 3, 5))
                    count += 1
for i in range(70):  # everything at once
    n, k = int(rng.integers(2, 5)), int(rng.choice([1, 2, 3, 4, 6, 7, 9, 11, 16, 19, 23, 32, 37]))
    n = min(n, max(2, 24 // k))
    red = REDUCTIONS[i % 3]
    x = normal(n, k, rng.choice([1, 3, 10, 30]), rng.choice([0, 0, 100, -100]))
    labels = labels_of(["ignored", "index", "soft", "one_hot", "loose", "signed"][i % 6], n, k)
    smoothing = float(rng.choice([0, 0, 0.1, 0.5]))
    if "index" in labels and smoothing == 0:
        mask = rng.random((n, k)) < 0.2
        mask[np.arange(n), np.maximum(labels["index"], 0)] = False
        x[mask] = M
    case("mixed", f"{i}_k{k}", x, weights=weights_of(k) * (rng.random(k) < 0.8) if rng.random() < 0.5 else None,
         smoothing=smoothing, z_loss=float(rng.choice([0, 1e-4, 0.03])), scale=float(rng.choice([1, 1, 0.3, 4])),
         softcap=[None, 10.0, 30.0, 50.0][int(rng.integers(4))], reduction=red, upstream=upstream_of(red, n),
         denominator=["weights", "valid_rows", 3.5][int(rng.integers(3))] if red == "mean" else "weights",
         empty_mean="zero", **labels)

# ---- scale and cap on wide logits --------------------------------------------------------------------

SCALES = (0.01, 0.08838835, 0.3, 0.5, 0.7, 1.5, 2.0, 3.1415927, 10.0, 100.0, 1000.0, 1e5)
CAPS = (1.0, 2.0, 5.0, 15.0, 30.0, 50.0, 100.0, 300.0, 1000.0)
BOTH = ((0.125, 30.0), (0.08838835, 50.0), (2.0, 30.0), (10.0, 5.0), (100.0, 1000.0), (0.01, 1.0))
for i, (scale, cap) in enumerate([(s, None) for s in SCALES] + [(1.0, c) for c in CAPS] + list(BOTH)):
    for j, (kind, (spread, offset)) in enumerate(KINDS.items()):
        group = "scale_and_cap" if cap and scale != 1 else "cap" if cap else "scale"
        labels = labels_of("index" if (i + j) % 4 else "soft", 2, 5)
        red = REDUCTIONS[(i + j) % 2 * 2]
        case(group, f"{scale}_{cap}_{kind}", normal(2, 5, spread, offset), scale=scale, softcap=cap, reduction=red,
             upstream=upstream_of(red, 2), **labels)
for cap in (1.0, 30.0, 50.0, 1000.0):
    x = [[v * cap for v in (-20, -9, -1, -0.1, -1e-6, 0, 1e-9, 0.01, 0.3, 1.0, 3.0, 8.0)]]
    case("cap", f"{cap}_ladder", x * 2, softcap=cap, index=[2, 11], reduction="none")
    case("cap", f"{cap}_saturated", [[cap * 40, cap * 30, -cap * 40], [cap * 9, cap * 9.5, cap * 8]], softcap=cap, index=[1, 2], reduction="none")
    case("cap", f"{cap}_tiny", [[1e-20, -1e-30, 1e-38, 0], [1e-4, -1e-4, 3e-4, 2e-3]], softcap=cap, index=[0, 1], reduction="none")
    case("cap", f"{cap}_extremes", [[1e30, -1e30, 0, 1], [MAX, -MAX, MAX, 1], [3.4e38, 1, 2, -3]], softcap=cap, scale=4.0, index=[0, 1, 1], reduction="none")
case("cap", "tiny_cap", normal(2, 4), softcap=1e-3, index=[0, 3])
case("cap", "huge_cap", normal(2, 4, 10), softcap=1e6, index=[0, 3])
case("scale", "small", normal(2, 4, 1e3), scale=1e-6, index=[0, 3])
case("scale", "extremes", [[1e30, -1e30, 0, 1], [MAX, -MAX, MAX, 1]], scale=0.25, index=[1, 3], reduction="none")
case("scale", "back_from_f32_max", [[MAX, MAX * 0.5, 0], [-MAX, -3e38, -3.2e38]], scale=1e-38, index=[1, 2], reduction="none")
case("scale", "past_f32_equal", [[MAX, MAX, MAX], [-MAX, -MAX, 3e38]], scale=8.0, index=[1, 0], reduction="none")
case("scale", "past_f32_max_only", [[MAX, 1, 2], [3e38, 0, -3]], scale=8.0, index=[0, 0], reduction="none")
case("scale", "subnormal_logits", [[1e-40, -1e-40, 0, 1e-45]] * 2, scale=1e5, index=[0, 1])

# ---- z-loss, smoothing, class weights ----------------------------------------------------------------

for i, z in enumerate((1e-6, 1e-4, 1e-2, 0.3, 1.0, 10.0)):
    for j, offset in enumerate((0.0, -1.609438, -1.61, -1000.0, 1000.0)):  # log 5: lse crosses 0
        red = REDUCTIONS[(i + j) % 3]
        case("z_loss", f"{z}_{offset}", normal(2, 5, 0.01 if offset < 0 and offset > -2 else 2, offset), index=classes_of(2, 5), z_loss=z,
             reduction=red, upstream=upstream_of(red, 2))
case("z_loss", "k1", [[3.0], [-2.5], [0.0]], index=[0, 0, -100], z_loss=0.1)
case("z_loss", "k1_none", [[1e30], [-4.0]], index=[0, 0], z_loss=1e-30, reduction="none")
case("z_loss", "masked_label", [[M, 1, 2], [0, 1, 2]], index=[0, 1], z_loss=0.1, reduction="none")
case("z_loss", "masked", [[M, 1, 2, M], [0, M, -7, 2]], index=[1, 3], z_loss=0.1, reduction="sum")
case("z_loss", "ignored_not_finite", [[NAN, 1, 2], [0, 1, 2], [INF, 0, 0], [M, M, M]], index=[-100, 1, -100, -100], z_loss=0.1)
case("z_loss", "nan_row", [[NAN, 1, 2], [0, 1, 2]], index=[0, 1], z_loss=0.1, reduction="none")
case("z_loss", "large", [[1e15, 0, 1], [-1e15, -1e15, -1e15]], index=[1, 0], z_loss=1.0, reduction="none")
case("z_loss", "dense", normal(3, 4, 2), dense=soft(3, 4), z_loss=0.1)
case("z_loss", "dense_zero", normal(3, 4, 2), dense=np.zeros((3, 4)), z_loss=0.1, reduction="sum")
for i, e in enumerate((1e-6, 0.01, 0.1, 0.3, 0.5, 0.9, 1.0)):
    for k in (1, 2, 5, 17):
        red = REDUCTIONS[(i + k) % 3]
        case("smoothing", f"{e}_k{k}", normal(2, k, 3), smoothing=e, reduction=red, upstream=upstream_of(red, 2),
             **labels_of("ignored" if k == 5 else "index" if k != 2 else "loose", 2, k))
case("smoothing", "0_is_plain", normal(3, 4), index=[0, 1, 2], smoothing=0.0)
case("smoothing", "confident", [[40, 0, 1], [0, 90, 3], [0, 20, 20]], index=[0, 1, 2], smoothing=0.1, reduction="none")
case("smoothing", "confident_dense", [[40, 0, 1], [0, 90, 3]], dense=[[1, 0, 0], [0, 0.5, 0.5]], smoothing=0.1, reduction="none")
case("smoothing", "mask", [[M, 1, 2], [0, 1, 2]], index=[1, 2], smoothing=0.1, reduction="none")
case("smoothing", "mask_mean", [[M, 1, 2], [0, 1, 2]], index=[1, 2], smoothing=0.1)
case("smoothing", "mask_weight_zero", [[M, 1, 2], [0, 1, 2]], index=[1, 2], smoothing=0.1, weights=[0, 1, 2], reduction="none")
case("smoothing", "mask_weight_zero_mean", [[M, 1, 2], [0, 1, M]], index=[1, 1], smoothing=1.0, weights=[0, 1, 0])
case("smoothing", "mask_dense", [[M, 1, 2]], dense=[[0, 0.5, 0.5]], smoothing=0.25, reduction="none")
case("smoothing", "mask_ignored", [[M, 1, 2], [3, 1, 2]], index=[-100, 2], smoothing=0.1)
case("smoothing", "extremes", [[MAX, -MAX, 0], [1e30, 0, -1e30]], index=[0, 1], smoothing=0.1, reduction="none")
case("smoothing", "dense_is_uniform_at_1", normal(2, 4), dense=normal(2, 4), smoothing=1.0)
for i, (name, w) in enumerate({"ones": [1] * 4, "wide": [1e-6, 1e6, 1, 1e3], "one_left": [0, 0, 1, 0], "tiny": [1e-30] * 4,
                               "large": [1e30, 1, 1e30, 2]}.items()):
    for kind in ("ignored", "soft"):
        for red in ("none", "mean"):
            case("weights", f"{name}_{kind}_{red}", normal(3, 4, 3), weights=w, reduction=red, **labels_of(kind, 3, 4))
case("weights", "zero_at_mask", [[M, 1, 2], [0, 3, M]], weights=[0, 1, 1], index=[0, 1], reduction="none")
case("weights", "zero_at_mask_dense", [[M, 1, 2], [0, 3, M]], weights=[0, 1, 0], dense=[[0.5, 0.5, 0], [0.2, 0.3, 0.5]], reduction="none")
case("weights", "weight_at_mask", [[M, 1, 2], [0, 3, 1]], weights=[2, 1, 1], index=[0, 1], reduction="none")
case("weights", "zero_extremes", [[MAX, -MAX, 0], [-MAX, MAX, 1]], weights=[1, 0, 0.5], index=[1, 0], reduction="none")
case("weights", "exact_denominator", normal(4, 3), weights=[16777216, 1, 0.5], index=[0, 1, 2, 1])

# ---- the mean of nothing -----------------------------------------------------------------------------

for empty in ("nan", "zero"):
    for z in (0.0, 0.1):
        for den in ("weights", "valid_rows", 2.0):
            case("empty_mean", f"all_ignored_{empty}_z{z}_{den}", normal(2, 3), index=[-100] * 2, z_loss=z, denominator=den, empty_mean=empty)
            case("empty_mean", f"weights_zero_{empty}_z{z}_{den}", normal(3, 3), index=[0, 2, -100], weights=[0, 1, 0], z_loss=z,
                 denominator=den, empty_mean=empty, upstream=2.0)
        case("empty_mean", f"weights_zero_smoothing_{empty}_z{z}", normal(2, 3), index=[0, 2], weights=[0, 1, 0], smoothing=0.1, z_loss=z,
             empty_mean=empty)
        case("empty_mean", f"weights_zero_dense_{empty}_z{z}", normal(2, 3), dense=soft(2, 3), weights=[0, 0, 0], z_loss=z, empty_mean=empty)
        case("empty_mean", f"no_rows_{empty}_z{z}", [], index=[], classes=3, z_loss=z, empty_mean=empty)
    case("empty_mean", f"all_ignored_not_finite_{empty}", [[NAN, 0], [M, M], [INF, 1]], index=[-100] * 3, z_loss=0.5, empty_mean=empty)
    case("empty_mean", f"no_rows_dense_{empty}", [], dense=[], classes=3, empty_mean=empty)
for red in ("none", "sum"):
    case("empty_mean", f"all_ignored_{red}", normal(2, 3), index=[-100] * 2, reduction=red, z_loss=0.1)
    case("empty_mean", f"no_rows_{red}", [], index=[], classes=3, reduction=red)
case("empty_mean", "no_rows_denominator", [], index=[], classes=3, denominator=4.0)

# ---- labels ------------------------------------------------------------------------------------------

for ignore, labels in ((0, [0, 1, 2, 0]), (2, [2, 1, 0, 1]), (-1, [-1, 1, 2, 0]), (255, [255, 1, 255, 0]), (-2**63, [2, -2**63, 1, 0]),
                       (2**63 - 1, [0, 2**63 - 1, 1, 0]), (2**31, [2**31, 0, 1, 2]), (2**32 + 1, [1, 2**32 + 1, 1, 0]), (-100, [1, 0, 2, 2])):
    for smoothing in (0.0, 0.1):
        case("ignore_index", f"{ignore}_s{smoothing}", normal(4, 3), index=labels, ignore_index=ignore, smoothing=smoothing, weights=[1, 2, 0.5])
for red in REDUCTIONS:
    case("ignore_index", f"not_finite_{red}", [[NAN, 1, 2], [0, 1, 2], [INF, 0, 0], [M, M, M], [3, 1, 0]], index=[-100, 1, -100, -100, 2],
         reduction=red, upstream=upstream_of(red, 5), softcap=30.0, smoothing=0.1)
for red in REDUCTIONS:
    for kind in ("one_hot", "soft", "loose", "signed"):
        case("dense", f"{kind}_{red}", normal(2, 6, 4), reduction=red, upstream=upstream_of(red, 2), **labels_of(kind, 2, 6))
case("dense", "zero_rows", normal(3, 4), dense=[[0] * 4, [0, 1, 0, 0], [0] * 4])
case("dense", "k1", [[2.0], [-7.0], [0.0], [1e30]], dense=[[1], [.5], [0], [-2]], reduction="none")
case("dense", "signed_cancel", normal(2, 4), dense=[[-.5, .5, .25, -.25], [1, -1, 1, -1]], reduction="none")
case("dense", "signed_negative", normal(2, 4, 5), dense=[[-1, -.25, -.125, -2]] * 2, reduction="sum")
case("dense", "signed_weights", normal(2, 4, 5), dense=normal(2, 4), weights=[1, 0, 3, .5], smoothing=0.3, z_loss=0.01)
case("dense", "many_classes", normal(2, 40, 4), dense=soft(2, 40))
case("dense", "zero_at_mask", [[M, 1, 2], [0, M, M]], dense=[[0, .25, .75], [1, 0, 0]], weights=[1, 2, 3])
case("dense", "weight_at_mask", [[M, 1, 2], [0, 1, 4]], dense=[[.5, .25, .25], [0, 1, 0]], reduction="none")
case("dense", "not_finite_labels", [[0, 1, 2], [0, 1, 2], [2, 1, 0]], dense=[[NAN, 0, 1], [0, 1, 0], [0, INF, 0]], reduction="none")
case("dense", "extremes", [[-MAX, MAX, 0, 1], [MAX, MAX, -MAX, 0]], dense=[[.25, .25, .25, .25], [0, .5, .25, 0]], reduction="none")
case("dense", "large_labels", normal(2, 3), dense=[[1e20, 2e20, 0], [1e-20, 0, 3e-20]], reduction="none")

# ---- confident rows, masks, extremes, NaN ------------------------------------------------------------

for i, gap in enumerate((17, 18.5, 20, 24, 30, 36, 40, 50, 60, 70, 80, 86, 87)):
    x, red = [[gap, 0, -1], [0, gap, 0.5]], REDUCTIONS[i % 3]
    case("confident", f"{gap}", x, index=[0, 1], reduction=red)
    case("confident", f"{gap}_weights", x, index=[0, 1], weights=[2, 0.3, 1], reduction=red)
    case("confident", f"{gap}_one_hot", x, dense=[[1, 0, 0], [0, 1, 0]], reduction=red)
    if i % 3 == 0:
        case("confident", f"{gap}_z", x, index=[0, 1], z_loss=1e-4, reduction=red)
        case("confident", f"{gap}_wrong", x, index=[2, 0], reduction=red)
    if i % 2 == 0:
        case("confident", f"{gap}_scale", np.array(x) * 4, index=[0, 1], scale=0.25, reduction=red, upstream=upstream_of(red, 2))
        case("confident", f"{gap}_cap", x, index=[0, 1], softcap=100.0, reduction=red)
case("confident", "past_f32", [[g, 0, -1] for g in (95, 103, 104, 110, 300, 5000)], index=[0] * 6, reduction="none")
case("confident", "many_classes", [[17] + [0] * 39, [36] + [0] * 39], index=[0, 0], reduction="none")
case("confident", "mean_of_mixed", [[60, 0, 1], [0, 1, 2], [0, 87, 45]], index=[0, 1, 1])

for options in ({}, {"scale": 0.3}, {"weights": [1, 2, 0.5, 3]}, {"smoothing": 0.0, "upstream": -2.0}):
    name = "_".join(options) or "plain"
    case("mask", f"label_elsewhere_{name}", [[M, 1, 2, M], [0, M, M, 3], [M, M, M, 7]], index=[1, 3, 3], reduction="sum", **options)
    case("mask", f"label_on_it_{name}", [[M, 1, 2, M], [0, M, M, 3], [1, 2, 3, 4]], index=[0, 1, 2], reduction="mean", **options)
    case("mask", f"dense_{name}", [[M, 1, 2, M], [0, M, M, 3]], dense=[[0, .5, 2, 0], [.5, 0, 0, .5]], reduction="none",
         **{**options, "upstream": [1.0, -3.0]})
case("mask", "cap", [[M, 1, 20, M], [0, M, M, 60]], index=[1, 3], softcap=30.0)
case("mask", "cap_label_on_it", [[M, 1, 20, M], [0, M, M, 60]], index=[0, 3], softcap=30.0, reduction="none")
case("mask", "confident", [[M, 40, 0, M], [M, 100, 0, M]], index=[1, 1], reduction="none")
case("mask", "one_left", [[M, -5, M], [MAX, M, M]], index=[1, 0], reduction="none")
case("mask", "half", [[M] * 8 + list(r) for r in normal(3, 8)], index=[8, 12, 15], reduction="sum")
case("mask", "with_max", [[-MAX, M, -MAX], [M, MAX, -MAX]], index=[0, 1])

case("extreme", "offset_1e30", [[1e30] * 3, [-1e30] * 3, [1e30, -1e30, 0], [1e30, -1e30, 0]], index=[0, 2, 0, 1], reduction="none")
case("extreme", "neighbours", [[1e30, np.nextafter(np.float32(1e30), np.float32(2e30)), 1e30]] * 2, index=[0, 1], reduction="sum")
case("extreme", "ends", [[-MAX, MAX, 0], [MAX, -MAX, MAX], [-MAX] * 3, [MAX] * 3], index=[0, 1, 2, 0], reduction="none")
case("extreme", "mean_past_f32", [[-MAX, MAX, 0]] * 2, index=[0, 2])
case("extreme", "sum_past_f32", [[3e38, 0]] * 4, index=[1] * 4, reduction="sum")
case("extreme", "mean_fits", [[3e38, 0]] * 4, index=[1] * 4, upstream=0.5)
case("extreme", "weights_bring_it_back", [[-MAX, MAX, 0]] * 2, index=[0, 0], weights=[0.25, 1, 1], reduction="none")
case("extreme", "dense_bring_it_back", [[-MAX, MAX, 0]] * 2, dense=[[.25, .25, .25], [.125, 0, .125]])
case("extreme", "cancelling_labels", [[1e30, 1, -1e30], [1e30, 0, 1]], dense=[[0, .5, .25], [0, 1e-30, 1e-30]], reduction="none")
case("extreme", "subnormal_logits", [[1e-40, -1e-40, 0, 1e-45], [1e-39, 1, -1e-39, 0]], index=[0, 2])
case("extreme", "z_loss_large", [[1e18, 0], [-1e18, -1e18]], index=[0, 1], z_loss=0.5, reduction="none")

BAD = [[0, 1, 2], [M] * 3, [1, INF, 0], [NAN, 1, 2], [2, 1, 0]]
for red in REDUCTIONS:
    for name, options in {"plain": {}, "cap": {"softcap": 30.0}, "scale": {"scale": 2.0}, "all": {"weights": [1, 2, 3], "smoothing": 0.1,
                          "z_loss": 0.1, "softcap": 5.0, "scale": 0.5}}.items():
        case("nan_rows", f"{name}_{red}", BAD, index=[0, 1, 2, 1, 0], reduction=red, upstream=upstream_of(red, 5), **options)
    case("nan_rows", f"dense_{red}", BAD, dense=soft(5, 3), reduction=red)
case("nan_rows", "weight_zero", BAD, index=[0, 0, 1, 1, 2], weights=[0, 0, 1], reduction="none")
case("nan_rows", "dense_zero", BAD, dense=[[0] * 3] * 5, reduction="none")
case("nan_rows", "last_class", [[0, 1, NAN], [1, 1, 1], [M, M, NAN]], index=[0, 0, 0], reduction="none")

# ---- orders that are unkind to online and to blocked sums ----------------------------------------------

def orders(k):
    ramp = np.arange(k) / 16
    high = np.tile([0.0, 12.0], k)[:k]
    return {"ascending": ramp, "descending": -ramp, "equal": np.full(k, 0.25), "max_last": np.append(np.zeros(k - 1), 9.0),
            "alternating": high + (np.arange(k) % 4 == 1) * 0.5}


for k in (33, 130, 300, 1100):
    for i, (name, x) in enumerate(orders(k).items()):
        options = [{}, {"smoothing": 0.1}, {"scale": 0.7, "softcap": 30.0}, {"z_loss": 1e-3}][(i + k) % 4]
        if name == "max_last" or k == 33:
            options = {}
        label = {"max_last": k - 1, "ascending": k - 1, "alternating": 1}.get(name, k // 2)
        case("order", f"{name}_k{k}", [x], index=[label], reduction="none", **options)
for k in (130, 300, 1100):
    x = np.round(normal(1, k, 4), 3)
    case("order", f"normal_k{k}", x, index=[k // 3], weights=None, smoothing=0.1 if k == 300 else 0.0, softcap=None if k == 300 else 30.0)
case("order", "dense_k130", np.round(normal(1, 130, 4), 3), dense=np.round(soft(1, 130), 4), reduction="none")
case("order", "confident_k1100", [[0] * 700 + [40] + [0] * 399], index=[700], reduction="none")
case("order", "mask_k300", [[M] * 299 + [3.0]], index=[299], reduction="none")

# ---- 16 bits -------------------------------------------------------------------------------------------

for dtype in ("f16", "bf16"):
    largest = float(ml_dtypes.finfo(TYPES[dtype]).max)
    tiny, least = float(ml_dtypes.finfo(TYPES[dtype]).smallest_normal), float(ml_dtypes.finfo(TYPES[dtype]).smallest_subnormal)
    for i, k in enumerate((1, 2, 3, 5, 7, 8, 17, 32)):
        red = REDUCTIONS[i % 3]
        case(dtype, f"n3_k{k}", normal(2, k, 3), dtype=dtype, index=classes_of(2, k), reduction=red, upstream=upstream_of(red, 2))
    for i, kind in enumerate(("ignored", "soft", "one_hot", "loose", "signed")):
        case(dtype, kind, normal(3, 5, 10), dtype=dtype, reduction=REDUCTIONS[i % 3], **labels_of(kind, 3, 5))
    case(dtype, "subnormal", [[tiny / 2, -tiny / 4, 0, least], [least * 3, 1, -tiny * 0.75, 0]], dtype=dtype, index=[0, 2], reduction="none")
    case(dtype, "subnormal_scaled", [[tiny / 2, -tiny / 4, 0, least]] * 2, dtype=dtype, scale=1e6 if dtype == "f16" else 1e30, index=[0, 3])
    case(dtype, "largest", [[-largest, largest, 0], [largest] * 3, [-largest] * 3], dtype=dtype, index=[0, 1, 2], reduction="none")
    case(dtype, "largest_mean", [[-largest, largest, 0]] * 3, dtype=dtype, index=[0, 1, 2])
    case(dtype, "confident", [[20, 0, -1], [0, 40, 0], [0, 0, 85]], dtype=dtype, index=[0, 1, 2], reduction="none")
    case(dtype, "mask", [[M, 1, 2], [0, M, 3]], dtype=dtype, index=[1, 1], reduction="none")
    case(dtype, "nan_rows", BAD, dtype=dtype, index=[0, 1, 2, -100, 0])
    case(dtype, "grad_past_it", normal(2, 3), dtype=dtype, index=[0, 1], reduction="sum", upstream=1e6)
    case(dtype, "grad_below_it", normal(2, 3, 8), dtype=dtype, index=[0, 1], reduction="sum", upstream=1e-7)
    case(dtype, "smoothing_weights_z", normal(3, 4, 4), dtype=dtype, weights=[1, 0, 2, .5], smoothing=0.1, z_loss=1e-3, **labels_of("ignored", 3, 4))
    case(dtype, "scale", normal(3, 4, 10), dtype=dtype, scale=0.37, **labels_of("ignored", 3, 4))
    case(dtype, "cap_30", normal(3, 4, 30), dtype=dtype, softcap=30.0, **labels_of("ignored", 3, 4))
    case(dtype, "cap_50_dense", normal(2, 4, 60), dtype=dtype, softcap=50.0, scale=1.5, z_loss=1e-4, dense=soft(2, 4))
    case(dtype, "no_labels", normal(2, 6, 5), dtype=dtype)
    case(dtype, "backward", normal(2, 5, 3), dtype=dtype, vectors=normal(2, 5))
    case(dtype, "backward_cap", normal(2, 5, 20), dtype=dtype, vectors=normal(2, 5), softcap=30.0, scale=2.0)
    case(dtype, "backward_from_softmax", soft(2, 5), dtype=dtype, vectors=normal(2, 5), from_softmax=True, upstream=[2.0, -1.0])
    case(dtype, "ties", [[1, 3, 0, 3], [0, 0, 0, 0]], dtype=dtype, index=[1, 2], reduction="none")
    case(dtype, "k300", np.round(normal(1, 300, 2)), dtype=dtype, index=[7])

# ---- the Jacobian of softmax times a vector --------------------------------------------------------------

for i, k in enumerate((1, 2, 3, 4, 7, 16, 33)):
    case("backward", f"logits_k{k}", normal(2, k, 3), vectors=normal(2, k))
    case("backward", f"softmax_k{k}", soft(2, k), vectors=normal(2, k), from_softmax=True)
for name, options in {"upstream": {"upstream": -2.5}, "shared": {"upstream": 0.3, "shared": True}, "per_row": {"upstream": [1.0, -0.5, 3.0]},
                      "scale": {"scale": 0.3}, "scale_large": {"scale": 20.0}, "cap_30": {"softcap": 30.0}, "cap_1": {"softcap": 1.0},
                      "scale_cap": {"scale": 2.0, "softcap": 50.0}}.items():
    case("backward", f"logits_{name}", normal(3, 4, 8), vectors=normal(3, 4), **options)
    if "scale" not in options and "softcap" not in options:
        case("backward", f"softmax_{name}", soft(3, 4), vectors=normal(3, 4), from_softmax=True, **options)
case("backward", "equal_vector", normal(2, 5), vectors=[[1.0] * 5, [-3.0] * 5])
case("backward", "equal_logits", [[2.0] * 4] * 2, vectors=normal(2, 4))
case("backward", "confident", [[40, 0, 1], [0, 87, 3]], vectors=[[1, 2, 3], [3, -1, 0]])
case("backward", "mask", [[M, 1, 2], [M, M, 5]], vectors=[[1, 2, 3], [7, 8, 9]])
case("backward", "mask_cap", [[M, 1, 2], [M, M, 5]], vectors=[[1, 2, 3], [7, 8, 9]], softcap=30.0)
case("backward", "large_vector", normal(2, 3), vectors=[[1e30, -1e30, 1], [1e-30, 1e-20, 0]])
case("backward", "extremes", [[MAX, -MAX, 0], [1e30] * 3], vectors=[[1, 2, 3], [1, -2, 3]])
case("backward", "nan_rows", BAD, vectors=normal(5, 3))
case("backward", "nan_vector", normal(3, 3), vectors=[[NAN, 1, 2], [1, 2, 3], [1, INF, 0]])
case("backward", "softmax_nan", [[NAN, 0.5, 0.5], [0.25, 0.25, 0.5]], vectors=normal(2, 3), from_softmax=True)
case("backward", "softmax_one_hot", [[1, 0, 0], [0, 0, 1]], vectors=normal(2, 3), from_softmax=True)
case("backward", "softmax_zero", [[0, 0, 0], [1e-30, 1e-38, 1]], vectors=normal(2, 3), from_softmax=True)
case("backward", "order_k300", np.round(normal(1, 300, 2), 2), vectors=np.round(normal(1, 300), 2))
case("backward", "order_k1100", [np.arange(1100) / 64], vectors=[np.tile([1.0, -1.0], 550)])
