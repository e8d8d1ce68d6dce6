#!/usr/bin/env python3
"""Makes the golden values that the crate's f64 CPU oracle is checked against.

    pip install numpy==2.4.6 mpmath==1.3.0 torch==2.15.0      (Python 3.11)
    python tests/golden/make_golden.py                        (about 15 s)

The inputs are in cases.py. Every number comes from the direct definitions in multi-precision arithmetic and is
rounded once to f64. Where plain f64 is able to answer (see `torch_can`), PyTorch's float64 result must agree to
1e-10, so that it vouches for the conventions: ignore_index, denominators, dense labels, reductions, upstream.

oracle.json: a list of cases. Arrays are flat and row-major. Numbers are the shortest that parse back to the
same f64 (serde_json needs its feature `float_roundtrip` for that); "inf", "-inf" and "nan" are strings.
A NaN row is one with a NaN, a +inf, or only -inf. A computed zero is never written as -0.
    name, rows, classes, logits (f32 values)
    labels      {"index": [..], "ignore_index": i}, {"dense": [..]} (f32 values), or null
    reduction   "mean", "sum", "none", or null without labels
    upstream    one number for mean and sum, one per row for none
    expect      softmax, log_softmax [rows * classes]; lse, predictions [rows] (-1 for a NaN row);
                losses [rows], before reduction and upstream; loss, reduced, before upstream, null for none;
                grad [rows * classes], of the reduced loss times upstream (none: row r times upstream[r]);
                valid_rows. Without labels: losses, loss, grad and valid_rows are null.
    source      "mpmath", or "mpmath+torch" where torch vouched
exp.json: {"exp": [[d, exp(d)], ..], "log1p": [[s, log(1 + s)], ..]}, d in [-110, 0], s in [0, 2^32], f32 values.

Script and files: MIT OR Apache-2.0, like the crate.
"""
import json
import math
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np
import torch

from cases import CASES, f32

HERE = Path(__file__).parent
INF = math.inf
# lse - z takes a value as small as 1e-324 from a difference of values as large as 1e39: 363 digits, and 17 to keep.
mpmath.mp.dps = 400
rng = np.random.default_rng(1)


def f64(v):
    """Nearest f64. Through a fraction, because mpmath rounds twice where f64 is subnormal."""
    if not mpmath.isfinite(v):
        return float(v)
    if v == 0 or mpmath.mag(v) < -1080:
        return 0.0
    sign, man, exp, _ = v._mpf_
    return float((-1) ** sign * Fraction(int(man)) * Fraction(2) ** exp)


# ---- the definitions ---------------------------------------------------------------------------------

def row_results(x):
    """softmax, log_softmax, lse, prediction of one row."""
    if any(math.isnan(v) or v == INF for v in x) or all(v == -INF for v in x):
        return [mpmath.nan] * len(x), [mpmath.nan] * len(x), mpmath.nan, -1
    e = [mpmath.exp(mpmath.mpf(v)) for v in x]
    total = mpmath.fsum(e)
    lse = mpmath.log(total)
    return [v / total for v in e], [mpmath.mpf(v) - lse for v in x], lse, x.index(max(x))


def row_loss(p, logp, t):
    """Loss and gradient of one row with the label weights t; 0 * inf is 0."""
    loss = -mpmath.fsum(tk * lk for tk, lk in zip(t, logp) if tk != 0 or mpmath.isnan(lk))
    weight = mpmath.fsum(t)
    return loss, [pk * weight - tk for pk, tk in zip(p, t)]


