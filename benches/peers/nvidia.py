"""NOT RUN YET. Loss and gradient on an NVIDIA GPU by the kernels that people use there, on the shapes of
softxent-peers, for comparison with what `cargo bench --bench throughput` says of the same GPU.

    python nvidia.py [--classes K,...] [--elements NK,...] [--dtype float32|bfloat16|float16] [--csv FILE]

Times are CUDA events around forward and backward, median of 20, after 3 to warm up; the L2 cache is filled
with something else before each. Results are compared with float64 before they are timed.
"""

import argparse
import datetime
import importlib.metadata
import os
import statistics
import sys

import torch
import torch.nn.functional as F

CLASSES = "2,10,16,64,100,1000,1024,4096,8192,32000,50257,128256,262144"
ELEMENTS = "1048576,4194304,16777216,67108864,268435456"


# Each contestant takes logits and labels and returns the loss, the gradient, and what this is times too
# large. The logits are its own: Liger writes the gradient over them.


def autograd(loss_of):
    def run(logits, labels):
        logits = logits.detach().requires_grad_(True)
        loss = loss_of(logits, labels)
        loss.backward()
        return loss.detach(), logits.grad, 1

    return run


def eager():
    return autograd(F.cross_entropy), torch.__version__


def compiled():
    return autograd(torch.compile(F.cross_entropy, dynamic=False)), torch.__version__


def liger():
    from liger_kernel.transformers.functional import liger_cross_entropy

    return autograd(liger_cross_entropy), importlib.metadata.version("liger-kernel")


def quack():
    from quack.cross_entropy import cross_entropy

    return autograd(cross_entropy), importlib.metadata.version("quack-kernels")


def quack_fused():
    """One kernel that writes the losses and the gradient of their sum."""
    from quack.cross_entropy import cross_entropy_fwd

    def run(logits, labels):
        losses, grad = cross_entropy_fwd(logits, labels, return_dx=True)
        return losses.mean(), grad, len(labels)

    return run, importlib.metadata.version("quack-kernels")


def triton_fused():
    """The plain way: one program a row, two reads and one write."""
    import triton
    import triton.language as tl

    @triton.jit
    def kernel(logits, labels, losses, grad, rows, classes, BLOCK: tl.constexpr):
        row = tl.program_id(0).to(tl.int64)
        logits += row * classes
        grad += row * classes
        label = tl.load(labels + row)
        columns = tl.arange(0, BLOCK)
        m = float("-inf")
        s = 0.0
        for start in range(0, classes, BLOCK):
            inside = start + columns < classes
            x = tl.load(logits + start + columns, mask=inside, other=float("-inf")).to(tl.float32)
            new = tl.maximum(m, tl.max(x, 0))
            s = s * tl.exp(m - new) + tl.sum(tl.exp(x - new), 0)
            m = new
        lse = m + tl.log(s)
        tl.store(losses + row, lse - tl.load(logits + label).to(tl.float32))
        for start in range(0, classes, BLOCK):
            inside = start + columns < classes
            x = tl.load(logits + start + columns, mask=inside, other=float("-inf")).to(tl.float32)
            p = tl.exp(x - lse)
            y = tl.where(start + columns == label, 1.0, 0.0)
            tl.store(grad + start + columns, ((p - y) / rows).to(grad.dtype.element_ty), mask=inside)

    def run(logits, labels):
        rows, classes = logits.shape
        losses = torch.empty(rows, device=logits.device)
        grad = torch.empty_like(logits)
        block = min(triton.next_power_of_2(classes), 8192)
        warps = max(1, min(16, block // 256))
        kernel[(rows,)](logits, labels, losses, grad, rows, classes, BLOCK=block, num_warps=warps)
        return losses.mean(), grad, 1

    return run, triton.__version__


CONTESTANTS = {
    "eager": eager,
    "compile": compiled,
    "liger": liger,
    "quack": quack,
    "quack_fused": quack_fused,
    "triton": triton_fused,
}


def verify(result, exact_loss, exact_grad):
    loss, grad, times = result
    eps = max(1e-4, 2 * torch.finfo(grad.dtype).eps)
    if not abs(loss.double() - exact_loss) <= eps * exact_loss:
        raise ValueError(f"loss {loss.item()}, exactly {exact_loss.item()}")
    allowed = eps * exact_grad.abs() + 1e-6 / len(grad)
    if not bool(((grad.double() / times - exact_grad).abs() <= allowed).all()):
        raise ValueError("the gradient is wrong")


def seconds(run, logits, labels, flush):
    work = logits.clone()
    times = []
    for _ in range(23):
        work.copy_(logits)
        flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        result = run(work, labels)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e-3)
        del result
    times = sorted(times[3:])
    median = statistics.median(times)
    return median, (times[-3] - times[2]) / median


def main():
    parser = argparse.ArgumentParser(description="loss and gradient by others on an NVIDIA GPU")
    numbers = lambda text: [int(word) for word in text.split(",")]
    parser.add_argument("--classes", type=numbers, default=numbers(CLASSES))
    parser.add_argument("--elements", type=numbers, default=numbers(ELEMENTS))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--csv")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("nvidia.py: PyTorch finds no NVIDIA GPU here")
    dtype = getattr(torch, options.dtype)

    runs, versions = {}, {}
    for name, make in CONTESTANTS.items():
        try:
            runs[name], versions[name] = make()
        except ImportError as error:
            print(f"{name}: not installed ({error})", file=sys.stderr)

    flush = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    lines = [f"# {datetime.date.today()}, python {' '.join(sys.argv)}", ",".join(
        ["adapter", "driver", "cores"] + [f"{name}_version" for name in CONTESTANTS]
        + ["rows", "classes", "elements"]
        + [f"{name}_{what}" for what in ("seconds", "spread", "gb_per_second") for name in CONTESTANTS]
    )]
    adapter = f'"{torch.cuda.get_device_name()}","CUDA {torch.version.cuda}",{os.cpu_count()}'
    for elements in options.elements:
        for classes in options.classes:
            rows = max(1, elements // classes)
            torch.manual_seed(classes)
            logits = (3 * torch.randn(rows, classes, device="cuda")).to(dtype)
            labels = torch.randint(classes, (rows,), device="cuda")
            wide = logits.double().requires_grad_(True)
            exact_loss = F.cross_entropy(wide, labels)
            exact_loss.backward()
            exact_loss, exact_grad = exact_loss.detach(), wide.grad
            cells = {}
            torch.compiler.reset()
            for name, run in runs.items():
                try:
                    verify(run(logits.clone(), labels), exact_loss, exact_grad)
                    median, spread = seconds(run, logits, labels, flush)
                    rate = 2 * logits.nbytes / median / 1e9
                    cells[name] = (f"{median:e}", f"{spread:.3f}", f"{rate:.4f}")
                except Exception as error:
                    text = " ".join(str(error).replace('"', "'").split())[:300]
                    cells[name] = (f'"failed: {text}"', "", "")
                print(rows, classes, name, *cells[name], file=sys.stderr)
            row = [adapter] + [versions.get(name, "") for name in CONTESTANTS]
            row += [str(rows), str(classes), str(rows * classes)]
            row += [cells.get(name, ("", "", ""))[i] for i in range(3) for name in CONTESTANTS]
            lines.append(",".join(row))
    text = "\n".join(lines) + "\n"
    if options.csv:
        with open(options.csv, "w") as file:
            file.write(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
