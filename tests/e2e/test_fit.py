"""carat fit: sizes told without a model agree with those of the files."""

import json
import os
import unittest

from harness import CaratTest

KINDS = {"hf-bf16", "w4a16-ct", "gguf-google", "gguf-q4_0", "gguf-q4_k_m", "gguf-q8_0"}
GIVEN = ["--bandwidth", 50, "-t", 2]


def bytes_of(path):
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.iterdir())


class Fit(CaratTest):
    def fits(self, *args):
        return json.loads(self.ok("fit", *args, *GIVEN, "--json").stdout)

    def test_every_size_and_kind(self):
        report = self.fits("--ram", "16G", "--vram", "0", "--context", "32k")
        self.assertEqual(report["memory_bytes"], 16_000_000_000)
        self.assertEqual(report["context"], 32768)
        rows = {(f["size"], f["kind"]): f for f in report["fits"]}
        self.assertEqual({kind for size, kind in rows if size == "12B"}, KINDS)
        self.assertEqual({kind for size, kind in rows if size == "E4B"}, KINDS | {"mobile"})
        for f in rows.values():
            parts = ("weight_bytes", "kv_local_bytes", "kv_global_bytes", "activation_bytes",
                     "tokenizer_bytes", "program_bytes")
            self.assertEqual(f["total_bytes"], sum(f[p] for p in parts))
            self.assertEqual(f["fits"], f["longest_context"] >= 32768)
            self.assertEqual(f["fits"], f["fits"] and f["total_bytes"] <= 16e9)
        self.assertTrue(rows["12B", "gguf-q4_0"]["fits"])
        self.assertFalse(rows["12B", "hf-bf16"]["fits"])
        self.assertEqual(rows["31B", "gguf-q4_0"]["longest_context"], 0)
        # More than E2B holds of its own table, half of whose bytes stay in the file.
        e2b = rows["E2B", "gguf-google"]
        self.assertLess(e2b["weight_bytes"] + e2b["looked_up_bytes"], e2b["file_bytes"])
        self.assertIn("Take ", report["recommendation"])
        # The files of the formats that Google publishes differ by their tokenizers' texts only.
        self.assertLess(abs(e2b["file_bytes"] - 3_349_516_256), 5e6)

    def test_more_memory_is_more_context_and_a_wider_type_is_less(self):
        def longest(ram, kv):
            report = self.fits("--ram", ram, "--kv", kv)
            return {(f["size"], f["kind"]): f["longest_context"] for f in report["fits"]}
        small, large, wide = longest("9G", "int8"), longest("10G", "int8"), longest("9G", "f16")
        for row, n in small.items():
            self.assertLessEqual(n, large[row])
            self.assertLessEqual(wide[row], n)
        self.assertLess(small["12B", "gguf-q4_0"], large["12B", "gguf-q4_0"])
        self.assertLess(wide["12B", "gguf-q4_0"], small["12B", "gguf-q4_0"])

    def test_nothing_fits(self):
        report = self.fits("--ram", "100MB")
        self.assertFalse(any(f["fits"] for f in report["fits"]))
        self.assertIn("Nothing fits", report["recommendation"])

    def test_a_checkpoint(self):
        model = self.folder / "t.gguf"
        self.ok("synth", "tiny", model)
        report = self.fits(model, "--ram", "1G", "-c", 1000)
        (f,) = report["fits"]
        self.assertEqual(f["file_bytes"], bytes_of(model))
        self.assertEqual((f["kind"], f["context"]), (str(model), 1000))
        self.assertTrue(f["fits"])
        self.assertNotIn("recommendation", report)
        text = self.ok("fit", model, *GIVEN).stdout.decode()
        self.assertIn("It fits with 4096 tokens", text)  # what the model was trained for

        asked = self.ok("fit", model, "--context", "8k", *GIVEN).stdout.decode()
        self.assertIn("maximum is 4096", asked)
        self.assertNotIn("It fits", asked)

    def test_a_context_that_a_model_does_not_take(self):
        report = self.fits("--ram", "200G", "--context", "256k")
        self.assertEqual(report["context"], 262144)
        for f in report["fits"]:
            most = 131072 if f["size"] in ("E2B", "E4B") else 262144
            self.assertEqual((f["max_context"], f["longest_context"]), (most, most))
            self.assertEqual(f["fits"], most == 262144)
        self.assertNotIn("Take E", report["recommendation"])
        text = self.ok("fit", "--ram", "200G", "--context", "256k", *GIVEN).stdout.decode()
        self.assertIn("E2B takes 131072 tokens at most", text)
        self.assertNotIn("31B takes", text)

    def test_googles_figures(self):
        google = self.fits("--ram", "16G")["google_gibibytes"]
        self.assertEqual((google["12B"]["bf16"], google["12B"]["q4_0"]), (26.7, 6.7))
        self.assertIn("Google: 26.7 GiB BF16, 6.7 Q4_0",
                      self.ok("fit", "--ram", "16G", *GIVEN).stdout.decode())

    def test_the_table_fits_a_terminal(self):
        text = self.ok("fit", "--ram", "16G", *GIVEN).stdout.decode()
        self.assertTrue(all(len(line) <= 100 for line in text.splitlines()), text)
        for size in ("E2B", "E4B", "12B", "26B-A4B", "31B"):
            self.assertIn(f"\n{size}: ", text)

    def test_bad_values(self):
        self.fails("fit", "--ram", "much", code=2, says="--ram")
        self.fails("fit", "--vram", "-1", code=2, says="--vram")
        self.fails("fit", "--context", "0", code=2, says="--context")
        self.fails("fit", "--context", "32m", code=2, says="--context")
        self.fails("fit", self.folder / "none.gguf", says="none.gguf")
        self.assertFalse(os.listdir(self.folder))


if __name__ == "__main__":
    unittest.main()
