"""No command writes over what it reads, nor over what is not its own."""

import shutil
import unittest

from harness import NANO_DIR, CaratTest, nano_gguf


@unittest.skipIf(nano_gguf() is None, "needs the nano model")
class Outputs(CaratTest):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "m.gguf"
        shutil.copyfile(nano_gguf(), self.model)
        self.text = self.folder / "t.txt"
        self.text.write_text("It is a truth universally acknowledged. " * 40)
        self.small = ["--text", self.text, "--max-tokens", 60, "--context", 64]

    def keeps(self, path, *args, says="the output is an input"):
        before = path.read_bytes()
        self.fails(*args, says=[says, path.name])
        self.assertEqual(path.read_bytes(), before)

    def test_inputs_are_kept(self):
        audit = ["audit", self.model, nano_gguf(), *self.small]
        for path in (self.model, self.text):
            self.keeps(path, "imatrix", self.model, *self.small, "--force", "-o", path)
            self.keeps(path, *audit, "--html", path)
        self.keeps(self.model, "logits", self.model, "--tokens", "1,2", "--out", self.model)

    def test_files_of_a_directory_are_kept(self):
        folder = self.folder / "teacher"
        shutil.copytree(NANO_DIR / "teacher", folder)
        self.keeps(folder / "model.safetensors", "audit", folder, self.model, *self.small, "--html",
                   folder / "model.safetensors", says="the output is a file of an input")

    def test_importance_is_kept(self):
        matrix = self.folder / "im.gguf"
        self.ok("imatrix", self.model, *self.small, "-o", matrix)
        self.keeps(matrix, "convert", NANO_DIR / "teacher", matrix, "--to", "gguf", "--recipe",
                   "q4_0", "--imatrix", matrix, "--force")

    def test_a_search_keeps_its_model_and_text(self):
        folder = self.folder / "teacher"
        shutil.copytree(NANO_DIR / "teacher", folder)
        search = ["quantize", folder, self.folder / "q.gguf", "--text", self.text, "--size", "3MB",
                  "--force"]
        weights = folder / "model.safetensors"
        for option in ("--save-recipe", "--state"):
            self.keeps(self.text, *search, option, self.text)
            self.keeps(weights, *search, option, weights, says="the output is a file of an input")
        self.fails(*search, "--save-recipe", self.folder / "q.gguf", says="two outputs are one file")
        self.keeps(self.text, "quantize", folder, self.text, "--type", "q4_0", "--text", self.text,
                   "--force")

    def test_only_pages_are_replaced_by_pages(self):
        audit = ["audit", self.model, self.model, *self.small, "--html"]
        notes = self.folder / "notes.html"
        notes.write_text("mine")
        self.keeps(notes, *audit, notes, says="the file exists")
        page = self.folder / "page.html"
        self.ok(*audit, page)
        page.write_bytes(page.read_bytes() + b"<!-- old -->")
        self.ok(*audit, page)
        self.assertNotIn(b"<!-- old -->", page.read_bytes())

    def test_unwritable_places_are_known_at_once(self):
        absent = self.folder / "absent" / "page.html"
        text = self.fails("audit", self.model, self.model, *self.small, "--html", absent,
                          says="its folder does not exist")
        self.assertIn("--html", text)


if __name__ == "__main__":
    unittest.main()
