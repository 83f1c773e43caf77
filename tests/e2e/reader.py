"""Reads checkpoints of every kind, as a second opinion: written from the formats' description in
Python's standard library alone, and from nothing of carat's code.

    Gguf(path)         .fields, .tensors {name: (type, shape)}, .values(name)
    Directory(path)    .config, .files, .tensors {name: (dtype, shape)}, .raw(name), .values(name),
                       .modules() of coded checkpoints
    weights(path)      {name as in Hugging Face's bfloat16 files: (shape, floats)} of any of them

Shapes are slowest dimension first; floats are an array of doubles that hold float32 exactly.
"""

import array
import json
import math
import pathlib
import re
import struct

TEXT = "model.language_model."


# ---------------------------------------------------------------------------------- numbers

def half(bits):
    return struct.unpack("<e", struct.pack("<H", bits))[0]


HALF = [half(i) for i in range(65536)]


def bf16(bits):
    return struct.unpack("<f", struct.pack("<I", bits << 16))[0]


def to_f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def round_bf16(values):
    """The bits of each value after rounding to bfloat16, to even; both zeros are 0."""
    out = array.array("H")
    for u in array.array("I", struct.pack(f"<{len(values)}f", *values)):
        r = (u + 0x7FFF + ((u >> 16) & 1)) >> 16
        out.append(0 if r == 0x8000 else r)
    return out


# ---------------------------------------------------------------------------------- GGML blocks

NIBBLES = [(b & 15, b >> 4) for b in range(256)]
IQ4 = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
FP4 = [0, .5, 1, 1.5, 2, 3, 4, 6, -0.0, -.5, -1, -1.5, -2, -3, -4, -6]


def low_then_high(qs):
    return [b & 15 for b in qs] + [b >> 4 for b in qs]


def u16(b, at):
    return b[at] | b[at + 1] << 8


def h(b, at):
    return HALF[u16(b, at)]


def q4_0(b):
    d = h(b, 0)
    return [d * (n - 8) for n in low_then_high(b[2:18])]


def q4_1(b):
    d, m = h(b, 0), h(b, 2)
    return [to_f32(d * n + m) for n in low_then_high(b[4:20])]


def fifth(qh, nibbles):
    bits = int.from_bytes(qh, "little")
    return [n | (bits >> j & 1) << 4 for j, n in enumerate(nibbles)]


def q5_0(b):
    d = h(b, 0)
    return [d * (n - 16) for n in fifth(b[2:6], low_then_high(b[6:22]))]


def q5_1(b):
    d, m = h(b, 0), h(b, 2)
    return [to_f32(d * n + m) for n in fifth(b[4:8], low_then_high(b[8:24]))]


def q8_0(b):
    d = h(b, 0)
    return [d * q for q in struct.unpack("32b", b[2:34])]


def iq4_nl(b):
    d = h(b, 0)
    return [d * IQ4[n] for n in low_then_high(b[2:18])]


def mxfp4(b):
    d = 2.0 ** (b[0] - 127)
    return [d * FP4[n] for n in low_then_high(b[1:17])]


