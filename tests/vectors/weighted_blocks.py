#!/usr/bin/env python3
"""Makes src/quant/testing/weighted_blocks.txt: rows as llama.cpp encodes them with an importance
matrix, for the test that carat loses no more.

    weighted_blocks.py CARAT QUANT_ERROR LLAMA_QUANTIZE > src/quant/testing/weighted_blocks.txt

Lines of a word and bytes in hexadecimal, little-endian: `values`, four rows of 256 floats with
outliers; `importance`, 256 floats; then a type and its four rows. QUANT_ERROR is
bench/quant_error.cc.
"""
import os
import subprocess
import sys
import tempfile

from quant_blocks import TYPES, Gguf

RECIPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
           "IQ4_XS"]
NAME = b"blk.0.ffn_gate.weight"
ROWS, COLUMNS = 4, 256


def part(file, name, size):
    at = file.tensors[name][2]
    return file.data[at:at + size].hex()


def main():
    carat, tool, llama_quantize = sys.argv[1:4]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
    with tempfile.TemporaryDirectory() as folder:
        model, imatrix, blocks = (os.path.join(folder, n) for n in ("m.gguf", "i.gguf", "b.gguf"))
        subprocess.run([carat, "synth", "tiny", model, "--type", "f32"], **quiet)
        subprocess.run([tool, "fill", model, "heavy"], **quiet)
        subprocess.run([tool, "weigh", model, imatrix], **quiet)
        print("values", part(Gguf(model), NAME, 4 * ROWS * COLUMNS))
        print("importance", part(Gguf(imatrix), NAME + b".in_sum2", 4 * COLUMNS))
        for recipe in RECIPES:
            subprocess.run([llama_quantize, "--pure", "--imatrix", imatrix, model, blocks, recipe],
                           **quiet)
            packed = Gguf(blocks)
            title, per_block, size = TYPES[packed.tensors[NAME][0]]
            if title != recipe:
                raise SystemExit(f"the tensor became {title} instead of {recipe}")
            print(title, part(packed, NAME, ROWS * COLUMNS // per_block * size))


if __name__ == "__main__":
    main()
