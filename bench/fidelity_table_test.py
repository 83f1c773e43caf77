#!/usr/bin/env python3
"""Tests of bench/fidelity_table.py on made-up reports and a program that only writes files."""

import contextlib
import io
import json
import os
import stat
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import fidelity_table as table  # noqa: E402

# Writes what it was asked for; an audit prints the arguments.
FAKE = """#!/usr/bin/env python3
import json, os, sys
with open(os.environ["FAKE_LOG"], "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
if sys.argv[1] == "audit":
    print(json.dumps(sys.argv))
elif os.environ.get("FAKE_FAILS") == sys.argv[1]:
    sys.exit(5)
else:
    out = sys.argv[sys.argv.index("-o") + 1] if "-o" in sys.argv else sys.argv[3]
    open(out, "w").write("made")
"""


def figures(candidate, reference, kld):
    return {"candidate": candidate, "reference": reference, "tokens": 100, "chunks": 4,
            "mean_kld": kld, "mean_kld_interval": [kld / 2, kld * 2], "p99_kld": kld * 10,
            "top1_agreement": 0.875, "top1_agreement_interval": None, "perplexity_ratio": 1.01,
            "perplexity_ratio_interval": None, "reference_perplexity": 60.0}


def report_of(paths, group, domain):
    names = paths.candidates(group)
    pairs = [(name, paths.teacher, 0.01 * (i + 1)) for i, name in enumerate(names)]
    if group == "qat":
        pairs += [(name, paths.qat, 0.0) for name in names]
    return {"texts": [{"path": f"x/{domain}.txt"}],
            "models": [{"path": name, "bytes": 2_000_000} for name in names],
            "candidates": [figures(*pair) for pair in pairs]}


class Tables(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.paths = table.Paths(self.folder.name, "nano")

    def write_reports(self):
        for group in table.GROUPS:
            for domain, _ in table.DOMAINS:
                with open(self.paths.report(group, domain), "w", encoding="utf-8") as file:
                    json.dump(report_of(self.paths, group, domain), file)

    def test_every_row_has_the_columns_of_its_header(self):
        self.write_reports()
        lines = table.tables([self.paths])
        columns = None
        for line in lines:
            if not line.startswith("|"):
                columns = None
                continue
            columns = columns or line.count("|")
            self.assertEqual(line.count("|"), columns, line)
        text = "\n".join(lines)
        for _, _, name, _ in table.MADE:
            self.assertIn(f"| {name} | 2.00 |", text)
        self.assertIn(f"| {table.QAT_NAME} | 2.00 | 0.0100 (0.0050..0.0200) | 0.1 | 87.5 | 1.010 |",
                      text)
        self.assertIn("persuasion.txt: 100 tokens in 4 chunks, perplexity of the teacher 60.0",
                      text)
        self.assertIn("| nano | 0.0000 (0.0000..0.0000) | ", text)  # the 4-bit file against QAT

    def test_only_the_groups_that_were_asked_for(self):
        self.write_reports()
        for group in table.GROUPS:  # needs no report of another group
            paths = table.Paths(self.folder.name, "nano", [group])
            text = "\n".join(table.tables([paths]))
            self.assertEqual(table.QAT_NAME in text, group == "qat")
            self.assertEqual("int4r" in text, group == "kv")
            for _, own, name, _ in table.MADE:
                self.assertEqual(name in text, own == group)

    def test_a_missing_comparison_is_an_error(self):
        self.write_reports()
        path = self.paths.report("rounded", "policy")
        with open(path, encoding="utf-8") as file:
            report = json.load(file)
        report["candidates"].pop(0)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(report, file)
        with self.assertRaisesRegex(table.TableError, "no report compares"):
            table.tables([self.paths])

    def test_small_figures_keep_a_digit(self):
        self.assertEqual(table.digits(0.0123456), "0.0123")
        self.assertEqual(table.digits(0.000034), "3.4e-05")
        self.assertEqual(table.digits(0), "0.0000")


class Running(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.out = folder.name
        self.carat = os.path.join(self.out, "fake")
        with open(self.carat, "w", encoding="utf-8") as file:
            file.write(FAKE)
        os.chmod(self.carat, stat.S_IRWXU)
        self.log = os.path.join(self.out, "log")
        self.paths = table.Paths(self.out, "nano")
        with open(self.paths.calibration, "w", encoding="utf-8") as file:
            file.write("text")
        environment = mock.patch.dict(os.environ, FAKE_LOG=self.log)
        environment.start()
        self.addCleanup(environment.stop)

    def runs(self):
        with open(self.log, encoding="utf-8") as file:
            return file.read().splitlines()

    def test_makes_each_file_once_and_repeats_an_audit_when_one_is_newer(self):
        with contextlib.redirect_stderr(io.StringIO()):
            for _ in range(2):
                table.make_files(self.carat, self.paths)
                table.audit(self.carat, self.paths, "rounded", "policy", 500)
            self.assertEqual(len(self.runs()), 3 + len(table.MADE))
            audit = self.runs()[-1]
            for name, group, _, _ in table.MADE:
                self.assertEqual(self.paths.made(name) in audit, group == "rounded", name)
            self.assertIn("--max-tokens 500", audit)
            later = os.path.getmtime(self.paths.report("rounded", "policy")) + 10
            os.utime(self.paths.made("round"), (later, later))
            table.audit(self.carat, self.paths, "rounded", "policy", 500)
            self.assertEqual(len(self.runs()), 4 + len(table.MADE))

    def test_a_command_that_fails_ends_the_run(self):
        with contextlib.redirect_stderr(io.StringIO()):
            with mock.patch.dict(os.environ, FAKE_FAILS="quantize"):
                with self.assertRaisesRegex(table.TableError, "quantize ended with 5"):
                    table.make_files(self.carat, self.paths)


if __name__ == "__main__":
    unittest.main()
