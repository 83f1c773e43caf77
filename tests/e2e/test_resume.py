"""A conversion that is killed goes on where it was, and ends with the same bytes."""

import hashlib
import json
import signal
import struct
import subprocess
import time
import unittest

from harness import CARAT, CaratTest

ROWS = 400000  # of the embeddings of a model that takes long enough to be killed in the middle


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Resume(CaratTest):
    def source(self):
        """A tiny model on the lattice, with embeddings so large that converting takes a while."""
        model = self.folder / "hf"
        self.ok("synth", "tiny", model, "--format", "hf")
        config = json.loads((model / "config.json").read_text())
        text = config.get("text_config", config)
        text["vocab_size"] = text["vocab_size_per_layer_input"] = ROWS
        (model / "config.json").write_text(json.dumps(config))
        (model / "tokenizer.json").unlink()
        weights = model / "model.safetensors"
        data = weights.read_bytes()
        size, = struct.unpack("<Q", data[:8])
        header, body = json.loads(data[8:8 + size]), data[8 + size:]
        header.pop("__metadata__", None)
        at, pieces = 0, []
        for name, tensor in header.items():
            begin, end = tensor["data_offsets"]
            piece = body[begin:end]
            if "embed_tokens" in name:
                rows = tensor["shape"][0]
                piece = (piece * (ROWS // rows + 1))[:ROWS * (len(piece) // rows)]
                tensor["shape"][0] = ROWS
            tensor["data_offsets"] = [at, at + len(piece)]
            at += len(piece)
            pieces.append(piece)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(weights, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for piece in pieces:
                file.write(piece)
        return model

    def kill_in_the_middle(self, args, journal, lines, number):
        """Ends the command with a signal once its journal has so many lines."""
        process = subprocess.Popen([CARAT, *map(str, args)], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while not journal.exists() or journal.read_bytes().count(b"\n") < lines:
            if process.poll() is not None:
                self.fail(f"ended too early: {process.communicate()!r}")
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.001)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        return process.returncode, said.decode()

    def test_killed_and_interrupted(self):
        source = self.source()
        whole, target = self.folder / "whole.gguf", self.folder / "out.gguf"
        part, journal = self.folder / "out.gguf.part", self.folder / "out.gguf.part.journal"
        before = sha256(source / "model.safetensors")
        self.ok("convert", source, whole, "-t", 1)
        args = ["convert", source, target, "-t", 1]

        code, _ = self.kill_in_the_middle(args, journal, 2, signal.SIGKILL)
        self.assertEqual(code, -signal.SIGKILL)
        self.assertFalse(target.exists())
        self.assertTrue(part.exists())

        done = journal.read_bytes().count(b"\n")
        code, said = self.kill_in_the_middle(args, journal, done + 1, signal.SIGINT)
        self.assertEqual(code, 130, said)
        self.assertIn("going on behind", said)
        self.assertIn("the same command goes on from there", said)
        self.assertFalse(target.exists())

        end = self.ok(*args)
        self.assertIn("going on behind", end.stderr.decode())
        self.assertEqual(sha256(target), sha256(whole))
        self.assertEqual(sha256(source / "model.safetensors"), before)
        self.assertFalse(part.exists())
        self.assertFalse(journal.exists())

        report = json.loads((self.folder / "out.gguf.carat.json").read_text())
        expected = json.loads((self.folder / "whole.gguf.carat.json").read_text())
        self.assertEqual(report["target_files"][0]["sha256"], sha256(target))
        self.assertEqual(report["source_files"][0]["sha256"], before)
        for key in ("weights", "weights_bit_exact", "blocks", "blocks_on_lattice", "classes"):
            self.assertEqual(report[key], expected[key])

    def test_other_options_begin_anew(self):
        source = self.source()
        target = self.folder / "out.gguf"
        journal = self.folder / "out.gguf.part.journal"
        self.kill_in_the_middle(["convert", source, target, "-t", 1], journal, 2, signal.SIGKILL)
        end = self.ok("convert", source, target, "-t", 1, "--to", "gguf-bf16")
        self.assertIn("begun anew", end.stderr.decode())
        self.assertFalse(journal.exists())
        self.assertTrue(self.json("inspect", target)["tensors"])


if __name__ == "__main__":
    unittest.main()
