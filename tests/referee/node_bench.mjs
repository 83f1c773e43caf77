// Times llama.cpp as node-llama-cpp packs it, through its own interface: bench/compare --node.
//
//   node node_bench.mjs MODEL.gguf [--prefill P] [--decode N] [--depth D] [--sequences S]
//                       [--threads T] [--kv f16] [--repeat R]
//
// Prints one line of JSON. With several sequences, each reads P tokens and makes N, all in the same
// batches. Decoding takes the likeliest token.
import {readFileSync} from "node:fs";
import {parseArgs} from "node:util";
import {getLlama, LlamaLogLevel} from "node-llama-cpp";

const {values, positionals} = parseArgs({
  allowPositionals: true,
  options: Object.fromEntries(
    ["prefill", "decode", "depth", "sequences", "threads", "kv", "repeat"].map(
      (name) => [name, {type: "string"}])),
});
const number = (name, otherwise) => Number(values[name] ?? otherwise);
const prefill = number("prefill", 512);
const decode = number("decode", 32);
const depth = number("depth", 0);
const sequences = number("sequences", 1);
const threads = number("threads", 2);
const repeat = number("repeat", 1);
const kv = (values.kv ?? "f16").toUpperCase();

const llama = await getLlama({
  gpu: false,
  build: "never",
  progressLogs: false,
  logLevel: LlamaLogLevel.error,
  logger: (level, message) => process.stderr.write(`${level}: ${message}`),
  maxThreads: threads,  // else the processors that it counts itself are the most
});
const model = await llama.loadModel({modelPath: positionals[0], gpuLayers: 0});
const context = await model.createContext({
  contextSize: depth + prefill + decode * repeat + 8,
  batchSize: 512 * sequences,
  sequences,
  threads,
  experimentalKvCacheKeyType: kv,
  experimentalKvCacheValueType: kv,
  ignoreMemorySafetyChecks: true,
});
const all = Array.from({length: sequences}, () => context.getSequence());

// Ids of a small generator, so that every run reads the same ones, from the second half of the
// vocabulary, where no markers are.
const half = model.fileInfo.metadata.tokenizer.ggml.tokens.length >> 1;
let state = 1;
function tokens(n) {
  return Array.from({length: n}, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return half + (state >>> 8) % half;
  });
}

const read = (ids) => Promise.all(
  all.map((sequence, i) => sequence.evaluateWithoutGeneratingNewTokens(ids[i])));

async function write(sequence, n) {
  let made = 0;
  for await (const _ of sequence.evaluate(tokens(1), {temperature: 0, yieldEogToken: true}))
    if (++made >= n) break;
}

async function timed(work) {
  const begin = performance.now();
  await work();
  return (performance.now() - begin) / 1000;
}

const clear = () => Promise.all(all.map((sequence) => sequence.clearHistory()));
function median(times) {
  const sorted = times.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

await read(all.map(() => tokens(1)));
const times = {prefill: [], decode: []};
for (let r = 0; r < repeat && prefill > 0; ++r) {
  await clear();
  if (depth > 0) await read(all.map(() => tokens(depth)));
  const ids = all.map(() => tokens(prefill));
  times.prefill.push(await timed(() => read(ids)));
}
if (decode > 0 && sequences === 1) {
  await clear();
  if (depth > 0) await read(all.map(() => tokens(depth)));
}
for (let r = 0; r < repeat && decode > 0; ++r)
  times.decode.push(await timed(() => Promise.all(all.map((sequence) => write(sequence, decode)))));

const {version} = JSON.parse(readFileSync(
  new URL("node_modules/node-llama-cpp/package.json", import.meta.url), "utf8"));
const on = /(\w+) = 1/g;
console.log(JSON.stringify({
  prefill_tokens_per_second:
    prefill > 0 ? sequences * prefill / median(times.prefill) : undefined,
  decode_tokens_per_second: decode > 0 ? sequences * decode / median(times.decode) : undefined,
  version: `${version} (llama.cpp ${llama.llamaCppRelease.release})`,
  isa: [...llama.systemInfo.matchAll(on)].map((match) => match[1]).join(" "),
  kv: kv.toLowerCase(),
  threads: context.idealThreads,  // what it computes with, of those asked for
}));
await model.dispose();
await llama.dispose();
