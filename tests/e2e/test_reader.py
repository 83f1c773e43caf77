"""What the program writes, read by reader.py, which knows the formats and nothing of the program."""

import unittest

import reader
from harness import CaratTest

TYPES = ["f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "iq4_xs", "q2_k",
         "q3_k", "q4_k", "q5_k", "q6_k"]
SIZES = ["tiny", "tinymoe", "tinykv"]
CODED = ["w4a16-ct", "mobile-transformers", "mobile-ct"]


class Reader(CaratTest):
    def same_after_bf16(self, a, b):
        """Both give the same bfloat16 values under the same names."""
        self.assertEqual(set(a), set(b))
        for name, (shape, values) in a.items():
            self.assertEqual(shape, b[name][0], name)
            self.assertEqual(reader.round_bf16(values), reader.round_bf16(b[name][1]), name)

    def test_every_block_type_means_the_same(self):
        for kind in TYPES:
            with self.subTest(kind):
                coded, plain = self.folder / f"{kind}.gguf", self.folder / f"{kind}-bf16.gguf"
                self.ok("synth", "tiny", coded, "--type", kind)
                self.ok("convert", coded, plain, "--to", "gguf-bf16", "--accept", "rounded-weights")
                a, b = reader.Gguf(coded), reader.Gguf(plain)
                self.assertEqual(set(a.tensors), set(b.tensors))
                seen = set()
                for name, (a_type, shape) in a.tensors.items():
                    b_type, b_shape = b.tensors[name]
                    self.assertEqual(shape, b_shape)
                    if b_type == "BF16" and (a_type not in seen or name.startswith("blk.0.attn_k")):
                        seen.add(a_type)
                        self.assertEqual(reader.round_bf16(a.values(name)),
                                         reader.round_bf16(b.values(name)), name)
                self.assertIn(kind.upper(), seen)

    def test_bf16_and_q4_0_hold_the_same(self):
        for size in SIZES:
            with self.subTest(size):
                source = self.folder / size
                self.ok("synth", size, source, "--format", "hf")
                expected = reader.weights(source)
                for target, to in ((f"{size}.gguf", "gguf-q4_0"), (f"{size}-back", "hf-bf16")):
                    out = self.folder / target
                    came_from = source if to == "gguf-q4_0" else self.folder / f"{size}.gguf"
                    self.ok("convert", came_from, out, "--to", to)
                    self.same_after_bf16(expected, reader.weights(out))
                gguf = reader.Gguf(self.folder / f"{size}.gguf")
                self.check_gguf(gguf)
                kinds = {kind for kind, _ in gguf.tensors.values()}
                self.assertEqual(kinds, {"Q4_0", "F32"})
                self.check_recipe(self.folder / size, expected)

    def check_gguf(self, gguf):
        """The metadata of published files, types included."""
        wanted = {"general.architecture": 8, "general.file_type": 4, "gemma4.block_count": 4,
                  "gemma4.context_length": 4, "gemma4.embedding_length": 4,
                  "gemma4.attention.key_length": 4, "gemma4.attention.value_length": 4,
                  "gemma4.attention.key_length_swa": 4, "gemma4.attention.value_length_swa": 4,
                  "gemma4.attention.layer_norm_rms_epsilon": 6, "gemma4.rope.freq_base": 6,
                  "gemma4.rope.freq_base_swa": 6, "gemma4.final_logit_softcapping": 6,
                  "gemma4.attention.sliding_window": 4, "gemma4.attention.shared_kv_layers": 4,
                  "gemma4.attention.sliding_window_pattern": 9, "gemma4.rope.dimension_count": 4,
                  "gemma4.rope.dimension_count_swa": 4,
                  "gemma4.embedding_length_per_layer_input": 4, "tokenizer.ggml.model": 8,
                  "tokenizer.ggml.tokens": 9, "tokenizer.ggml.merges": 9}
        for key, kind in wanted.items():
            self.assertEqual(gguf.types.get(key), kind, key)
        self.assertEqual(gguf.fields["general.architecture"], "gemma4")
        self.assertEqual(gguf.fields["tokenizer.ggml.model"], "gemma4")
        n = gguf.fields["gemma4.block_count"]
        self.assertEqual(len(gguf.fields["gemma4.attention.sliding_window_pattern"]), n)
        divisors = list(gguf.values("rope_freqs.weight"))
        turning = len(divisors) // 4
        self.assertEqual(divisors[:turning], [1.0] * turning)
        self.assertTrue(all(d > 9e29 for d in divisors[turning:]))

    def check_recipe(self, source, expected):
        """Google's mix: tables Q6_K, the per-layer projection F16, everything else exact."""
        out = self.folder / "google.gguf"
        self.ok("convert", source, out, "--to", "gguf-google", "--force")
        gguf = reader.Gguf(out)
        kinds = {name: kind for name, (kind, _) in gguf.tensors.items()}
        self.assertEqual(kinds["token_embd.weight"], "Q6_K")
        self.assertIn(kinds.get("per_layer_token_embd.weight", "Q6_K"), ("Q6_K", "Q8_0"))
        self.assertEqual(kinds.get("per_layer_model_proj.weight", "F16"), "F16")
        name = reader.TEXT + "layers.0.self_attn.q_proj.weight"
        self.assertEqual(reader.round_bf16(expected[name][1]),
                         reader.round_bf16(gguf.values("blk.0.attn_q.weight")))

    def test_coded_directories_obey_the_published_names(self):
        for kind in CODED:
            with self.subTest(kind):
                out = self.folder / kind
                self.ok("synth", "tiny", out, "--format", "hf", "--type", kind)
                directory = reader.Directory(out)
                config = directory.config["quantization_config"]
                method = "gemma" if kind == "mobile-transformers" else "compressed-tensors"
                self.assertEqual(config["quant_method"], method)
                modules = directory.modules()
                self.assertTrue(modules)
                for module, (codes, scales) in modules.items():
                    bits = directory.bits_of(module)
                    self.assertIn(bits, (2, 4, 8))
                    dtype = directory.tensors[codes][0]
                    scale_type = directory.tensors[scales][0]
                    if method == "gemma":
                        self.assertEqual(dtype, "I8" if bits == 8 else "U8")
                        self.assertEqual(scale_type, "F32")
                    else:
                        self.assertEqual(dtype, "I8" if bits == 8 else "I32")
                        self.assertEqual(scale_type, "BF16")
                    name = "layers.0.self_attn.k_proj"
                    if module.endswith(name):
                        shape, values = directory.codes(module)
                        self.assertLess(max(values), 1 << (bits - 1))
                        self.assertGreaterEqual(min(values), -(1 << (bits - 1)))
                        self.assertEqual(len(values), shape[0] * shape[1])
                q = reader.TEXT + "layers.0.self_attn.q_proj"
                self.assertIn(q, modules)
                table = reader.TEXT + "embed_tokens"
                self.assertEqual(table in modules, kind != "w4a16-ct")

    def test_codes_keep_their_values(self):
        """w4a16-ct to Q4_0 and to floats, of a dense model and a mixture."""
        for size in ("tiny", "tinymoe"):
            with self.subTest(size):
                coded = self.folder / f"{size}-ct"
                self.ok("synth", size, coded, "--format", "hf", "--type", "w4a16-ct")
                expected = reader.weights(coded)
                gguf, plain = self.folder / f"{size}.gguf", self.folder / f"{size}-hf"
                self.ok("convert", coded, gguf)
                for name, (shape, values) in reader.weights(gguf).items():
                    self.assertEqual(shape, expected[name][0], name)
                    self.assertEqual(values, expected[name][1], name)
                self.ok("convert", coded, plain, "--to", "hf-bf16")
                self.same_after_bf16(expected, reader.weights(plain))

    def test_mobile_kinds_hold_the_same_codes(self):
        source, ct, back = (self.folder / name for name in ("mobile", "ct", "back"))
        self.ok("synth", "tiny", source, "--format", "hf", "--type", "mobile-transformers")
        losses = "dropped-cache-scales,rounded-scales"
        self.ok("convert", source, ct, "--to", "mobile-ct", "--accept", losses)
        self.ok("convert", ct, back, "--to", "mobile-transformers")
        a, b, c = (reader.Directory(path) for path in (source, ct, back))
        self.assertEqual(set(a.modules()), set(b.modules()))
        self.assertEqual(set(a.modules()), set(c.modules()))
        for module, (_, scales) in a.modules().items():
            self.assertEqual(a.codes(module), b.codes(module), module)
            self.assertEqual(a.codes(module), c.codes(module), module)
            rounded = reader.round_bf16(a.values(scales))
            self.assertEqual(rounded, reader.round_bf16(b.values(b.modules()[module][1])), module)
            self.assertEqual(b.values(b.modules()[module][1]), c.values(c.modules()[module][1]))
            for mobile, compressed in (("input_activation_scale", "input_scale"),
                                       ("output_activation_scale", "output_scale")):
                stated = a.scalar(f"{module}.{mobile}")
                kept = b.scalar(f"{module}.{compressed}")
                self.assertEqual(stated or None, kept, f"{module}: only what is not zero")
                self.assertEqual(stated, c.scalar(f"{module}.{mobile}"), module)

    def test_lattice_becomes_w4a16(self):
        source, gguf, ct = self.folder / "hf", self.folder / "a.gguf", self.folder / "ct"
        self.ok("synth", "tinykv", source, "--format", "hf")
        self.ok("convert", source, gguf)
        self.ok("convert", source, ct, "--to", "w4a16-ct", "--accept",
                "rounded-scales,rounded-weights")
        self.assertTrue([m for m in reader.Directory(ct).modules() if m.endswith("0.mlp.up_proj")])
        values = reader.Gguf(gguf).values("blk.0.attn_q.weight")
        dequantized = reader.weights(ct)[reader.TEXT + "layers.0.self_attn.q_proj.weight"][1]
        self.assertEqual(len(values), len(dequantized))
        for x, y in zip(values, dequantized):
            self.assertLessEqual(abs(x - y), abs(x) / 250)  # half a step of bfloat16


if __name__ == "__main__":
    unittest.main()
