"""Checksums of checkpoints, and the Hub's records of them."""

import hashlib
import time
import unittest

from harness import CaratTest, carat


class Checksums(CaratTest):
    def test_inspect_prints_and_compares(self):
        model = self.folder / "t.gguf"
        self.ok("synth", "tiny", model)
        digest = hashlib.sha256(model.read_bytes()).hexdigest()
        self.assertEqual(self.ok("inspect", model, "--checksum").stdout.decode(),
                         f"{digest}  {model}\n")
        self.assertEqual(self.json("inspect", model, "--checksum")["files"][0]["sha256"], digest)

        good, bad = self.folder / "good", self.folder / "bad"
        good.write_text(f"{digest}  t.gguf\n")
        bad.write_text(f"{digest[::-1]}  t.gguf\n")
        self.assertIn(b"as recorded",
                      self.ok("inspect", model, "--checksums", good).stderr)
        process = self.check(carat("inspect", model, "--checksums", bad), 1)
        self.assertIn(b"not what its checksum says", process.stderr)

    def test_a_download_is_held_to_its_record(self):
        source = self.folder / "hf"
        self.ok("synth", "tiny", source, "--format", "hf")
        weights = source / "model.safetensors"
        record = source / ".cache" / "huggingface" / "download" / "model.safetensors.metadata"
        record.parent.mkdir(parents=True)
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        out = self.folder / "out.gguf"
        record.write_text(f"abc\n{digest[::-1]}\n{time.time() + 5}\n")
        self.fails("convert", source, out, says=["Hub recorded", digest])
        self.assertFalse(out.exists())
        self.assertEqual(self.leftovers(), [])
        record.write_text(f"abc\n{digest}\n{time.time() + 5}\n")
        said = self.ok("convert", source, out).stdout.decode()
        self.assertIn(f"SHA-256 of the source  {weights}\n  {digest}  (as the Hub recorded it)\n",
                      said)
        report = self.json("convert", source, out, "--force")
        self.assertTrue(report["source_files"][0]["as_recorded"])
        self.assertEqual(report["target_files"][0]["sha256"],
                         hashlib.sha256(out.read_bytes()).hexdigest())


if __name__ == "__main__":
    unittest.main()
