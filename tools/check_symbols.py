#!/usr/bin/env python3
"""Checks that object files compiled for one instruction set define no weak or unique symbol.

usage: check_symbols.py OBJECT...

Of an inline function that several objects define, the linker keeps one copy. If it keeps the one
compiled with AVX2, portable code calls it and the program dies on a machine without AVX2. So code
below a folder that is named after an instruction set (src/kernels/cpu/<isa>, src/convert/<isa>,
src/train/<isa>) keeps its helpers in anonymous namespaces. Objects of other folders are ignored;
exits 1 and names the symbols if a rule is broken.
"""

import re
import shutil
import subprocess
import sys

ISA_OBJECT = re.compile(r"/(avx2|avx512|avxvnni|neon)/[^/]+\.o(bj)?$")
# A pointer to the exception handler that any object may define: data, without instructions.
HARMLESS = re.compile(r"DW\.ref\.")


def nm_of(path):
    """The nm that reads an object: for 64-bit ARM that of the cross compiler, if there is one."""
    with open(path, "rb") as f:
        machine = int.from_bytes(f.read(20)[18:20], "little")
    cross = "aarch64-linux-gnu-nm"
    return cross if machine == 183 and shutil.which(cross) else "nm"


def weak_symbols(path):
    out = subprocess.run([nm_of(path), "--defined-only", "--demangle", path], check=True, text=True,
                         stdout=subprocess.PIPE).stdout
    for line in out.splitlines():
        _, kind, name = line.split(" ", 2)
        if kind in "WVu" and not HARMLESS.match(name):
            yield kind, name


def main():
    objects = [path for path in sys.argv[1:] if ISA_OBJECT.search(path)]
    n_problems = 0
    for path in objects:
        for kind, name in weak_symbols(path):
            n_problems += 1
            print(f"{path}: {kind} {name}")
    print(f"check_symbols: {len(objects)} objects, {n_problems} weak or unique symbols")
    return 1 if n_problems else 0


if __name__ == "__main__":
    sys.exit(main())
