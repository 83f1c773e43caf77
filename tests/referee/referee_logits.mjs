// Holds carat's logits against llama.cpp's, for the three kinds of model and for the nano model.
//
// usage: node referee_logits.mjs CARAT FOLDER [PART]
//
// With PART only the comparisons whose names contain it run.
//
// With weights in F32 both compute in float: KLD(carat || llama.cpp) is at most 1e-6 at every
// position, and the squared error of the logits at most 1e-6 of their variance. forward.mjs, in
// double precision, judges more closely: carat's error is at most 1e-10. Where the first bound does
// not hold, forward.mjs with GELU in f16, as llama.cpp's table has it, must agree with llama.cpp
// within that bound: then the table is the difference, and it is not carat's.
//
// With quantized weights each rounds activations in its own way, so a third one judges: R is carat's
// float forward of the dequantized weights (dequantized by gguf.mjs), and KLD(R || carat) may be at
// most 1.25 times KLD(R || llama.cpp), over several random models: the mean for dense models, the median
// for mixtures, where one token that takes another expert outweighs all else. Both keep K and V
// in f32 then. Once more with the defaults, int8 in carat and f16 in llama.cpp, it may be 1.35 times.
import {existsSync, readdirSync, readFileSync, writeFileSync} from "node:fs";
import {basename, join} from "node:path";

import {forward} from "./forward.mjs";
import {Gguf, amplify, ggufToF32} from "./gguf.mjs";
import {Referee, root} from "./harness.mjs";
import {compare, logitRows} from "./peers.mjs";

const MAX_KLD_F32 = 1e-6;
const MAX_RATIO_QUANTIZED = 1.25;
const MAX_RATIO_DEFAULT = 1.35;
const MAX_ERROR_F32 = 1e-6;
const MAX_ERROR_DOUBLE = 1e-10;
const N_TOKENS = 128;  // longer than the tiny models' window

const referee = new Referee(process.argv[2], process.argv[3]);
const part = process.argv[4] ?? "";

function run(name, body) {
  if (name.includes(part)) referee.run(name, body);
}

// Token ids below `limit`, <bos> first, the same on every run.
function someTokens(limit, seed) {
  const tokens = [2];
  let state = seed;
  while (tokens.length < N_TOKENS) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    tokens.push(Math.floor((state / 2 ** 32) * limit));
  }
  return tokens.join(",");
}

function outFile(gguf, suffix) { return referee.path(basename(gguf) + suffix); }

function caratLogits(gguf, tokens, kv = "f32") {
  const out = outFile(gguf, `.carat-${kv}.f32`);
  referee.carat(["logits", gguf, "--tokens", tokens, "--out", out, "-t", "2", "--kv", kv]);
  return logitRows(readFileSync(out), N_TOKENS);
}

function peerLogits(gguf, tokens, options = []) {
  const out = outFile(gguf, ".llama.f32");
  referee.peer("logits.mjs", [gguf, "--tokens", tokens, "--out", out, ...options]);
  return logitRows(readFileSync(out), N_TOKENS);
}

function show(name, figures) {
  const short = (x) => x.toExponential(2);
  console.log(`  ${name}: KLD mean ${short(figures.mean_kld)} median ${short(figures.median_kld)} ` +
              `max ${short(figures.max_kld)}, error ${short(figures.normalized_squared_error)}, ` +
              `top-1 ${figures.top1_agreement.toFixed(3)}`);
}

