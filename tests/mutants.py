#!/usr/bin/env python3
"""Plants each bug of tests/mutants.json in the host's code, and demands that the tests it names fail.

    python3 tests/mutants.py              all of them, each a build and a few tests
    python3 tests/mutants.py 3 7          the third and the seventh
    python3 tests/mutants.py --check      only whether each text to replace is there exactly once
    python3 tests/mutants.py --list       what they are

Bugs of the shaders are planted by tests/it/planted.rs, which needs no build. Works in a worktree of HEAD
that it removes again, with builds in target/mutants; the tests first have to pass there as they are. Exits
with 1 if a bug is missed. The first build is a whole one; then a bug takes 10 to 25 seconds.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ["cargo", "test", "--release", "--test", "it", "--no-run"]
TEST = ["cargo", "test", "--release", "--test", "it", "--"]
BUILD_SECONDS = 1200
TEST_SECONDS = 600


def read():
    mutants = json.loads((ROOT / "tests/mutants.json").read_text(encoding="utf-8"))
    names = [mutant["what"] for mutant in mutants]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        sys.exit(f"twice: {sorted(twice)}")
    return mutants


def complaints(mutants, root):
    """What is wrong with the list: a text that is not there exactly once, a test that there is not."""
    found = []
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (root / "tests/it").glob("*.rs"))
    for mutant in mutants:
        times = (root / mutant["file"]).read_text(encoding="utf-8").count(mutant["from"])
        if times != 1:
            found.append(f"{mutant['what']}: {mutant['file']} has the text {times} times")
        if mutant["from"] == mutant["to"]:
            found.append(f"{mutant['what']}: changes nothing")
        for test in mutant["tests"]:
            if test.rsplit("::", 1)[-1] not in tests:
                found.append(f"{mutant['what']}: there is no test {test}")
    return found


def run(command, root, seconds):
    """The exit status, None where it took too long; and what was said."""
    # One edit, one build: what stays the same is kept from one to the next. Apart from other builds, which
    # cargo would take a mutant's for.
    environment = {
        **os.environ,
        "CARGO_PROFILE_RELEASE_INCREMENTAL": "true",
        "CARGO_TARGET_DIR": str(ROOT / "target/mutants"),
    }
    try:
        done = subprocess.run(
            command, cwd=root, env=environment, timeout=seconds, text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )
    except subprocess.TimeoutExpired as late:
        said = late.stdout or b""
        return None, said.decode(errors="replace") if isinstance(said, bytes) else said
    return done.returncode, done.stdout


def last_lines(text, count=12):
    return "\n".join(text.splitlines()[-count:])


def failed_tests(said):
    """Names of the tests that failed, from the summary of the harness."""
    return [line.split()[1] for line in said.splitlines()
            if line.startswith("test ") and line.rstrip().endswith("FAILED")]


def outcome(mutant, root):
    path = root / mutant["file"]
    text = path.read_text(encoding="utf-8")
    try:
        path.write_text(text.replace(mutant["from"], mutant["to"]), encoding="utf-8")
        status, said = run(BUILD, root, BUILD_SECONDS)
        if status != 0:
            print(last_lines(said, 30), file=sys.stderr)
            return "does not build", ""
        status, said = run([*TEST, *mutant["tests"]], root, TEST_SECONDS)
    finally:
        path.write_text(text, encoding="utf-8")
    if status is None:
        return "too slow", ""
    if status == 0:
        return "MISSED", ""
    failed = failed_tests(said)
    if not failed:
        print(last_lines(said, 30), file=sys.stderr)
        return "no test failed", f"exit status {status}"
    return "caught", ", ".join(failed)


def driver(root):
    """What the tests run on, as the binary says it."""
    status, said = run(["cargo", "run", "--quiet", "--release", "--", "info"], root, BUILD_SECONDS)
    if status != 0:
        sys.exit(f"no adapter can be named:\n{last_lines(said)}")
    lines = [line.rstrip() for line in said.splitlines() if line.strip() and "XDG_RUNTIME_DIR" not in line]
    return "\n# ".join(lines)


def main(arguments):
    mutants = read()
    if "--list" in arguments:
        for number, mutant in enumerate(mutants, 1):
            print(f"{number:3}  {mutant['file']:20} {mutant['what']}")
        return 0
    wrong = complaints(mutants, ROOT)
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    if "--check" in arguments:
        print(f"{len(mutants)} mutants, each text once")
        return 0
    chosen = [int(argument) for argument in arguments]
    if any(not 1 <= number <= len(mutants) for number in chosen):
        sys.exit(f"mutants are numbered from 1 to {len(mutants)}")
    chosen = chosen or list(range(1, len(mutants) + 1))

    home = Path(tempfile.mkdtemp(prefix="mutants-"))
    root = home / "tree"
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(root), "HEAD"], cwd=ROOT, check=True)
    try:
        # What is to be tested is what is committed: the list too.
        wrong = complaints(mutants, root)
        if wrong:
            sys.exit("not as in the last commit: " + "; ".join(wrong))
        head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, check=True,
                              text=True, stdout=subprocess.PIPE).stdout.strip()
        print(f"# python3 tests/mutants.py {' '.join(arguments)}".rstrip())
        print(f"# {time.strftime('%Y-%m-%d')}, commit {head}, {platform.machine()}, {os.cpu_count()} cores")
        print(f"# {driver(root)}", flush=True)
        tests = sorted({test for number in chosen for test in mutants[number - 1]["tests"]})
        started = time.monotonic()
        status, said = run(BUILD, root, BUILD_SECONDS)
        if status == 0:
            status, said = run([*TEST, *tests], root, 4 * TEST_SECONDS)
        if status != 0:
            print(last_lines(said, 40), file=sys.stderr)
            sys.exit("the tests do not pass as they are")
        print(f"# unedited, all of the tests pass: {time.monotonic() - started:.0f} s", flush=True)
        results = []
        for number in chosen:
            started = time.monotonic()
            mutant = mutants[number - 1]
            result, by = outcome(mutant, root)
            results.append(result)
            seconds = time.monotonic() - started
            print(f"{number:3}  {result:14} {seconds:4.0f} s  {mutant['file']:18} {mutant['what']}")
            if by:
                print(f"{'':26}by {by}")
            sys.stdout.flush()
        caught = results.count("caught")
        print(f"# {caught} of {len(results)} caught")
        return 0 if caught == len(results) else 1
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(root)], cwd=ROOT, check=True)
        shutil.rmtree(home)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
