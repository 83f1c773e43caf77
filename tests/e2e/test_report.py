"""carat report: an audit as one page."""

import html.parser
import json
import re
import unittest

import harness

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Holds every element to its end tag, and gathers what a reader would load or see."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.errors, self.loads, self.text, self.numbers = [], [], [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.take(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.take(tag, attributes)

    def take(self, tag, attributes):
        if tag in ("script", "img", "iframe", "object", "embed"):
            self.errors.append(tag)
        for name, value in attributes:
            if name.startswith("on"):
                self.errors.append(name)
            if name in ("src", "href", "xlink:href"):
                self.loads.append(value)
            if name in ("x", "y", "x1", "y1", "cx", "cy", "r", "width", "height", "viewbox", "d",
                        "transform"):
                self.numbers.append(value)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.errors.append("/" + tag)

    def handle_data(self, data):
        self.text += data


class ReportTest(harness.CaratTest):
    def page(self, path):
        out = path.with_suffix(".html")
        done = harness.carat("report", path, "-o", out, timeout=600)
        self.assertEqual(done.returncode, 0, done.stderr)
        page = Page(out.read_text(encoding="utf-8"))
        self.assertEqual(page.errors, [])
        self.assertEqual(page.open, [])
        for load in page.loads:
            self.assertTrue(load.startswith("#") or load == "data:,", load)
        self.assertTrue(page.numbers)
        for value in page.numbers:
            self.assertRegex(value, r"^[-0-9.,\sMLHVhvlZz]*$|^rotate\([-0-9. ]+\)$")
            self.assertIsNone(re.search(r"\d{6}", value), value)
        return page

    def test_audit_of_nano(self):
        nano = harness.nano_gguf()
        if nano is None:
            self.skipTest("no nano model")
        text = self.folder / "t.txt"
        text.write_text("Once upon a time there was a small house by the sea. " * 40)
        candidate = self.folder / "<script>x.gguf"
        candidate.write_bytes(nano.read_bytes())
        done = harness.carat("audit", nano, candidate, f"{nano}@kv=int8", "--text", text, "--raw",
                             "--context", 64, "--json", timeout=600)
        self.assertEqual(done.returncode, 0, done.stderr)
        audit = self.folder / "audit.json"
        audit.write_bytes(done.stdout)
        page = self.page(audit)
        self.assertIn("<script>x", page.text)
        self.assertIn("kv=int8", page.text)
        for file in json.loads(done.stdout)["models"]:
            for digest in re.findall(r'"sha256": "(\w{64})"', json.dumps(file)):
                self.assertIn(digest, page.text)

    def test_what_is_no_audit(self):
        path = self.folder / "x.json"
        for text in ("", "[]", "{}", '{"reference": "a", "candidates": [1]}',
                     '{"reference": "a", "candidates": []}'):
            path.write_text(text)
            done = harness.carat("report", path, "-o", self.folder / "page.html", timeout=600)
            self.assertEqual(done.returncode, 1, text)
            self.assertIn(b"x.json" if text != "" else b"", done.stderr)
            self.assertFalse((self.folder / "page.html").exists())

    def test_keeps_its_input(self):
        path = self.folder / "x.json"
        path.write_text("{}")
        done = harness.carat("report", path, "-o", path, timeout=600)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(path.read_text(), "{}")


if __name__ == "__main__":
    unittest.main()
