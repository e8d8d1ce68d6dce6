#!/usr/bin/env python3
"""Makes the reference set: what softxent has to answer, with every option, in multi-precision arithmetic.

    pip install numpy==2.4.6 ml_dtypes==0.6.0 mpmath==1.3.0 torch==2.15.0      (Python 3.11)
    python tests/golden/make_reference.py                                      (about half a minute)

The inputs are in reference_cases.py. Three answers to each case are compared before anything is written:

1. `stable`: the formulas in which nothing cancels, 140 digits. What is stored.
2. `textbook`: the definitions as they are in the books (log sum exp, -sum p log p, 1 - tanh^2), 700 digits, so that what
   cancels leaves 200 digits and more. Each value has to agree to 60 digits. This checks the rearrangements.
3. `witness`: PyTorch in f64 with its own cross_entropy (weight, label_smoothing, ignore_index, reduction) and autograd.
   This checks the conventions. It is compared value by value, within the rounding errors that plain f64 may make there (see
   `witness`), wherever those are below 1e-7 of the value; "torch" counts the values that were compared.

reference.json: {"versions": .., "cases": [..]}, one case a line. Numbers are the shortest decimals of an f64 (expect), or of
the f32, f16 or bf16 itself (logits, labels: the nearest f32 of the text is the value). "inf", "-inf", "nan" are strings. A
field that has its default is left out.

    name                 group/name
    rows, classes
    dtype                of the logits: "f32" (default), "f16", "bf16"
    logits               row after row; with from_softmax the softmax
    index, ignore_index  labels; -100
    dense | vectors      label weights | what the Jacobian of softmax is multiplied by (softmax_backward)
    weights              class weights
    smoothing, z_loss, scale, softcap   0, 0, 1, none: f32 values, widened
    reduction            "mean" (default), "sum", "none"
    denominator          "weights" (default), "valid_rows", or a number
    empty_mean           "nan" (default), "zero"
    upstream             1; a number, or a list with one per row. "shared": it is given with the batch
    expect               softmax, log_softmax, grad [rows * classes]; losses, lse, entropy, z_losses, predictions, correct_rows
                         [rows]; loss, z_loss, correct, valid_rows, nan_rows, first_nan_row. What does not apply is left out
                         (loss and z_loss of "none", z-losses without a z-loss, correct of dense labels); vectors have a
                         gradient only. A computed zero is never -0. In f64, so past 3.4e38 an f32 result is infinite.
    size                 of the values whose error is not judged against themselves: one ULP is that of the size.
                         lse |m| + L; grad of mixed targets (p S + |wt| + 2 lambda (|m| + L) p) |dz/dx| |g / denominator|
                         with S = sum |wt|, of Jacobian products p (|v| + sum p|v|) |dz/dx| |g|; losses sum |wt| (-log p) + z
                         where labels are signed or there is a z-loss; z_losses 2 lambda (|m| + L) |lse| where m < 0 (else
                         themselves), which is also the z in losses; loss, z_loss: the same summed, over the denominator.
                         m is the maximum of z, L = lse - m.
    slack                where terms may be flushed to zero, K 2^-126 times this may be lost: grad (per row)
                         max(1, |g / denominator| (S + 2 lambda (|m| + L)) max(1, s)), losses max(1, S, 2 lambda (|m| + L)),
                         z_losses max(1, 2 lambda (|m| + L)), loss and z_loss the sums of these over the denominator.
                         Left out where all are 1.
    torch                [values compared with PyTorch, values in all]

What the specification leaves open, as it was read here:

* -inf is a mask before the cap, too: z = -inf, not -c; dz/dx there is 0, as the derivative of the cap is in the limit.
* A scaled logit may pass 3.4e38: the softmax, the loss and the gradient are still those of the exact z.
* No valid rows: `loss` and `z_loss` are NaN with "nan", 0 with "zero". Weights that sum to 0: `z_loss` is the mean over the
  rows, and `loss` is NaN with "nan", the z-loss with "zero".
* A NaN or an infinity among the dense labels or the vectors of a row: its loss and gradient are NaN and it is counted; its
  softmax, lse and prediction are those of its logits. The same for softmax given in place of logits.

Script and files: MIT OR Apache-2.0, like the crate.
"""
import json
import math
import platform
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import ml_dtypes
import mpmath
import numpy as np
import torch
from mpmath import mpf

