#!/usr/bin/env python3
"""Makes tests/vectors/llama_kld: a reference file of llama.cpp, the logits that it was made from,
those of a candidate, and what `llama-perplexity --kl-divergence` says about them.

    llama_kld.py CARAT LLAMA_CPP LLAMA_CPP_BUILD OUT
        [--teacher F.gguf --candidate F.gguf --text F --context N --chunks N]

LLAMA_CPP_BUILD is a build of LLAMA_CPP by ninja with static libraries. The tool is linked again
with llama_kld_dump.cpp, which writes down the logits that it reads, so that they are the very
numbers behind the figures. Without the options the models are random ones of 512 tokens, so that the
result is small. OUT gets

    base.kld       written by --kl-divergence-base
    base.f32       the teacher's logits of the first chunk (--all: of all chunks)
    candidate.f32  the candidate's, of all positions
    expected.txt   what --kl-divergence prints, from the first chunk's line on

`CARAT_KLD_VECTORS=OUT audit_test --gtest_filter='Llama*'` tests with another folder than the
committed one, which was made with llama.cpp d32676d77426540327835040d5d3279728f0b4c8.
"""
import argparse
import os
import re
import shutil
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TEXT = """A miller kept two clocks. The old one was slow and everybody knew by how much; the new one was
right on most days, and nobody knew on which. When the river rose he sold the new one, for a clock
that is wrong by a known amount tells the time, and one that is right by chance tells nothing. His
daughter, who had learned to count by the old one, measured it against the sun every noon and wrote
the difference on the wall. After a year the wall knew more than either clock. """


def link_tool(source, build, folder):
    """llama-perplexity with the dump."""
    dump = os.path.join(folder, "dump.o")
    subprocess.run(["c++", "-std=c++17", "-O2", "-I", f"{source}/include", "-I",
                    f"{source}/ggml/include", "-c", f"{HERE}/llama_kld_dump.cpp", "-o", dump],
                   check=True)
    commands = subprocess.run(["ninja", "-C", build, "-t", "commands", "bin/llama-perplexity"],
                              check=True, capture_output=True, text=True).stdout
    tool = os.path.join(folder, "perplexity")
    link = commands.strip().splitlines()[-1].replace(
        "-o bin/llama-perplexity", f"-Wl,--wrap=llama_get_logits_ith {dump} -o {tool}")
    assert tool in link, link
    subprocess.run(link, shell=True, check=True, cwd=build)
    return tool


def run(tool, model, arguments, dump, context):
    environment = dict(os.environ, CARAT_DUMP=dump, CARAT_CONTEXT=str(context))
    return subprocess.run([tool, "-m", model, *arguments, "-c", str(context), "-t", "1"],
                          check=True, capture_output=True, text=True, env=environment).stdout


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    for name in ("carat", "llama", "build", "out"):
        parser.add_argument(name)
    parser.add_argument("--teacher")
    parser.add_argument("--candidate")
    parser.add_argument("--text")
    parser.add_argument("--context", type=int, default=36)
    parser.add_argument("--chunks", type=int, default=6)
    parser.add_argument("--all", action="store_true")
    a = parser.parse_args()
    os.makedirs(a.out, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tool = link_tool(a.llama, a.build, folder)
        teacher, candidate, text = a.teacher, a.candidate, a.text
        if not teacher:
            teacher, candidate, text = (f"{folder}/{n}" for n in ("f32.gguf", "q5.gguf", "text"))
            source = f"{folder}/source"
            for command in ((a.carat, "synth", "tiny", source, "--format", "hf", "--type", "bf16"),
                            (a.carat, "convert", source, teacher, "--to", "gguf", "--recipe", "f32"),
                            (a.carat, "convert", source, candidate, "--to", "gguf", "--recipe",
                             "q5_0", "--accept", "rounded-weights")):
                subprocess.run(command, check=True, capture_output=True)
            with open(text, "w") as f:
                f.write(TEXT)
        base = os.path.join(a.out, "base.kld")
        arguments = ["-f", text, "--chunks", str(a.chunks), "--kl-divergence-base", base]
        dumps = [f"{folder}/base.f32", f"{folder}/candidate.f32"]
        run(tool, teacher, arguments, dumps[0], a.context)
        printed = run(tool, candidate, [*arguments, "--kl-divergence"], dumps[1], a.context)
        with open(dumps[0], "rb") as f:
            logits = f.read()
        with open(os.path.join(a.out, "base.f32"), "wb") as f:
            f.write(logits if a.all else logits[:len(logits) // a.chunks])
        shutil.move(dumps[1], os.path.join(a.out, "candidate.f32"))
        with open(os.path.join(a.out, "expected.txt"), "w") as f:
            f.write(printed[re.search(r"^   1  ", printed, re.M).start():])


if __name__ == "__main__":
    main()
