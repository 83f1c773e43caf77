#!/usr/bin/env python3
"""Measures every way to quantize on the models that are trained here, for docs/fidelity.md.

usage: bench/fidelity_table.py [options]
  --carat FILE      the program                       (default build/carat)
  --out DIR         files, reports and tables         (default build/fidelity)
  --model NAME      nano, nano-moe, nano-kv; may be given several times  (default: all)
  --group NAME      qat, rounded, learned, kv; likewise   (default: all)
  --max-tokens N    of each text; 0: all of it        (default 0)
  --print           only prints what --out holds already

Per model and text, `carat audit` compares the rows with the teacher in bf16, a group at a time:
quantized files, and the teacher itself with other types of keys and values. Needs the texts of
`make nano-data`. What exists is not made again, so that a run that was stopped goes on; an audit is
repeated when a candidate is newer than its report. Prints the tables in Markdown.
"""

import argparse
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TEXT = os.path.join(ROOT, "build", "nano", "text")
MODELS = ["nano", "nano-moe", "nano-kv"]
DOMAINS = [("persuasion", "in-domain"), ("policy", "out-of-domain")]

# Calibration: the beginning of every novel that the models were trained on.
NOVELS = ["emma", "mansfield", "northanger", "prejudice", "sense"]
CALIBRATION_BYTES = 32768

# name of the file, group, name in the table, arguments of carat ({teacher} and so on are filled
# in). The file of quantization-aware training is not made here: it lies beside the teacher.
MADE = [
    ("round", "rounded", "`convert --round`", "convert {teacher} {file} --to gguf-q4_0 --round"),
    ("quantize-round", "rounded", "`quantize --method round`",
     "quantize {teacher} {file} --method round --type q4_0 --text {calibration}"),
    ("quantize-feedback", "rounded", "`quantize --method feedback`",
     "quantize {teacher} {file} --method feedback --type q4_0 --text {calibration}"),
    ("auto_round", "learned", "`quantize --method auto_round`",
     "quantize {teacher} {file} --method auto_round --type q4_0 --text {calibration}"),
    ("scales", "learned", "`quantize --method scales`",
     "quantize {teacher} {file} --method scales --type q4_0 --text {calibration}"),
    ("q4_k_m", "rounded", "`convert --recipe q4_k_m --imatrix`",
     "convert {teacher} {file} --to gguf --recipe q4_k_m --imatrix {imatrix}"),
]
GROUPS = ["qat", "rounded", "learned", "kv"]
QAT_NAME = "quantization-aware training"
KV_TYPES = ["f16", "int8", "int4", "int4r"]


class TableError(Exception):
    pass


class Paths:
    """Where the files of one model lie."""

    def __init__(self, out, model, groups=None):
        self.out, self.model, self.groups = out, model, groups or GROUPS
        self.teacher = os.path.join(ROOT, "models", model, "teacher")
        self.qat_file = os.path.join(ROOT, "models", model, model + "-q4_0.gguf")
        self.qat = os.path.join(out, model + "-qat")
        self.imatrix = os.path.join(out, model + ".imatrix.gguf")
        self.calibration = os.path.join(out, "calibration.txt")

    def made(self, name):
        return os.path.join(self.out, f"{self.model}-{name}.gguf")

    def report(self, group, domain):
        return os.path.join(self.out, f"{self.model}.{group}.{domain}.json")

    def rows(self):
        """(name in the table, path) of the quantized files."""
        qat = [(QAT_NAME, self.qat_file)] if "qat" in self.groups else []
        return qat + [(row[2], self.made(row[0])) for row in MADE if row[1] in self.groups]

    def caches(self):
        """(type, candidate) of the teacher with other keys and values."""
        return [(kv, f"{self.teacher}@kv={kv}") for kv in KV_TYPES]

    def candidates(self, group):
        if group == "qat":
            return [self.qat_file, self.qat]
        if group == "kv":
            return [candidate for _, candidate in self.caches()]
        return [self.made(row[0]) for row in MADE if row[1] == group]


def run(carat, arguments, stdout=None):
    print("carat " + " ".join(arguments), file=sys.stderr, flush=True)
    done = subprocess.run([carat] + arguments, stdout=stdout, check=False)
    if done.returncode != 0:
        raise TableError(f"carat {arguments[0]} ended with {done.returncode}")
    return done.stdout


def make_calibration(path):
    if os.path.exists(path):
        return
    pieces = []
    for name in NOVELS:
        with open(os.path.join(TEXT, name + ".txt"), "rb") as file:
            piece = file.read(CALIBRATION_BYTES)
        pieces.append(piece[:piece.rindex(b"\n") + 1])
    with open(path + ".part", "wb") as file:
        file.write(b"\n".join(pieces))
    os.replace(path + ".part", path)


def make_files(carat, paths):
    make_calibration(paths.calibration)
    if not os.path.exists(paths.imatrix):
        run(carat, ["imatrix", paths.teacher, "--text", paths.calibration, "-o", paths.imatrix],
            subprocess.DEVNULL)
    if not os.path.exists(paths.qat):  # without loss: the weights lie on the lattice
        run(carat, ["convert", paths.qat_file, paths.qat, "--to", "hf-bf16", "--no-report"],
            subprocess.DEVNULL)
    for name, group, _, command in MADE:
        file = paths.made(name)
        if group in paths.groups and not os.path.exists(file):
            run(carat, [word.format(file=file, **vars(paths)) for word in command.split()],
                subprocess.DEVNULL)


def newest(path):
    if os.path.isdir(path):
        return max(os.path.getmtime(os.path.join(path, name)) for name in os.listdir(path))
    return os.path.getmtime(path)


