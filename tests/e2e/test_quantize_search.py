"""carat quantize --size and --kld: files that keep what was asked for, recipes that replay them."""

import fcntl
import json
import signal
import subprocess
import time
import unittest

from harness import CARAT, NANO_DIR, CaratTest, nano_gguf
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

    def search(self, *args, method="round"):
        return self.json("quantize", self.teacher, self.target, "--method", method, *self.small,
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

    def refused(self, *args, code=1, says=()):
        """It fails, and neither the target nor what it would read with was begun."""
        text = self.fails("quantize", self.teacher, self.target, *args, code=code, says=says)
        self.assertFalse(self.target.exists())
        self.assertEqual(self.leftovers(), [])
        return text

    def test_what_cannot_be_is_refused(self):
        refused = self.refused
        for size in ("1MB", "100"):
            refused("--size", size, *self.small,
                    says=["--size", "no types make the file so small", "at least 2065568 bytes"])
        refused("--size", "2MB", code=2, says="need --text")
        refused("--size", "2MB", "--type", "q4_0", *self.small, code=2, says="only one")
        refused("--size", "two", *self.small, code=2, says="'two'")
        refused("--kld", "0", *self.small, code=2, says="--kld must be more than 0")
        refused("--size", "2MB", *self.small[:-1], "q4_0,q9", code=2, says="'q9'")
        refused("--size", "3MB", *self.small, "--max-tokens", 40, says="too little text")
        refused("--size", "3MB", *self.small[:2], "--context", 16,
                says=["more than 16 tokens", "let chunks be longer (--context)"])
        refused("--size", "3MB", *self.small, "--state", self.folder / "none" / "state",
                says="--state")
        refused("--size", "3MB", *self.small, "--save-recipe", self.folder / "none" / "r.json",
                says="r.json")
        (self.folder / "best.gguf.recipe.json").write_text("mine")
        refused("--size", "2MB", *self.small, says=["there already", "--force"])

    def test_options_that_would_be_ignored_are_refused(self):
        plain = ["--type", "q4_0", "--text", self.text]
        for option in (["--recipe-only"], ["--state", "s"], ["--search-tokens", 8192],
                       ["--check-tokens", 5], ["--rounds", 1], ["--types", "q4_0"],
                       ["--save-recipe", "r.json"]):
            self.refused(*plain, *option, code=2, says=[option[0], "needs --size or --kld"])
        for option in (["--start", "feedback"], ["--steps", 0], ["--learning-rate", 9]):
            self.refused(*plain, *option, code=2, says=[option[0], "auto_round or scales"])
        codes = ["--damping", 0.01], ["--original-inputs"]
        for option in codes:
            for method in (["--method", "round"], ["--method", "scales", "--start", "round"]):
                self.refused(*plain, *method, *option, code=2, says=[option[0], "feedback"])
            self.refused("--size", "3MB", *self.small, "--recipe-only", *option, code=2,
                         says=[option[0], "--recipe-only"])
        rounding = ["--type", "q4_0", "--method", "round", "--imatrix", self.folder / "i.gguf"]
        for option in (["--context", 512], ["--max-tokens", 0]):
            self.refused(*rounding, *option, code=2, says=[option[0], "needs --text"])
        self.refused(*rounding, "--text", self.text, code=2, says="not both")

    def test_a_size_above_the_largest_file_takes_that(self):
        found = self.search("--size", "1GB", "--recipe-only")["search"]
        self.assertEqual(found["bytes"], found["largest"])
        self.assertIn("needs no more than", found["notes"][0])

    def test_a_recipe_alone_needs_no_folder_for_a_file(self):
        recipe = self.folder / "r.json"
        self.ok("quantize", self.teacher, self.folder / "none" / "x.gguf", "--size", "2.6MB",
                *self.small, "--recipe-only", "--save-recipe", recipe, timeout=250)
        self.assertTrue(recipe.exists())
        self.assertFalse((self.folder / "none").exists())

    def test_one_state_is_for_one_run_at_a_time(self):
        state = self.folder / "state"
        with open(state, "w", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.refused("--size", "3MB", *self.small, "--state", state, says="another run")

    def test_interrupted_while_it_is_measured_the_file_stays(self):
        args = ["--method", "round", "--text", self.text, "--context", 256, "--search-tokens", 500,
                "--check-tokens", 100000, "--rounds", 0, "--types", "q4_0,q8_0"]
        self.text.write_text(prose(9000))
        process = subprocess.Popen([CARAT, "quantize", self.teacher, self.target, "--size", "1GB",
                                    *map(str, args), "-t", "1"], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(process.kill)
        while process.poll() is None and not self.target.exists():
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 130, err.decode())
        self.assertIn("<- chosen", out.decode())
        self.assertIn("interrupted before the written file was measured", err.decode())
        self.assertTrue(self.target.exists())
        self.assertTrue((self.folder / "best.gguf.recipe.json").exists())

    def test_notes_say_what_figures_are_worth(self):
        found = self.search("--size", "2.6MB")["search"]
        self.assertEqual(found["check_chunks"], 4)
        self.assertIn("too few chunks (4) for intervals to trust", found["notes"])
        found = self.search("--kld", 0.1, "--force", method="feedback")["search"]
        notes = " ".join(found["notes"])
        self.assertIn("chose the size", notes)
        self.assertIn("codes of feedback are fitted to all of the text", notes)
        self.assertEqual("more than was asked for" in notes, found["written"]["mean_kld"] > 0.1)


if __name__ == "__main__":
    unittest.main()
