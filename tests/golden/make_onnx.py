#!/usr/bin/env python3
"""Takes the public conformance cases of ONNX for softmax, log-softmax and cross-entropy: what others say the answers are.

    pip install onnx==1.23.2 numpy==2.4.6      (Python 3.11)
    python tests/golden/make_onnx.py           (a few seconds)

The cases are those that the onnx package generates for its backend tests (onnx/backend/test/case/node, Apache-2.0): every
case whose node is one of OPERATORS. Its models and values are taken as they are; cases of the same operator expanded into
others (`_expanded`) are skipped as the same data a second time, and counted. Those that PyTorch exported come from the files
of the same package (onnx/backend/test/data/pytorch-converted).

onnx.json: {"versions": .., "cases": [..], "outside": [{"name", "reason"}, ..], "expanded": n}. Arrays are flat and
row-major, numbers the shortest decimals of an f32.
    name, operator   "also": the name of a case that is the same without the second output
    shape, axis      of the logits; the class axis, >= 0
    logits
    labels, label_shape, ignore_index (null if there is none), weights (or null), reduction    SoftmaxCrossEntropyLoss
    expect           softmax | log_softmax | loss (a flat list: one number, or the losses of the rows with "none") and, where
                     the case has the second output, log_softmax

Script and file: MIT OR Apache-2.0, like the crate; the cases themselves: Apache-2.0, ONNX Project Contributors.
"""
import json
import platform
from pathlib import Path

import numpy as np
import onnx
from onnx.backend.test.case.node import collect_testcases

HERE = Path(__file__).parent
OPERATORS = ("Softmax", "LogSoftmax", "SoftmaxCrossEntropyLoss")
NOT_LOGITS = ("its input is taken for log-probabilities and is not normalised, so it is -x_y, not a cross-entropy: softxent takes logits, "
              "whose log-softmax is another number")


def plain(array):
    if array.dtype.kind in "iu":
        return [int(v) for v in array.ravel()]
    assert array.dtype == np.float32, array.dtype
    out = []
    for v in array.ravel():
        assert np.isfinite(v)
        text = float(str(v))
        assert np.float32(text) == v
        out.append(text)
    return out


def say(test):
    """A case in softxent's terms."""
    graph = test.model.graph
    assert len(graph.node) == 1 and not graph.initializer
    node = graph.node[0]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert len(test.data_sets) == 1
    inputs, outputs = test.data_sets[0]
    given = dict(zip([name for name in node.input if name], inputs))
    assert len(given) == len(inputs)
    x = inputs[0]
    case = {"name": test.name.removeprefix("test_"), "operator": node.op_type, "shape": list(x.shape)}
    if node.op_type != "SoftmaxCrossEntropyLoss":
        axis = attributes.pop("axis", -1)
        assert not attributes, attributes
        assert test.model.opset_import[0].version >= 13  # before, Softmax flattened to two axes
        key = {"Softmax": "softmax", "LogSoftmax": "log_softmax"}[node.op_type]
        return {**case, "axis": axis % x.ndim, "logits": plain(x), "expect": {key: plain(outputs[0])}}
    labels = given[node.input[1]]
    weights = given[node.input[2]] if len(node.input) > 2 and node.input[2] else None
    case |= {"axis": 1, "logits": plain(x), "labels": plain(labels), "label_shape": list(labels.shape),
             "weights": None if weights is None else plain(weights), "ignore_index": attributes.pop("ignore_index", None),
             "reduction": attributes.pop("reduction", b"mean").decode()}
    assert not attributes, attributes
    assert list(labels.shape) == [x.shape[0], *x.shape[2:]]
    assert case["reduction"] == "none" or outputs[0].shape == ()
    case["expect"] = {"loss": plain(np.asarray(outputs[0]))}
    if len(outputs) > 1:
        case["expect"]["log_softmax"] = plain(outputs[1])
    return case


def converted():
    """The cases that PyTorch exported to ONNX, from files of the package. Their opset flattens what is before and what is from
    the axis on, which is the same where the axis is the last. Softmin is softmax of the negated logits."""
    folder = Path(onnx.__file__).parent / "backend/test/data/pytorch-converted"
    for path in sorted(folder.glob("*/model.onnx")):
        nodes = list(onnx.load(path).graph.node)
        operators = [node.op_type for node in nodes if node.op_type != "Constant"]
        if not set(operators) & set(OPERATORS):
            continue
        sets = list(path.parent.glob("test_data_set_*"))
        assert len(sets) == 1 and operators in (["Softmax"], ["LogSoftmax"], ["Neg", "Softmax"]), (path, operators)
        x, y = (onnx.numpy_helper.to_array(onnx.load_tensor(sets[0] / name)) for name in ("input_0.pb", "output_0.pb"))
        axis = {a.name: a.i for a in nodes[-1].attribute}["axis"] % x.ndim
        assert axis == x.ndim - 1 and x.shape == y.shape
        key = {"Softmax": "softmax", "LogSoftmax": "log_softmax"}[operators[-1]]
        name = "pytorch_converted_" + path.parent.name.removeprefix("test_")
        yield {"name": name, "operator": operators[-1], "shape": list(x.shape), "axis": axis,
               "logits": plain(-x if operators[0] == "Neg" else x), "expect": {key: plain(y)}}


def main():
    cases, outside, expanded = {}, [], 0
    for test in sorted(collect_testcases(), key=lambda test: test.name):
        operators = {node.op_type for node in test.model.graph.node}
        if "_expanded" in test.name:
            expanded += any(test.name.startswith(prefix) for prefix in ("test_softmax_", "test_logsoftmax_", "test_sce_"))
        elif "NegativeLogLikelihoodLoss" in operators:
            outside.append({"name": test.name.removeprefix("test_"), "reason": NOT_LOGITS})
        elif operators & set(OPERATORS):
            case = say(test)
            cases[case["name"]] = case
    count = len(cases)
    # Most cross-entropies come twice, without and with the second output: the same values, kept once.
    for name in [name for name in cases if name + "_log_prob" in cases]:
        one, other = cases[name], cases[name + "_log_prob"]
        assert all(one[key] == other[key] for key in one if key not in ("name", "expect")), name
        assert one["expect"]["loss"] == other["expect"]["loss"], name
        other["also"] = name
        del cases[name]
    cases = [*cases.values(), *converted()]
    count += sum(c["name"].startswith("pytorch_converted") for c in cases)
    versions = {"python": platform.python_version(), "onnx": onnx.__version__, "numpy": np.__version__}
    text = ",\n".join(json.dumps(c, allow_nan=False, separators=(",", ":")) for c in cases)
    head = {"versions": versions, "expanded": expanded, "outside": outside}
    (HERE / "onnx.json").write_text(json.dumps(head)[:-1] + f', "cases": [\n{text}\n]}}\n')
    print(f"{count} cases in {len(cases)} entries; {len(outside)} outside; {expanded} expanded ones skipped;",
          {operator: sum((1 + ("also" in c)) for c in cases if c["operator"] == operator) for operator in OPERATORS})


if __name__ == "__main__":
    main()
