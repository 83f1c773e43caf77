// Holds carat's logits against llama.cpp's, for the three kinds of model and for the nano model.
//
// usage: node referee_logits.mjs CARAT FOLDER
//
// With weights in F32 both compute in float: KLD(carat || llama.cpp) is at most 1e-6 at every
// position. With Q4_0 each rounds activations in its own way, so a third one judges: R is carat's
// float forward of the dequantized weights (dequantized by gguf_to_f32.mjs), and KLD(R || carat) may
// be at most 1.25 times KLD(R || llama.cpp): the mean for dense models, the median for mixtures,
// where one token that takes another expert outweighs all else.
import {existsSync, readdirSync, readFileSync} from "node:fs";
import {basename, join} from "node:path";

import {ggufToF32} from "./gguf_to_f32.mjs";
import {Referee, root} from "./harness.mjs";
import {compare, logitRows} from "./peers.mjs";

const MAX_KLD_F32 = 1e-6;
const MAX_RATIO_Q4_0 = 1.25;
const N_TOKENS = 96;  // longer than the tiny models' window

const referee = new Referee(process.argv[2], process.argv[3]);

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

function caratLogits(gguf, tokens) {
  const out = outFile(gguf, ".carat.f32");
  referee.carat(["logits", gguf, "--tokens", tokens, "--out", out, "-t", "2"]);
  return logitRows(readFileSync(out), N_TOKENS);
}

function peerLogits(gguf, tokens) {
  const out = outFile(gguf, ".llama.f32");
  referee.peer("logits.mjs", [gguf, "--tokens", tokens, "--out", out]);
  return logitRows(readFileSync(out), N_TOKENS);
}

function show(name, figures) {
  const short = (x) => x.toExponential(2);
  console.log(`  ${name}: KLD mean ${short(figures.mean_kld)} median ${short(figures.median_kld)} ` +
              `max ${short(figures.max_kld)}, top-1 ${figures.top1_agreement.toFixed(3)}`);
}

function checkFloat(name, gguf, tokens) {
  const figures = compare(caratLogits(gguf, tokens), peerLogits(gguf, tokens));
  show(`${name}, carat || llama.cpp`, figures);
  referee.check(figures.max_kld <= MAX_KLD_F32,
                `${name}: max KLD ${figures.max_kld} is over ${MAX_KLD_F32}`);
}

function checkQuantized(name, gguf, tokens, statistic) {
  const float = outFile(gguf, ".float.gguf");
  const types = ggufToF32(gguf, float);
  referee.check((types[2] ?? []).length > 0, `${name}: no tensor is Q4_0`);
  const judge = caratLogits(float, tokens);
  const ours = compare(judge, caratLogits(gguf, tokens));
  const theirs = compare(judge, peerLogits(gguf, tokens));
  show(`${name}, R || carat    `, ours);
  show(`${name}, R || llama.cpp`, theirs);
  referee.check(ours[statistic] <= MAX_RATIO_Q4_0 * theirs[statistic],
                `${name}: ${statistic} ${ours[statistic]} against ${theirs[statistic]}`);
}

for (const kind of ["tiny", "tinymoe", "tinykv"]) {
  const statistic = kind === "tinymoe" ? "median_kld" : "mean_kld";
  for (const type of ["f32", "q4_0"]) {
    referee.run(`${kind} ${type}`, () => {
      const gguf = referee.path(`${kind}-${type}.gguf`);
      referee.carat(["synth", kind, gguf, "--type", type, "--seed", "1"]);
      const tokens = someTokens(256, 7);
      if (type === "f32") checkFloat(`${kind} ${type}`, gguf, tokens);
      else checkQuantized(`${kind} ${type}`, gguf, tokens, statistic);
    });
  }
}

const nano = join(root, "models", "nano");
const nanoFiles = existsSync(nano) ? readdirSync(nano).filter((f) => f.endsWith(".gguf")) : [];
for (const file of nanoFiles) {
  referee.run(`nano ${file}`, () => {
    const gguf = join(nano, file);
    const float = outFile(gguf, ".f32.gguf");
    const types = ggufToF32(gguf, float);
    const tokens = someTokens(2048, 11);
    checkFloat(`${file} in F32`, float, tokens);
    if (types[2]) checkQuantized(file, gguf, tokens, "mean_kld");
  });
}

process.exit(referee.finish());
