// Holds what carat writes beside text models, drafters and mmproj files, and all GGUF files that it
// converts, against other readers.
//
// usage: node referee_parts.mjs CARAT FOLDER [LLAMA_MTMD_CLI]
//
// - Every GGUF file: @huggingface/gguf and gguf.mjs find the same metadata and the same tensors in
//   it, and each tensor begins behind the one before.
// - Drafters: llama.cpp loads them, with all their bytes.
// - mmproj: each value is where llama.cpp's multimodal tool looks for it, computed here from the
//   safetensors file it was converted from; node-llama-cpp does not offer that tool. With
//   LLAMA_MTMD_CLI, a build of it, it must read an image and a sound with each.
import {spawnSync} from "node:child_process";
import {writeFileSync} from "node:fs";
import {deflateSync, crc32} from "node:zlib";

import {Gguf} from "./gguf.mjs";
import {Referee} from "./harness.mjs";
import {Safetensors} from "./safetensors.mjs";

const referee = new Referee(process.argv[2], process.argv[3]);
const mtmd = process.argv[4];

function same(a, b) { return JSON.stringify(a) === JSON.stringify(b); }

// Both readers' metadata and lists of tensors; returns gguf.mjs's.
function readTwice(path) {
  const ours = new Gguf(path);
  const hub = JSON.parse(referee.peer("hub.mjs", [path]));
  const list = (tensors) => tensors.map(({name, dims, type, offset}) => [name, dims, type, offset]);
  referee.check(same(list(ours.tensors), list(hub.tensors)), `${path}: the readers disagree`);
  const {version, tensor_count: nTensors, kv_count: nKeys, ...theirs} = hub.metadata;
  referee.check(same([version, nTensors, nKeys], [3, ours.tensors.length, ours.nKeys]),
                `${path}: the head says ${version}, ${nTensors}, ${nKeys}`);
  const mine = JSON.parse(JSON.stringify(ours.metadata));
  for (const key of new Set([...Object.keys(mine), ...Object.keys(theirs)])) {
    referee.check(same(mine[key], theirs[key]), `${path}: the readers disagree about ${key}`);
  }
  const end = new DataView(ours.view.buffer).byteLength - ours.dataBegin;
  ours.tensors.forEach((tensor, i) => {
    const next = i + 1 < ours.tensors.length ? ours.tensors[i + 1].offset : end;
    const bytes = ours.bytes(tensor);
    const padded = Math.ceil(bytes / ours.alignment) * ours.alignment;
    referee.check(next - tensor.offset === bytes || next - tensor.offset === padded,
                  `${path}: ${tensor.name} has ${bytes} bytes, the next begins after ` +
                      `${next - tensor.offset}`);
  });
  return ours;
}

function synth(size, name, options = []) {
  const path = referee.path(name);
  referee.carat(["synth", size, path, "--force", ...options]);
  return path;
}

function convert(from, name, format, options = []) {
  const path = referee.path(name);
  referee.carat(["convert", from, path, "--to", format, "--force", ...options]);
  return path;
}

function checkDrafter(kind) {
  const folder = synth(`${kind}-assistant`, `${kind}-drafter`, ["--format", "hf"]);
  for (const format of ["gguf-q4_0", "gguf-bf16"]) {
    const path = convert(folder, `${kind}-drafter-${format}.gguf`, format);
    const file = readTwice(path);
    const loaded = JSON.parse(referee.peer("load.mjs", [path]).trim().split("\n").at(-1));
    referee.check(loaded.architecture === "gemma4-assistant", `${path}: ${loaded.architecture}`);
    const bytes = new DataView(file.view.buffer).byteLength - file.dataBegin;
    referee.check(Math.abs(loaded.tensorBytes - bytes) < 64 * file.tensors.length,
                  `${path}: llama.cpp loads ${loaded.tensorBytes} of ${bytes} bytes`);
    const matrix = file.tensors.find((t) => t.name === "nextn.pre_projection.weight");
    referee.check(matrix.type === (format === "gguf-q4_0" ? 2 : 30), `${path}: type ${matrix.type}`);
    const source = new Safetensors(folder).values("pre_projection.weight");
    const word = new Float32Array(1);
    const bits = new Uint32Array(word.buffer);
    const toBf16 = (x) => {  // nearest, ties to even; what a bf16 checkpoint would hold
      word[0] = x;
      bits[0] = (bits[0] + 0x7fff + ((bits[0] >>> 16) & 1)) & 0xffff0000;
      return word[0];
    };
    const differ = file.values(matrix).reduce((n, v, i) => n + (toBf16(v) !== source[i]), 0);
    referee.check(differ === 0, `${path}: ${differ} values of nextn.pre_projection differ`);
  }
}

