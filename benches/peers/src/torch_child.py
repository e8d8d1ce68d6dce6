"""PyTorch's side of the protocol of child.rs. The first argument is the number of threads."""

import sys
import time

import torch


def tell(*words):
    print(*words, sep="\t", flush=True)


def array(folder, name, dtype, shape, shared=False):
    size = torch.Size(shape).numel()
    return torch.from_file(f"{folder}/{name}", shared=shared, size=size, dtype=dtype).view(shape)


class Case:
    def __init__(self, rows, classes, folder):
        # Copies: a mapped file is read when it is touched.
        self.logits = array(folder, "logits", torch.float32, (rows, classes)).clone()
        self.logits.requires_grad_(True)
        self.labels = array(folder, "labels", torch.int32, (rows,)).long()

    def run(self):
        self.logits.grad = None
        started = time.perf_counter()
        loss = torch.nn.functional.cross_entropy(self.logits, self.labels)
        loss.backward()
        return time.perf_counter() - started, loss.item()


torch.set_num_threads(int(sys.argv[1]))
tell("hello", torch.__version__)
case = None
for line in sys.stdin:
    question, *words = line.rstrip("\n").split("\t")
    try:
        if question == "case":
            rows, classes, folder = int(words[0]), int(words[1]), words[2]
            case = Case(rows, classes, folder)
            _, loss = case.run()
            array(folder, "grad", torch.float32, (rows, classes), shared=True).copy_(case.logits.grad)
            tell("loss", repr(loss))
        elif question == "run":
            tell("seconds", repr(case.run()[0]))
        else:
            case = None
            tell("ended")
    except Exception as error:
        tell("failed", " ".join(str(error).split()))
        break