from reference_cases import CASES, DEFAULTS

HERE = Path(__file__).parent
INF, NAN = math.inf, mpmath.nan
ZERO, ONE = mpf(0), mpf(1)
FLOATS = ("softmax", "log_softmax", "grad", "losses", "lse", "entropy", "z_losses", "loss", "z_loss")


def f64(v):
    """Nearest f64. Through a fraction, because mpmath rounds twice where f64 is subnormal."""
    if not mpmath.isfinite(v):
        return float(v)
    if v == 0 or mpmath.mag(v) < -1080:
        return 0.0
    sign, man, exp, _ = v._mpf_
    return float((-1) ** sign * Fraction(int(man)) * Fraction(2) ** exp)


def total(terms):
    """The sum, rounded once; mpmath's fsum does not know infinities of both signs."""
    return mpmath.fsum(terms)


# ---- one row -----------------------------------------------------------------------------------------
# Both return what a row's outputs are made of; `wt` is None where there is no label, so that loss and gradient are left out.

def is_nan_row(x):
    return any(math.isnan(v) or v == INF for v in x) or all(v == -INF for v in x)


def stable(c, x, wt):
    s, cap = mpf(c["scale"]), c["softcap"] and mpf(c["softcap"])
    masked = [v == -INF for v in x]
    u = [ZERO if off else s * mpf(v) for v, off in zip(x, masked)]
    z, slope = u, [s] * len(x)
    if cap:
        u = [v / cap for v in u]
        q = [mpmath.exp(-2 * abs(v)) for v in u]
        z = [cap * mpmath.sign(v) * (-mpmath.expm1(-2 * abs(v))) / (1 + qk) for v, qk in zip(u, q)]
        slope = [s * 4 * qk / (1 + qk) ** 2 for qk in q]
        slope = [ZERO if off else v for v, off in zip(slope, masked)]
    top = x.index(max(x))
    m = z[top]
    gap = [mpf(INF) if off else m - v for v, off in zip(z, masked)]
    e = [ZERO if off else mpmath.exp(-d) for d, off in zip(gap, masked)]
    others = total(v for k, v in enumerate(e) if k != top)
    log1p = mpmath.log1p(others)
    lse = m + log1p
    p = [v / (1 + others) for v in e]
    row = {"m": m, "L": log1p, "p": p, "log_p": [-d - log1p for d in gap], "lse": lse, "slope": slope, "prediction": top,
           "entropy": log1p + total(pk * d for pk, d in zip(p, gap) if pk != 0)}
    if wt is not None:
        row["ce"] = total(w * (d + log1p) for w, d in zip(wt, gap) if w != 0)
        # p W - wt, with W = wt + (the rest) and 1 - p = (the other terms) / (1 + s)
        sum_e, sum_w = total(e), total(wt)
        rest_e = [total(e[:k] + e[k + 1:]) for k in range(len(e))] if len(e) < 64 else [
            others if k == top else sum_e - v for k, v in enumerate(e)]
        rest_w = [total(wt[:k] + wt[k + 1:]) for k in range(len(e))] if len(e) < 64 else [sum_w - w for w in wt]
        row["d_ce"] = [(pk * rw - w * re / (1 + others)) * d for pk, rw, w, re, d in zip(p, rest_w, wt, rest_e, slope)]
        row["d_lse2"] = [2 * lse * pk * d for pk, d in zip(p, slope)]
    return row


def textbook(c, x, wt):
    s, cap = mpf(c["scale"]), c["softcap"] and mpf(c["softcap"])
    z = [s * mpf(v) for v in x]
    slope = [s] * len(x)
    if cap:
        tanh = [mpmath.tanh(v / cap) if mpmath.isfinite(v) else -ONE for v in z]
        slope = [s * (1 - t * t) for t in tanh]
        z = [cap * t if mpmath.isfinite(v) else v for v, t in zip(z, tanh)]
    p_ = [mpmath.exp(v) for v in z]
    sum_exp = total(p_)
    lse = mpmath.log(sum_exp)
    p = [v / sum_exp for v in p_]
    m = max(z)
    row = {"m": m, "L": lse - m, "p": p, "log_p": [v - lse for v in z], "lse": lse, "slope": slope, "prediction": x.index(max(x)),
           "entropy": -total(pk * (v - lse) for pk, v in zip(p, z) if pk != 0)}
    if wt is not None:
        weight = total(wt)
        row["ce"] = total(w * (lse - v) for w, v in zip(wt, z) if w != 0)
        row["d_ce"] = [(pk * weight - w) * d for pk, w, d in zip(p, wt, slope)]
        row["d_lse2"] = [2 * lse * pk * d for pk, d in zip(p, slope)]
    return row


