"""carat imatrix, convert --imatrix and carat quantize, on random models of small shape."""

import json
import signal
import struct
import subprocess
import time
import unittest

from harness import CARAT, CaratTest

SENTENCE = ("the lady had never been told of her brother and he could not think so well of every "
            "house in the county as she did when they had walked to the village ")


def tensors(path):
    """Types and raw data of a GGUF file's tensors, by name: {name: (type, bytes)}."""
    scalars = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    data, at = path.read_bytes(), 8

    def take(layout):
        nonlocal at
        values = struct.unpack_from(layout, data, at)
        at += struct.calcsize(layout)
        return values

    def string():
        nonlocal at
        (n,) = take("<Q")
        at += n
        return data[at - n:at].decode()

    def skip(kind):
        nonlocal at
        if kind == 8:
            string()
        elif kind == 9:
            kind, n = take("<IQ")
            for _ in range(n):
                skip(kind)
        else:
            at += scalars[kind]

    n_tensors, n_fields = take("<QQ")
    for _ in range(n_fields):
        string()
        skip(take("<I")[0])
    found = []
    for _ in range(n_tensors):
        name = string()
        take(f"<{take('<I')[0]}Q")
        found.append((name, *take("<IQ")))
    base = -(-at // 32) * 32
    ends = sorted(begin for _, _, begin in found) + [len(data) - base]
    return {name: (kind, data[base + begin:base + ends[ends.index(begin) + 1]])
            for name, kind, begin in found}


class Quantize(CaratTest):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "tiny.gguf"
        self.ok("synth", "tiny", self.model, "--type", "f32")
        self.text = self.folder / "c.txt"
        self.text.write_text(SENTENCE * 20)
        self.few = ["--context", 32, "--max-tokens", 60]
        self.recipe = self.folder / "mix.json"
        self.recipe.write_text(json.dumps({"recipe": "q4_0_all",
                                           "tensors": {"blk.*.ffn_down.weight": "q4_k"}}))

    def imatrix(self, name, model=None):
        path = self.folder / name
        report = self.json("imatrix", model or self.model, "--text", self.text, "--out", path,
                           *self.few)
        return path, report

    def convert(self, target, *args):
        self.ok("convert", self.model, self.folder / target, "--to", "gguf", "--recipe",
                self.recipe, "--accept", "rounded-weights", *args)
        return tensors(self.folder / target)

    def quantize(self, target, *args, source=None):
        report = self.json("quantize", source or self.model, self.folder / target, "--recipe",
                           self.recipe, *args, timeout=250)
        return report, tensors(self.folder / target)

    def test_both_kinds_of_importance_matrix_say_the_same(self):
        new, report = self.imatrix("i.gguf")
        old, again = self.imatrix("i.dat")
        self.assertEqual(new.read_bytes()[:4], b"GGUF")
        self.assertNotEqual(old.read_bytes()[:4], b"GGUF")
        self.assertEqual(report["entries"], again["entries"])
        self.assertGreaterEqual(report["tokens"], 60)
        names = [e["name"] for e in report["entries"]]
        self.assertEqual(names, sorted(names))
        for part in ("attn_q", "attn_output", "ffn_up", "ffn_down"):
            self.assertIn(f"blk.5.{part}.weight", names)
        for entry in report["entries"]:
            self.assertGreater(entry["mean_square"], 0, entry["name"])
        self.assertEqual(self.convert("new.gguf", "--imatrix", new),
                         self.convert("old.gguf", "--imatrix", old))

    def test_importance_changes_codes_and_nothing_else(self):
        matrix, _ = self.imatrix("i.gguf")
        plain, weighed = self.convert("plain.gguf"), self.convert("w.gguf", "--imatrix", matrix)
        self.assertEqual({n: t[0] for n, t in plain.items()}, {n: t[0] for n, t in weighed.items()})
        changed = {n for n in plain if plain[n] != weighed[n]}
        for name in ("blk.0.attn_q.weight", "blk.3.ffn_down.weight", "token_embd.weight"):
            self.assertIn(name, changed)
        self.assertNotIn("output_norm.weight", changed)
        self.assertNotIn("blk.0.attn_norm.weight", changed)
        # The per-layer table has no importance.
        self.assertNotIn("per_layer_token_embd.weight", changed)

    def test_experts_have_importances_of_their_own(self):
        model = self.folder / "moe.gguf"
        self.ok("synth", "tinymoe", model, "--type", "bf16")
        _, report = self.imatrix("i.gguf", model)
        down = [e for e in report["entries"] if e["name"] == "blk.0.ffn_down_exps.weight"]
        self.assertEqual(len(down), 1)
        self.assertGreater(down[0]["matrices"], 1)
        self.assertLessEqual(down[0]["matrices_unseen"], down[0]["matrices"])

    def test_rounding_by_importance(self):
        matrix, _ = self.imatrix("i.gguf")
        report, by_file = self.quantize("a.gguf", "--method", "round", "--imatrix", matrix)
        _, by_text = self.quantize("b.gguf", "--method", "round", "--text", self.text, *self.few)
        self.assertEqual(by_file, by_text)
        kinds = {m["name"]: m for m in report["matrices"]}
        down = kinds["blk.0.ffn_down.weight"]
        self.assertEqual((down["type"], down["method"]), ("Q4_K", "importance"))
        self.assertTrue(0 < down["weighted_error"] < 0.2, down)
        self.assertEqual(self.leftovers(), [])

    def test_feedback_lowers_the_errors_of_what_matrices_give(self):
        def outputs(method):
            report, found = self.quantize(f"{method}.gguf", "--method", method, "--text", self.text,
                                          "--context", 64, "--max-tokens", 250)
            errors = [m["output_error"] for m in report["matrices"] if m.get("output_error")]
            return found, sum(errors)
        rounded, _ = outputs("round")
        fed, error = outputs("feedback")
        self.assertGreater(error, 0)
        self.assertEqual({n: t[0] for n, t in rounded.items()}, {n: t[0] for n, t in fed.items()})
        self.assertNotEqual(rounded["blk.2.attn_q.weight"], fed["blk.2.attn_q.weight"])
        self.assertEqual(rounded["blk.2.attn_norm.weight"], fed["blk.2.attn_norm.weight"])
        logits = self.folder / "l.f32"
        self.ok("logits", self.folder / "feedback.gguf", "--tokens", "2,5,9", "--out", logits)
        self.assertEqual(logits.stat().st_size, 4 * 3 * 512)

    def test_a_quantized_source_keeps_matrices_whose_type_stays(self):
        source = self.folder / "k.gguf"
        self.ok("convert", self.model, source, "--to", "gguf", "--recipe", "q4_k_m",
                "--accept", "rounded-weights")
        before = tensors(source)
        for method in ("round", "feedback", "auto_round", "scales"):
            target = self.folder / f"{method}.gguf"
            report = self.json("quantize", source, target, "--recipe", "q4_k_m", "--method", method,
                               "--text", self.text, *self.few, timeout=250)
            self.assertEqual(tensors(target), before, method)
            self.assertEqual({(m["method"], m["error"]) for m in report["matrices"]}, {("kept", 0)})
        # Others are made anew, and these stay.
        report, mixed = self.quantize("mixed.gguf", "--text", self.text, *self.few, source=source)
        same = {m["name"] for m in report["matrices"] if m["method"] == "kept"}
        self.assertIn("blk.0.ffn_down.weight", same)
        self.assertNotIn("blk.0.attn_q.weight", same)
        for name in same:
            self.assertEqual(mixed[name], before[name], name)

    def test_threads_do_not_change_the_file(self):
        files = []
        for threads in (1, 3):
            path = self.folder / f"t{threads}.gguf"
            self.ok("quantize", self.model, path, "--recipe", self.recipe, "--text", self.text,
                    "-t", threads, *self.few, timeout=250)
            files.append(path.read_bytes())
        self.assertEqual(*files)

    def test_interrupted_it_leaves_nothing(self):
        self.text.write_text(SENTENCE * 2000)
        target = self.folder / "q.gguf"
        process = subprocess.Popen([CARAT, "quantize", self.model, target, "--type", "q4_0",
                                    "--text", self.text, "-t", "1"], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        time.sleep(1)
        self.assertIsNone(process.poll(), "ended before it could be interrupted")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(timeout=60), 130)
        self.assertFalse(target.exists())
        self.assertEqual(self.leftovers(), [])

    def refused(self, *args, says, **kwargs):
        """It fails naming the file, and leaves no target."""
        target = self.folder / "bad.gguf"
        self.fails(*(target if a == "DST" else a for a in args), says=says, **kwargs)
        self.assertFalse(target.exists())
        self.assertEqual(self.leftovers(), [])

    def test_bad_importance_matrices_are_refused(self):
        junk = self.folder / "junk.gguf"
        junk.write_bytes(b"GGUF" + bytes(40))
        convert = ["convert", self.model, "DST", "--to", "gguf", "--recipe", self.recipe,
                   "--accept", "rounded-weights", "--imatrix"]
        self.refused(*convert, junk, says="junk.gguf")
        whole = self.imatrix("i.gguf")[0].read_bytes()
        cut = self.folder / "cut.gguf"
        cut.write_bytes(whole[:len(whole) // 2])
        self.refused(*convert, cut, says="cut.gguf")
        old = self.imatrix("i.dat")[0].read_bytes()
        cut = self.folder / "cut.dat"
        cut.write_bytes(old[:len(old) // 2])
        self.refused(*convert, cut, says="cut.dat")
        self.refused(*convert, self.folder / "none.gguf", says="none.gguf")
        other = self.folder / "moe.gguf"
        self.ok("synth", "tinymoe", other, "--type", "bf16")
        matrix, _ = self.imatrix("other.gguf", other)
        self.refused(*convert, matrix, says=["other.gguf", "another model's"])
        self.refused("quantize", self.model, "DST", "--method", "round", "--type", "q4_0",
                     "--imatrix", matrix, says="another model")

    def test_bad_recipes_and_texts_are_refused(self):
        quantize = ["quantize", self.model, "DST"]
        recipe = self.folder / "r.json"
        for text, says in (('{"recipe": "q9"}', "q9"),
                           ('{"recipe": "q4_0_all", "tensors": {"a": "q9"}}', "q9"),
                           ('{"recipes": "q4_0_all"}', "recipes"), ("[", "r.json")):
            recipe.write_text(text)
            self.refused(*quantize, "--recipe", recipe, "--text", self.text,
                         says=["r.json", says])
        empty = self.folder / "empty.txt"
        empty.write_bytes(b"")
        for text in (empty, self.folder / "none.txt"):
            self.refused(*quantize, "--type", "q4_0", "--text", text, says=text.name)
            self.refused("imatrix", self.model, "--text", text, "--out", "DST", says=text.name)
        self.refused(*quantize, "--type", "q4_0", code=2, says=["--text", "--help"])

    def test_the_source_and_existing_files_are_kept(self):
        before = self.model.read_bytes()
        args = ["--type", "q4_0", "--text", self.text, *self.few]
        self.fails("quantize", self.model, self.model, *args, "--force", says="tiny.gguf")
        target = self.folder / "there.gguf"
        target.write_text("mine")
        self.fails("quantize", self.model, target, *args, says=["there.gguf", "--force"])
        self.assertEqual(target.read_text(), "mine")
        self.assertEqual(self.model.read_bytes(), before)


if __name__ == "__main__":
    unittest.main()
