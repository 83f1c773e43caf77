#!/usr/bin/env python3
"""Copies a BF16 model directory and gives its keys outliers without changing what it computes.

    bench/key_outliers.py models/nano/teacher outliers-8 8

In every layer two channels of the key norm, a pair that rotary embedding turns together, are
multiplied by FACTOR (a power of two), and those of the query norm divided by it: products of queries
and keys stay what they were, to the last bit. docs/fidelity.md measures K/V types on such models.
"""

import json
import math
import shutil
import struct
import sys
from pathlib import Path


def scale_bf16(data: bytearray, at: int, factor: float) -> None:
    (x,) = struct.unpack("<f", b"\0\0" + data[at : at + 2])
    data[at : at + 2] = struct.pack("<f", x * factor)[2:]


def add_outliers(data: bytearray, factor: float) -> int:
    """Returns how many norms were changed."""
    (size,) = struct.unpack("<Q", data[:8])
    norms = 0
    for name, tensor in json.loads(data[8 : 8 + size]).items():
        is_key = name.endswith("k_norm.weight")
        if not is_key and not name.endswith("q_norm.weight"):
            continue
        if tensor["dtype"] != "BF16":
            raise SystemExit(f"{name}: expected BF16, got {tensor['dtype']}")
        (channels,) = tensor["shape"]
        begin = 8 + size + tensor["data_offsets"][0]
        for channel in (3, 3 + channels // 2):
            scale_bf16(data, begin + 2 * channel, factor if is_key else 1 / factor)
        norms += 1
    return norms


def main() -> None:
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    source, target, factor = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    if math.frexp(factor)[0] != 0.5:
        raise SystemExit("FACTOR must be a power of two")
    data = bytearray((source / "model.safetensors").read_bytes())
    norms = add_outliers(data, factor)
    if norms == 0:
        raise SystemExit(f"{source}: no key norms found")
    shutil.copytree(source, target)
    (target / "model.safetensors").write_bytes(data)
    print(f"{norms} norms changed")


if __name__ == "__main__":
    main()
