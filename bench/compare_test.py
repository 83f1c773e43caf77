#!/usr/bin/env python3
"""Tests of bench/compare on canned outputs: nothing here is timed."""

import contextlib
import importlib.util
import io
import json
import os
import stat
import sys
import tempfile
import unittest
from importlib.machinery import SourceFileLoader

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import comparison  # noqa: E402
import sides  # noqa: E402

loader = SourceFileLoader("compare_program", os.path.join(HERE, "compare"))
program = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
loader.exec_module(program)

CARAT = {"model": "m", "threads": 2, "isa": "avx2", "kv": "int8",
         "prefill_tokens_per_second": 200.0, "prefill_giga_multiply_adds_per_second": 120.0,
         "decode_tokens_per_second": 14.0, "decode_gigabytes_per_second": 20.0,
         "version": "0.1.0", "commit": "abc"}
LLAMA = [{"build_commit": "d32676d", "n_threads": 2, "type_k": "f16", "type_v": "f16",
          "n_prompt": 512, "n_gen": 0, "avg_ts": 25.0},
         {"build_commit": "d32676d", "n_threads": 2, "type_k": "f16", "type_v": "f16",
          "n_prompt": 0, "n_gen": 32, "avg_ts": 10.0}]
BATCHED = """
main: n_kv_max = 4096, n_batch = 2048

|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |
|-------|--------|------|--------|----------|----------|----------|----------|----------|----------|
|   128 |     32 |    8 |   1280 |   30.000 |    34.10 |    8.000 |    32.00 |   38.000 |    33.70 |
"""


class FakeSide:
    """A side whose runs and loops are read off lists."""

    def __init__(self, name, figures, loops=None):
        self.name, self.figures, self.loops, self.log = name, list(figures), loops, []

    def run(self, work):
        self.log.append(self.name)
        figure = self.figures.pop(0)
        return sides.Run({row: figure for row in work.rows()},
                         {"version": "1", "isa": "i", "kv": "f16", "threads": 2},
                         peak_resident_bytes=10**9)

    def machine(self, _threads):
        return self.loops.pop(0) if self.loops else (40.0, 200.0)


def say_nothing(_text):
    pass


class Parsing(unittest.TestCase):
    def test_carat(self):
        work = sides.Work("m", depth=8192)
        run = sides.Carat("carat").parse(work, json.dumps(CARAT))
        self.assertEqual(run.figures, {"prefill 512 at 8192": 200.0, "decode 32 at 8192": 14.0})
        self.assertEqual(run.about["version"], "0.1.0 (abc)")
        with self.assertRaisesRegex(sides.SideError, "no JSON"):
            sides.Carat("carat").parse(work, "hello")
        with self.assertRaisesRegex(sides.SideError, "decode_tokens_per_second"):
            sides.Carat("carat").parse(
                work, json.dumps({"prefill_tokens_per_second": 1, "version": "1"}))

    def test_llama_bench_after_log_lines(self):
        side = sides.LlamaBench("llama.cpp", "/nowhere/llama-bench")
        run = side.parse(sides.Work("m"), "load: [info]\n[\n" + json.dumps(LLAMA)[1:])
        self.assertEqual(run.figures, {"prefill 512": 25.0, "decode 32": 10.0})
        self.assertEqual(run.about, {"version": "d32676d", "isa": "not known", "kv": "f16",
                                     "threads": 2})
        with self.assertRaisesRegex(sides.SideError, "measured nothing"):
            side.parse(sides.Work("m"), "[]")

    def test_decode_after_a_prompt_is_no_prefill(self):
        tests = [dict(LLAMA[1], n_prompt=8192)]
        side = sides.LlamaBench("ik", "/nowhere/llama-bench")
        run = side.parse(sides.Work("m", depth=8192), json.dumps(tests))
        self.assertEqual(run.figures, {"decode 32 at 8192": 10.0})

    def test_batched_table(self):
        self.assertEqual(sides.parse_batched_table(BATCHED, 8), 32.0)
        with self.assertRaises(sides.SideError):
            sides.parse_batched_table(BATCHED, 4)

    def test_node(self):
        text = "noise\n" + json.dumps(
            {"prefill_tokens_per_second": 30.0, "decode_tokens_per_second": 9.0, "version": "3",
             "isa": "AVX2", "kv": "f16", "threads": 2})
        run = sides.Node("/nowhere").parse(sides.Work("m"), text)
        self.assertEqual(run.figures, {"prefill 512": 30.0, "decode 32": 9.0})

    def test_build_flags_come_from_the_cmake_cache(self):
        with tempfile.TemporaryDirectory() as folder:
            os.makedirs(os.path.join(folder, "bin"))
            with open(os.path.join(folder, "CMakeCache.txt"), "w", encoding="utf-8") as f:
                f.write("GGML_NATIVE:BOOL=OFF\nGGML_AVX2:BOOL=ON\nGGML_AVX512:BOOL=ON\n")
            path = os.path.join(folder, "bin", "llama-bench")
            self.assertEqual(sides.build_flags(path), "AVX2+AVX512")
            self.assertEqual(sides.build_flags("/llama-bench"), "not known")