def q2_k(b):
    scales, qs, d, dmin = b[:16], b[16:80], h(b, 80), h(b, 82)
    out = []
    for half_ in range(2):
        for s in range(4):
            for l in range(32):
                sc = scales[8 * half_ + 2 * s + l // 16]
                q = qs[32 * half_ + l] >> 2 * s & 3
                out.append(to_f32(d * (sc & 15) * q - dmin * (sc >> 4)))
    return out


def q3_k(b):
    hmask, qs, packed, d = b[:32], b[32:96], b[96:108], h(b, 108)
    scales = []
    for i in range(16):
        low = packed[i] & 15 if i < 8 else packed[i - 8] >> 4
        high = packed[8 + i % 4] >> 2 * (i // 4) & 3
        scales.append((low | high << 4) - 32)
    out = []
    for half_ in range(2):
        for s in range(4):
            for l in range(32):
                q = qs[32 * half_ + l] >> 2 * s & 3
                if not hmask[l] >> (4 * half_ + s) & 1:
                    q -= 4
                out.append(to_f32(d * scales[8 * half_ + 2 * s + l // 16] * q))
    return out


def k_scales(b):
    """The eight pairs of scale and minimum that Q4_K and Q5_K pack into 12 bytes."""
    pairs = []
    for j in range(8):
        if j < 4:
            pairs.append((b[j] & 63, b[j + 4] & 63))
        else:
            pairs.append(((b[j + 4] & 15) | (b[j - 4] >> 6) << 4,
                          (b[j + 4] >> 4) | (b[j] >> 6) << 4))
    return pairs


def q4_k(b):
    d, dmin, scales, qs = h(b, 0), h(b, 2), k_scales(b[4:16]), b[16:144]
    out = []
    for j, (sc, m) in enumerate(scales):
        for l in range(32):
            n = NIBBLES[qs[32 * (j // 2) + l]][j & 1]
            out.append(to_f32(d * sc * n - dmin * m))
    return out


def q5_k(b):
    d, dmin, scales, qh, qs = h(b, 0), h(b, 2), k_scales(b[4:16]), b[16:48], b[48:176]
    out = []
    for j, (sc, m) in enumerate(scales):
        for l in range(32):
            n = NIBBLES[qs[32 * (j // 2) + l]][j & 1] | (qh[l] >> j & 1) << 4
            out.append(to_f32(d * sc * n - dmin * m))
    return out


def q6_k(b):
    d = h(b, 208)
    scales = struct.unpack("16b", b[192:208])
    out = [0.0] * 256
    for half_ in range(2):
        ql, qh = b[64 * half_:64 * half_ + 64], b[128 + 32 * half_:128 + 32 * half_ + 32]
        for l in range(32):
            codes = ((ql[l] & 15) | (qh[l] & 3) << 4, (ql[l + 32] & 15) | (qh[l] >> 2 & 3) << 4,
                     (ql[l] >> 4) | (qh[l] >> 4 & 3) << 4, (ql[l + 32] >> 4) | (qh[l] >> 6) << 4)
            for k, e in enumerate(codes):
                sc = scales[8 * half_ + 2 * k + l // 16]
                out[128 * half_ + 32 * k + l] = to_f32(d * sc * (e - 32))
    return out


def iq4_xs(b):
    d, high = h(b, 0), u16(b, 2)
    out = []
    for i in range(8):
        s = (b[4 + i // 2] >> 4 * (i % 2) & 15) | (high >> 2 * i & 3) << 4
        out += [to_f32(d * (s - 32) * IQ4[n]) for n in low_then_high(b[8 + 16 * i:24 + 16 * i])]
    return out


# id: name, elements and bytes of a block, decoder
GGML = {0: ("F32", 1, 4, None), 1: ("F16", 1, 2, None), 30: ("BF16", 1, 2, None),
        2: ("Q4_0", 32, 18, q4_0), 3: ("Q4_1", 32, 20, q4_1), 6: ("Q5_0", 32, 22, q5_0),
        7: ("Q5_1", 32, 24, q5_1), 8: ("Q8_0", 32, 34, q8_0), 20: ("IQ4_NL", 32, 18, iq4_nl),
        39: ("MXFP4", 32, 17, mxfp4), 10: ("Q2_K", 256, 84, q2_k), 11: ("Q3_K", 256, 110, q3_k),
        12: ("Q4_K", 256, 144, q4_k), 13: ("Q5_K", 256, 176, q5_k), 14: ("Q6_K", 256, 210, q6_k),
        23: ("IQ4_XS", 256, 136, iq4_xs)}


def floats_of(kind, data):
    if kind == "F32":
        return array.array("d", struct.unpack(f"<{len(data) // 4}f", data))
    if kind == "F16":
        return array.array("d", (HALF[u] for u in array.array("H", data)))
    if kind == "BF16":
        wide = b"".join(b"\0\0" + data[i:i + 2] for i in range(0, len(data), 2))
        return array.array("d", struct.unpack(f"<{len(data) // 2}f", wide))
    raise ValueError(kind)


# ---------------------------------------------------------------------------------- GGUF

class Gguf:
    SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?",
               10: "<Q", 11: "<q", 12: "<d"}

    def __init__(self, path):
        self.data = pathlib.Path(path).read_bytes()
        self.at = 0
        magic, version, n_tensors, n_fields = self.take("<IIqq")
        assert magic == 0x46554747 and version == 3, (hex(magic), version)
        self.fields, self.types = {}, {}
        for _ in range(n_fields):
            key, kind = self.text(), self.take("<I")[0]
            assert key not in self.fields, key
            self.types[key] = kind
            self.fields[key] = self.value(kind)
        infos = []
        for _ in range(n_tensors):
            name = self.text()
            assert len(name.encode()) < 64, name
            ne = [self.take("<q")[0] for _ in range(self.take("<I")[0])]
            kind, offset = self.take("<iQ")
            infos.append((name, kind, ne, offset))
        alignment = self.fields.get("general.alignment", 32)
        data_at = -(-self.at // alignment) * alignment
        self.tensors, self.places = {}, {}
        running = 0
        for name, kind, ne, offset in infos:
            assert name not in self.tensors, name
            assert offset == running, f"{name}: ggml wants the running padded sum"
            type_name, elements, size, _ = GGML[kind]
            n = math.prod(ne)
            assert ne[0] % elements == 0, name
            n_bytes = n // elements * size
            running = -(-(offset + n_bytes) // alignment) * alignment
            self.tensors[name] = (type_name, tuple(reversed(ne)))
            self.places[name] = (kind, data_at + offset, n_bytes)
        assert len(self.data) == data_at + running, "the last tensor is padded too"

    def take(self, form):
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return values

    def text(self):
        n = self.take("<Q")[0]
        self.at += n
        return self.data[self.at - n:self.at].decode()

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            inner, n = self.take("<IQ")
            assert inner != 9
            return [self.value(inner) for _ in range(n)]
        return self.take(self.SCALARS[kind])[0]

    def values(self, name):
        kind, at, n = self.places[name]
        type_name, _, size, decode = GGML[kind]
        data = self.data[at:at + n]
        if decode is None:
            return floats_of(type_name, data)
        out = array.array("d")
        for i in range(0, n, size):
            out.extend(decode(data[i:i + size]))
        return out


# ---------------------------------------------------------------------------------- directories

SIZES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I8": 1, "U8": 1}


class Directory:
    def __init__(self, path):
        path = pathlib.Path(path)
        self.config = json.loads((path / "config.json").read_text())
        index = path / "model.safetensors.index.json"
        listed = json.loads(index.read_text())["weight_map"] if index.exists() else None
        self.files = sorted(set(listed.values())) if listed else ["model.safetensors"]
        self.tensors, self.bytes = {}, {}
        total = 0
        for file in self.files:
            data = (path / file).read_bytes()
            size, = struct.unpack_from("<Q", data)
            header = json.loads(data[8:8 + size])
            assert header.pop("__metadata__") == {"format": "pt"}
            end = 0
            for name, t in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
                a, b = t["data_offsets"]
                assert a == end, f"{name}: no holes"
                end = b
                assert b - a == math.prod(t["shape"]) * SIZES[t["dtype"]], name
                assert a % SIZES[t["dtype"]] == 0, f"{name}: alignment"
                assert name not in self.tensors
                assert listed is None or listed[name] == file
                self.tensors[name] = (t["dtype"], tuple(t["shape"]))
                self.bytes[name] = data[8 + size + a:8 + size + b]
            assert 8 + size + end == len(data)
            total += end
        if listed:
            assert set(listed) == set(self.tensors)
            assert json.loads(index.read_text())["metadata"]["total_size"] == total

    def values(self, name):
        return floats_of(self.tensors[name][0], self.bytes[name])

    def raw(self, name):
        """The tensor's integers."""
        form = {"I64": "q", "I32": "i", "I8": "b", "U8": "B"}[self.tensors[name][0]]
        return array.array(form, self.bytes[name])

    def scalar(self, name):
        return self.values(name)[0] if name in self.tensors else None

    # Names that a module's tensors have: suffix of the codes, of the scales. The last is that of
    # experts, which have no ".weight".
    FORMS = ((".embedding_quantized", ".embedding_scale"), (".weight_packed", ".weight_scale"),
             (".weight", ".weight_scale"), ("_packed", "_scale"))

    def modules(self):
        """{module: (codes' name, scales' name)} of everything that is stored as codes."""
        found = {}
        for name in self.tensors:
            for codes, scales in self.FORMS:
                if name.endswith(codes):
                    module = name.removesuffix(codes)
                    if module + scales in self.tensors:
                        found[module] = (name, module + scales)
                    break
        return found

    def bits_of(self, module):
        """Bits of a code, as the quantization_config says."""
        q = self.config["quantization_config"]
        if q["quant_method"] == "gemma":
            for pattern, entry in q["module_quant_configs"].items():
                if re.search(pattern, module):
                    return entry["num_bits"]
            return q["num_bits"]
        for group in q["config_groups"].values():
            for target in group["targets"]:
                named = target.startswith("re:") and re.match(target[3:], module)
                if named or target == module:
                    return group["weights"]["num_bits"]
        for group in q["config_groups"].values():
            if "Linear" in group["targets"]:
                return group["weights"]["num_bits"]
        raise AssertionError(f"{module} is stored as codes but in no group")

    def codes(self, module):
        """(shape, codes) of a module, with the bias taken off."""
        codes_name, _ = self.modules()[module]
        dtype, shape = self.tensors[codes_name]
        bits = self.bits_of(module)
        raw = self.raw(codes_name)
        if dtype == "I8":
            assert bits == 8, module
            return shape, list(raw)
        word = {"U8": 8, "I32": 32}[dtype]
        per, mask, bias = word // bits, (1 << bits) - 1, 1 << (bits - 1)
        columns = shape[-1] * per
        if codes_name.endswith("_packed"):
            stated = list(self.raw(codes_name.removesuffix("_packed") + "_shape"))
            columns = stated[-1]
            assert shape[-1] == -(-columns // per), module
            assert tuple(stated[:-1]) == shape[:-1], module
        out = []
        for row in range(len(raw) // shape[-1]):
            line = []
            for w in raw[row * shape[-1]:(row + 1) * shape[-1]]:
                line += [(w >> bits * j & mask) - bias for j in range(per)]
            out += line[:columns]
            assert all(c == -bias for c in line[columns:]), f"{module}: padding bits are zero"
        return shape[:-1] + (columns,), out

    def dequantized(self, module):
        """(shape, floats): a scale belongs to an equal share of its row's columns."""
        shape, codes = self.codes(module)
        scales = self.values(self.modules()[module][1])
        span = len(codes) // len(scales)
        assert span * len(scales) == len(codes) and shape[-1] % span == 0, module
        return shape, array.array("d", (to_f32(q * scales[i // span])
                                        for i, q in enumerate(codes)))


# ---------------------------------------------------------------------------------- names

LAYER = {"attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm",
         "ffn_norm": "pre_feedforward_layernorm", "post_ffw_norm": "post_feedforward_layernorm",
         "pre_ffw_norm_2": "pre_feedforward_layernorm_2",
         "post_ffw_norm_1": "post_feedforward_layernorm_1",
         "post_ffw_norm_2": "post_feedforward_layernorm_2",
         "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
         "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj", "ffn_gate_inp": "router.proj",
         "inp_gate": "per_layer_input_gate", "proj": "per_layer_projection",
         "post_norm": "post_per_layer_input_norm"}
WHOLE = {"token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight",
         "per_layer_token_embd.weight": "embed_tokens_per_layer.weight",
         "per_layer_model_proj.weight": "per_layer_model_projection.weight",
         "per_layer_proj_norm.weight": "per_layer_projection_norm.weight"}
ODD = {"ffn_gate_inp.scale": "router.scale", "ffn_down_exps.scale": "router.per_expert_scale",
       "ffn_gate_up_exps.weight": "experts.gate_up_proj", "ffn_down_exps.weight": "experts.down_proj",
       "layer_output_scale.weight": "layer_scalar"}


def name_from_gguf(name):
    """As in Hugging Face's files; None for what only GGUF has."""
    if name == "rope_freqs.weight":
        return None
    if name == "output.weight":
        return "lm_head.weight"
    if name in WHOLE:
        return TEXT + WHOLE[name]
    _, layer, rest = name.split(".", 2)
    if rest in ODD:
        return f"{TEXT}layers.{layer}.{ODD[rest]}"
    return f"{TEXT}layers.{layer}.{LAYER[rest.removesuffix('.weight')]}.weight"


SUFFIXES = (".weight_scale", ".weight_shape", ".weight_packed", ".embedding_scale",
            "_proj_shape", ".embedding_quantized", ".input_activation_scale", ".output_activation_scale",
            ".input_scale", ".output_scale", ".k_cache_scale", ".v_cache_scale")


def weights(path):
    path = pathlib.Path(path)
    out = {}
    if path.is_dir():
        directory = Directory(path)
        coded = directory.modules()
        for module in coded:
            name = module if re.search(r"experts\.\w+$", module) else module + ".weight"
            out[name] = directory.dequantized(module)
        taken = {n for pair in coded.values() for n in pair}
        for name, (_, shape) in directory.tensors.items():
            if name not in taken and not name.endswith(SUFFIXES):
                out[name] = (shape, directory.values(name))
        if directory.config.get("model_type") == "gemma4_text":  # without towers: shorter names
            out = {re.sub(r"^model\.", TEXT, name): value for name, value in out.items()}
        return out
    gguf = Gguf(path)
    for name, (_, shape) in gguf.tensors.items():
        hf = name_from_gguf(name)
        if hf is not None:
            out[hf] = (shape, gguf.values(name))
    return out
