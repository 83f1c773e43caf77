"""The command line itself: help, versions, exit codes, streams."""

import os
import subprocess
import unittest

from harness import CARAT, CaratTest, carat

COMMANDS = ["run", "logits", "inspect", "convert", "audit", "report", "imatrix", "train", "bench",
            "synth", "tokenize", "fit", "quantize"]
PLANNED = ["serve", "pull"]


class Help(CaratTest):
    def test_overview_names_every_command(self):
        for args in ([], ["--help"], ["-h"], ["help"]):
            text = self.ok(*args).stdout.decode()
            for command in COMMANDS:
                self.assertIn(f"  {command} ", text)

    def test_every_command_teaches(self):
        for command in COMMANDS:
            with self.subTest(command):
                process = self.ok(command, "--help")
                text = process.stdout.decode()
                self.assertEqual(process.stderr, b"")
                self.assertIn(f"Usage: carat {command}", text)
                self.assertIn("Examples:", text)
                self.assertIn("--json", text)
                self.assertEqual(self.ok("help", command).stdout.decode(), text)
                self.assertTrue(all(len(line) <= 100 for line in text.splitlines()), text)

    def test_version_names_commit_and_isa(self):
        self.assertRegex(self.ok("--version").stdout.decode(),
                         r"^carat \d+\.\d+\.\d+ \(commit ([0-9a-f]{7,}(-modified)?|unknown), \w+\)\n$")
        text = self.ok("--version", env={"CARAT_ISA": "generic"}).stdout.decode()
        self.assertIn("generic", text)
        self.fails("--version", env={"CARAT_ISA": "abacus"}, says=["abacus", "generic"])


class ExitCodes(CaratTest):
    def test_usage_is_2(self):
        self.fails("rum", code=2, says=["rum", "did you mean run?"])
        self.fails("--nonsense", code=2)
        self.fails("run", "--tmep", "1", code=2, says="did you mean --temp?")
        self.fails("logits", code=2, says="MODEL")
        self.fails("run", "-n", "many", code=2, says="whole number")
        self.fails("run", "--min-p", "7", code=2, says="--min-p must be 0 to 1")
        self.fails("help", "rum", code=2)
        for command in COMMANDS:
            self.fails(command, "--no-such-option", code=2, says=f"carat {command}")

    def test_planned_commands_say_so(self):
        for command in PLANNED:
            self.fails(command, says=[command, "does not have"])

    def test_missing_files_are_1(self):
        missing = self.folder / "no-such.gguf"
        for args in (["run", missing, "-p", "x"], ["logits", missing, "--tokens", "1", "--out", "o"],
                     ["inspect", missing], ["bench", missing], ["tokenize", missing, "-p", "x"],
                     ["convert", missing, self.folder / "out.gguf", "--to", "gguf-q4_0"],
                     ["audit", missing, missing, "--text", missing]):
            with self.subTest(args[0]):
                self.fails(*args, says="no-such.gguf")

    def test_unwritable_output_is_1(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full")
        with open("/dev/full", "wb") as full:
            process = subprocess.run([CARAT, "--help"], stdout=full, stderr=subprocess.PIPE,
                                     check=False)
        self.assertEqual(process.returncode, 1)
        self.assertIn(b"standard output", process.stderr)

    def test_closed_pipe_ends_quietly(self):
        with subprocess.Popen([CARAT, "--help"], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as process:
            process.stdout.close()
            self.assertNotIn(b"error", process.stderr.read())
            self.assertIn(process.wait(timeout=20), (0, -13))


if __name__ == "__main__":
    unittest.main()