class Commands(unittest.TestCase):
    def test_each_kind_of_work(self):
        new = sides.LlamaBench("l", "/b/llama-bench")
        new.help = "  -d, --n-depth <n>\n  --no-warmup   skip"
        old = sides.LlamaBench("ik", "/b/llama-bench", extra="-rtr 1")
        old.help = "  -gp <pp,tg>\n  -w, --warmup <0|1>"
        deep = sides.Work("m", depth=100, decode=8)
        self.assertIn("-d 100", " ".join(new.command(deep)))
        self.assertIn("-p 0 -n 0 -gp 100,8", " ".join(old.command(deep)))
        self.assertTrue(" ".join(old.command(deep)).endswith("-rtr 1"))
        first = sides.Work("m", first_token=True)
        self.assertIn("--no-warmup", new.command(first))
        self.assertIn("-w 0", " ".join(old.command(first)))
        many = sides.Work("m", prefill=100, decode=30, sequences=8)
        self.assertEqual(new.command(many)[:5], ["/b/llama-batched-bench", "-m", "m", "-c", "2048"])
        carat = sides.Carat("c", extra="--no-pack")
        self.assertIn("--sequences 8", " ".join(carat.command(many)))
        self.assertEqual(carat.command(first)[-2:], ["--first-token", "--no-pack"])


