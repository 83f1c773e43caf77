"""Prompts in, answers out."""

import unittest

from harness import CaratTest, nano_gguf


class Run(CaratTest):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "tiny.gguf"
        self.ok("synth", "tiny", self.model)

    def test_stdout_holds_only_the_answer(self):
        args = ["run", self.model, "-p", "the fox", "-n", 12, "--seed", 5]
        process = self.ok(*args, "-v")
        answer = self.json(*args)
        self.assertEqual(process.stdout.decode().rstrip("\n"), answer["text"].rstrip("\n"))
        self.assertIn(b"tokens/s", process.stderr)
        self.assertEqual(self.ok(*args).stderr, b"")
        self.assertEqual(answer["generated_tokens"], 12)
        self.assertEqual(answer["stop_reason"], "length")

    def test_prompt_from_a_pipe(self):
        piped = self.json("run", self.model, "-n", 6, "--temp", 0, stdin=b"the fox\n")
        given = self.json("run", self.model, "-n", 6, "--temp", 0, "-p", "the fox")
        self.assertEqual(piped["tokens"], given["tokens"])

    def test_the_same_seed_gives_the_same_answer(self):
        def tokens(*args):
            return self.json("run", self.model, "-p", "a fox", "-n", 16, "--temp", 5, "--top-k", 0,
                             "--top-p", 1, *args)["tokens"]
        first = tokens("--seed", 7, "-t", 1)
        self.assertEqual(first, tokens("--seed", 7, "-t", 2))
        self.assertNotEqual(first, tokens("--seed", 8))

    def test_empty_prompt_continues_from_nothing(self):
        answer = self.json("run", self.model, "-p", "", "-n", 4, "--seed", 1)
        self.assertEqual(answer["prompt_tokens"], 1)
        self.assertEqual(self.json("run", self.model, "-n", 4, "--seed", 1)["tokens"],
                         answer["tokens"])

    def test_no_tokens_asked_for(self):
        self.assertEqual(self.ok("run", self.model, "-p", "x", "-n", 0).stdout, b"")

    def test_prompt_longer_than_the_context(self):
        self.fails("run", self.model, stdin=b"a" * 20000, says=["context", "4096"])
        self.fails("run", self.model, "-p", "a b c d e", "-c", 4, says=["context", "4 tokens"])

    def test_prompt_longer_than_memory(self):
        self.fails("run", self.model, "--kv-memory", "20kB", stdin=b"a" * 3000, says="memory")
        self.fails("run", self.model, "-p", "a", "--kv-memory", "lots", code=2, says="--kv-memory")

    def test_packed_and_mapped_weights_give_the_same_answer(self):
        ask = ("run", self.model, "-p", "abc", "-n", 20, "--temp", 0)
        packed = self.json(*ask)
        mapped = self.json(*ask, "--no-pack")
        self.assertEqual(packed["tokens"], mapped["tokens"])

    def test_answer_fills_the_context(self):
        answer = self.json("run", self.model, "-p", "abc", "-n", 100, "-c", 10, "--seed", 1)
        self.assertEqual(answer["stop_reason"], "context")

    def test_any_bytes_are_a_prompt(self):
        process = self.ok("run", self.model, "-n", 8, "--seed", 2, "--temp", 9, "--top-k", 0,
                          "--top-p", 1, stdin=b"\xff\xfe\x00 caf\xc3\xa9")
        process.stdout.decode("utf-8")

    def test_kv_types(self):
        for kv in ("f32", "f16", "int8"):
            self.ok("run", self.model, "-p", "x", "-n", 2, "--kv", kv)

    def test_bad_options(self):
        for args in (["--temp=-1"], ["--top-p", "0"], ["--repeat-penalty", "0"], ["--kv", "q4"],
                     ["-n", "-5"], ["--seed", "x"]):
            self.fails("run", self.model, "-p", "x", *args, code=2)


class Nano(CaratTest):
    def test_the_built_in_model_answers(self):
        if nano_gguf() is None:
            self.fails("run", "-p", "x", says="built-in model")
            return
        answer = self.json("run", "-n", 24, "--seed", 1, stdin=b"It was a dark night, and\n")
        self.assertGreater(len(answer["text"]), 10)
        same = self.json("run", nano_gguf(), "--raw", "-n", 24, "--seed", 1,
                         "-p", "It was a dark night, and")
        self.assertEqual(answer["tokens"], same["tokens"])


if __name__ == "__main__":
    unittest.main()
