"""Checkpoints through the program: synth, inspect, logits, convert, audit, bench, tokenize."""

import array
import json
import unittest

from harness import CaratTest

SIZES = ["tiny", "tinymoe", "tinykv"]
TEXT = ("the quick brown fox jumps over the lazy dog while seven wizards quietly mix a potion; "
        "nobody knows why.\n\n" * 12)


def floats(path):
    values = array.array("f")
    values.frombytes(path.read_bytes())
    return values


class Models(CaratTest):
    def synth(self, size, name, *args):
        path = self.folder / name
        self.ok("synth", size, path, *args)
        return path

    def test_synth_is_seeded_and_reports(self):
        a = self.synth("tiny", "a.gguf")
        b = self.synth("tiny", "b.gguf", "--seed", 1)
        c = self.synth("tiny", "c.gguf", "--seed", 2)
        self.assertEqual(a.read_bytes(), b.read_bytes())
        self.assertNotEqual(a.read_bytes(), c.read_bytes())
        report = self.json("synth", "tinykv", self.folder / "d.gguf")
        self.assertGreater(report["parameters"], 0)
        self.assertGreater(report["tensors"], 10)

    def test_synth_refuses(self):
        path = self.synth("tiny", "a.gguf")
        before = path.read_bytes()
        self.fails("synth", "tiny", path, says=["a.gguf", "--force"])
        self.assertEqual(path.read_bytes(), before)
        self.fails("synth", "E9B", self.folder / "x.gguf", says=["E9B", "E2B", "tinymoe"])
        self.fails("synth", "tiny", self.folder / "no" / "x.gguf", says="no/x.gguf")
        self.fails("synth", "tiny", self.folder / "x.gguf", "--type", "q3", code=2, says="q4_0")
        self.assertEqual(self.leftovers(), [])

    def test_logits_of_all_kinds(self):
        for size in SIZES:
            with self.subTest(size):
                path = self.synth(size, f"{size}.gguf")
                out = self.folder / "logits.f32"
                report = self.json("logits", path, "--tokens", "2,5,9,300", "--out", out)
                rows = floats(out)
                vocab = report["vocab_size"]
                self.assertEqual(report["n_tokens"], 4)
                self.assertEqual(len(rows), 4 * vocab)
                for i, best in enumerate(report["argmax"]):
                    row = rows[i * vocab:(i + 1) * vocab]
                    self.assertEqual(row.index(max(row)), best)
                # Neither threads nor what follows a token changes its logits.
                self.ok("logits", path, "--tokens", "2,5,9", "--out", out, "-t", 1)
                self.assertEqual(floats(out), rows[:3 * vocab])

    def test_isa_does_not_change_logits(self):
        path = self.synth("tiny", "t.gguf")
        outs = []
        for isa in ("generic", ""):
            out = self.folder / f"logits-{isa}"
            self.ok("logits", path, "--tokens", "2,7,40,41", "--out", out, env={"CARAT_ISA": isa})
            outs.append(out.read_bytes())
        self.assertEqual(outs[0], outs[1])

    def test_logits_refuses(self):
        path = self.synth("tiny", "t.gguf")
        out = self.folder / "o"
        self.fails("logits", path, "--tokens", "2,99999", "--out", out, says=["--tokens", "99999"])
        self.fails("logits", path, "--tokens=-1", "--out", out, says="--tokens")
        self.fails("logits", path, "--tokens", "2,x", "--out", out, code=2, says="'x'")
        too_many = ",".join(["5"] * 4097)
        self.fails("logits", path, "--tokens", too_many, "--out", out, says=["4096", "4097"])
        self.fails("logits", path, "--tokens", "2", "--out", self.folder, says="directory")
        self.assertFalse(out.exists())

    def test_convert_recovers_the_lattice(self):
        for size in SIZES:
            with self.subTest(size):
                source = self.synth(size, size, "--format", "hf")
                target = self.folder / f"{size}.gguf"
                report = self.json("convert", source, target, "--to", "gguf-q4_0")
                self.assertEqual(report["blocks"], report["blocks_on_lattice"])
                self.assertEqual(report["weights"], report["weights_bit_exact"])
                self.assertGreater(report["blocks"], 1000)
                compared = self.json("inspect", source, "--against", target)["against"]
                self.assertEqual(compared["weights"], compared["equal"])
                self.assertEqual(self.leftovers(), [])

    def test_convert_round_trip_through_gguf(self):
        source = self.synth("tiny", "hf", "--format", "hf", "--type", "bf16")
        gguf = self.folder / "bf16.gguf"
        back = self.folder / "back"
        self.ok("convert", source, gguf, "--to", "gguf-bf16")
        self.ok("convert", gguf, back, "--to", "hf-bf16")
        for path in (gguf, back):
            compared = self.json("inspect", source, "--against", path)["against"]
            self.assertEqual(compared["weights"], compared["equal"])
        text = ["-p", "the wizard\n\n knows"]
        self.assertEqual(self.json("tokenize", source, *text), self.json("tokenize", back, *text))

    def test_convert_refuses(self):
        source = self.synth("tiny", "hf", "--format", "hf")
        target = self.folder / "t.gguf"
        target.write_bytes(b"precious")
        self.fails("convert", source, target, says="t.gguf")
        self.assertEqual(target.read_bytes(), b"precious")
        refused = self.folder / "refused"
        self.fails("convert", source, refused, "--to", "mobile-ct", says="--accept rounded-weights")
        self.assertFalse(refused.exists())
        self.fails("convert", source, refused, "--to", "q5", code=2, says="q5")
        self.fails("convert", source, refused, "--accept", "all", code=2, says="rounded-weights")
        self.fails("convert", source, refused, "--recipe", "q6_k", code=2, says="--to gguf")
        for other in ["w4a16-ct", "mobile-ct", "hf-bf16", "mmproj-bf16", "gguf", "gguf-bf16"]:
            self.fails("convert", source, refused, "--to", other, "--round", code=2,
                       says="--round needs --to gguf-q4_0 or gguf-google")
        self.ok("convert", source, target, "--force")
        self.assertEqual(target.read_bytes()[:4], b"GGUF")

    def test_convert_between_kinds_of_codes(self):
        source = self.synth("tiny", "m", "--format", "hf", "--type", "mobile-transformers")
        ct = self.folder / "ct"
        losses = "rounded-scales,dropped-cache-scales"
        report = self.json("convert", source, ct, "--to", "mobile-ct", "--accept", losses)
        self.assertEqual(report["losses"], losses)
        self.assertGreater(report["error"]["relative_rms"], 0)
        back = self.folder / "back"
        report = self.json("convert", ct, back, "--to", "mobile-transformers")
        self.assertEqual(report["weights"], report["weights_bit_exact"])
        for path in (source, ct, back):
            self.ok("logits", path, "--tokens", "2,5", "--out", self.folder / "logits")
        recipe = self.folder / "recipe.json"
        recipe.write_text('{"recipe": "q6_k", "tensors": {"blk.*.attn_q.weight": "q8_0"}}')
        self.ok("convert", self.synth("tiny", "hf", "--format", "hf"), self.folder / "r.gguf",
                "--to", "gguf", "--recipe", recipe)

    def test_inspect_describes(self):
        path = self.synth("tinymoe", "m.gguf")
        report = self.json("inspect", path)
        for key in ("path", "kind", "config", "parameters", "types", "tensors"):
            self.assertIn(key, report)
        text = self.ok("inspect", path).stdout.decode()
        self.assertIn("experts", text)
        self.assertIn("Q4_0", text)

    def test_audit(self):
        hf = self.synth("tiny", "hf", "--format", "hf", "--type", "f32")
        q4 = self.folder / "q4.gguf"
        self.ok("convert", hf, q4, "--round")
        text = self.folder / "text.txt"
        text.write_text(TEXT * 3)  # ten positions beyond the 99 % quantile
        report = self.json("audit", hf, hf, q4, "--text", text, "--context", 64)
        self.assertEqual(report["noise_kld"], 0)
        same, rounded = report["candidates"]
        self.assertEqual((same["mean_kld"], same["p99_kld"], same["max_kld"]), (0, 0, 0))
        self.assertEqual((same["top1_agreement"], same["perplexity_ratio"]), (1, 1))
        for key in ("mean_kld", "median_kld", "p99_kld", "top1_agreement", "perplexity_ratio"):
            low, high = rounded[key + "_interval"]
            self.assertLessEqual(low, rounded[key])
            self.assertGreaterEqual(high, rounded[key])
        self.assertGreater(rounded["mean_kld"], 0)
        self.assertEqual(same["tokens"], rounded["tokens"])

        one = self.json("audit", hf, q4, "--text", text, "--context", 64)
        self.assertEqual(one["mean_kld"], rounded["mean_kld"])
        self.json("audit", hf, q4, "--text", text, "--context", 64, "--max-kld", 1e9)
        failed = self.json("audit", hf, q4, "--text", text, "--context", 64, "--max-kld", 0, code=3)
        self.assertEqual(failed["mean_kld"], rounded["mean_kld"])
        self.assertIn("mean KLD", self.ok("audit", hf, q4, "--text", text).stdout.decode())

    def test_audit_refuses(self):
        path = self.synth("tiny", "t.gguf")
        text = self.folder / "text.txt"
        text.write_text("a b")
        self.fails("audit", path, path, "--text", text, says="too short")
        text.write_text(TEXT)
        self.fails("audit", path, path, "--text", text, "--context", 100000, says="4096")
        self.fails("audit", path, path, "--text", text, "--context", 8, "--min-context", 8, code=2)
        self.fails("audit", path, path, code=2, says="--text")

    def test_bench_keys(self):
        path = self.synth("tiny", "t.gguf")
        report = self.json("bench", path, "-p", 16, "-n", 4, "-d", 8)
        for key in ("prefill_tokens_per_second", "decode_tokens_per_second",
                    "decode_gigabytes_per_second", "peak_resident_bytes",
                    "read_gigabytes_per_second", "giga_multiply_adds_per_second",
                    "prefill_share_of_multiply_rate", "decode_share_of_read_bandwidth"):
            self.assertGreater(report[key], 0, key)
        # The peak is the model's, not that of the memory over which reading was measured.
        self.assertLess(report["peak_resident_bytes"], 400e6)
        self.ok("bench", path, "-p", 8, "-n", 0, "--all-logits")
        self.fails("bench", path, "-p", 0, "-n", 0, code=2)
        self.fails("bench", path, "-p", 8, "-d", 5000, says="4096")

    def test_bench_modes(self):
        path = self.synth("tinymoe", "t.gguf")
        bare = self.json("bench", path, "-p", 16, "-n", 4, "-r", 2, "--no-limits")
        self.assertGreater(bare["prefill_giga_multiply_adds_per_second"], 0)
        self.assertFalse([key for key in bare if "share" in key or "read_giga" in key])
        many = self.json("bench", path, "-p", 16, "-n", 4, "--sequences", 3, "--no-limits")
        self.assertEqual(many["sequences"], 3)
        self.assertEqual(many["prefill_matrix_multiply_adds"], bare["prefill_matrix_multiply_adds"])
        self.assertGreater(many["peak_kv_bytes"], 2 * bare["peak_kv_bytes"] / 3)
        self.assertGreater(many["decode_tokens_per_second"], 0)
        first = self.json("bench", path, "--first-token")
        self.assertGreater(first["pack_seconds"], 0)
        self.assertAlmostEqual(
            first["load_seconds"] + first["pack_seconds"] + first["prefill_seconds"],
            first["first_token_seconds"])
        for ignored, work in ((("-d", 8), ("--sequences", 2)), (("--chunk", 8), ("--sequences", 2)),
                              (("-p", 8), ("--first-token",)), (("-r", 2), ("--machine",))):
            self.fails("bench", path, *work, *ignored, code=2, says="does not go with " + work[0])
        self.fails("bench", path, "-p", 512, "--sequences", 200, code=2, says="102400 tokens")

    def test_bench_machine(self):
        report = self.json("bench", "--machine")
        for key in ("one_thread_read_gigabytes_per_second", "read_gigabytes_per_second",
                    "one_thread_giga_multiply_adds_per_second", "giga_multiply_adds_per_second"):
            self.assertGreater(report[key], 0, key)

    def test_tokenize(self):
        path = self.synth("tiny", "t.gguf")
        report = self.json("tokenize", path, "-p", "<|turn>the")
        marked = self.json("tokenize", path, "-p", "<|turn>the", "--specials")
        self.assertIn("<|turn>", marked["pieces"])
        self.assertNotIn("<|turn>", report["pieces"])
        self.assertEqual("".join(report["pieces"]), "<|turn>the")
        piped = self.json("tokenize", path, stdin=b"<|turn>the")
        self.assertEqual(piped, report)
        line = self.ok("tokenize", path, "-p", "<|turn>the").stdout.decode().strip()
        self.assertEqual(json.loads(f"[{line}]"), report["tokens"])


if __name__ == "__main__":
    unittest.main()