class Pairs(unittest.TestCase):
    def test_the_order_alternates_and_ratios_are_taken_pair_by_pair(self):
        work = sides.Work("m", prefill=0)
        carat, peer = FakeSide("carat", [20, 30, 24]), FakeSide("peer", [10, 10, 8])
        carat.log = peer.log
        c = comparison.compare(carat, peer, work, 3, 3, say_nothing)
        self.assertEqual(peer.log, ["carat", "peer", "peer", "carat", "carat", "peer"])
        (summary,) = comparison.summaries(work, c)
        self.assertEqual(summary.ratios(), [2, 3, 3])
        self.assertEqual(comparison.spread(summary.ratios()), "3.00 (2.00..3.00)")
        self.assertEqual((c.repeated, c.unsteady()), (0, 0))

    def test_seconds_are_better_when_lower(self):
        work = sides.Work("m", first_token=True)
        c = comparison.compare(FakeSide("carat", [1.0]), FakeSide("p", [4.0]), work, 1, 0,
                               say_nothing)
        self.assertEqual(comparison.summaries(work, c)[0].ratios(), [4.0])

    def test_a_pair_that_moved_is_run_again(self):
        steady, slow = (40.0, 200.0), (40.0, 170.0)
        work = sides.Work("m", prefill=0)
        # Moved while the second side ran: both are run again.
        carat = FakeSide("carat", [1, 20], [steady, steady, slow] + [steady] * 3)
        peer = FakeSide("peer", [1, 10])
        c = comparison.compare(carat, peer, work, 1, 3, say_nothing)
        self.assertEqual((c.repeated, c.unsteady()), (1, 0))
        self.assertEqual(comparison.summaries(work, c)[0].ratios(), [2])
        # Moved before the second side: that one is spared.
        carat = FakeSide("carat", [1, 20], [steady, slow] + [steady] * 3)
        peer = FakeSide("peer", [10])
        c = comparison.compare(carat, peer, work, 1, 3, say_nothing)
        self.assertEqual((c.repeated, peer.figures), (1, []))

    def test_repeating_is_bounded_and_the_steadiest_is_kept(self):
        work = sides.Work("m", prefill=0)
        loops = [(40.0, 200.0), (40.0, 200.0), (20.0, 200.0),  # moved late: has figures
                 (40.0, 200.0), (40.0, 200.0), (30.0, 200.0),  # moved less
                 (40.0, 200.0), (10.0, 200.0)]                 # given up
        carat, peer = FakeSide("carat", [1, 20, 3], loops), FakeSide("peer", [1, 10])
        c = comparison.compare(carat, peer, work, 1, 2, say_nothing)
        self.assertEqual((c.repeated, c.unsteady()), (2, 1))
        self.assertEqual(comparison.summaries(work, c)[0].ratios(), [2])
        text = comparison.text_table(work, [c])
        self.assertIn("1 of 1 pairs with peer were never steady", text)

    def test_without_a_steady_attempt_the_last_is_finished(self):
        work = sides.Work("m", prefill=0)
        moving = [(40.0, 200.0), (20.0, 200.0)] * 4
        c = comparison.compare(FakeSide("carat", [5] * 4, moving), FakeSide("peer", [5] * 4), work,
                               1, 1, say_nothing)
        self.assertEqual(len(c.pairs), 1)
        self.assertEqual(c.unsteady(), 1)

    def test_sides_of_one_name_are_not_taken_for_each_other(self):
        work = sides.Work("m", prefill=0)
        c = comparison.compare(FakeSide("same", [20, 20]), FakeSide("same", [10, 10]), work, 2, 0,
                               say_nothing)
        self.assertEqual(comparison.summaries(work, c)[0].ratios(), [2, 2])

    def test_a_tenth_is_steady(self):
        self.assertLessEqual(comparison.quotient([(40.0, 200.0), (44.0, 190.0)]), 1.1 + 1e-9)
        self.assertGreater(comparison.quotient([(40.0, 200.0), (40.0, 221.0)]), comparison.STEADY)

    def test_shares_of_the_limit(self):
        work = sides.Work("m", prefill=0)
        run = sides.Run({"decode 32": 14.0}, {}, details={"decode_gigabytes_per_second": 30.0})
        pair = comparison.Pair(run, run, [(38.0, 1.0), (40.0, 1.0), (39.0, 1.0)])
        c = comparison.Comparison("p", [pair], 0)
        self.assertEqual(comparison.shares(work, c, "decode 32"), [0.75])
        self.assertEqual(comparison.shares(sides.Work("m"), c, "prefill 512"), [])


def script(folder, name, body):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as f:
        f.write(f"#!{sys.executable}\nimport sys\n{body}\n")
    os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
    return path


