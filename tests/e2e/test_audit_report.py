"""What `carat audit --json` prints is what docs/audit-schema.json says."""

import copy
import json
import unittest

import schema
from harness import SOURCE_DIR, CaratTest

SCHEMA = json.loads((SOURCE_DIR / "docs" / "audit-schema.json").read_text())
TEXT = "\n".join(f"{i} wizards mix {i * i} potions; nobody knows why, or asks {i % 7} times."
                 for i in range(300))


class Report(CaratTest):
    def check_report(self, report):
        self.assertEqual(list(schema.errors(report, SCHEMA)), [])

    def test_report_follows_its_schema(self):
        hf = self.folder / "hf"
        self.ok("synth", "tiny", hf, "--format", "hf", "--type", "f32")
        q4 = self.folder / "q4.gguf"
        self.ok("convert", hf, q4, "--round")
        text = self.folder / "text.txt"
        text.write_text(TEXT)
        both = self.json("audit", hf, hf, q4, "--text", text, "--context", 64)
        self.check_report(both)
        one = self.json("audit", hf, q4, "--text", text, "--context", 64)
        self.check_report(one)
        self.assertNotIn("mean_kld", both)
        same, rounded = both["candidates"]
        self.assertEqual(same["worst"], [])
        self.assertEqual(one["candidates"][0]["mean_kld_interval"], one["mean_kld_interval"])

        # Every axis has every position once.
        for axis in ("by_margin", "by_entropy", "by_position"):
            self.assertEqual(sum(b["tokens"] for b in rounded[axis]), rounded["tokens"], axis)
            mean = sum(b["tokens"] * b["mean_kld"] for b in rounded[axis]) / rounded["tokens"]
            self.assertAlmostEqual(mean, rounded["mean_kld"])
        self.assertEqual(sum(b["tokens"] for b in rounded["kld_histogram"]), rounded["tokens"])
        self.assertGreater(min(b["from"] for b in rounded["by_position"]), 1)

        self.assertEqual(one["differences"], [])
        pair, = both["differences"]
        self.assertEqual((pair["baseline"], pair["candidate"]), (str(hf), str(q4)))
        self.assertEqual(pair["mean_kld_difference"], rounded["mean_kld"])
        self.assertTrue(pair["apart"])
        self.assertAlmostEqual(pair["top1_agreement_difference"], rounded["top1_agreement"] - 1)

        worst = rounded["worst"]
        self.assertEqual(len(worst), 20)
        self.assertEqual(worst[0]["kld"], rounded["max_kld"])
        self.assertEqual([w["kld"] for w in worst], sorted((w["kld"] for w in worst), reverse=True))
        self.assertTrue(all(w["next"] for w in worst))

        # The checker finds what is wrong.
        for break_it in (lambda r: r.pop("seed"),
                         lambda r: r.update(seed=-1),
                         lambda r: r.update(surprise=1),
                         lambda r: r.update(log_base="2"),
                         lambda r: r["candidates"].clear(),
                         lambda r: r["candidates"][0].update(top1_agreement=1.01),
                         lambda r: r["candidates"][0].update(tokens=1.5),
                         lambda r: r["candidates"][0].update(mean_kld_interval=[1]),
                         lambda r: r["models"][0].update(role="judge")):
            broken = copy.deepcopy(one)
            break_it(broken)
            self.assertEqual(len(list(schema.errors(broken, SCHEMA))), 1)
        for change in ({"apart": "yes"}, {"surprise": 1}, {"mean_kld_ratio": 0},
                       {"mean_kld_difference_interval": [1]}):
            broken = copy.deepcopy(both)
            broken["differences"][0].update(change)
            self.assertEqual(len(list(schema.errors(broken, SCHEMA))), 1, change)


if __name__ == "__main__":
    unittest.main()
