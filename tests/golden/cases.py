"""The inputs of the golden cases, for make_golden.py: name, logits, labels, reduction, upstream gradient.

Runs by itself with numpy alone; random inputs have a fixed seed. Each group is a line or more of the edge table of the
specification. MIT OR Apache-2.0, like the crate.
"""
import math

import numpy as np

INF, NAN, MAX = math.inf, math.nan, float(np.finfo(np.float32).max)
M = -INF  # a masked class
REDUCTIONS = ("mean", "sum", "none")
UPSTREAM = {"mean": 0.75, "sum": -2.5, "none": [1.0, -0.5, 3.0, 0.0, float(np.float32(1e-3))]}
rng = np.random.default_rng(0)
CASES = []


def f32(values):
    """Flat list of the f64 values of the f32 nearest to `values`."""
    return [float(v) for v in np.asarray(values, dtype=np.float64).astype(np.float32).ravel()]


def case(name, logits, index=None, dense=None, reduction="mean", upstream=None, ignore=-100, classes=None):
    rows = len(logits)
    labels = None
    if index is not None:
        labels = {"index": [int(i) for i in index], "ignore_index": ignore}
        assert len(index) == rows
    if dense is not None:
        labels = {"dense": f32(dense)}
        assert len(labels["dense"]) == len(f32(logits))
    if upstream is None:
        upstream = [1.0] * rows if reduction == "none" else 1.0
    CASES.append({"name": name, "rows": rows, "classes": classes or len(logits[0]), "logits": f32(logits),
                  "labels": labels, "reduction": reduction if labels else None, "upstream": upstream})


def normal(rows, classes, scale=1.0, offset=0.0):
    return (rng.standard_normal((rows, classes)) * scale + offset).tolist()


def labels_for(rows, classes):
    return rng.integers(0, classes, rows).tolist()


def with_upstream(reduction, rows):
    return UPSTREAM["none"][:rows] if reduction == "none" else UPSTREAM[reduction]


for i, k in enumerate((2, 3, 4, 5, 7, 8, 10, 16, 17, 31, 32, 33, 40)):
    for scale in (1, 10):
        red = REDUCTIONS[(i + scale) % 3]
        case(f"normal_{scale}_k{k}", normal(3, k, scale), labels_for(3, k), reduction=red)
for red in REDUCTIONS:
    case(f"upstream_{red}", normal(4, 6), labels_for(4, 6), reduction=red, upstream=with_upstream(red, 4))
    case(f"upstream_dense_{red}", normal(4, 6), dense=rng.random((4, 6)), reduction=red, upstream=with_upstream(red, 4))
    case(f"upstream_ignored_{red}", normal(4, 6), [1, -100, 5, 0], reduction=red, upstream=with_upstream(red, 4))
case("upstream_zero", normal(2, 4), [1, 2], upstream=0.0)
case("upstream_large", normal(2, 4), [1, 2], reduction="sum", upstream=65536.0)
for k in (1, 3, 12):
    case(f"no_labels_k{k}", normal(3, k, 5))
case("no_labels_edges", [[-INF, 1, 2], [NAN, 1, 2], [INF, 1, 2], [-INF] * 3, [0, 100, -100]])

for offset in (1000, -1000):
    for red in REDUCTIONS:
        case(f"offset_{offset}_{red}", normal(3, 5, 2, offset), labels_for(3, 5), reduction=red)
case("offset_1000_confident", [[1000, 1100, 1060], [1036, 1000, 1000]], [1, 0], reduction="none")
case("offset_1e30", [[1e30, 1e30, 1e30], [-1e30, -1e30, -1e30], [1e30, -1e30, 0], [1e30, -1e30, 0]], [0, 2, 0, 1], reduction="none")
case("offset_1e30_neighbours", [[1e30, np.nextafter(np.float32(1e30), np.float32(2e30)), 1e30]] * 2, [0, 1], reduction="sum")
case("offset_1e30_and_small", [[1e30, 1, 2], [-1e30, 1, 2], [-1e30, 1, 2]], [1, 2, 0])
case("flt_max_loss_past_f32", [[-3.4e38, 3.4e38], [3.4e38, -3.4e38]], [0, 0], reduction="none")
case("flt_max_ends", [[-MAX, MAX, 0], [MAX, -MAX, MAX], [-MAX] * 3, [MAX] * 3], [0, 1, 2, 0], reduction="none")
case("flt_max_mean_past_f32", [[-MAX, MAX, 0]] * 2, [0, 2])
case("flt_max_sum_past_f32", [[3e38, 0]] * 4, [1] * 4, reduction="sum")
case("flt_max_mean_fits_f32", [[3e38, 0]] * 4, [1] * 4)
case("flt_max_upstream", [[-MAX, MAX, 0]] * 2, [0, 1], reduction="none", upstream=[0.5, -2.0])
case("flt_max_dense", [[-MAX, MAX, 0, 1], [MAX, MAX, -MAX, 0]], dense=[[.25, .25, .25, .25], [0, .5, .25, 0]], reduction="none")
case("flt_max_and_mask", [[-MAX, -INF, -MAX], [-INF, MAX, -MAX]], [0, 1])
case("subnormal_logits", [[1e-40, -1e-40, 0, 1e-45], [1e-39, 1, -1e-39, 0]], [0, 2])