# ---- the batch ---------------------------------------------------------------------------------------

def targets(c, i):
    """The label weights w t of a row; None if it is ignored or there are no labels."""
    k = c["classes"]
    if c["index"] is not None:
        if c["index"][i] == c["ignore_index"]:
            return None
        y = [mpf(j == c["index"][i]) for j in range(k)]
    elif c["dense"] is not None:
        y = [mpf(v) for v in c["dense"][i * k:][:k]]
    else:
        return None
    eps, weights = mpf(c["smoothing"]), c["weights"] or [1.0] * k
    return [mpf(w) * ((1 - eps) * v + eps / k) for w, v in zip(weights, y)]


def backward(c, row_of):
    """The product of the Jacobian with the vectors."""
    n, k = c["rows"], c["classes"]
    grad, size, slack, nan_rows = [], [], [], []
    for i in range(n):
        x, v = c["logits"][i * k:][:k], c["vectors"][i * k:][:k]
        g = mpf(c["upstream"][i] if isinstance(c["upstream"], list) else c["upstream"])
        bad = any(not math.isfinite(a) for a in v)
        if bad or (any(not math.isfinite(a) for a in x) if c["from_softmax"] else is_nan_row(x)):
            nan_rows.append(i)
            grad, size, slack = grad + [NAN] * k, size + [NAN] * k, slack + [ONE]
            continue
        v = [mpf(a) for a in v]
        p, slope = ([mpf(a) for a in x], [ONE] * k) if c["from_softmax"] else (lambda r: (r["p"], r["slope"]))(row_of(c, x, None))
        if c["from_softmax"] or row_of is textbook:
            mean = total(a * b for a, b in zip(p, v))
            grad += [a * (b - mean) * d * g for a, b, d in zip(p, v, slope)]
        else:  # v - <p, v> = sum p_j (v - v_j): exact where v is the same everywhere
            grad += [a * total(pj * (b - vj) for pj, vj in zip(p, v)) * d * g for a, b, d in zip(p, v, slope)] if k < 64 else [
                a * (b - total(pj * vj for pj, vj in zip(p, v))) * d * g for a, b, d in zip(p, v, slope)]
        around = total(a * abs(b) for a, b in zip(p, v))
        size += [abs(a) * (abs(b) + around) * d * abs(g) for a, b, d in zip(p, v, slope)]
        slack.append(max(ONE, abs(g) * (max(abs(b) for b in v) + around) * max(ONE, mpf(c["scale"]))))
    expect = {"grad": grad, "valid_rows": n, "nan_rows": len(nan_rows)}
    if nan_rows:
        expect["first_nan_row"] = nan_rows[0]
    return expect, {"grad": size}, {"grad": slack}, None


