#!/usr/bin/env python3
"""Runs check_layers.py and check_symbols.py on small wrong trees and expects them to notice."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))


def run(script, *args):
    done = subprocess.run([sys.executable, os.path.join(HERE, script), *args], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


class LayersTest(unittest.TestCase):
    def setUp(self):
        self.root = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.root)
        self.write("src/base/error.h", "")
        self.write("src/io/gguf.h", '#include "base/error.h"\n')
        self.write("src/kernels/cpu/avx2/table.h", "#include <immintrin.h>\n")
        self.write("src/io/avx512/a.cc", "#include <immintrin.h>\n")

    def write(self, path, text):
        path = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def expect(self, path, text, message):
        self.write(path, text)
        status, output = run("check_layers.py", self.root)
        self.assertEqual(status, 1, output)
        self.assertIn(message, output)

    def test_a_good_tree_passes(self):
        self.write("src/app/main.cc", '#include <CLI/CLI.hpp>\n#include "io/gguf.h"\n')
        self.write("src/io/gguf_test.cc", '#include <gtest/gtest.h>\n#include "io/gguf.h"\n')
        status, output = run("check_layers.py", self.root)
        self.assertEqual(status, 0, output)

    def test_upward(self):
        self.expect("src/base/a.h", '#include "io/gguf.h"\n', "src/base/a.h:1: includes io/gguf.h")

    def test_sideways(self):
        self.expect("src/kernels/a.cc", '\n#include "io/gguf.h"\n', "src/kernels/a.cc:2")

    def test_siblings_of_the_fourth_layer(self):
        self.write("src/train/t.h", "")
        self.expect("src/audit/a.cc", '#include "train/t.h"\n', "audit may include")

    def test_relative_and_missing(self):
        self.expect("src/io/a.cc", '#include "../base/error.h"\n', "relative to src")
        self.expect("src/io/b.cc", '#include "base/none.h"\n', "no such file")

    def test_libraries(self):
        self.expect("src/io/a.cc", "#include <nlohmann/json.hpp>\n", "base/json.h")
        self.expect("src/io/b.cc", "#include <immintrin.h>\n", "<isa>")
        self.expect("src/io/c.cc", "#include <gtest/gtest.h>\n", "for tests")
        self.write("src/app/a.cc", "#include <CLI/CLI.hpp>\n")
        self.expect("src/app/b.cc", "#include <CLI/CLI.hpp>\n", "one file includes it")

    def test_isa_folders_are_private(self):
        self.expect("src/model/a.cc", '#include "kernels/cpu/avx2/table.h"\n', "private")


@unittest.skipUnless(shutil.which("g++") and shutil.which("nm"), "needs g++ and nm")
class SymbolsTest(unittest.TestCase):
    def compile(self, root, text, inside="kernels/cpu/avx2"):
        folder = os.path.join(root, inside)
        os.makedirs(folder, exist_ok=True)
        source = os.path.join(folder, "a.cc")
        with open(source, "w", encoding="utf-8") as file:
            file.write(text)
        subprocess.run(["g++", "-O2", "-c", source, "-o", source + ".o"], check=True)
        return source + ".o"

    def test_symbols(self):
        with tempfile.TemporaryDirectory() as root:
            clean = self.compile(root, "namespace { int f(int x) { return x; } }\n"
                                       "extern const int table; const int table = f(1);\n")
            self.assertEqual(run("check_symbols.py", clean)[0], 0)
            for inside in ("kernels/cpu/avx2", "convert/avx512", "train/avx2", "kernels/cpu/neon"):
                weak = self.compile(root, "inline int shared(int x) { return x + 1; }\n"
                                          "int (*table)(int) = shared;\n", inside)
                status, output = run("check_symbols.py", weak)
                self.assertEqual(status, 1)
                self.assertIn("shared(int)", output)
            portable = self.compile(root, "inline int shared(int x) { return x + 1; }\n"
                                          "int (*table)(int) = shared;\n", "kernels/cpu/generic")
            self.assertEqual(run("check_symbols.py", portable)[0], 0)


if __name__ == "__main__":
    unittest.main()