function checkFloat(name, gguf, tokens) {
  const ours = caratLogits(gguf, tokens);
  const theirs = peerLogits(gguf, tokens);
  const figures = compare(ours, theirs);
  show(`${name}, carat || llama.cpp `, figures);
  referee.check(figures.normalized_squared_error <= MAX_ERROR_F32,
                `${name}: error ${figures.normalized_squared_error} is over ${MAX_ERROR_F32}`);

  const ids = tokens.split(",").map(Number);
  const judge = forward(gguf, ids);
  const error = compare(judge, ours);
  show(`${name}, double || carat    `, error);
  show(`${name}, double || llama.cpp`, compare(judge, theirs));
  const table = compare(forward(gguf, ids, {halfGelu: true}), theirs);
  show(`${name}, double with GELU in f16 || llama.cpp`, table);
  referee.check(Math.min(figures.max_kld, table.max_kld) <= MAX_KLD_F32,
                `${name}: max KLD ${figures.max_kld}, and with GELU in f16 ${table.max_kld}, ` +
                    `are over ${MAX_KLD_F32}`);
  referee.check(error.normalized_squared_error <= MAX_ERROR_DOUBLE,
                `${name}: error ${error.normalized_squared_error} is over ${MAX_ERROR_DOUBLE}`);
}

// `files` are GGUF files of one kind, `texts` token lists; all their positions are judged together.
// Each file must hold a tensor of the type with the GGUF id `type`.
function checkQuantized(name, files, texts, statistic, type = 2) {
  const judge = [];
  const ours = [];
  const small = [];
  const theirs = [];
  const theirDefault = [];
  for (const gguf of files) {
    const float = outFile(gguf, ".float.gguf");
    const types = ggufToF32(gguf, float);
    referee.check((types[type] ?? []).length > 0,
                  `${gguf}: no tensor is of type ${type}`);
    for (const tokens of texts) {
      judge.push(...caratLogits(float, tokens));
      ours.push(...caratLogits(gguf, tokens));
      small.push(...caratLogits(gguf, tokens, "int8"));
      theirs.push(...peerLogits(gguf, tokens));
      theirDefault.push(...peerLogits(gguf, tokens, ["--defaults"]));
    }
  }
  for (const [kv, carat, peer, limit] of [["f32", ours, theirs, MAX_RATIO_QUANTIZED],
                                          ["default", small, theirDefault, MAX_RATIO_DEFAULT]]) {
    const mine = compare(judge, carat);
    const other = compare(judge, peer);
    // Of weights in BF16, K and V in int8 are the whole error; they are judged with the others.
    if (type === 30 && kv === "default") continue;
    show(`${name}, K/V ${kv}, R || carat    `, mine);
    show(`${name}, K/V ${kv}, R || llama.cpp`, other);
    const ratio = mine[statistic] / other[statistic];
    referee.check(ratio <= limit,
                  `${name}, K/V ${kv}: ${statistic} is ${ratio.toFixed(3)} times llama.cpp's`);
  }
}

function synth(kind, type, seed) {
  const gguf = referee.path(`${kind}-${type}-${seed}.gguf`);
  referee.carat(["synth", kind, gguf, "--type", type, "--seed", String(seed), "--force"]);
  return gguf;
}

for (const kind of ["tiny", "tinymoe", "tinykv"]) {
  const tokens = someTokens(512, 7);
  run(`${kind} F32`, () => checkFloat(`${kind} F32`, synth(kind, "f32", 1), tokens));
  run(`${kind} Q4_0`, () => {
    const files = [1, 2, 3].map((seed) => synth(kind, "q4_0", seed));
    checkQuantized(`${kind} Q4_0`, files, [tokens], kind === "tinymoe" ? "median_kld" : "mean_kld");
  });
}

// Every other type, its name and its GGUF id.
const MORE_TYPES = [
  ["q4_k_m", 12], ["q5_k_m", 13], ["q6_k", 14], ["q8_0", 8], ["q4_1", 3], ["q5_0", 6], ["q5_1", 7],
  ["iq4_nl", 20], ["iq4_xs", 23], ["q2_k", 10], ["q3_k", 11],
];
for (const [type, id] of MORE_TYPES) {
  run(`tiny ${type}`, () => {
    const files = (type === "q4_k_m" ? [1, 2, 3] : [1]).map((seed) => synth("tiny", type, seed));
    checkQuantized(`tiny ${type}`, files, [someTokens(512, 7)], "mean_kld", id);
  });
}

