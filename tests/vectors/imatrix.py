#!/usr/bin/env python3
"""Holds carat's importance matrix against llama.cpp's, of the same model and text.

    imatrix.py CARAT LLAMA_IMATRIX LLAMA_QUANTIZE MODEL_F32.gguf TEXT

Both read one chunk of 1024 tokens (they cut longer texts differently: llama.cpp puts <bos> over a
token, carat before it), keys and values in float32. Prints the largest relative difference of a
sum, and of the sums of a tensor together; then llama-quantize quantizes with carat's file, in both
kinds. Ends with 1 if a tensor is missing or differs by more than 3e-3, or a file is not accepted.
"""
import os
import struct
import subprocess
import sys
import tempfile

from quant_blocks import Gguf

# llama.cpp looks the GELU up in a table of binary16 numbers.
TOLERANCE = 3e-3


def sums(path):
    """Tensor name -> (sums, counts)."""
    file = Gguf(path)
    floats = {name.decode(): struct.unpack_from(f"<{n}f", file.data, at)
              for name, (_, n, at) in file.tensors.items()}
    return {name.removesuffix(".in_sum2"): (values, floats[name.replace(".in_sum2", ".counts")])
            for name, values in floats.items() if name.endswith(".in_sum2")}


def main():
    carat, llama_imatrix, llama_quantize, model, text = sys.argv[1:6]
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs, dat, out = (os.path.join(folder, n)
                                  for n in ("a.gguf", "b.gguf", "a.dat", "q.gguf"))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
        for path in (ours, dat):
            subprocess.run([carat, "imatrix", model, "--text", text, "-o", path, "--context",
                            "1024", "--max-tokens", "1024"], **quiet)
        subprocess.run([llama_imatrix, "-m", model, "-f", text, "-o", theirs, "-c", "1024", "-b",
                        "1024", "-ub", "1024", "--chunks", "1", "--no-ppl", "-ctk", "f32", "-ctv",
                        "f32"], **quiet)
        a, b = sums(ours), sums(theirs)
        worst = whole = 0
        for name, (expected, counts) in b.items():
            got, got_counts = a[name]
            if len(got) != len(expected) or got_counts != counts:
                raise SystemExit(f"{name}: {len(got)} sums of {got_counts}, not {len(expected)} "
                                 f"of {counts}")
            scale = sum(expected) / len(expected)
            worst = max(worst, max(abs(x - y) / max(y, 1e-3 * scale)
                                   for x, y in zip(got, expected)))
            whole = max(whole, abs(sum(got) / sum(expected) - 1))
        print(f"{len(b)} tensors of llama.cpp's, {len(a)} of carat's; largest difference of a sum "
              f"{worst:.2g}, of a tensor's sums {whole:.2g}")
        for path in (ours, dat):
            subprocess.run([llama_quantize, "--imatrix", path, "--pure", model, out, "Q4_0"],
                           **quiet)
        print("llama-quantize takes both kinds of carat's")
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