// One tensor: its mmproj value `i` is value `from(i)` of the safetensors tensor, through `f`.
function checkValues(mmproj, source, gguf, hf, from = (i) => i, f = (x) => x) {
  const tensor = mmproj.tensors.find((t) => t.name === gguf);
  referee.check(tensor !== undefined && source.header[hf] !== undefined, `${gguf} or ${hf} missing`);
  if (!tensor || !source.header[hf]) return;
  const values = mmproj.values(tensor);
  const expected = source.values(hf);
  referee.check(values.length === expected.length, `${gguf}: ${values.length} values`);
  let worst = 0;
  for (let i = 0; i < values.length; ++i) {
    const want = f(expected[from(i)]);
    worst = Math.max(worst, Math.abs(values[i] - want) / (Math.abs(want) || 1));
  }
  referee.check(worst <= 1e-6, `${gguf}: off by ${worst}`);
}

// Index in row, column, colour order of place i in colour, row, column order.
function pixel(i, side) {
  const colour = Math.floor(i / (side * side));
  const place = i % (side * side);
  return place * 3 + colour;
}
function inRows(side) {
  const n = 3 * side * side;
  return (i) => Math.floor(i / n) * n + pixel(i % n, side);
}

function checkLayered(mmproj, source) {
  const vision = "model.vision_tower.";
  const audio = "model.audio_tower.";
  const check = (...rest) => checkValues(mmproj, source, ...rest);
  check("v.patch_embd.weight", `${vision}patch_embedder.input_proj.weight`, inRows(16));
  check("v.position_embd.weight", `${vision}patch_embedder.position_embedding_table`);
  check("mm.input_projection.weight", "model.embed_vision.embedding_projection.weight");
  check("mm.a.input_projection.weight", "model.embed_audio.embedding_projection.weight");
  for (const n of [0, 1]) {
    check(`v.blk.${n}.attn_out.weight`,
          `${vision}encoder.layers.${n}.self_attn.o_proj.linear.weight`);
    check(`v.blk.${n}.ffn_down.output_min`, `${vision}encoder.layers.${n}.mlp.down_proj.output_min`);
    check(`v.blk.${n}.ln2.weight`, `${vision}encoder.layers.${n}.pre_feedforward_layernorm.weight`);
    const layer = `${audio}layers.${n}.`;
    check(`a.blk.${n}.per_dim_scale.weight`, `${layer}self_attn.per_dim_scale`, (i) => i,
          (x) => Math.log1p(Math.exp(x)));
    check(`a.blk.${n}.conv_norm.weight`, `${layer}lconv1d.pre_layer_norm.weight`);
    check(`a.blk.${n}.norm_conv.weight`, `${layer}lconv1d.conv_norm.weight`);
    check(`a.blk.${n}.conv_dw.weight`, `${layer}lconv1d.depthwise_conv1d.weight`);
    check(`a.blk.${n}.ffn_up_1.weight`, `${layer}feed_forward2.ffw_layer_1.linear.weight`);
    check(`a.blk.${n}.ffn_down.input_max`, `${layer}feed_forward1.ffw_layer_2.input_max`);
    check(`a.blk.${n}.ln2.weight`, `${layer}norm_out.weight`);
  }
  check("a.conv1d.1.weight", `${audio}subsample_conv_projection.layer1.conv.weight`);
  check("a.pre_encode.out.bias", `${audio}output_proj.bias`);
}

