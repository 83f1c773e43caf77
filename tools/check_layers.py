#!/usr/bin/env python3
"""Checks that includes point down only, as docs/architecture.md says.

usage: check_layers.py [ROOT]

Prints each include that breaks a rule, with the rule; exits 1 if there is one.
"""

import os
import re
import sys

# What each folder of src may include besides itself. Written out in full: the list is the rule.
BASE = ["base"]
QUANT = ["base", "tensor", "quant"]
MODEL = QUANT + ["io", "kernels", "text", "model"]
ENGINE = MODEL + ["media", "engine"]
MAY_INCLUDE = {
    "base": [],
    "tensor": ["base"],
    "quant": ["base", "tensor"],
    "io": QUANT,
    "kernels": QUANT,
    "text": BASE,
    "media": BASE,
    "model": QUANT + ["io", "kernels", "text"],
    "engine": MODEL + ["media"],
    "convert": MODEL,
    "audit": MODEL,
    "calibrate": MODEL,
    "train": MODEL,
    "quantize": MODEL + ["convert", "audit", "calibrate", "train"],
    "server": ENGINE,
    "app": ENGINE + ["convert", "quantize", "audit", "calibrate", "train", "server"],
}

# Headers of other libraries: (pattern of the header, pattern of the files that may include it,
# the rule in words).
RESTRICTED = [
    (r"nlohmann/", r"src/base/json[^/]*$", "nlohmann-json is used through base/json.h"),
    (r"CLI/", r"src/app/[^/]*$", "CLI11 is used in one file of src/app"),
    (r"boost/", r"src/server/", "Boost is used in src/server"),
    (r"g(test|mock)/", r"(src/.*_test\.(cc|h)|src/.*testing\.h|tests/.*)$", "GoogleTest is for tests"),
    (r"benchmark/", r"bench/", "Google Benchmark is for bench"),
    (r"([a-z0-9]*intrin\.h|arm_(neon|sve)\.h|wasm_simd128\.h)",
     r"(src/(kernels/cpu/([^/]+/|multiply_rate\.cc$)|.*/(avx2|avx512|avxvnni|neon)/)|bench/)",
     "intrinsics are used in folders of an instruction set: src/kernels/cpu/<isa>"),
]
ONE_FILE = [(r"CLI/", "CLI11 takes seconds to compile, so one file includes it")]

SOURCE = re.compile(r"\.(cc|h|cu|cuh|inc)$")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def includes(path):
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            match = INCLUDE.match(line)
            if match:
                yield number, match.group(1), match.group(2)


def source_files(root):
    for top in ("src", "tests", "bench", "fuzz"):
        for folder, folders, names in os.walk(os.path.join(root, top)):
            folders[:] = sorted(f for f in folders if f != "node_modules")
            for name in sorted(names):
                if SOURCE.search(name):
                    yield os.path.relpath(os.path.join(folder, name), root)


def isa_folder(path):
    """'kernels/cpu/avx2' of a path below it, or None."""
    match = re.match(r"(?:src/)?(kernels/cpu/[^/]+)/", path)
    return match.group(1) if match else None


def check_own(root, path, header):
    """The rule that an include of one of our own headers breaks, or None."""
    if ".." in header.split("/"):
        return "includes are relative to src"
    beside = os.path.join(os.path.dirname(path), header)
    if not path.startswith("src/") and os.path.exists(os.path.join(root, beside)):
        return None
    if not os.path.exists(os.path.join(root, "src", header)):
        return "no such file below src"
    if not path.startswith("src/"):
        return None
    layer = path.split("/")[1]
    target = header.split("/")[0]
    if layer not in MAY_INCLUDE:
        return f"src/{layer} is not in the table of layers"
    if target != layer and target not in MAY_INCLUDE[layer]:
        return f"{layer} may include {', '.join(MAY_INCLUDE[layer]) or 'nothing of ours'}"
    inner = isa_folder(header)
    if inner and not path.startswith("src/kernels/cpu/"):
        return f"{inner} is private to kernels/cpu"
    return None


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "..")
    problems = []
    users = {pattern: set() for pattern, _ in ONE_FILE}
    n_files = 0
    for path in source_files(root):
        n_files += 1
        for number, quote, header in includes(os.path.join(root, path)):
            rule = check_own(root, path, header) if quote == '"' else None
            for pattern, where, words in RESTRICTED:
                if re.match(pattern, header) and not re.match(where, path):
                    rule = words
            for pattern in users:
                if re.match(pattern, header):
                    users[pattern].add(path)
            if rule:
                problems.append(f"{path}:{number}: includes {header}: {rule}")
    for pattern, words in ONE_FILE:
        if len(users[pattern]) > 1:
            problems.append(f"{', '.join(sorted(users[pattern]))}: {words}")
    for problem in problems:
        print(problem)
    print(f"check_layers: {n_files} files, {len(problems)} problems")
    return 1 if problems or n_files == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