class WholeProgram(unittest.TestCase):
    """The program itself, with scripts that print what carat and llama-bench print."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        folder = self.folder.name
        machine = {"read_gigabytes_per_second": 40.0, "giga_multiply_adds_per_second": 200.0}
        self.carat = script(folder, "carat", f"print({json.dumps(machine)!r} if '--machine' in "
                                             f"sys.argv else {json.dumps(CARAT)!r})")
        self.peer = script(folder, "llama-bench", f"print({json.dumps(LLAMA)!r})")
        self.model = os.path.join(folder, "m.gguf")
        with open(self.model, "wb") as f:
            f.write(b"GGUF")

    def run_program(self, *args):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = program.main([self.model, "--carat", self.carat, "-t", "2", *args])
            except SystemExit as e:
                code = e.code
        return code, out.getvalue(), err.getvalue()

    def test_prints_the_table_and_writes_both_files(self):
        files = {k: os.path.join(self.folder.name, k) for k in ("json", "markdown")}
        code, out, _ = self.run_program("--peer", f"llama.cpp={self.peer}", "--pairs", "2",
                                        "--json", files["json"], "--markdown", files["markdown"])
        self.assertEqual(code, 0)
        self.assertRegex(out, r"prefill 512 +llama.cpp +200 \(200..200\) +25.0 \(25.0..25.0\) +"
                              r"8.00 \(8.00..8.00\) +60 %")
        self.assertRegex(out, r"decode 32 +llama.cpp .* 1.40 \(1.40..1.40\) +50 %")
        self.assertIn("K/V int8", out)
        self.assertIn("K/V f16", out)
        with open(files["json"], encoding="utf-8") as f:
            j = json.load(f)
        rows = {r["work"]: r for r in j["peers"][0]["rows"]}
        self.assertAlmostEqual(rows["prefill 512"]["ratio_median"], 8.0)
        self.assertGreater(j["peers"][0]["pairs"][0]["carat"]["peak_resident_bytes"], 1 << 20)
        with open(files["markdown"], encoding="utf-8") as f:
            self.assertIn("| prefill 512 | llama.cpp | 200 (200..200) |", f.read())

    def test_a_missing_peer_ends_with_its_name_and_path(self):
        code, out, err = self.run_program("--peer", "ik=/nowhere/llama-bench")
        self.assertEqual((code, out), (1, ""))
        self.assertIn("llama-bench of ik is not at /nowhere/llama-bench", err)
        code, _, err = self.run_program("--peer", f"l={self.peer}", "--sequences", "4")
        self.assertEqual(code, 1)
        self.assertIn("llama-batched-bench of l is not at", err)

    def test_a_peer_that_fails_is_quoted(self):
        bad = script(self.folder.name, "bad-bench",
                     "if '--help' in sys.argv: sys.exit(0)\n"
                     "print('unknown model architecture', file=sys.stderr); sys.exit(1)")
        code, _, err = self.run_program("--peer", f"l={bad}")
        self.assertEqual(code, 1)
        self.assertIn("unknown model architecture", err)
        # The others keep their table.
        code, out, err = self.run_program("--peer", f"l={bad}", "--peer", f"good={self.peer}",
                                          "--pairs", "1")
        self.assertEqual(code, 1)
        self.assertIn("l: failed with status 1", err)
        self.assertRegex(out, "decode 32 +good")

    def test_a_run_that_takes_too_long_is_ended(self):
        slow = script(self.folder.name, "slow-bench",
                      "import time\nif '--help' not in sys.argv: time.sleep(60)")
        code, _, err = self.run_program("--peer", f"l={slow}", "--timeout", "0.3")
        self.assertEqual(code, 1)
        self.assertIn("took more than 0.3 s", err)

    def test_a_batched_table_on_standard_error(self):
        script(self.folder.name, "llama-batched-bench",
               f"print({BATCHED!r}, file=sys.stderr)")
        code, out, _ = self.run_program("--peer", f"ik={self.peer}", "--pairs", "1", "--sequences",
                                        "8")
        self.assertEqual(code, 0)
        self.assertRegex(out, r"decode 32 of 8 together +ik +14.0 .* 32.0 ")

    def test_usage(self):
        self.assertEqual(self.run_program()[0], 2)  # no peer
        self.assertEqual(self.run_program("--peer", "l=x", "--pairs", "0")[0], 2)
        self.assertEqual(self.run_program("--peer", "l=x", "--sequences", "2", "-d", "5")[0], 2)
        for peers in (["carat=" + self.peer], ["l=" + self.peer] * 2,
                      ["node-llama-cpp=" + self.peer, None]):
            arguments = [x for p in peers for x in (["--peer", p] if p else ["--node"])]
            code, out, err = self.run_program(*arguments)
            self.assertEqual((code, out), (1, ""))
            self.assertIn("two sides have the same name", err)
        code, out, _ = self.run_program("--help")
        self.assertEqual(code, 0)
        self.assertIn("--peer", out)


if __name__ == "__main__":
    unittest.main()