def answer(c, row_of):
    """expect, size, slack of a case, and its rows."""
    if c["vectors"] is not None:
        return backward(c, row_of)
    n, k, lam = c["rows"], c["classes"], mpf(c["z_loss"])
    indexed, labelled = c["index"] is not None, c["index"] is not None or c["dense"] is not None
    ignored = [indexed and c["index"][i] == c["ignore_index"] for i in range(n)]
    valid = n - sum(ignored)

    # What the loss term and the z term are divided by.
    den_loss = den_z = ONE
    if c["reduction"] == "mean":
        den_loss = den_z = mpf(valid)
        if c["denominator"] == "weights" and indexed and c["weights"]:
            den_loss = total(mpf(c["weights"][c["index"][i]]) for i in range(n) if not ignored[i])
        elif not isinstance(c["denominator"], str):
            den_loss = den_z = mpf(c["denominator"])
    share = lambda i, den: (mpf(c["upstream"][i] if isinstance(c["upstream"], list) else c["upstream"]) / den) if den != 0 else ZERO

    out = {key: [] for key in FLOATS[:7] + ("predictions", "correct_rows")}
    size = {key: [] for key in ("lse", "grad", "losses", "z_losses")}
    slack = {key: [] for key in ("grad", "losses", "z_losses")}
    rows, ces, ce_sizes, nan_rows = [], [], [], []
    for i in range(n):
        x, wt, bad = c["logits"][i * k:][:k], targets(c, i), False
        if wt is not None and any(not mpmath.isfinite(w) for w in wt):
            wt, bad = None, True
        nan = is_nan_row(x)
        row = row_of(c, x, wt) if not nan else {"p": [NAN] * k, "log_p": [NAN] * k, "lse": NAN, "entropy": NAN, "prediction": -1,
                                                 "m": NAN, "L": NAN, "slope": [NAN] * k}
        rows.append(row)
        out["softmax"] += row["p"]
        out["log_softmax"] += row["log_p"]
        out["lse"].append(row["lse"])
        out["entropy"].append(row["entropy"])
        out["predictions"].append(row["prediction"])
        base = abs(row["m"]) + row["L"]
        size["lse"].append(base)
        if not labelled:
            nan_rows += [i] * nan
            continue
        out["correct_rows"].append(not ignored[i] and row["prediction"] == (c["index"] or [None] * n)[i])
        if ignored[i]:
            ce, z, d_ce, d_z, ce_size, z_size, weight = ZERO, ZERO, [ZERO] * k, [ZERO] * k, ZERO, ZERO, ZERO
            grad_size, base, row = [ZERO] * k, ZERO, {**row, "p": [ZERO] * k, "slope": [ZERO] * k}
        elif nan or bad:
            nan_rows.append(i)
            z = lam * row["lse"] ** 2 if bad else NAN
            ce, d_ce, d_z, ce_size, z_size, weight = NAN, [NAN] * k, [NAN] * k, NAN, NAN if nan else z, NAN
            grad_size = [NAN] * k
        else:
            ce, z, weight = row["ce"], lam * row["lse"] ** 2, total(abs(w) for w in wt)
            d_ce, d_z = row["d_ce"], [lam * v for v in row["d_lse2"]]
            ce_size = total(abs(w) * -lp for w, lp in zip(wt, row["log_p"]) if w != 0)
            z_size = 2 * lam * base * abs(row["lse"]) if row["m"] < 0 else z
            share_loss, share_z = abs(share(i, den_loss)), abs(share(i, den_z))
            grad_size = [((p * weight + abs(w)) * share_loss + 2 * lam * base * p * share_z) * d
                         for p, w, d in zip(row["p"], wt, row["slope"])]
        ces.append(ce)
        ce_sizes.append(ce_size)
        out["losses"].append(ce + z)
        out["z_losses"].append(z)
        out["grad"] += [a * share(i, den_loss) + (b * share(i, den_z) if lam else ZERO) for a, b in zip(d_ce, d_z)]
        size["losses"].append(ce_size + z_size)
        size["z_losses"].append(z_size)
        size["grad"] += grad_size
        factor = lambda v: max(ONE, v) if mpmath.isfinite(v) else ONE
        z_weight = 2 * lam * base
        slack["grad"].append(factor((abs(share(i, den_loss)) * weight + abs(share(i, den_z)) * z_weight) * max(ONE, mpf(c["scale"]))))
        slack["losses"].append(factor(max(weight, z_weight)))
        slack["z_losses"].append(factor(z_weight))

    expect = {**out, "valid_rows": valid, "nan_rows": len(nan_rows)}
    if nan_rows:
        expect["first_nan_row"] = nan_rows[0]
    if indexed:
        expect["correct"] = sum(out["correct_rows"])
    else:
        del expect["correct_rows"]
    if not labelled:
        for key in ("losses", "grad", "z_losses"):
            del expect[key], size[key], slack[key]
        return expect, size, slack, rows
    if c["reduction"] != "none":
        nothing = NAN if c["empty_mean"] == "nan" else ZERO
        over = lambda terms, den: total(terms) / den if den != 0 else nothing
        expect["z_loss"] = over(out["z_losses"], den_z)
        expect["loss"] = over(ces, den_loss) + (expect["z_loss"] if lam else ZERO)
        size["z_loss"] = over(size["z_losses"], den_z)
        size["loss"] = over(ce_sizes, den_loss) + (size["z_loss"] if lam else ZERO)
        slack["loss"] = total(slack["losses"]) / (min(d for d in (den_loss, den_z) if d != 0) if den_z != 0 else ONE)
        slack["z_loss"] = total(slack["z_losses"]) / (den_z if den_z != 0 else ONE)
        if slack["loss"] < 1:
            slack["loss"] = ONE
        if slack["z_loss"] < 1:
            slack["z_loss"] = ONE
    if not lam:
        for key in ("z_losses", "z_loss"):
            for place in (expect, size, slack):
                place.pop(key, None)
    signed = c["dense"] is not None and any(v < 0 for v in c["dense"])
    if not (lam or signed):
        size.pop("losses"), size.pop("loss", None)
    if lam and not any(row["m"] < 0 for row in rows):
        size.pop("z_losses"), size.pop("z_loss", None)
    if indexed and not lam and not c["smoothing"]:
        size.pop("grad")
    return expect, size, slack, rows


