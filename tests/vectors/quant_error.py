#!/usr/bin/env python3
"""What every block type loses, encoded by llama.cpp and by carat: the table of docs/fidelity.md.

    quant_error.py [--weighted] CARAT QUANT_ERROR LLAMA_QUANTIZE TRAINED.safetensors

A model of small shape is filled with normally distributed weights, with weights that have outliers
and rows of different size, and with trained ones; llama.cpp quantizes it to each of its types,
without importance matrix, and QUANT_ERROR (bench/quant_error.cc) encodes the same tensors in the
same types. Figures are relative root mean square errors in per cent. Ends with 1 if carat loses
more in any type.

--weighted: both have the same random importance matrix, and squares count by it. Each pair of
figures is followed by the same for the sum that llama.cpp minimises, the importance times
sqrt(mean square of the row + w^2), to which carat then fits too.
"""
import os
import subprocess
import sys
import tempfile

RECIPES = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
           "IQ4_XS", "MXFP4_MOE"]
# An encoder that computes the same codes may differ in the last bit of a sum.
SLACK = 1.0005


def main():
    weighted = sys.argv[1] == "--weighted"
    carat, tool, llama_quantize, trained = sys.argv[1 + weighted:5 + weighted]
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        model, quantized, imatrix = (os.path.join(folder, n) for n in
                                     ("m.gguf", "q.gguf", "i.gguf"))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
        for values in ("normal", "heavy", trained):
            for recipe in RECIPES:
                if weighted and recipe == "MXFP4_MOE":
                    continue  # llama.cpp ignores the matrix there
                size = "tinymoe" if recipe.endswith("_MOE") else "tiny"
                subprocess.run([carat, "synth", size, model, "--type", "f32", "--force"], **quiet)
                subprocess.run([tool, "fill", model, values], **quiet)
                pure = [] if recipe.endswith("_MOE") else ["--pure"]
                if weighted:
                    subprocess.run([tool, "weigh", model, imatrix], **quiet)
                    pure += ["--imatrix", imatrix]
                subprocess.run([llama_quantize, *pure, model, quantized, recipe], **quiet)
                out = subprocess.run([tool, "compare", model, quantized,
                                      *([imatrix] if weighted else [])],
                                     check=True, capture_output=True, text=True).stdout
                for line in out.splitlines():
                    name, _, *errors = line.split()
                    if name == recipe.removesuffix("_MOE"):
                        errors = [float(e) for e in errors]
                        figures.setdefault(name, []).extend(zip(errors[::2], errors[1::2]))
    titles = [(v, by) for v in ("normal", "outliers", "trained")
              for by in (("", ", by size too") if weighted else ("",))]
    print("| type | " + " | ".join(f"{v}{by}: llama.cpp | carat" for v, by in titles) + " |")
    print("|---" * (1 + 2 * len(titles)) + "|")
    worse = []
    for name, rows in figures.items():
        cells = [f"{100 * v:.3f}" for pair in rows for v in pair]
        print(f"| {name} | {' | '.join(cells)} |")
        if any(ours > theirs * SLACK for theirs, ours in rows):
            worse.append(name)
    missing = [r for r in RECIPES if r.removesuffix("_MOE") not in figures and
               not (weighted and r == "MXFP4_MOE")]
    if worse or missing:
        print(f"worse: {worse}, missing: {missing}", file=sys.stderr)
        return 1
    return 0


sys.exit(main())
