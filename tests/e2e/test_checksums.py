"""Checksums of checkpoints, and the Hub's records of them."""

import hashlib
import struct
import time
import unittest

from harness import CaratTest, carat


def in_two_parts(model, folder):
    """The GGUF file as one of two parts, the second without tensors; their paths."""
    def key(name, kind, value):
        return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value

    def split(number):  # 64 bytes: the data stay aligned
        return (key(b"split.no", 2, struct.pack("<H", number)) +
                key(b"split.count", 2, struct.pack("<H", 2)) + key(b"fill", 0, b"\0"))
    data = model.read_bytes()
    tensors, keys = struct.unpack_from("<QQ", data, 8)
    paths = [folder / f"s-0000{i}-of-00002.gguf" for i in (1, 2)]
    paths[0].write_bytes(data[:8] + struct.pack("<QQ", tensors, keys + 3) + split(0) + data[24:])
    paths[1].write_bytes(data[:8] + struct.pack("<QQ", 0, 3) + split(1) + bytes(8))
    return paths


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
        process = self.check(carat("inspect", model, "--checksums", bad), 3)
        self.assertIn(b"not what its checksum says", process.stderr)
        self.assertNotIn(b"as recorded", process.stderr)
        self.json("inspect", model, "--checksums", bad, code=3)
        self.fails("inspect", model, "--checksums", self.folder / "none", says="none")

    def test_all_parts_of_a_split_file(self):
        model = self.folder / "t.gguf"
        self.ok("synth", "tiny", model)
        parts = in_two_parts(model, self.folder)
        digests = [hashlib.sha256(p.read_bytes()).hexdigest() for p in parts]
        expected = "".join(f"{d}  {p}\n" for d, p in zip(digests, parts))
        for part in parts:
            self.assertEqual(self.ok("inspect", part, "--checksum").stdout.decode(), expected)
            fit = self.json("fit", part, "--bandwidth", 50)["fits"][0]
            self.assertEqual(fit["file_bytes"], sum(p.stat().st_size for p in parts))
        pointer = self.folder / "pointer"  # is about one file
        pointer.write_text("version https://git-lfs.github.com/spec/v1\n"
                           f"oid sha256:{digests[1]}\nsize {parts[1].stat().st_size}\n")
        self.ok("inspect", parts[1], "--checksums", pointer)
        self.check(carat("inspect", parts[0], "--checksums", pointer), 3)
        # A whole file that only has such a name, and a damaged part.
        whole = self.folder / "w-00001-of-00002.gguf"
        whole.write_bytes(model.read_bytes())
        self.assertEqual(len(self.json("inspect", whole, "--checksum")["files"]), 1)
        parts[1].write_bytes(b"")
        self.assertEqual(len(self.json("inspect", parts[0], "--checksum")["files"]), 2)
        parts[1].unlink()
        self.fails("inspect", parts[0], "--checksum", says=["missing", parts[1].name])

    def test_weights_that_differ(self):
        a, b, same = (self.folder / name for name in ("a", "b", "same.gguf"))
        self.ok("synth", "tiny", a, "--format", "hf", "--type", "bf16", "--seed", 1)
        self.ok("synth", "tiny", b, "--format", "hf", "--type", "bf16", "--seed", 2)
        self.ok("convert", a, same, "--to", "gguf-bf16")
        self.ok("inspect", a, "--against", same)
        process = self.check(carat("inspect", a, "--against", b), 3)
        self.assertIn(f"tensors differ from {b}", process.stderr.decode())
        compared = self.json("inspect", a, "--against", b, code=3)["against"]
        self.assertLess(compared["equal"], compared["weights"])

    def test_rules_of_the_lattice(self):
        path = self.folder / "hf"
        self.ok("synth", "tiny", path, "--format", "hf")
        lattice = self.json("inspect", path, "--full")["lattice"]
        rules = lattice["rules"]
        self.assertGreater(lattice["blocks_on_lattice"], 0)
        self.assertEqual(sum(rules.values()), lattice["blocks_on_lattice"])
        text = self.ok("inspect", path, "--full").stdout.decode()
        self.assertIn(f"rules: signed extremum / -8 in {rules['signed_extremum_8']}, absmax / 7 in "
                      f"{rules['absmax_7']}, other peaks in {rules['other_peak']}, all zero "
                      f"{rules['zero']}\n", text)
        unused = [str(c) for c, n in enumerate(lattice["codes"]) if n == 0]
        self.assertIn(f"unused codes: {' '.join(unused) or 'none'}\n", text)
        self.assertNotIn("rules:", self.ok("inspect", path, "--no-lattice").stdout.decode())

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
