"""carat quantize --size and --kld: files that keep what was asked for, recipes that replay them."""

import json
import unittest

from harness import NANO_DIR, CaratTest, nano_gguf
from test_audit import prose


@unittest.skipIf(nano_gguf() is None, "needs the nano model")
class QuantizeSearch(CaratTest):
    def setUp(self):
        super().setUp()
        self.teacher = NANO_DIR / "teacher"
        self.text = self.folder / "t.txt"
        self.text.write_text(prose(700))
        self.target = self.folder / "best.gguf"
        # Few types and tokens: what is tested is not how good it is.
        self.small = ["--text", self.text, "--context", 48, "--search-tokens", 96,
                      "--check-tokens", 192, "--rounds", 0, "--types", "q4_0,q8_0"]

    def search(self, *args):
        return self.json("quantize", self.teacher, self.target, "--method", "round", *self.small,
                         *args, timeout=250)

    def test_size_is_kept_and_the_recipe_replays_the_file(self):
        report = self.search("--size", "2.6MB")
        found = report["search"]
        self.assertEqual(found["bytes"], self.target.stat().st_size)
        self.assertLessEqual(found["bytes"], 2_600_000)
        self.assertGreater(found["bytes"], 2_600_000 * 0.995)
        self.assertEqual(found["written"]["mean_kld"], found["mean_kld"])
        self.assertEqual([p["bytes"] for p in found["front"] if p["chosen"]], [found["bytes"]])
        for key in ("predicted_kld", "mean_kld"):
            front = [p[key] for p in found["front"]]
            self.assertGreater(front[0], front[-1])
        self.assertEqual(self.leftovers(), [])

        recipe = self.folder / "best.gguf.recipe.json"
        self.assertEqual(report["recipe_file"], str(recipe))
        saved = json.loads(recipe.read_text())
        self.assertEqual(set(saved["tensors"].values()), {"q4_0", "q8_0"})
        self.assertEqual(saved["about"]["mean_kld"], found["mean_kld"])
        again = self.folder / "again.gguf"
        self.ok("quantize", self.teacher, again, "--method", "round", "--recipe", recipe, "--text",
                self.text, "--context", 48)
        self.assertEqual(again.read_bytes(), self.target.read_bytes())
        # The types, without a text.
        plain = self.folder / "plain.gguf"
        self.ok("convert", self.teacher, plain, "--to", "gguf", "--recipe", recipe)
        self.assertEqual(plain.stat().st_size, self.target.stat().st_size)

    def test_kld_is_kept_and_goes_on_from_a_state(self):
        state = self.folder / "state"
        smaller = self.search("--size", "2.3MB", "--state", state, "--recipe-only")["search"]
        self.assertFalse(self.target.exists())
        self.assertNotIn("written", smaller)
        kld = 0.7 * smaller["mean_kld"]
        found = self.search("--kld", kld, "--state", state, "--force")["search"]
        self.assertLessEqual(found["mean_kld"], kld)
        self.assertGreater(found["bytes"], smaller["bytes"])
        self.assertEqual(found["bytes"], self.target.stat().st_size)

    def test_what_cannot_be_is_refused(self):
        def refused(*args, code=1, says=()):
            self.fails("quantize", self.teacher, self.target, *args, code=code, says=says)

        refused("--size", "1MB", *self.small, says=["--size", "from 2065568 bytes", "to less than"])
        refused("--size", "1GB", *self.small, says=["--size", "the file needs no smaller types"])
        refused("--size", "2MB", code=2, says="need --text")
        refused("--size", "2MB", "--type", "q4_0", *self.small, code=2, says="only one")
        refused("--size", "two", *self.small, code=2, says="'two'")
        refused("--kld", "0", *self.small, code=2, says="--kld must be more than 0")
        refused("--recipe-only", "--type", "q4_0", code=2, says="need --size or --kld")
        refused("--size", "2MB", *self.small[:-1], "q4_0,q9", code=2, says="'q9'")
        refused("--size", "2MB", *self.small, "--max-tokens", 40, says="too little text")
        (self.folder / "best.gguf.recipe.json").write_text("mine")
        refused("--size", "2MB", *self.small, says=["there already", "--force"])
        self.assertFalse(self.target.exists())


if __name__ == "__main__":
    unittest.main()