def expectation(case):
    n, k, labels = case["rows"], case["classes"], case["labels"]
    x = [case["logits"][r * k:(r + 1) * k] for r in range(n)]
    p, logp, lse, predictions = (list(v) for v in zip(*map(row_results, x))) if n else ([], [], [], [])
    result = {"softmax": sum(p, []), "log_softmax": sum(logp, []), "lse": lse, "predictions": predictions,
              "losses": None, "loss": None, "grad": None, "valid_rows": None}
    if labels is None:
        return result
    losses, grads, valid = [], [], n
    for r in range(n):
        if "dense" in labels:
            t = [mpmath.mpf(v) for v in labels["dense"][r * k:(r + 1) * k]]
        elif labels["index"][r] == labels["ignore_index"]:
            valid -= 1
            losses.append(mpmath.mpf(0))
            grads.append([mpmath.mpf(0)] * k)
            continue
        else:
            t = [mpmath.mpf(j == labels["index"][r]) for j in range(k)]
        loss, grad = row_loss(p[r], logp[r], t)
        losses.append(loss)
        grads.append(grad)
    total, up = mpmath.fsum(losses), case["upstream"]
    if case["reduction"] == "mean":
        result["loss"] = total / valid if valid else mpmath.nan
        factor = [mpmath.mpf(up) / max(valid, 1)] * n
    elif case["reduction"] == "sum":
        result["loss"], factor = total, [mpmath.mpf(up)] * n
    else:
        factor = [mpmath.mpf(u) for u in up]
    grad = [g * f for row, f in zip(grads, factor) for g in row]
    return {**result, "losses": losses, "grad": grad, "valid_rows": valid}


# ---- PyTorch as a second witness ---------------------------------------------------------------------