function checkUnified(mmproj, source) {
  const embedder = "model.vision_embedder.";
  const check = (...rest) => checkValues(mmproj, source, ...rest);
  check("v.patch_embd.weight", `${embedder}patch_dense.weight`, inRows(48));
  check("v.patch_norm.1.weight", `${embedder}patch_ln1.weight`, inRows(48));
  check("v.patch_norm.3.bias", `${embedder}pos_norm.bias`);
  const [positions, , dim] = source.shape(`${embedder}pos_embedding`);
  check("v.position_embd.weight", `${embedder}pos_embedding`, (i) => {
    const axis = Math.floor(i / (positions * dim));
    const rest = i % (positions * dim);
    return (Math.floor(rest / dim) * 2 + axis) * dim + (rest % dim);
  });
  check("mm.a.input_projection.weight", "model.embed_audio.embedding_projection.weight");
}

function checkTowers(kind) {
  const folder = synth(`${kind}-mmproj`, `${kind}-towers`, ["--format", "hf"]);
  const path = convert(folder, `${kind}-mmproj.gguf`, "mmproj-bf16");
  const mmproj = readTwice(path);
  const source = new Safetensors(folder);
  referee.check(mmproj.tensors.length === source.names().length, `${path}: tensors`);
  (kind === "tinykv" ? checkUnified : checkLayered)(mmproj, source);
  const back = new Safetensors(convert(path, `${kind}-towers-back`, "hf-bf16"));
  for (const name of source.names()) {
    referee.check(back.header[name] && same([...source.values(name)], [...back.values(name)]),
                  `${kind}: ${name} does not come back`);
  }
  if (mtmd) runMtmd(kind, path);
}

// -- llama.cpp's multimodal tool ------------------------------------------------------------------

function png(width, height) {
  const chunk = (type, data) => {
    const body = Buffer.concat([Buffer.from(type), data]);
    const out = Buffer.alloc(body.length + 8);
    out.writeUInt32BE(data.length);
    body.copy(out, 4);
    out.writeUInt32BE(crc32(body), body.length + 4);
    return out;
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8);
  const rows = Buffer.alloc(height * (1 + 3 * width), 90);
  for (let y = 0; y < height; ++y) rows[y * (1 + 3 * width)] = 0;
  return Buffer.concat([Buffer.from("89504e470d0a1a0a", "hex"), chunk("IHDR", header),
                        chunk("IDAT", deflateSync(rows)), chunk("IEND", Buffer.alloc(0))]);
}

function wav(samples) {
  const out = Buffer.alloc(44 + 2 * samples);
  out.write("RIFF\0\0\0\0WAVEfmt ", 0, "latin1");
  out.writeUInt32LE(36 + 2 * samples, 4);
  for (const [at, v] of [[16, 16], [24, 16000], [28, 32000], [40, 2 * samples]])
    out.writeUInt32LE(v, at);
  for (const [at, v] of [[20, 1], [22, 1], [32, 2], [34, 16]]) out.writeUInt16LE(v, at);
  out.write("data", 36, "latin1");
  for (let i = 0; i < samples; ++i) out.writeInt16LE(Math.round(8000 * Math.sin(i / 10)), 44 + 2 * i);
  return out;
}

function runMtmd(kind, mmproj) {
  const model = synth(kind, `${kind}.gguf`);
  writeFileSync(referee.path("image.png"), png(96, 144));
  writeFileSync(referee.path("sound.wav"), wav(16000));
  for (const media of [["--image", "image.png"], ["--audio", "sound.wav"]]) {
    const run = spawnSync(mtmd, ["-m", model, "--mmproj", mmproj, media[0], referee.path(media[1]),
                                 "-p", "hi <__media__>", "-n", "2", "-t", "2", "--no-warmup",
                                 "--chat-template", "gemma"], {encoding: "utf8", timeout: 240_000});
    referee.check(run.status === 0 && run.stderr.includes("encoding done"),
                  `${kind} ${media[0]}: exit ${run.status ?? run.signal}\n${run.stderr?.slice(-600)}`);
  }
}

for (const kind of ["tiny", "tinykv"]) {
  referee.run(`${kind} drafter`, () => checkDrafter(kind));
  referee.run(`${kind} mmproj`, () => checkTowers(kind));
}
for (const kind of ["tiny", "tinykv", "tinymoe"]) {
  referee.run(`${kind} converted`, () => {
    const folder = synth(kind, `${kind}-hf`, ["--format", "hf"]);
    for (const format of ["gguf-q4_0", "gguf-google", "gguf-bf16"])
      readTwice(convert(folder, `${kind}-${format}.gguf`, format));
  });
}

process.exit(referee.finish());