# ---- the two multi-precision answers agree -----------------------------------------------------------

def same(name, a, b):
    """To 60 digits; below 1e-330, which is 0 in f64, to the same zero."""
    if isinstance(a, list):
        assert len(a) == len(b), name
        return sum(same(f"{name}[{i}]", x, y) for i, (x, y) in enumerate(zip(a, b)))
    if isinstance(a, (int, bool)):
        assert a == b, (name, a, b)
        return 1
    if mpmath.isnan(a) or mpmath.isinf(a):
        assert mpmath.isnan(b) if mpmath.isnan(a) else a == b, (name, a, b)
        return 1
    assert abs(a - b) <= mpf(10) ** -60 * max(abs(a), abs(b)) + mpf(10) ** -330, (name, mpmath.nstr(a, 30), mpmath.nstr(b, 30))
    return 1


# ---- PyTorch as a second witness ---------------------------------------------------------------------

EPS = 2.0 ** -53


def witness(c, expect, size, rows):
    """Compares with PyTorch's f64. Returns how many values were compared.

    What plain f64 may be off by, per row, with z scaled and capped, d = z - max z, eps = 2^-53:
      z        its product with the scale is exact in f64; a cap costs three roundings and tanh: e_z = 8 eps max|z|
      log p    e_p(k) = 2 e_z + eps (2|d_k| + 4 L + K + 16): subtractions, sum of K terms, log; also the relative error of p
      lse      4 eps (|m| + L) + e_p
      loss     sum |wt| (e_p + 4 eps |log p|), z: lambda (2 |lse| e_lse + 4 eps lse^2)
      grad     in z: p S (e_p + 8 eps) + |wt| 8 eps + 2 lambda p (1 + |lse|) (e_lse + 4 eps (|m| + L)), because logsumexp's
               derivative there is exp(z - lse); p S - wt leaves an absolute error; in x, times dz/dx, which autograd computes as s (1 - tanh^2), off by s 8 eps absolutely.
    Every value has to be within this, and counts as compared if it is at most 1e-7 of the value (an exact 0: exactly).
    """
    n, k, lam = c["rows"], c["classes"], c["z_loss"]
    if n == 0:
        return 0, 0
    raw = torch.tensor(c["logits"], dtype=torch.float64).reshape(n, k).requires_grad_()
    up = torch.tensor(c["upstream"], dtype=torch.float64)
    masked = raw.detach() == -INF
    z = raw
    if not c["from_softmax"]:
        z = torch.where(masked, 0.0, raw) * c["scale"]
        if c["softcap"]:
            z = c["softcap"] * torch.tanh(z / c["softcap"])
        z = z.masked_fill(masked, -INF)
    compared, count = 0, 0

    def compare(name, ours, theirs, errors):
        nonlocal compared, count
        theirs = theirs.detach().reshape(-1).tolist() if torch.is_tensor(theirs) else theirs
        assert len(ours) == len(theirs) == len(errors), (name, len(ours), len(theirs), len(errors))
        for i, (a, b, e) in enumerate(zip(map(f64, ours), theirs, errors)):
            count += 1
            if e is None:
                continue
            if math.isfinite(a):
                # f64 is flushed nowhere, but PyTorch's exp may be below 1e-300
                assert abs(a - b) <= e + 1e-300, (c["name"], name, i, a, b, e)
                if e > 1e-7 * abs(a):
                    continue
            elif math.isnan(a):
                if not math.isnan(b):
                    continue  # that all of a NaN row is NaN is softxent's rule; PyTorch makes some of it 0, inf, or with a cap finite
            else:
                assert a == b, (c["name"], name, i, a, b)
            compared += 1

    if c["vectors"] is not None:
        v = torch.tensor(c["vectors"], dtype=torch.float64).reshape(n, k)
        p = torch.softmax(z, 1) if not c["from_softmax"] else raw
        if c["from_softmax"]:
            grad = p * (v - (p * v).sum(1, keepdim=True)) * up.reshape(-1, 1)
        else:
            (p * v * up.reshape(-1, 1)).sum().backward()
            grad = raw.grad
        errors = []
        for i in range(n):
            x = c["logits"][i * k:][:k]
            if c["from_softmax"] or is_nan_row(x):
                errors += [abs(f64(s)) * EPS * (k + 16) for s in size["grad"][i * k:][:k]]
                continue
            row = stable(c, x, None)
            m, big = f64(row["m"]), max([abs(f64(lp)) for lp in row["log_p"] if mpmath.isfinite(lp)])
            e_p = 2 * 8 * EPS * (abs(m) + big) * bool(c["softcap"]) + EPS * (8 * big + 2 * k + 32)
            for s, d in zip(size["grad"][i * k:][:k], row["slope"]):
                inner = f64(s) * (2 * e_p + 8 * EPS)
                errors.append(inner + (f64(s / d) * c["scale"] * 8 * EPS if c["softcap"] and d != 0 else 0.0))
        compare("grad", expect["grad"], grad, errors)
        return compared, count

    def errors_of(i):
        """e_p per class, e_lse of a row; None for a NaN row."""
        row = rows[i]
        if mpmath.isnan(row["m"]):
            return None, None
        m, big_l, lse = f64(row["m"]), f64(row["L"]), f64(row["lse"])
        ds = [abs(f64(lp)) for lp in row["log_p"]]
        finite = max(d for d in ds if math.isfinite(d))
        e_z = 8 * EPS * (abs(m) + finite) if c["softcap"] else 0.0
        e_p = [2 * e_z + EPS * (2 * min(d, 1e300) + 4 * big_l + k + 16) for d in ds]
        return e_p, e_z + 4 * EPS * (abs(m) + big_l) + EPS * (k + 16)

    per_row = [errors_of(i) for i in range(n)]
    spread = lambda f: [e for i in range(n) for e in (f(i) if per_row[i][0] is not None else [0.0] * k)]
    each = lambda f: [f(i) if per_row[i][0] is not None else 0.0 for i in range(n)]
    logp = torch.log_softmax(z, 1)
    p = torch.softmax(z, 1)
    finite = lambda v: v if math.isfinite(v) else 0.0
    compare("softmax", expect["softmax"], p, spread(lambda i: [f64(v) * (e + 8 * EPS) for v, e in zip(rows[i]["p"], per_row[i][0])]))
    compare("log_softmax", expect["log_softmax"], logp,
            spread(lambda i: [e + 4 * EPS * finite(abs(f64(v))) for v, e in zip(rows[i]["log_p"], per_row[i][0])]))
    lse = torch.logsumexp(z, 1)
    lse_given = [v if not mpmath.isnan(a) else math.nan for v, a in zip(lse.tolist(), expect["lse"])]  # +-inf where ours is NaN
    compare("lse", expect["lse"], lse_given, each(lambda i: per_row[i][1] + 4 * EPS * abs(f64(rows[i]["lse"]))))
    entropy = torch.special.entr(p).sum(1)
    compare("entropy", expect["entropy"], entropy,
            each(lambda i: sum(f64(a) * (e * (1 + abs(finite(f64(b)))) + 16 * EPS * abs(finite(f64(b))))
                               for a, b, e in zip(rows[i]["p"], rows[i]["log_p"], per_row[i][0])) + (k + 8) * EPS * f64(rows[i]["entropy"])))
    if "losses" not in expect:
        return compared, count

    # The loss: PyTorch's own, except where it has no word for it (0 * inf of masked classes).
    indexed = c["index"] is not None
    labels = torch.tensor(c["index"], dtype=torch.int64) if indexed else torch.tensor(c["dense"], dtype=torch.float64).reshape(n, k)
    ignore = c["ignore_index"] if indexed else -100
    weight = torch.tensor(c["weights"], dtype=torch.float64) if c["weights"] else None
    valid = (labels != ignore) if indexed else torch.ones(n, dtype=torch.bool)
    plain = not (bool(masked.any()) and (not indexed or c["smoothing"] or 0 in (c["weights"] or [])))
    if plain:
        def ce(reduction):
            return torch.nn.functional.cross_entropy(z, labels, weight=weight, ignore_index=ignore, label_smoothing=c["smoothing"],
                                                     reduction=reduction)
    else:
        y = torch.nn.functional.one_hot(torch.where(valid, labels, 0), k).double() if indexed else labels
        wt = ((1 - c["smoothing"]) * y + c["smoothing"] / k) * (weight if weight is not None else 1.0)
        per = -torch.where(wt != 0, wt * logp, 0.0).sum(1)
        per = torch.where(valid, per, 0.0)

        def ce(reduction):
            if reduction == "mean":
                return per.sum() / (weight[labels[valid]].sum() if indexed and weight is not None else valid.sum())
            return per if reduction == "none" else per.sum()
    z_losses = torch.where(valid, c["z_loss"] * lse ** 2, 0.0)
    e_ce, e_zl = [], []
    for i in range(n):
        wt = targets(c, i)
        if per_row[i][0] is None or wt is None or not all(map(mpmath.isfinite, wt)):
            e_ce.append(0.0), e_zl.append(0.0)
            continue
        e_ce.append(sum(abs(f64(w)) * (e + (k + 8) * EPS * abs(f64(lp)))
                        for w, e, lp in zip(wt, per_row[i][0], rows[i]["log_p"]) if w != 0 and mpmath.isfinite(lp)))
        l = abs(f64(rows[i]["lse"]))
        e_zl.append(lam * (2 * l * (per_row[i][1] + 4 * EPS * l) + 4 * EPS * l * l))
    per_loss = ce("none") + (z_losses if lam else 0.0)
    compare("losses", expect["losses"], per_loss, [a + b + 2 * EPS * abs(finite(f64(v))) for a, b, v in zip(e_ce, e_zl, expect["losses"])])
    if lam:
        compare("z_losses", expect["z_losses"], z_losses, e_zl)

    # The reduced loss and the gradient.
    n_valid = int(valid.sum())
    den_loss = den_z = 1.0
    reduced_ce = ce(c["reduction"])
    if c["reduction"] == "mean":
        den_z = float(n_valid)
        den_loss = float(weight[labels[valid]].sum()) if indexed and weight is not None else den_z
        if c["denominator"] != "weights":
            den_loss = den_z = n_valid if c["denominator"] == "valid_rows" else c["denominator"]
            reduced_ce = ce("sum") / den_loss
    reduced_z = z_losses if c["reduction"] == "none" else z_losses.sum() / den_z if den_z else z_losses.sum() * math.nan
    if den_loss == 0 and c["empty_mean"] == "zero":
        return compared, count + k * n + 2  # PyTorch has no such mean
    loss = reduced_ce + (reduced_z if lam else 0.0)
    if c["reduction"] != "none":
        e = sum(e_ce) / den_loss + sum(e_zl) / den_z if den_loss else 0.0
        over = sum(abs(finite(f64(v))) for v in expect["losses"]) / den_loss * EPS * (n + 8) if den_loss else 0.0
        compare("loss", [expect["loss"]], [float(loss.detach())], [e + over])
        if lam:
            compare("z_loss", [expect["z_loss"]], [float(reduced_z.detach())], [(sum(e_zl) / den_z if den_z else 0.0)
                    + abs(finite(f64(expect["z_loss"]))) * EPS * (n + 8)])
    if den_loss == 0:
        return compared, count + k * n  # its gradient is NaN there, ours 0
    (loss * up).sum().backward()
    errors = []
    for i in range(n):
        wt, row = targets(c, i), rows[i]
        x = c["logits"][i * k:][:k]
        if wt is None and is_nan_row(x):
            errors += [None] * k  # ignored and NaN: NaN there, 0 here
            continue
        if wt is None or per_row[i][0] is None or not all(map(mpmath.isfinite, wt)):
            errors += [0.0] * k
            continue
        g = abs(up.tolist()[i] if isinstance(c["upstream"], list) else c["upstream"])
        gl, gz = g / den_loss, g / den_z
        big, weight_sum, l = f64(abs(row["m"]) + row["L"]), f64(total(abs(w) for w in wt)), abs(f64(row["lse"]))
        for j in range(k):
            if masked[i, j] and wt[j] != 0:
                errors.append(None)  # PyTorch stops at masked_fill
                continue
            pj, ej, wj, slope = f64(row["p"][j]), per_row[i][0][j], abs(f64(wt[j])), f64(row["slope"][j])
            inner = gl * (pj * weight_sum * (ej + (k + 8) * EPS) + wj * 8 * EPS) + gz * 2 * lam * pj * (1 + l) * (per_row[i][1] + 4 * EPS * big + 8 * EPS)
            outer = gl * (pj * weight_sum + wj) + gz * 2 * lam * l * pj
            errors.append(inner * slope + outer * (slope * 8 * EPS + (c["scale"] * 8 * EPS if c["softcap"] else 0.0)))
    compare("grad", expect["grad"], raw.grad, errors)
    return compared, count