def torch_can(case, expect):
    """Whether plain f64 keeps 1e-10: no weight on a class with 0 < 1 - p < 1e-5 (1 - p cancels), no 0 * -inf,
    and no ignored row that is NaN (torch's gradient there is NaN, ours is 0)."""
    labels, k = case["labels"], case["classes"]
    for i, (p, logp) in enumerate(zip(expect["softmax"], expect["log_softmax"])):
        if labels is None:
            continue
        if "index" in labels:
            label = labels["index"][i // k]
            if label == labels["ignore_index"] and mpmath.isnan(p):
                return False
            weight = float(label == i % k)
        else:
            weight = labels["dense"][i]
            if weight == 0 and mpmath.isinf(logp):
                return False
        if weight != 0 and 0 < f64(1 - p) < 1e-5:
            return False
    return True


def agree(name, ours, theirs, scale=None):
    theirs = theirs.detach().reshape(-1).tolist()
    assert len(ours) == len(theirs), name
    for i, (a, b) in enumerate(zip(map(f64, ours), theirs)):
        same = a == b or (math.isnan(a) and math.isnan(b))
        assert same or abs(a - b) <= 1e-10 * (scale[i] if scale else abs(a)), (name, i, a, b)


def ask_torch(case, expect):
    n, k, labels = case["rows"], case["classes"], case["labels"]
    x = torch.tensor(case["logits"], dtype=torch.float64).reshape(n, k).requires_grad_()
    agree("softmax", expect["softmax"], torch.softmax(x, 1))
    agree("log_softmax", expect["log_softmax"], torch.log_softmax(x, 1), [1 + abs(f64(v)) for v in expect["log_softmax"]])
    fine = [r for r in range(n) if not mpmath.isnan(expect["lse"][r])]  # torch: lse of a NaN row may be +-inf
    lse = [expect["lse"][r] for r in fine]
    agree("lse", lse, torch.logsumexp(x, 1)[fine], [1 + abs(f64(v)) for v in lse])
    if labels is None:
        return
    weights, ignore = None, labels.get("ignore_index", -100)
    if "dense" in labels:
        y = torch.tensor(labels["dense"], dtype=torch.float64).reshape(n, k)
        # p * sum(t) - t cancels in earnest: judged against the size of its two terms
        factor = case["upstream"] if case["reduction"] == "none" else [case["upstream"]] * n
        div = n if case["reduction"] == "mean" else 1
        up = torch.tensor(factor, dtype=torch.float64).abs().reshape(n, 1) / div
        weights = (up * (torch.softmax(x, 1) * y.abs().sum(1, keepdim=True) + y.abs())).reshape(-1).tolist()
    else:
        y = torch.tensor(labels["index"], dtype=torch.int64)

    def loss(reduction):
        return torch.nn.functional.cross_entropy(x, y, ignore_index=ignore, reduction=reduction)
    agree("losses", expect["losses"], loss("none"))
    reduced = loss(case["reduction"])
    if case["reduction"] != "none":
        agree("loss", [expect["loss"]], reduced)
    reduced.backward(torch.tensor(case["upstream"], dtype=torch.float64))
    agree("grad", expect["grad"], x.grad, weights)


# ---- exp and log1p -----------------------------------------------------------------------------------

def around(value, ulps):
    """The f32 nearest to value and its neighbours."""
    bits = int(np.float32(abs(value)).view(np.uint32))
    return [math.copysign(float(np.uint32(bits + i).view(np.float32)), value) for i in range(-ulps, ulps + 1)]


def exp_points():
    points = [-0.0, 0.0, -1e-45, -1e-40, -1e-38, -1e-30, -1e-20, -1e-10, -1e-5, -1e-3, -1.0, -2.0, -50.0, -109.0, -110.0]
    points += [-(2.0 ** -e) for e in (20, 22, 23, 24, 25, 26, 30)]
    for k in range(1, 318, 5):
        points += around(-k * math.log(2) / 2, 1)
    for d in (-87.3366, -88.0, -103.0, -103.972, -104.0):
        points += around(d, 3)
    return points, lambda: -110 * rng.random() ** 2


def log1p_points():
    points = [0.0, 1e-45, 1e-40, 1e-38, 1e-30, 1e-20, 1e-10, 1e-8, 1e-7, 1e-3, 0.1, 0.5, 2.0, 10.0, 1e6, 2.0 ** 31, 2.0 ** 32]
    points += [2.0 ** -e for e in range(20, 30)]
    for s in (1.0, math.sqrt(2) - 1, math.sqrt(0.5), math.sqrt(2), 3.0, 2.0 ** 24, 262143.0):
        points += around(s, 4)
    return points, lambda: min(2.0 ** (rng.random() * 181 - 149), 2.0 ** 32)


def table(points_and_random, function, count=400):
    points, more = points_and_random
    points = list(dict.fromkeys(map(repr, f32(points))))
    while len(points) < count:
        point = repr(f32([more()])[0])
        points += [point] if point not in points else []
    return [[float(p), f64(function(mpmath.mpf(float(p))))] for p in points]


# ---- writing -----------------------------------------------------------------------------------------

def plain(v):
    """Lists and numbers as JSON has them; non-finite numbers as strings; never -0 from a computation."""
    if isinstance(v, (list, tuple)):
        return [plain(e) for e in v]
    if isinstance(v, mpmath.mpf):
        v = f64(v) + 0.0
    if isinstance(v, float) and not math.isfinite(v):
        return "nan" if math.isnan(v) else "inf" if v > 0 else "-inf"
    return {k: plain(e) for k, e in v.items()} if isinstance(v, dict) else v


def main():
    assert len({c["name"] for c in CASES}) == len(CASES)
    vouched = 0
    for c in CASES:
        expect = expectation(c)
        c["source"] = "mpmath"
        if torch_can(c, expect):
            try:
                ask_torch(c, expect)
            except AssertionError as e:
                raise SystemExit(f"{c['name']}: torch disagrees: {e}")
            c["source"] = "mpmath+torch"
            vouched += 1
        c["expect"] = expect
    (HERE / "oracle.json").write_text("[\n" + ",\n".join(json.dumps(plain(c), allow_nan=False) for c in CASES) + "\n]\n")
    tables = {"exp": table(exp_points(), mpmath.exp), "log1p": table(log1p_points(), mpmath.log1p)}
    text = ",\n".join(f'"{k}": [\n' + ",\n".join(json.dumps(row) for row in v) + "\n]" for k, v in tables.items())
    (HERE / "exp.json").write_text("{\n" + text + "\n}\n")
    print(len(CASES), "cases, torch vouches for", vouched)


if __name__ == "__main__":
    main()
