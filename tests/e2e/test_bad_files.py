"""Damaged and hostile files through the program: one clear error, no crash, no memory."""

import json
import os
import resource
import struct
import subprocess
import unittest

from harness import CARAT, CaratTest


def gguf(tensors=0, keys=0, version=3, rest=b""):
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + rest


def string(text):
    return struct.pack("<Q", len(text)) + text


HUGE = 1 << 40
GGUF_FILES = {
    "empty": b"",
    "short": b"GGU",
    "other magic": b"GGML" + bytes(60),
    "version 2": gguf(version=2),
    "big-endian version": gguf(version=3 << 24),
    "ends in the head": gguf()[:20],
    "a billion tensors": gguf(tensors=1 << 30, rest=bytes(130)),
    "a key of terabytes": gguf(keys=1, rest=struct.pack("<Q", HUGE) + bytes(128)),
    "an array of terabytes": gguf(
        keys=1, rest=string(b"k") + struct.pack("<IIQ", 9, 4, HUGE) + bytes(100)),
    "nested arrays": gguf(keys=1, rest=string(b"k") + struct.pack("<IIQ", 9, 9, 1) * 9),
    "a tensor of terabytes": gguf(
        tensors=1, rest=string(b"t") + struct.pack("<IQQIQ", 2, 1 << 31, 1 << 30, 0, 0) + bytes(64)),
    "dimensions that overflow": gguf(
        tensors=1,
        rest=string(b"t") + struct.pack("<IQQQQIQ", 4, *[1 << 62] * 4, 0, 0) + bytes(64)),
    "nothing inside": gguf(rest=bytes(64)),
}
HEADER = json.dumps({"t": {"dtype": "BF16", "shape": [4, 4], "data_offsets": [0, 32]}}).encode()
SAFETENSORS_FILES = {
    "empty": b"",
    "header of terabytes": struct.pack("<Q", HUGE) + b"{}",
    "header not JSON": struct.pack("<Q", 8) + b"not json",
    "ends in the data": struct.pack("<Q", len(HEADER)) + HEADER + bytes(16),
    "hole after the data": struct.pack("<Q", len(HEADER)) + HEADER + bytes(48),
}


class BadFiles(CaratTest):
    def refused(self, path, *command):
        """The command must fail by itself, within 1 GB of address space beyond the program's."""
        def limit():
            resource.setrlimit(resource.RLIMIT_AS, (3 << 29, 3 << 29))
        # A program under AddressSanitizer reserves terabytes of addresses for itself.
        preexec = None if os.environ.get("CARAT_SANITIZE") else limit
        process = subprocess.run([CARAT, *map(str, command)], capture_output=True, timeout=30,
                                 preexec_fn=preexec, check=False)
        self.check(process, 1)
        text = process.stderr.decode()
        self.assertIn(str(path), text)
        self.assertNotIn("out of memory", text)
        self.assertLess(len(text.splitlines()), 4, text)

    def test_gguf(self):
        for name, content in GGUF_FILES.items():
            with self.subTest(name):
                path = self.folder / "bad.gguf"
                path.write_bytes(content)
                self.refused(path, "inspect", path)
                self.refused(path, "logits", path, "--tokens", "1", "--out", self.folder / "o")

    def test_safetensors(self):
        self.ok("synth", "tiny", self.folder / "hf", "--format", "hf", "--type", "bf16")
        weights = self.folder / "hf" / "model.safetensors"
        for name, content in SAFETENSORS_FILES.items():
            with self.subTest(name):
                weights.write_bytes(content)
                self.refused(weights, "inspect", self.folder / "hf")

    def test_cut_off_anywhere(self):
        whole = self.folder / "whole.gguf"
        self.ok("synth", "tinykv", whole)
        content = whole.read_bytes()
        path = self.folder / "cut.gguf"
        for size in (40, 500, len(content) // 2, len(content) - 40):
            path.write_bytes(content[:size])
            self.refused(path, "logits", path, "--tokens", "1", "--out", self.folder / "o")
        self.assertFalse((self.folder / "o").exists())

    def test_directories(self):
        self.refused(self.folder, "inspect", self.folder)
        config = self.folder / "config.json"
        for text in ("", "[]", "{", '{"model_type": "llama"}', '{"a": 1, "a": 2}', "[" * 5000):
            with self.subTest(text[:20]):
                config.write_text(text)
                self.refused(self.folder, "inspect", self.folder)

    def test_config_that_disagrees_with_the_tensors(self):
        model = self.folder / "hf"
        self.ok("synth", "tiny", model, "--format", "hf", "--type", "bf16")
        config = json.loads((model / "config.json").read_text())
        for key, value in (("hidden_size", 512), ("num_hidden_layers", 7), ("hidden_size", -1),
                           ("num_hidden_layers", 1 << 60), ("vocab_size", 1 << 40)):
            with self.subTest(f"{key}={value}"):
                (model / "config.json").write_text(json.dumps({**config, key: value}))
                self.refused(model, "logits", model, "--tokens", "1", "--out", self.folder / "o")


if __name__ == "__main__":
    unittest.main()
