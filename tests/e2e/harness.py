"""Runs the carat program for the end-to-end tests. CARAT names the program."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

CARAT = os.environ.get("CARAT", "build/carat")
SOURCE_DIR = pathlib.Path(os.environ.get("CARAT_SOURCE_DIR", "."))
NANO_DIR = SOURCE_DIR / "models" / "nano"


def carat(*args, stdin=b"", env=None, timeout=60):
    """The finished process; stdout and stderr as bytes."""
    return subprocess.run([CARAT, *map(str, args)], input=stdin, capture_output=True,
                          timeout=timeout, env={**os.environ, **(env or {})}, check=False)


def nano_gguf():
    """The nano model's GGUF, or None before it exists."""
    found = sorted(NANO_DIR.glob("*q4_0*.gguf"))
    return found[0] if found else None


class CaratTest(unittest.TestCase):
    """A test with a folder of its own that vanishes afterwards."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="carat-e2e-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def check(self, process, code=0):
        """Asserts the exit code; shows what the program said otherwise."""
        self.assertEqual(process.returncode, code,
                         f"{process.args}\nstdout: {process.stdout[-2000:]!r}\n"
                         f"stderr: {process.stderr[-2000:]!r}")
        return process

    def ok(self, *args, **kwargs):
        """Runs a command that must succeed and returns the process."""
        return self.check(carat(*args, **kwargs))

    def json(self, *args, code=0, **kwargs):
        """Runs a command with --json and returns the one document on its standard output."""
        process = self.check(carat(*args, "--json", **kwargs), code)
        return json.loads(process.stdout)

    def fails(self, *args, code=1, says=(), **kwargs):
        """Runs a command that must fail with `code`, silent on stdout, naming `says` on stderr."""
        process = self.check(carat(*args, **kwargs), code)
        self.assertEqual(process.stdout, b"")
        text = process.stderr.decode()
        for part in says if isinstance(says, (list, tuple)) else [says]:
            self.assertIn(part, text)
        return text

    def leftovers(self, folder=None):
        """Names of files that look half-written."""
        folder = pathlib.Path(folder or self.folder)
        return [str(p) for pattern in ("*partial*", "*.part*") for p in folder.rglob(pattern)]
