#!/usr/bin/env python3
"""Makes the digits data: the logits of a real, trained classifier, and what is true of them.

    pip install numpy==2.4.6 scikit-learn==1.9.1 mpmath==1.3.0 torch==2.15.0   (Python 3.11)
    python tests/data/make_digits.py              trains, writes everything (about 15 s)
    python tests/data/make_digits.py --expected   only digits_expected.json, from the .npy files

Softmax regression (64 features / 16 and a bias, no regularisation) on the 1797 images of the UCI
Optical Recognition of Handwritten Digits that scikit-learn ships. The rows are shuffled once; in every
file rows 0..1000 were trained on and rows 1000..1797 were held out. The training rows are separable,
so the step is divided by the loss: the weights keep growing and rows become truly confident.

    digits_features.npy   u8  [1797, 64]   pixels, 0..16
    digits_labels.npy     i64 [1797]
    digits_logits.npy     f32 [1797, 10]
    digits_expected.json  loss of those f32 logits (torch, f64), and per sampled row the loss and the
                          gradient of the mean over all 1797 rows (mpmath, rounded once to f64)

The committed .npy files are the reference: another BLAS may train to other last bits.
Script: MIT OR Apache-2.0, like the crate. Data: CC BY 4.0, see README.md beside this file.
"""
import json
import sys
from pathlib import Path

import mpmath
import numpy as np
import sklearn
import torch
from sklearn.datasets import load_digits

HERE = Path(__file__).parent
SEED, TRAIN_ROWS, STEPS, STEP, MOMENTUM = 0, 1000, 4000, 0.05, 0.9
mpmath.mp.dps = 100  # the smallest loss is near 1e-26, a difference of numbers near 1e2


def load(name):
    return np.load(HERE / f"digits_{name}.npy")


def train():
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    features = digits.data[order].astype(np.uint8)
    labels = digits.target[order].astype(np.int64)
    a = np.hstack([features / 16.0, np.ones((len(labels), 1))])
    x, t = a[:TRAIN_ROWS], np.eye(10)[labels[:TRAIN_ROWS]]
    w = np.zeros((a.shape[1], 10))
    velocity = np.zeros_like(w)
    for _ in range(STEPS):  # Nesterov's gradient descent on the whole training set, in f64
        z = x @ (w + MOMENTUM * velocity)
        z -= z.max(axis=1, keepdims=True)
        lse = np.log(np.exp(z).sum(axis=1, keepdims=True))
        loss = np.mean(lse[:, 0] - (z * t).sum(axis=1))
        grad = x.T @ (np.exp(z - lse) - t) / TRAIN_ROWS
        velocity = MOMENTUM * velocity - STEP / loss * grad
        w += velocity
    np.save(HERE / "digits_features.npy", features)
    np.save(HERE / "digits_labels.npy", labels)
    np.save(HERE / "digits_logits.npy", (a @ w).astype(np.float32))


def exact(row, label, rows):
    """Loss of one row and its gradient of the mean, straight from the definitions, rounded once."""
    z = [mpmath.mpf(float(v)) for v in row]
    total = mpmath.fsum(mpmath.exp(v) for v in z)
    grad = [(mpmath.exp(v) / total - (k == label)) / rows for k, v in enumerate(z)]
    return mpmath.log(total) - z[label], [float(g) for g in grad]


def expected():
    logits, labels = load("logits"), load("labels")
    n = len(labels)
    x = torch.tensor(logits.astype(np.float64), requires_grad=True)
    y = torch.tensor(labels)
    losses = torch.nn.functional.cross_entropy(x, y, reduction="none").detach().numpy()
    loss_sum = torch.nn.functional.cross_entropy(x, y, reduction="sum").item()
    loss_mean = torch.nn.functional.cross_entropy(x, y)
    loss_mean.backward()
    truth = [exact(logits[i], labels[i], n) for i in range(n)]
    total = mpmath.fsum(loss for loss, _ in truth)
    assert abs(total - loss_sum) < 1e-13 * total and abs(total / n - loss_mean.item()) < 1e-13 * total / n
    assert np.allclose(x.grad.numpy(), [g for _, g in truth], rtol=1e-12, atol=1e-18)

    ordered = np.sort(logits.astype(np.float64), axis=1)
    gap = ordered[:, -1] - ordered[:, -2]
    correct = logits.argmax(axis=1) == labels
    confident = np.argsort(-gap, kind="stable")[:20]
    assert correct[confident].all() and losses[confident].max() == 0.0  # plain f64 has lost them
    sample = {int(i): "confident" for i in confident}
    for i in np.argsort(-losses, kind="stable")[:20]:
        sample.setdefault(int(i), "largest loss")
    for i in range(0, n, 60):
        sample.setdefault(i, "every 60th")

    result = {
        "versions": {"numpy": np.__version__, "scikit-learn": sklearn.__version__,
                     "mpmath": mpmath.__version__, "torch": torch.__version__},
        "rows": n, "classes": 10, "train_rows": TRAIN_ROWS,
        "loss_mean": loss_mean.item(), "loss_sum": loss_sum,
        "loss_mean_exact": float(total / n), "loss_sum_exact": float(total),
        "correct": int(correct.sum()), "accuracy": float(correct.mean()),
        "held_out_correct": int(correct[TRAIN_ROWS:].sum()), "held_out_rows": n - TRAIN_ROWS,
        "largest_gap": float(gap.max()), "rows_with_gap_20": int((gap >= 20).sum()),
        "rows_where_torch_f64_loss_is_0": int((losses == 0).sum()),
        "sample": [{"row": i, "why": why, "label": int(labels[i]), "gap": float(gap[i]),
                    "loss": float(truth[i][0]), "gradient": truth[i][1]}
                   for i, why in sorted(sample.items())],
    }
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in result.items() if k != "sample"]
    rows = ",\n".join(json.dumps(row) for row in result["sample"])
    text = "{\n" + ",\n".join(lines) + ',\n"sample": [\n' + rows + "\n]\n}\n"
    (HERE / "digits_expected.json").write_text(text)
    print(text[: text.index('"sample"')], len(sample), "rows sampled; smallest loss",
          min(row["loss"] for row in result["sample"]))


if __name__ == "__main__":
    if "--expected" not in sys.argv[1:]:
        train()
    expected()
