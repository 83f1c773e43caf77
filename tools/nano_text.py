#!/usr/bin/env python3
"""Makes the text that the nano model is trained and measured on.

usage: nano_text.py [OUT_DIR]          (default build/nano/text)

Training text: Jane Austen's novels (public domain) from the Debian package r-cran-janeaustenr:
sense, prejudice, mansfield, emma, northanger. Held out: persuasion. Text of another domain:
policy, the prose of the Debian Policy Manual, from the package debian-policy. The packages are
downloaded with apt-get and unpacked, not installed.

Files are UTF-8, one paragraph a line, an empty line between paragraphs; a line break inside a
paragraph is kept only in verse and in addresses. Underscores that mark italics, rows of asterisks
and printers' and editors' notes are left out, and runs of spaces become one.

The novels are R data: data/Rdata.rdb is a row of records, each a big-endian u32 (the size of the
unpacked record) and a zlib stream that holds one character vector in R's XDR serialization,
version 3: "X\\n", three u32, the encoding's name (u32 length, bytes), then u32 flags (type 16) and
u32 count, then per string u32 flags (type 9), u32 length (0xffffffff: missing), bytes.
"""

import gzip
import hashlib
import io
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zlib

NOVELS_DEB = "r-cran-janeaustenr"
NOVELS_PATH = "./usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
POLICY_DEB = "debian-policy"
POLICY_PATH = "./usr/share/doc/debian-policy/policy.txt.gz"

# A novel is known by its first line.
TITLES = {
    "SENSE AND SENSIBILITY": "sense",
    "PRIDE AND PREJUDICE": "prejudice",
    "MANSFIELD PARK": "mansfield",
    "EMMA": "emma",
    "NORTHANGER ABBEY": "northanger",
    "Persuasion": "persuasion",
}

SHA256 = {
    "emma": "cf756e203e834b33c30e55fa039a5367a648aebfe47eff06e6f1e216c20e84e2",
    "mansfield": "5438dea336f370f9235fa61644943a56680b58285374f8d5d0602c91f50d2f67",
    "northanger": "29a4bbed3cbb6908cd1b680c9d06ec3c4e3178ab402fb216ef076277b2102b1f",
    "persuasion": "e2da46bdb9255e13f56be6e737f178fd06d1938516abb21fd4f74f4675ffa13a",
    "policy": "7241ad7164f764d22adb32f0754df139f1861102bddf8deda4bf7ffa211e2999",
    "prejudice": "26af819d4e60839ffe05bbce3027a4d6ba7cae8bff2cc6cd990900ceef5c47c5",
    "sense": "cecd4a3295a9a66a4fc24bf5d7e43c5384977d7bfbe47f4b419480b236a66d3c",
}


class TextError(Exception):
    pass


def download(package, folder):
    """Downloads one Debian package by name; returns the path of the .deb."""
    if not shutil.which("apt-get"):
        raise TextError(f"apt-get is not here: {package} comes from Debian")
    command = ["apt-get", "-qq", "download", package]
    if subprocess.run(command, cwd=folder, stderr=subprocess.DEVNULL).returncode != 0:
        # Most often the package lists have never been fetched on this machine.
        print("nano_text: apt-get update", file=sys.stderr)
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        subprocess.run(sudo + ["apt-get", "-qq", "update"], check=False)
        done = subprocess.run(command, cwd=folder, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise TextError(f"could not download {package}: {done.stderr.strip()}")
    found = [name for name in os.listdir(folder) if name.startswith(package + "_")]
    if len(found) != 1:
        raise TextError(f"expected one file of {package} in {folder}, got {found}")
    return os.path.join(folder, found[0])


def member(deb, path):
    """The bytes of one file of a .deb."""
    tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], check=True, stdout=subprocess.PIPE)
    with tarfile.open(fileobj=io.BytesIO(tar.stdout)) as archive:
        return archive.extractfile(path).read()


def rdb_records(data):
    """The unpacked records of an R lazy-load database of one object each."""
    at = 0
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        unpacker = zlib.decompressobj()
        record = unpacker.decompress(data[at + 4:])
        if len(record) != size or not unpacker.eof:
            raise TextError(f"record at {at}: expected {size} bytes, got {len(record)}")
        yield record
        at = len(data) - len(unpacker.unused_data)


