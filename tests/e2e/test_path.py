"""The whole path: text, tokenizer, training, quantization-aware training, 4 bits, audit, answer."""

import json
import unittest

from harness import CaratTest

TEXT = ("It was a bright cold day in April, and the clocks were striking thirteen. "
        "Nobody on the stairs had heard them; the old man went on with his book.\n\n"
        "The rain came in the evening. She closed the window and lit the lamp.\n"
        "Three ships with grey sails waited outside the harbour until morning light; when the "
        "pilot arrived, everyone cheered, though few believed him.\n" * 20)


class Path(CaratTest):
    def config(self):
        """A model directory's config for an E-type model of a few thousand parameters."""
        self.ok("synth", "tiny", self.folder / "shape", "--format", "hf", "--type", "bf16")
        config = json.loads((self.folder / "shape" / "config.json").read_text())
        config.update(hidden_size=64, vocab_size=512, vocab_size_per_layer_input=512,
                      hidden_size_per_layer_input=32, intermediate_size=64)
        path = self.folder / "config.json"
        path.write_text(json.dumps(config))
        return path

    def test_text_to_answer(self):
        text = self.folder / "text.txt"
        text.write_text(TEXT)
        tokenizer = self.folder / "tokenizer"
        self.ok("train", "--new-tokenizer", 512, "--text", text, "--out", tokenizer)
        common = ["--text", text, "--validation", text, "--batch", 2, "--micro-batch", 1,
                  "--seq", 32, "--seed", 3]
        teacher = self.folder / "teacher"
        report = self.json("train", "--config", self.config(),
                           "--tokenizer", tokenizer / "tokenizer.json", *common,
                           "--steps", 30, "--out", teacher)
        self.assertEqual(report["steps"], 30)
        self.assertLess(report["validation_loss"], 6.0)  # log(512) is 6.24

        student = self.folder / "student"
        report = self.json("train", "--teacher", teacher, *common, "--steps", 5, "--out", student)
        self.assertGreater(report["start_validation_kld"], 0)
        gguf = self.folder / "student.gguf"
        converted = self.json("convert", student, gguf)
        self.assertEqual(converted["blocks"], converted["blocks_on_lattice"])
        self.assertEqual(converted["weights"], converted["weights_bit_exact"])
        audited = self.json("audit", student, student, gguf, "--text", text, "--context", 64)
        self.assertEqual(audited["candidates"][0]["mean_kld"], 0)
        self.assertLess(audited["candidates"][1]["mean_kld"], 1e-3)
        answer = self.json("run", gguf, "-p", "It was", "-n", 8, "--seed", 1)
        self.assertEqual(len(answer["tokens"]), 8)

    def test_training_is_deterministic(self):
        text = self.folder / "text.txt"
        text.write_text(TEXT)
        self.ok("synth", "tinykv", self.folder / "init", "--format", "hf", "--type", "bf16")
        weights = []
        for threads in (1, 2):
            out = self.folder / f"out{threads}"
            self.ok("train", "--init", self.folder / "init", "--text", text, "--out", out,
                    "--batch", 2, "--micro-batch", 1, "--seq", 16, "--steps", 2, "-t", threads)
            weights.append((out / "model.safetensors").read_bytes())
        self.assertEqual(weights[0], weights[1])

    def test_refusals(self):
        text = self.folder / "text.txt"
        text.write_text(TEXT)
        out = self.folder / "out"
        self.fails("train", "--text", text, "--out", out, "--config", "tiny", code=2,
                   says="--tokens")
        self.fails("train", "--text", text, "--out", out, "--steps", 1, "--resume", code=2,
                   says="--checkpoint")
        self.fails("train", "--text", self.folder / "none.txt", "--out", out, "--steps", 1,
                   "--config", "tiny", "--tokenizer", self.folder / "none.json", says="none")
        self.assertFalse(out.exists())


if __name__ == "__main__":
    unittest.main()
