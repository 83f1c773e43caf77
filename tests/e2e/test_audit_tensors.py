"""carat audit: what each tensor of a candidate lost."""

import json
import unittest

import schema
from harness import NANO_DIR, SOURCE_DIR, CaratTest, carat, nano_gguf

SCHEMA = json.loads((SOURCE_DIR / "docs" / "audit-schema.json").read_text())


@unittest.skipIf(nano_gguf() is None, "needs the nano model")
class AuditTensors(CaratTest):
    def setUp(self):
        super().setUp()
        self.teacher, self.qat = NANO_DIR / "teacher", NANO_DIR / "qat"
        text = self.folder / "t.txt"
        words = "it was a truth that the lady had never been told of her brother".split()
        text.write_text(" ".join(words[(i * i) % len(words)] for i in range(400)))
        self.few = ["--text", text, "--context", 64, "--max-tokens", 120]

    def tensors(self, reference, candidate, *args):
        """Of a report with one candidate; nothing if it has no errors of tensors."""
        report = self.json("audit", reference, candidate, *self.few, *args)
        self.assertEqual(list(schema.errors(report, SCHEMA)), [])
        return report["candidates"][0].get("tensors")

    def test_errors_are_those_of_the_weights(self):
        found = self.tensors(self.teacher, nano_gguf())
        by_name = {t["name"]: t for t in found}
        self.assertEqual(len(by_name), len(found))
        inspected = self.json("inspect", nano_gguf())
        self.assertEqual(sum(t["weights"] for t in found), inspected["parameters"])
        down = by_name["blk.3.ffn_down.weight"]
        self.assertEqual((down["type"], down["layer"]), ("Q4_0", 3))
        self.assertEqual(down["bytes"], down["weights"] * 18 // 32)
        self.assertTrue(0.05 < down["relative_error"] < 0.15, down)
        self.assertGreater(down["max_error"], down["relative_error"])

    def test_a_lossless_conversion_lost_nothing(self):
        found = self.tensors(self.qat, nano_gguf())
        lost = [t for t in found if t["relative_error"] > 0.005]
        # Rounding to bfloat16 is all that is between a lattice and its published checkpoint.
        self.assertEqual(lost, [])

    def test_the_worst_are_printed_if_asked_for(self):
        command = ["audit", self.teacher, nano_gguf(), *self.few]
        self.assertNotIn(b"ffn_down", self.ok(*command).stdout)
        lines = self.ok(*command, "--tensors", 4).stdout.decode().splitlines()
        at = next(i for i, line in enumerate(lines) if line.startswith("tensors of"))
        rows = [line.split() for line in lines[at + 1:at + 5]]
        errors = [float(row[2]) for row in rows]
        self.assertEqual(errors, sorted(errors, reverse=True))
        best = max(self.tensors(self.teacher, nano_gguf()), key=lambda t: t["relative_error"])
        self.assertEqual(rows[0][0], best["name"])

    def test_they_are_left_out(self):
        self.assertIsNone(self.tensors(self.teacher, nano_gguf(), "--no-tensors"))
        self.assertIsNone(self.tensors(self.teacher, nano_gguf(), "--memory", "100MB"))
        self.assertIsNotNone(self.tensors(self.teacher, nano_gguf(), "--memory", "100MB",
                                          "--tensors", 1))
        self.assertIsNone(self.tensors(self.teacher, str(self.teacher) + "@kv=f16"))
        self.fails("audit", self.teacher, nano_gguf(), *self.few, "--tensors", 3, "--no-tensors",
                   code=2, says="--no-tensors")

    def test_the_page_draws_them(self):
        page = self.folder / "p.html"
        self.ok("audit", self.teacher, nano_gguf(), *self.few, "--html", page)
        text = page.read_text()
        self.assertIn("Which tensors lost what", text)
        self.assertIn("blk.3.ffn_down.weight: Q4_0", text)

    def test_no_overlap_at_all_can_be_asked_for(self):
        same = self.few[1]
        self.check_code(["--calibration", same, "--max-overlap", "0"], 3)
        other = self.folder / "o.txt"
        other.write_text("nothing of this was said above, as everybody can see at once " * 8)
        self.check_code(["--calibration", other, "--max-overlap", "0%"], 0)

    def check_code(self, args, code):
        self.check(carat("audit", self.teacher, nano_gguf(), *self.few, *args), code)


if __name__ == "__main__":
    unittest.main()
