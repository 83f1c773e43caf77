"""carat audit: texts, references, precision, resuming, K/V types, greedy answers, little memory."""

import json
import os
import shlex
import signal
import subprocess
import time
import unittest

import schema
from harness import CARAT, NANO_DIR, SOURCE_DIR, CaratTest, nano_gguf

SCHEMA = json.loads((SOURCE_DIR / "docs" / "audit-schema.json").read_text())

WORDS = ("it was a truth that the lady had never been told of her brother and he could not think "
         "so well of every house in the county as she did when they had walked to the village in "
         "the morning after rain with some new friend whose manner was all civility").split()


def prose(n, seed=1):
    """Text of n words that does not repeat itself."""
    state, out = seed, []
    for _ in range(n):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        out.append(WORDS[(state >> 33) % len(WORDS)])
    return " ".join(out) + "."


def without_times(report):
    report = json.loads(json.dumps(report))
    for key in ("threads", "command_line", "seconds"):
        report.pop(key, None)
        report.get("provenance", {}).pop(key, None)
    return report


@unittest.skipIf(nano_gguf() is None, "needs the nano model")
class Audit(CaratTest):
    def setUp(self):
        super().setUp()
        self.teacher, self.qat = NANO_DIR / "teacher", NANO_DIR / "qat"
        self.text = self.folder / "t.txt"
        self.text.write_text(prose(2500))
        self.small = ["--context", 64]

    def audit(self, *args, **kwargs):
        return self.json("audit", *args, timeout=250, **kwargs)

    def test_two_references_are_told_apart(self):
        report = self.audit(self.teacher, self.qat, nano_gguf(), "--second-reference", self.qat,
                            "--text", self.text, "--max-tokens", 500, *self.small)
        self.assertEqual([m["what"] for m in report["models"] if m["role"] == "reference"], ["original bf16", "QAT bf16"])
        pairs = {(c["reference"], c["candidate"]): c["mean_kld"] for c in report["candidates"]}
        teacher, qat, gguf = map(str, (self.teacher, self.qat, nano_gguf()))
        self.assertEqual(len(pairs), 4)
        self.assertEqual(pairs[qat, qat], 0)
        self.assertLess(pairs[qat, gguf], pairs[teacher, qat] / 10)
        # Beside each other against each reference alone.
        differences = {d["reference"]: d for d in report["differences"]}
        self.assertEqual(set(differences), {teacher, qat})
        for reference, d in differences.items():
            self.assertEqual((d["baseline"], d["candidate"]), (qat, gguf))
            self.assertAlmostEqual(d["mean_kld_difference"],
                                   pairs[reference, gguf] - pairs[reference, qat])
        self.assertTrue(differences[qat]["apart"])
        self.assertNotIn("mean_kld_ratio", differences[qat])  # of nothing
        self.fails("audit", self.teacher, self.qat, "--second-reference", self.teacher, "--text",
                   self.text, code=2, says=["which is which", "role=qat"])
        self.audit(f"{self.teacher}@role=original", self.qat, "--second-reference",
                   f"{self.teacher}@role=qat", "--text", self.text, "--max-tokens", 40, *self.small)
        self.fails("audit", f"{self.teacher}@role=king", self.qat, "--text", self.text, code=2,
                   says="role=king")

    def test_kv_types_of_one_model(self):
        # Of a model in floats: quantized ones round activations, which is louder than f16.
        m = self.teacher
        report = self.audit(m, m, f"{m}@kv=f16", f"{m}@kv=int8", f"{m}@kv=int4",
                            f"{m}@kv=int4r", "--text", self.text, "--max-tokens", 800, *self.small)
        f32, f16, int8, int4, int4r = [c["mean_kld"] for c in report["candidates"]]
        self.assertEqual(f32, 0)
        self.assertGreater(f16, 0)
        self.assertGreater(int8, 4 * f16)
        for kld in (int4, int4r):
            self.assertGreater(kld, 20 * int8)
            self.assertLess(kld, 0.05)
        self.assertNotEqual(int4, int4r)
        pairs = report["differences"]
        self.assertEqual(len(pairs), 10)
        first = pairs[0]
        self.assertEqual((first["baseline"], first["candidate"]), (str(m), f"{m}@kv=f16"))
        self.assertEqual(first["mean_kld_difference"], f16)
        self.assertEqual(first["mean_kld_difference_interval"],
                         report["candidates"][1]["mean_kld_interval"])
        ratio = pairs[4]["mean_kld_ratio"]  # int8 by f16
        self.assertAlmostEqual(ratio / (int8 / f16), 1)
        low, high = pairs[4]["mean_kld_ratio_interval"]
        self.assertTrue(low < ratio < high)
        self.fails("audit", m, f"{m}@kv=int5", "--text", self.text, code=2,
                   says=["kv=int5", "kv=int8", "kv=int4r"])

    def test_two_candidates_are_told_apart(self):
        args = ["audit", self.teacher, self.qat, f"{self.qat}@kv=int8", "--text", self.text,
                "--precision", "15%", *self.small]
        report = json.loads(self.ok(*args, "--json", timeout=250).stdout)
        (low, high), (other_low, other_high) = [c["mean_kld_interval"]
                                                for c in report["candidates"]]
        self.assertLess(other_low, high)
        self.assertLess(low, other_high)
        d, = report["differences"]
        low, high = d["mean_kld_difference_interval"]
        # Most of what the text does to one it does to the other.
        self.assertLess(high - low, (other_high - other_low) / 3)
        self.assertEqual(d["apart"], low > 0 or high < 0)
        text = self.ok(*args, timeout=250).stdout.decode()
        self.assertIn("beside the closest on the same tokens", text)
        table = text.split("beside the closest")[1].splitlines()
        self.assertTrue(table[2].endswith("  apart" if d["apart"] else "not apart"), table[2])
        self.assertLessEqual(max(map(len, table[:3])), 100)
        alone = self.ok("audit", self.teacher, self.qat, "--text", self.text, "--max-tokens", 40,
                        *self.small).stdout.decode()
        self.assertNotIn("beside the closest", alone)

    def test_domains_and_jsonl(self):
        chat = self.folder / "c.jsonl"
        lines = [{"messages": [{"role": "user", "content": prose(12, i)},
                               {"role": "assistant", "content": prose(30, i + 99)}]}
                 for i in range(6)]
        chat.write_text("\n".join(map(json.dumps, lines)))
        report = self.audit(self.teacher, self.qat, "--text", f"prose={self.text}", "--text",
                            f"chat={chat}", "--context", 128, "--max-tokens", 1200)
        text = json.dumps(report)
        self.assertIn('"prose"', text)
        self.assertIn('"chat"', text)
        chat.write_text('{"messages": [{"role": "queen", "content": ""}]}')
        self.fails("audit", self.teacher, self.qat, "--text", chat,
                   says=["c.jsonl", "line 1", "queen"])

    def test_calibration_must_be_disjoint(self):
        other = self.folder / "cal.txt"
        other.write_text(prose(2000, seed=77))
        args = [self.teacher, self.qat, "--text", self.text, "--max-tokens", 40, *self.small]
        report = self.audit(*args, "--calibration", other)
        check = [c for c in report["checks"] if c["name"] == "disjoint text"][0]
        self.assertTrue(check["passed"])
        other.write_text(prose(2000, seed=77) + "\n" + self.text.read_text()[2000:4000])
        self.fails("audit", *args, "--calibration", other, code=3, says="overlap")
        self.audit(*args, "--calibration", other, "--max-overlap", "50%")

    def test_precision_ends_early(self):
        report = self.audit(self.teacher, self.qat, "--text", self.text, "--precision", "15%",
                            *self.small)
        check = [c for c in report["checks"] if c["name"] == "precision"][0]
        self.assertTrue(check["passed"], check)
        everything = self.audit(self.teacher, self.qat, "--text", self.text, *self.small)
        self.assertLess(report["tokens"], everything["tokens"])
        low, high = report["mean_kld_interval"]
        self.assertLess((high - low) / 2, 0.17 * report["mean_kld"])
        self.fails("audit", self.teacher, self.qat, "--text", self.text, "--precision", "2x",
                   code=2, says="2x")

    def test_goes_on_after_sigkill(self):
        state = self.folder / "a.state"
        self.text.write_text(prose(9000))
        args = ["audit", self.teacher, self.qat, nano_gguf(), "--text", self.text, "--greedy", 8,
                "--prompts", 4, "--resamples", 50, "--json", *self.small]
        whole = without_times(json.loads(self.ok(*args, timeout=250).stdout))
        command = [CARAT, *map(str, args), "--state", str(state)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        deadline = time.time() + 200
        while process.poll() is None and time.time() < deadline:
            if state.exists() and state.stat().st_size > 60_000:
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.002)
        process.communicate()
        self.assertEqual(process.returncode, -signal.SIGKILL, "was done before it could be killed")
        size = state.stat().st_size
        resumed = self.ok(*args, "--state", state, timeout=250).stdout
        self.assertGreater(state.stat().st_size, size)
        self.assertEqual(without_times(json.loads(resumed)), whole)
        again = self.ok(*args, "--state", state, timeout=250).stdout
        self.assertEqual(again, resumed)
        # Another audit is refused by what differs, and nothing is lost.
        before = state.read_bytes()
        self.fails("audit", self.teacher, self.qat, "--text", self.text, "--state", state,
                   says=["a.state", "another audit"])
        self.fails("audit", self.teacher, self.qat, f"{nano_gguf()}@kv=int8", "--text", self.text,
                   "--state", state, *self.small, says=["candidates.1.kv", "int8"])
        self.assertEqual(state.read_bytes(), before)

    def test_threads_do_not_matter(self):
        args = [self.teacher, self.qat, nano_gguf(), "--text", self.text, "--max-tokens", 300,
                "--greedy", 6, "--prompts", 3, *self.small]
        one, three = self.audit(*args, "-t", 1), self.audit(*args, "-t", 3)
        self.assertEqual(without_times(one), without_times(three))
        self.assertEqual(one["noise_kld"], 0)

    def test_saved_reference(self):
        text = ["--text", f"a={self.text}", "--text", f"b={self.text}"]
        ref, kld = self.folder / "t.carat-ref", self.folder / "t.kld"
        direct = self.audit(self.teacher, self.qat, *text, "--save-reference", ref,
                            "--max-tokens", 600, *self.small)
        stored = self.audit(ref, self.qat)
        for key in ("tokens", "chunks", "format", "context", "min_context"):
            self.assertEqual(stored[key], direct[key], key)
        # 0.0015 at a position, by the table in docs/fidelity.md; five times that of the mean.
        self.assertAlmostEqual(stored["mean_kld"], direct["mean_kld"],
                               delta=5 * 0.0015 / direct["tokens"] ** 0.5)
        self.assertAlmostEqual(stored["reference_perplexity"] / direct["reference_perplexity"], 1,
                               places=4)
        self.assertEqual([b["domain"] for b in stored["candidates"][0]["by_domain"]], ["a", "b"])
        self.assertEqual([t["sha256"] for t in stored["texts"]],
                         [t["sha256"] for t in direct["texts"]])
        self.assertEqual(list(schema.errors(stored, SCHEMA)), [])
        self.assertIn(str(self.teacher), json.dumps(stored["models"][0]))
        both = self.audit(ref, self.qat, self.teacher)
        self.assertLess(both["candidates"][1]["mean_kld"], 1e-6)
        pair, = both["differences"]
        self.assertAlmostEqual(pair["mean_kld_difference"], -stored["mean_kld"], delta=1e-6)
        self.assertTrue(pair["apart"])

        halves = ["--raw", "--context", 64, "--min-context", 33]
        direct = self.audit(self.teacher, self.qat, "--text", self.text, *halves,
                            "--save-reference", kld)
        stored = self.audit(kld, self.qat)
        for key in ("tokens", "chunks", "format", "context", "min_context"):
            self.assertEqual(stored[key], direct[key], key)
        self.assertAlmostEqual(stored["mean_kld"], direct["mean_kld"], delta=2e-5)

    def test_saved_reference_may_end_early(self):
        ref = self.folder / "t.carat-ref"
        direct = self.audit(self.teacher, self.qat, "--text", self.text, "--precision", "15%",
                            "--save-reference", ref, *self.small)
        stored = self.audit(ref, self.qat)
        self.fails("audit", ref, self.qat, "--tensors", 3, code=2, says="--tensors")
        self.assertEqual(stored["chunks"], direct["chunks"])
        self.assertAlmostEqual(stored["mean_kld"], direct["mean_kld"],
                               delta=5 * 0.0015 / direct["tokens"] ** 0.5)

    def test_saving_refuses_what_cannot_be(self):
        args = ["audit", self.teacher, self.qat, "--text", self.text, *self.small]
        name = self.folder / "t.kld"
        self.fails(*args, "--save-reference", self.folder / "t.bin", code=2, says=".carat-ref")
        self.fails(*args, "--save-reference", name, "--precision", "5%", code=2, says="--precision")
        self.fails(*args, "--save-reference", name, "--state", "s", code=2, says="--state")
        self.fails(*args, "--save-reference", name, "--raw", says="--min-context")
        self.assertEqual(list(self.folder.iterdir()), [self.text])

    def test_says_how_it_was_called(self):
        report = self.audit(self.teacher, self.qat, "--text", f"my-prose={self.text}",
                            "--max-tokens", 40, *self.small)
        words = shlex.split(report["command_line"])
        self.assertEqual(words[:5], ["carat", "audit", str(self.teacher), str(self.qat), "--text"])
        self.assertEqual(words[-1], "--json")

    def test_layer_by_layer(self):
        args = [self.teacher, self.qat, "--text", self.text, "--max-tokens", 2000, *self.small]
        streamed = self.audit(*args, "--memory", "60MB")
        resident = self.audit(*args)
        for key in ("mean_kld", "p99_kld", "reference_perplexity", "noise_kld"):
            self.assertEqual(streamed[key], resident[key], key)
        self.fails("audit", *args, "--memory", "1MB", says=["--memory", "at least"])


if __name__ == "__main__":
    unittest.main()