for i, gap in enumerate((0, 1, 5, 10, 17, 20, 30, 36, 40, 60, 87, 100)):
    case(f"gap_{gap}_k2", [[gap, 0], [gap, 0], [0, gap], [0, gap]], [0, 1, 0, 1], reduction=REDUCTIONS[i % 3])
    case(f"gap_{gap}_k5", [[-0.5, gap, 0, -3, 0]] * 3, [1, 2, 3], reduction=REDUCTIONS[(i + 1) % 3])
case("gaps_past_f32", [[g, 0, -1] for g in (103, 104, 110, 300, 700, 740, 745, 746, 800, 5000)], [0] * 10, reduction="none")
case("gaps_past_f32_sum", [[0, g, -1] for g in (103, 104, 300, 745, 746, 5000)], [1] * 6, reduction="sum")
case("gap_17_many_classes", [[17] + [0] * 39, [36] + [0] * 39], [0, 0], reduction="none")
case("gap_confident_but_wrong", [[40, 0, 39.5]] * 2, [2, 1])
case("gap_confident_mean_of_mixed", [[60, 0, 1], [0, 1, 2], [0, 90, 45]], [0, 1, 1])

for value in (0, 5.5, -1e30):
    case(f"ties_all_{value}", [[value] * 7] * 2, [0, 6])
case("ties_two_maxima", [[1, 3, 0, 3], [3, 3, 2, 1], [0, 1, 9, 9]], [1, 2, 3], reduction="none")
case("ties_signed_zero", [[-0.0, 0.0], [0.0, -0.0], [-1.0, -0.0]], [0, 1, 1], reduction="none")
case("ties_two_confident", [[50, 0, 50, 0]] * 2, [0, 1], reduction="sum")
case("ties_mask", [[-INF, 2, -INF, 2]] * 2, [1, 3])
case("order_ascending", [[k / 2 for k in range(16)], [k * 4 for k in range(16)]], [15, 0], reduction="none")
case("order_descending", [[-k / 2 for k in range(16)], [-k * 4 for k in range(16)]], [15, 0], reduction="none")
case("order_max_last", [[0] * 9 + [8], [-1] * 9 + [25]], [9, 9])
case("order_max_first", [[8] + [0] * 9, [25] + [-1] * 9], [0, 3])
case("order_max_middle", [[0] * 4 + [12] + [1] * 5], [4], reduction="sum")

for red in REDUCTIONS:
    case(f"k1_{red}", [[0.0], [3.5], [1e30], [-MAX], [-0.0]], [0] * 5, reduction=red, upstream=with_upstream(red, 5))
case("k1_not_finite", [[-INF], [INF], [NAN], [1.0]], [0] * 4, reduction="none")
case("k1_ignored", [[-INF], [2.0], [NAN]], [-100, 0, -100])
case("k1_dense", [[2.0], [-7.0], [0.0], [1e30]], dense=[[1], [.5], [0], [-2]], reduction="none")

case("mask_label_elsewhere", [[M, 1, 2, M], [0, M, M, 3], [M, M, M, 7]], [1, 3, 3], reduction="none")
case("mask_label_elsewhere_mean", [[M, 1, 2, M, 0.5], [0, M, -1, 3, M]], [2, 0])
case("mask_label_on_it_none", [[M, 1, 2], [0, 1, 2]], [0, 1], reduction="none", upstream=[2.0, -1.0])
case("mask_label_on_it_mean", [[M, 1, 2], [0, 1, 2]], [0, 1])
case("mask_label_on_it_sum", [[1, M], [M, 1]], [1, 0], reduction="sum")
case("mask_confident", [[M, 40, 0, M], [M, 100, 0, M]], [1, 1], reduction="none")
case("mask_one_left", [[M, -5, M], [MAX, M, M]], [1, 0], reduction="none")
case("mask_first_half", [[M] * 8 + r for r in normal(3, 8)], [8, 12, 15], reduction="sum")
case("mask_ignored", [[M, 1, 2], [M, 1, M]], [-100, 1])

for red in REDUCTIONS:
    rows = [[0, 1, 2], [M] * 3, [1, INF, 0], [NAN, 1, 2], [2, 1, 0]]
    case(f"nan_rows_{red}", rows, [0, 1, 2, 1, 0], reduction=red, upstream=with_upstream(red, 5))
