#!/usr/bin/env python3
"""Runs the command on a file that is larger than memory should be, and compares samples with a small run.

    python3 tests/large_file.py [--gib 12] [--folder /some/disk] [--binary target/release/softxent] [-- options]

The file holds one block of rows again and again. The gradient of each of them, and the losses, must have the
bits of a run on the block alone. Needs twice the size on the disk. Prints what benches/results keeps.
"""

import argparse
import array
import datetime
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS, CLASSES = 4000, 1000


def header(descr, shape):
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text.encode()


def values(path):
    """The file's bytes after its header, from a given one on."""
    file = open(path, "rb")
    file.seek(8)
    start = 10 + int.from_bytes(file.read(2), "little")
    return file, start


def peak(process):
    """The most memory that a process has had, in MiB: all that was resident, and what of it is its own."""
    resident = own = 0
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            break
        found = {line.split(":")[0]: line.split()[1] for line in lines if line.endswith("kB")}
        resident = max(resident, int(found.get("VmHWM", 0)))
        own = max(own, int(found.get("RssAnon", 0)) + int(found.get("RssShmem", 0)))
        time.sleep(0.01)
    return resident >> 10, own >> 10


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gib", type=float, default=12)
    parser.add_argument("--folder")
    parser.add_argument("--binary", default="target/release/softxent")
    parser.add_argument("options", nargs="*", help="of the run, after --")
    args = parser.parse_args()
    blocks = max(1, round(args.gib * 2**30 / (4 * ROWS * CLASSES)))
    options = args.options or ["--device", "0", "--memory", "256MiB"]

    random.seed(1)
    logits = array.array("f", (random.gauss(0, 4) for _ in range(ROWS * CLASSES))).tobytes()
    labels = array.array("H", (random.randrange(CLASSES) for _ in range(ROWS))).tobytes()
    binary = os.path.abspath(args.binary)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        os.chdir(folder)
        for name, count in [("large", blocks), ("small", 1)]:
            with open(f"{name}.npy", "wb") as file:
                file.write(header("<f4", (ROWS * count, CLASSES)))
                for _ in range(count):
                    file.write(logits)
            with open(f"{name}_labels.npy", "wb") as file:
                file.write(header("<u2", (ROWS * count,)) + labels * count)
        outputs = ["--reduction", "sum", "--quiet"]
        for name in ["small", "large"]:
            files = [f"{name}.npy", f"{name}_labels.npy"]
            written = ["--grad", f"{name}_grad.npy", "--losses", f"{name}_losses.npy"]
            started = time.time()
            process = subprocess.Popen([binary, "run", *files, *written, *outputs, *options])
            resident, own = peak(process)
            seconds = time.time() - started
            if process.wait() != 0:
                sys.exit(f"the {name} run ended with {process.returncode}")
        compared = 0
        for name, row in [("grad", 4 * CLASSES), ("losses", 4)]:
            one, start = values(f"small_{name}.npy")
            one.seek(start)
            expected = one.read()
            assert len(expected) == row * ROWS
            all_rows, start = values(f"large_{name}.npy")
            all_rows.seek(start)
            for block in range(blocks):
                if all_rows.read(len(expected)) != expected:
                    sys.exit(f"{name} of block {block} has other bits than in a run of its own")
                compared += len(expected)
            assert all_rows.read() == b"", name
        size = os.path.getsize("large.npy") / 2**30
    print(f"python3 tests/large_file.py --gib {args.gib:g} -- {' '.join(options)}")
    print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {datetime.date.today()}")
    print(f"{size:.1f} GiB of logits, {ROWS * blocks} rows of {CLASSES} classes, and as much of gradients: {seconds:.0f} s")
    print(f"at most {resident} MiB resident, {own} MiB of them its own memory")
    print(f"{compared / 2**30:.1f} GiB of results compared with a run of {ROWS} rows: the same bits")


main()