# ---- writing -----------------------------------------------------------------------------------------

def plain(v, digits=None):
    """Lists and numbers as JSON has them; non-finite numbers as strings; never -0 from a computation."""
    if isinstance(v, (list, tuple)):
        return [plain(e, digits) for e in v]
    if isinstance(v, dict):
        return {key: plain(e, digits) for key, e in v.items()}
    if isinstance(v, mpf) or type(v) is type(NAN):
        v = f64(v) + 0.0
        if digits and math.isfinite(v):
            v = float(f"{v:.{digits}g}")
    if isinstance(v, float):
        if not math.isfinite(v):
            return "nan" if math.isnan(v) else "inf" if v > 0 else "-inf"
        return int(v) if v == int(v) and abs(v) < 2 ** 53 and math.copysign(1, v) + (v != 0) > 0 else v
    return v


def short(values):
    """f32 values in as few digits as name them: the text, read as f64 and rounded to f32, is the value."""
    out = []
    for v in values:
        if math.isfinite(v):
            text = float(str(np.float32(v)))
            assert float(np.float32(text)) == v, v
            v = text
        out.append(v)
    return plain(out)


def main():
    assert len({c["name"] for c in CASES}) == len(CASES)
    lines, digits_checked, groups, full, part = [], 0, {}, 0, 0
    for c in CASES:
        mpmath.mp.dps = 700
        check = answer(c, textbook)
        mpmath.mp.dps = 140
        expect, size, slack, rows = answer(c, stable)
        assert expect.keys() == check[0].keys(), c["name"]
        mpmath.mp.dps = 200
        for ours, theirs in ((expect, check[0]), (size, check[1])):
            digits_checked += sum(same(f"{c['name']}: {key}", ours[key], theirs[key]) for key in ours)
        mpmath.mp.dps = 140
        compared, count = witness(c, expect, size, rows)
        group = groups.setdefault(c["group"], [0, 0, 0, 0])
        group[0] += 1
        group[1] += compared == count
        group[2] += compared
        group[3] += count
        full, part = full + (compared == count), part + (0 < compared < count)
        line = {key: c[key] for key in ("name", "rows", "classes")}
        for key, default in DEFAULTS.items():
            if c[key] != default:
                line[key] = short(c[key]) if key in ("dense", "vectors", "weights") else plain(c[key])
            if key == "dtype":
                line["logits"] = short(c["logits"])
        line["expect"] = plain(expect)
        if size:
            line["size"] = plain(size, 9)
        slack = {key: v for key, v in slack.items() if any(f != 1 for f in (v if isinstance(v, list) else [v]))}
        if slack:
            line["slack"] = plain(slack, 4)
        line["torch"] = [compared, count]
        lines.append(json.dumps(line, allow_nan=False, separators=(",", ":")))
    versions = {"python": platform.python_version(), "mpmath": mpmath.__version__, "torch": torch.__version__.split("+")[0],
                "numpy": np.__version__, "ml_dtypes": ml_dtypes.__version__}
    (HERE / "reference.json").write_text(f'{{"versions":{json.dumps(versions)},"cases":[\n' + ",\n".join(lines) + "\n]}\n")
    print(f"{'group':16}{'cases':>7}{'all by torch':>14}{'values':>9}{'by torch':>10}")
    for name, (cases, whole, compared, count) in groups.items():
        print(f"{name:16}{cases:7}{whole:14}{count:9}{compared:10}")
    print(f"{len(CASES)} cases; {digits_checked} values to 60 digits twice; all values of {full} by torch, some of {part} more")


if __name__ == "__main__":
    sys.exit(main())