def r_strings(record):
    """The strings of one serialized character vector."""
    if record[:2] != b"X\n" or struct.unpack_from(">I", record, 2) != (3,):
        raise TextError("not an R serialization, XDR, version 3")
    (name_length,) = struct.unpack_from(">I", record, 14)
    at = 18 + name_length
    flags, count = struct.unpack_from(">II", record, at)
    if flags & 0xFF != 16:
        raise TextError(f"expected a character vector (type 16), got type {flags & 0xFF}")
    at += 8
    strings = []
    for _ in range(count):
        flags, length = struct.unpack_from(">II", record, at)
        at += 8
        if flags & 0xFF != 9:
            raise TextError(f"expected a string (type 9), got type {flags & 0xFF}")
        if length == 0xFFFFFFFF:
            strings.append("")
            continue
        strings.append(record[at:at + length].decode("utf-8"))
        at += length
    return strings


def blocks(lines):
    """Groups of lines between empty lines."""
    group = []
    for line in lines:
        if line.strip():
            group.append(line.rstrip())
        elif group:
            yield group
            group = []
    if group:
        yield group


def join(lines):
    """One line out of the wrapped lines of a paragraph."""
    text = ""
    for line in (line.strip() for line in lines):
        # A dash or a hyphen at the end of a line belongs to the next word.
        glue = "" if not text or text.endswith("-") or line.startswith("--") else " "
        text += glue + line
    return re.sub(r" {2,}", " ", text)


def is_verse(lines):
    """Verse and addresses: indented throughout, each line beginning with a capital."""
    return len(lines) > 1 and all(
        line.startswith(" ") and re.match(r"\W*[A-Z]", line) for line in lines)


def novel_paragraphs(lines):
    paragraphs = []
    for group in blocks(lines):
        if group[0] == "A NOTE ON THE TEXT":  # an editor's, at the end
            break
        text = join(group)
        if re.match(r"\[(End volume|At this point)|\*", text):
            continue
        if is_verse(group):
            text = "\n".join(join([line]) for line in group)
        paragraphs.append(text.replace("_", "").replace(",* ", ", "))
    return paragraphs


def policy_paragraphs(lines):
    """The prose only: no headings, lists, examples or footnotes, all of which are indented,
    underlined, marked or short."""
    paragraphs = []
    for group in blocks(lines):
        text = join(group)
        if len(group) > 1 and len(text) >= 100 and re.match(r'[A-Z"]', group[0]):
            if not re.fullmatch(r"[*=~^\"-]+", group[1]):
                paragraphs.append(text)
    return list(dict.fromkeys(paragraphs))  # the introduction is there twice


def make_texts(folder):
    novels = member(download(NOVELS_DEB, folder), NOVELS_PATH)
    texts = {}
    for record in rdb_records(novels):
        lines = r_strings(record)
        if lines[0] not in TITLES:
            raise TextError(f"unknown novel {lines[0]!r} in {NOVELS_DEB}")
        texts[TITLES[lines[0]]] = novel_paragraphs(lines)
    policy = gzip.decompress(member(download(POLICY_DEB, folder), POLICY_PATH))
    texts["policy"] = policy_paragraphs(policy.decode("utf-8").splitlines())
    return {name: ("\n\n".join(p) + "\n").encode("utf-8") for name, p in texts.items()}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def main():
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        print(__doc__)
        return 0 if len(sys.argv) == 2 else 2
    out = sys.argv[1] if len(sys.argv) == 2 else os.path.join("build", "nano", "text")
    os.makedirs(out, exist_ok=True)

    def path(name):
        return os.path.join(out, name + ".txt")

    def is_made(name):
        if not os.path.exists(path(name)):
            return False
        with open(path(name), "rb") as file:
            return sha256(file.read()) == SHA256[name]

    if all(is_made(name) for name in SHA256):
        print(f"nano_text: {out} is complete", file=sys.stderr)
        return 0
    try:
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            texts = make_texts(folder)
        for name, data in sorted(texts.items()):
            if sha256(data) != SHA256.get(name):
                raise TextError(f"{name}: expected sha256 {SHA256.get(name)}, got {sha256(data)}: "
                                "the package's text has changed")
    except (TextError, OSError, struct.error, zlib.error, subprocess.CalledProcessError) as error:
        print(f"nano_text: {error}", file=sys.stderr)
        return 1
    for name, data in sorted(texts.items()):
        with open(path(name) + ".part", "wb") as file:
            file.write(data)
        os.replace(path(name) + ".part", path(name))
        print(f"{path(name)}  {len(data)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
