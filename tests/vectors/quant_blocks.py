#!/usr/bin/env python3
"""Makes src/quant/testing/peer_blocks.txt: blocks of every quantized type and the floats that
llama.cpp says they stand for.

    quant_blocks.py CARAT LLAMA_QUANTIZE > src/quant/testing/peer_blocks.txt

A random model is quantized by llama.cpp to each of its recipes, and each result back to F32; the
two files then hold the same tensors as blocks and as floats. Of every type the first 256 elements
of the first tensor that has it are written: a line with the type and the bytes, one with the
floats, both in hexadecimal, little-endian. `--all` writes whole tensors instead.
"""
import argparse
import os
import struct
import subprocess
import tempfile

RECIPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M",
           "Q6_K", "IQ4_XS", "MXFP4_MOE"]
TYPES = {2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
         8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
         12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210),
         20: ("IQ4_NL", 32, 18), 23: ("IQ4_XS", 256, 136), 39: ("MXFP4", 32, 17)}
SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


class Gguf:
    """The tensors of a GGUF file: name -> (type id, elements, first byte)."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.data = f.read()
        self.at = 8
        n_tensors, n_fields = self.take("<QQ")
        alignment = 32
        for _ in range(n_fields):
            key = self.string()
            value = self.value(*self.take("<I"))
            if key == b"general.alignment":
                alignment = value
        self.tensors = {}
        for _ in range(n_tensors):
            name = self.string()
            elements = 1
            for n in self.take(f"<{self.take('<I')[0]}Q"):
                elements *= n
            self.tensors[name] = (*self.take("<IQ"), elements)
        base = -(-self.at // alignment) * alignment
        self.tensors = {k: (t, n, base + at) for k, (t, at, n) in self.tensors.items()}

    def take(self, layout):
        values = struct.unpack_from(layout, self.data, self.at)
        self.at += struct.calcsize(layout)
        return values

    def string(self):
        (n,) = self.take("<Q")
        self.at += n
        return self.data[self.at - n:self.at]

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind == 9:
            kind, n = self.take("<IQ")
            return [self.value(kind) for _ in range(n)]
        self.at += SCALARS[kind]
        return int.from_bytes(self.data[self.at - SCALARS[kind]:self.at], "little")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("carat")
    parser.add_argument("llama_quantize")
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    seen = set()
    with tempfile.TemporaryDirectory() as folder:
        model, blocks, floats = (os.path.join(folder, n) for n in ("m.gguf", "b.gguf", "f.gguf"))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
        for recipe in RECIPES:
            size = "tinymoe" if recipe.endswith("_MOE") else "tiny"
            subprocess.run([args.carat, "synth", size, model, "--type", "f32", "--force"], **quiet)
            subprocess.run([args.llama_quantize, model, blocks, recipe], **quiet)
            subprocess.run([args.llama_quantize, "--allow-requantize", blocks, floats, "F32"],
                           **quiet)
            packed, wide = Gguf(blocks), Gguf(floats)
            for name, (kind, elements, at) in packed.tensors.items():
                if kind not in TYPES or (kind in seen and not args.all):
                    continue
                seen.add(kind)
                title, per_block, size = TYPES[kind]
                n = elements if args.all else 256
                raw = packed.data[at:at + n // per_block * size]
                expected = wide.tensors[name][2]
                print(title, raw.hex())
                print(wide.data[expected:expected + 4 * n].hex())
    missing = {title for kind, (title, _, _) in TYPES.items() if kind not in seen}
    if missing:
        raise SystemExit(f"no tensor of type {', '.join(sorted(missing))}")


if __name__ == "__main__":
    main()