def audit(carat, paths, group, domain, max_tokens):
    report, candidates = paths.report(group, domain), paths.candidates(group)
    made = [newest(candidate.split("@")[0]) for candidate in candidates]
    if os.path.exists(report) and os.path.getmtime(report) > max(made):
        return
    second = ["--second-reference", paths.qat] if group == "qat" else []
    output = run(carat, ["audit", paths.teacher, *candidates, *second,
                         "--text", os.path.join(TEXT, domain + ".txt"),
                         "--calibration", paths.calibration,
                         "--max-tokens", str(max_tokens), "--json"], subprocess.PIPE)
    with open(report + ".part", "wb") as file:
        file.write(output)
    os.replace(report + ".part", report)


class Report:
    """The audits of one model over one text, all groups."""

    def __init__(self, paths, domain):
        self.figures, self.sizes = {}, {}
        for group in paths.groups:
            with open(paths.report(group, domain), encoding="utf-8") as file:
                report = json.load(file)
            for figures in report["candidates"]:
                self.figures[figures["candidate"], figures["reference"]] = figures
            for model in report["models"]:
                self.sizes[model["path"]] = model["bytes"]
            self.text = os.path.basename(report["texts"][0]["path"])

    def find(self, candidate, reference):
        """The figures of a candidate against a reference, both named as on the command line."""
        if (candidate, reference) not in self.figures:
            raise TableError(f"no report compares {candidate} with {reference}")
        return self.figures[candidate, reference]


def digits(value):
    """Four decimals, more for what would be lost in them."""
    return f"{value:.4f}" if value == 0 or value >= 0.001 else f"{value:.2g}"


def interval(figures, key, show):
    bounds = figures[key + "_interval"]
    text = show(figures[key])
    return text if bounds is None else f"{text} ({show(bounds[0])}..{show(bounds[1])})"


def cells(figures):
    return [interval(figures, "mean_kld", digits), f"{figures['p99_kld']:.3g}",
            f"{100 * figures['top1_agreement']:.1f}",
            interval(figures, "perplexity_ratio", "{:.3f}".format)]


def line(values):
    return "| " + " | ".join(values) + " |"


def header(names):
    return [line(names), "|" + "---|" * len(names)]


def model_table(paths, reports):
    """Lines of Markdown: all quantized files of a model, over every text."""
    columns = ["mean KLD", "p99", "top-1 %", "perplexity ratio"]
    lines = header([paths.model, "MB"] + [f"{kind}: {columns[0]}" if i == 0 else column
                                          for _, kind in DOMAINS
                                          for i, column in enumerate(columns)])
    for name, path in paths.rows():
        values = [name, f"{reports[0].sizes[path] / 1e6:.2f}"]
        for report in reports:
            values += cells(report.find(path, paths.teacher))
        lines.append(line(values))
    return lines


def qat_line(paths, reports):
    """What the 4-bit file loses of the trained checkpoint, and how that lies to the teacher."""
    values = [paths.model]
    for report in reports:
        for candidate, reference in ((paths.qat_file, paths.qat), (paths.qat, paths.teacher)):
            values.append(interval(report.find(candidate, reference), "mean_kld", digits))
    return line(values)


def cache_lines(paths, reports):
    lines = []
    for kv, candidate in paths.caches():
        values = [paths.model, kv]
        for report in reports:
            values += cells(report.find(candidate, paths.teacher))[:3]
        lines.append(line(values))
    return lines


def about(paths, report):
    figures = next(f for pair, f in report.figures.items() if pair[1] == paths.teacher)
    return (f"{report.text}: {figures['tokens']} tokens in {figures['chunks']} chunks, "
            f"perplexity of the teacher {figures['reference_perplexity']:.1f}")


def tables(all_paths):
    lines, qat, caches = [], [], []
    for paths in all_paths:
        reports = [Report(paths, domain) for domain, _ in DOMAINS]
        if paths.rows():
            lines += model_table(paths, reports) + [""]
        lines += [f"{paths.model}, " + "; ".join(about(paths, r) for r in reports), ""]
        if "qat" in paths.groups:
            qat.append(qat_line(paths, reports))
        if "kv" in paths.groups:
            caches += cache_lines(paths, reports)
    kinds = [kind for _, kind in DOMAINS]
    if qat:
        lines += header(["model"] + [f"{kind}: {what}" for kind in kinds
                                     for what in ("Q4_0 against QAT bf16", "QAT bf16")])
        lines += qat + [""]
    if caches:
        what = ("mean KLD", "p99", "top-1 %")
        lines += header(["model", "K/V"] + [f"{kind}: {name}" if i == 0 else name
                                            for kind in kinds for i, name in enumerate(what)])
    return lines + caches


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1])
    parser.add_argument("--carat", default=os.path.join(ROOT, "build", "carat"))
    parser.add_argument("--out", default=os.path.join(ROOT, "build", "fidelity"))
    parser.add_argument("--model", action="append", choices=MODELS)
    parser.add_argument("--group", action="append", choices=GROUPS)
    parser.add_argument("--max-tokens", type=int, default=0)
    parser.add_argument("--print", action="store_true")
    options = parser.parse_args()
    options.out = os.path.abspath(options.out)
    os.makedirs(options.out, exist_ok=True)
    all_paths = [Paths(options.out, model, options.group) for model in options.model or MODELS]
    try:
        if not options.print:
            for paths in all_paths:
                make_files(options.carat, paths)
                for group in paths.groups:
                    for domain, _ in DOMAINS:
                        audit(options.carat, paths, group, domain, options.max_tokens)
        print("\n".join(tables(all_paths)))
    except (TableError, OSError) as error:
        print(f"fidelity_table: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