case("nan_row_all_masked", [[M] * 4, [0, 1, 2, 3]], [1, 1], reduction="none")
case("nan_row_inf_label", [[0, INF], [0, INF], [INF, INF], [M, INF]], [1, 0, 0, 0], reduction="none")
case("nan_row_last_class", [[0, 1, NAN], [1, 1, 1], [M, M, NAN]], [0, 0, 0], reduction="none")
case("nan_row_dense", [[NAN, 0, 1], [1, 0, 1], [M, M, M], [INF, 0, 0]], dense=[[0, .5, .5], [1, 0, 0], [0, 0, 0], [0, 1, 0]], reduction="none")
case("nan_row_dense_mean", [[NAN, 0, 1], [1, 0, 1]], dense=[[0, 0, 0], [1, 0, 0]])

for red in REDUCTIONS:
    case(f"ignored_{red}", normal(5, 4), [0, -100, 3, -100, 1], reduction=red, upstream=with_upstream(red, 5))
    rows = [[NAN, 1, 2], [0, 1, 2], [INF, 0, 0], [M, M, M], [3, 1, 0]]
    case(f"ignored_not_finite_{red}", rows, [-100, 1, -100, -100, 2], reduction=red)
    case(f"ignored_all_{red}", normal(3, 4), [-100] * 3, reduction=red)
    case(f"ignored_all_not_finite_{red}", [[NAN, 0], [M, M], [INF, 1]], [-100] * 3, reduction=red)
case("ignored_index_0", normal(4, 3), [0, 1, 2, 0], ignore=0)
case("ignored_index_minus_1", normal(4, 3), [-1, 1, 2, 0], reduction="sum", ignore=-1)
case("ignored_index_255", normal(3, 3), [255, 1, 255], ignore=255)
case("ignored_index_64_bit", normal(3, 3), [2, -2**63, 1], ignore=-2**63)
case("ignored_confident", [[60, 0, 0], [45, 0, 1], [0, 1, 2]], [0, -100, 2], reduction="none")

soft = rng.dirichlet(np.ones(5), 3)
for red in REDUCTIONS:
    case(f"dense_soft_{red}", normal(3, 5), dense=soft, reduction=red)
    case(f"dense_not_normalised_{red}", normal(3, 5, 3), dense=soft * [[0.25], [2.0], [10.0]], reduction=red)
    case(f"dense_negative_{red}", normal(2, 4), dense=[[-.5, 1, .25, .25], [-1, -.25, -.125, -2]], reduction=red)
    case(f"dense_zero_row_{red}", normal(3, 4), dense=[[0] * 4, [0, 1, 0, 0], [0] * 4], reduction=red)
case("dense_one_hot", normal(3, 6), dense=np.eye(6)[[0, 3, 5]])
for gap in (17, 20, 36, 40, 87, 100):
    case(f"dense_one_hot_gap_{gap}", [[0, gap, 0, -1]] * 2, dense=[[0, 1, 0, 0], [0, 0, 1, 0]], reduction="none")
case("dense_confident_scaled", [[0, 40, 1]] * 3, dense=[[0, .5, 0], [0, 3, 0], [0, -1, 0]], reduction="none")
case("dense_confident_smoothed", [[0, 40, 1], [0, 0, 90]], dense=[[.05, .9, .05], [.1, .1, .8]], reduction="none")
case("dense_zero_at_mask", [[M, 1, 2], [0, M, M]], dense=[[0, .25, .75], [1, 0, 0]])
case("dense_zero_at_mask_none", [[M, 1, 2], [0, M, 4]], dense=[[0, .25, .75], [2, 0, 1]], reduction="none", upstream=[1.0, -3.0])
for red in REDUCTIONS:
    case(f"dense_weight_at_mask_{red}", [[M, 1, 2], [0, 1, 4]], dense=[[.5, .25, .25], [0, 1, 0]], reduction=red)
case("dense_weight_on_masks_only", [[M, 1, M, 0]], dense=[[.5, 0, .5, 0]])
case("dense_many_classes", normal(2, 40, 4), dense=rng.dirichlet(np.ones(40), 2))

for k in (2, 5, 9, 20, 29, 37):  # everything at once
    x, y = np.array(normal(5, k, 8)), labels_for(5, k)
    x[rng.random((5, k)) < 0.25] = M
    x[np.arange(5), y] = rng.standard_normal(5)
    y[int(rng.integers(5))] = -100
    red = REDUCTIONS[k % 3]
    case(f"mixed_k{k}", x.tolist(), y, reduction=red, upstream=with_upstream(red, 5))
for red in REDUCTIONS:
    case(f"no_rows_{red}", [], [], reduction=red, classes=4)
case("no_rows_dense", [], dense=[], classes=4)