// What `carat convert` makes of a model directory, by format and the GGUF id of most of its matrices.
for (const [kind, format, id, n] of [["tiny", "gguf-q4_0", 2, 1], ["tiny", "gguf-bf16", 30, 1],
                                     ["tinykv", "gguf-google", 2, 1],
                                     ["tinymoe", "gguf-q4_0", 2, 3]]) {
  run(`${kind} converted to ${format}`, () => {
    const files = Array.from({length: n}, (_, seed) => {
      const folder = referee.path(`${kind}-${seed}-hf`);
      referee.carat(["synth", kind, folder, "--format", "hf", "--seed", String(seed), "--force"]);
      const gguf = referee.path(`${kind}-${seed}-${format}.gguf`);
      referee.carat(["convert", folder, gguf, "--to", format, "--force"]);
      return gguf;
    });
    checkQuantized(`${kind} ${format}`, files, [someTokens(512, 7)],
                   kind === "tinymoe" ? "median_kld" : "mean_kld", id);
  });
}

// A recipe of several types, each for other tensors: the file must hold every one of them.
run("tiny converted by a recipe of several types", () => {
  const recipe = referee.path("mixed.json");
  writeFileSync(recipe, JSON.stringify({
    recipe: "q4_k_m",
    tensors: {"blk.*.attn_v.weight": "q8_0", "blk.*.attn_q.weight": "q5_1",
              "blk.0.ffn_*.weight": "iq4_nl", "token_embd.weight": "q6_k"},
  }));
  const files = [1, 2, 3].map((seed) => {
    const folder = referee.path(`tiny-${seed}-mixed-hf`);
    referee.carat(["synth", "tiny", folder, "--format", "hf", "--type", "bf16", "--seed",
                   String(seed), "--force"]);
    const gguf = referee.path(`tiny-${seed}-mixed.gguf`);
    referee.carat(["convert", folder, gguf, "--to", "gguf", "--recipe", recipe, "--force"]);
    return gguf;
  });
  for (const id of [8, 7, 20, 14]) {
    referee.check(new Gguf(files[0]).tensors.some(({type}) => type === id), `no type ${id}`);
  }
  checkQuantized("tiny, several types", files, [someTokens(512, 7)], "mean_kld", 12);
});

// Activations with outliers of about 1,000 times the median in two channels, as real checkpoints have
// them: the first layer writes them into the residual, where they stay.
run("tiny Q4_0 with outliers", () => {
  const files = [1, 2, 3].map((seed) => {
    const gguf = outFile(`tiny-q4_0-${seed}.gguf`, ".outliers.gguf");
    const norms = ["blk.0.post_attention_norm.weight", "blk.0.post_ffw_norm.weight"];
    amplify(synth("tiny", "q4_0", seed), gguf, norms.slice(0, 1), 5, 1000);
    amplify(gguf, `${gguf}.both`, norms.slice(1), 40, 1000);
    return `${gguf}.both`;
  });
  checkQuantized("tiny Q4_0 with outliers", files, [someTokens(512, 7)], "mean_kld");
});

const nano = join(root, "models", "nano");
const nanoFiles = existsSync(nano) ? readdirSync(nano).filter((f) => f.endsWith(".gguf")) : [];
for (const file of nanoFiles) {
  run(`nano ${file}`, () => {
    const gguf = join(nano, file);
    const float = outFile(gguf, ".f32.gguf");
    const types = ggufToF32(gguf, float);
    const tokens = someTokens(2048, 11);
    checkFloat(`${file} in F32`, float, tokens);
    const texts = [11, 12, 13, 14, 15, 16].map((seed) => someTokens(2048, seed));
    if (types[2]) checkQuantized(file, [gguf], texts, "mean_kld");
  });
}

process.exit(referee.finish());
