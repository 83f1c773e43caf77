"""Ctrl-C in the middle of long work: exit code 130, nothing half-written."""

import json
import os
import signal
import struct
import subprocess
import time
import unittest

from harness import CARAT, CaratTest

ROWS = 1000000  # of the embeddings of the large sparse checkpoint


class Interrupt(CaratTest):
    def start(self, *args, ignore=()):
        """`ignore`: signals that the program finds ignored, as nohup leaves SIGHUP."""
        def before():
            for number in ignore:
                signal.signal(number, signal.SIG_IGN)
        process = subprocess.Popen([CARAT, *map(str, args)], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   preexec_fn=before)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.stderr.close)
        return process

    def wait_for(self, process, condition):
        """Until the condition holds; the process must still be at work then."""
        deadline = time.monotonic() + 60
        while not condition():
            if process.poll() is not None:
                self.fail(f"ended too early: {process.returncode} {process.stderr.read()!r}")
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.005)

    def wait_for_partial(self, process):
        self.wait_for(process, lambda: self.leftovers() != [])

    def end(self, process, *signals):
        for number in signals:
            process.send_signal(number)
        self.assertEqual(process.wait(timeout=60), 130, process.stderr.read())
        self.assertEqual(self.leftovers(), [])

    def large_checkpoint(self):
        """A model directory of gigabytes of zeros that takes no room on the disk."""
        model = self.folder / "large"
        self.ok("synth", "tiny", model, "--format", "hf", "--type", "bf16")
        (model / "tokenizer.json").unlink()
        config = json.loads((model / "config.json").read_text())
        config["vocab_size"] = config["vocab_size_per_layer_input"] = ROWS
        (model / "config.json").write_text(json.dumps(config))
        weights = model / "model.safetensors"
        with open(weights, "rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        at = 0
        for name, tensor in header.items():
            if name == "__metadata__":
                continue
            shape = tensor["shape"]
            if "embed_tokens" in name:
                shape[0] = ROWS
            size = 2
            for n in shape:
                size *= n
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(weights, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + at)
        return model

    def test_synth(self):
        target = self.folder / "e2b.gguf"
        process = self.start("synth", "E2B", target)
        self.wait_for_partial(process)
        self.end(process, signal.SIGINT)
        self.assertEqual(os.listdir(self.folder), [])

    def test_synth_directory_by_sigterm(self):
        process = self.start("synth", "E2B", self.folder / "hf", "--format", "hf")
        self.wait_for_partial(process)
        self.end(process, signal.SIGTERM)
        self.assertEqual(os.listdir(self.folder), [])

    def test_the_terminal_ends(self):
        process = self.start("synth", "E2B", self.folder / "e2b.gguf")
        self.wait_for_partial(process)
        self.end(process, signal.SIGHUP)

    def test_nohup_outlives_the_terminal(self):
        target = self.folder / "e2b.gguf"
        process = self.start("synth", "E2B", target, ignore=[signal.SIGHUP])
        self.wait_for_partial(process)
        partial = self.folder / self.leftovers()[0]
        process.send_signal(signal.SIGHUP)
        size = partial.stat().st_size
        self.wait_for(process, lambda: partial.stat().st_size > size + (64 << 20))
        self.end(process, signal.SIGTERM)

    def test_impatience_ends_at_once(self):
        process = self.start("synth", "E2B", self.folder / "e2b.gguf")
        self.wait_for_partial(process)
        self.end(process, signal.SIGINT, signal.SIGINT, signal.SIGINT)

    def test_convert(self):
        source = self.large_checkpoint()
        target = self.folder / "target.gguf"
        target.write_bytes(b"precious")
        process = self.start("convert", source, target, "--force")
        self.wait_for_partial(process)
        self.end(process, signal.SIGINT)
        self.assertEqual(target.read_bytes(), b"precious")

    def test_train_stops_and_goes_on(self):
        model = self.folder / "hf"
        self.ok("synth", "tiny", model, "--format", "hf", "--type", "bf16")
        text = self.folder / "text.txt"
        text.write_text("the quick brown fox jumps over the lazy dog. " * 400)
        state = self.folder / "state"
        args = ["train", "--init", model, "--text", text, "--out", self.folder / "out",
                "--batch", 2, "--micro-batch", 1, "--seq", 16, "--checkpoint", state,
                "--checkpoint-interval", 1]
        process = self.start(*args, "--steps", 100000)
        self.wait_for(process, state.exists)
        self.end(process, signal.SIGINT)
        self.assertFalse((self.folder / "out").exists())
        self.assertGreater(state.stat().st_size, 1000)

    def test_run_ends_with_what_it_has(self):
        model = self.folder / "t.gguf"
        self.ok("synth", "tiny", model)
        process = self.start("run", model, "-p", "the fox", "-n", 1000000, "-c", 4096, "-t", 1)
        answer = process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        self.assertIn(process.wait(timeout=60), (0, 130))
        answer += process.stdout.read()
        answer.decode("utf-8")


if __name__ == "__main__":
    unittest.main()
