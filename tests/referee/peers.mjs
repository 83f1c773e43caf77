// What the referee tests share: how llama.cpp is set up as a referee, and how results are reported.
import {getLlama, LlamaLogLevel} from "node-llama-cpp";

// Rounding that llama.cpp does by default and that hides what is measured: the KV cache in f16 and
// flash attention. With both off, a model of F32 weights is computed in float throughout (but for a
// table of GELU in f16).
const REFEREE_CONTEXT = {
  flashAttention: false,
  experimentalKvCacheKeyType: "F32",
  experimentalKvCacheValueType: "F32",
};

// Opens a GGUF file in llama.cpp on the CPU. What llama.cpp says goes to `log`.
export async function openModel(path, {log = () => {}, vocabOnly = false} = {}) {
  const llama = await getLlama({
    gpu: false,
    build: "never",
    progressLogs: false,
    logLevel: LlamaLogLevel.info,
    logger: (level, message) => log(`${level}: ${message.trimEnd()}`),
  });
  return llama.loadModel({modelPath: path, gpuLayers: 0, vocabOnly});
}

// The logits of every position of `tokens`: an array of Float32Array(vocab_size), as llama.cpp
// computed them, in float32, with the final softcap applied. `defaults`: with its default KV cache and
// attention.
export async function evaluate(model, tokens, {threads = 2, defaults = false} = {}) {
  const context = await model.createContext({
    ...(defaults ? {} : REFEREE_CONTEXT),
    contextSize: Math.max(tokens.length + 1, 256),
    batchSize: Math.max(tokens.length, 32),
    sequences: 1,
    threads,
    ignoreMemorySafetyChecks: true,
  });
  const sequence = context.getSequence();
  // Temperature 0 takes the largest logit and leaves the logits as they are.
  const generateNext = {logits: true, options: {temperature: 0}};
  const outputs = await sequence.controlledEvaluate(
    tokens.map((token) => [token, {generateNext}]));
  const rows = outputs.map((output) => {
    const row = new Float32Array(output.next.logits.size).fill(NaN);
    for (const [token, value] of output.next.logits) row[token] = value;
    return row;
  });
  await context.dispose();
  return rows;
}

// A file of float32 logits [n_tokens, vocab_size], row-major, as `carat logits --out` writes it.
export function logitRows(bytes, nTokens) {
  const all = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  if (all.length === 0 || all.length % nTokens !== 0)
    throw new Error(`${all.length} logits are not a whole number of rows for ${nTokens} tokens`);
  const width = all.length / nTokens;
  return Array.from({length: nTokens}, (_, i) => all.subarray(i * width, (i + 1) * width));
}

function logSoftmax(row) {
  let max = -Infinity;
  for (const x of row) max = Math.max(max, x);
  let sum = 0;
  for (const x of row) sum += Math.exp(x - max);
  const shift = max + Math.log(sum);
  return Float64Array.from(row, (x) => x - shift);
}

// KLD(reference || candidate) in nats at each position, computed in double precision.
export function klds(reference, candidate) {
  if (reference.length !== candidate.length)
    throw new Error(`${reference.length} positions against ${candidate.length}`);
  return reference.map((row, i) => {
    if (row.length !== candidate[i].length)
      throw new Error(`position ${i}: ${row.length} logits against ${candidate[i].length}`);
    const p = logSoftmax(row);
    const q = logSoftmax(candidate[i]);
    let sum = 0;
    for (let j = 0; j < p.length; ++j) sum += Math.exp(p[j]) * (p[j] - q[j]);
    return sum;
  });
}

function argmax(row) {
  let best = 0;
  for (let i = 1; i < row.length; ++i) if (row[i] > row[best]) best = i;
  return best;
}

// Mean squared difference of the logits over their variance, each row about its own mean: unlike
// KLD it does not fade where one token has nearly all the probability.
function normalizedError(reference, candidate) {
  let error = 0;
  let variance = 0;
  reference.forEach((row, i) => {
    const mean = row.reduce((a, b) => a + b, 0) / row.length;
    const shift = candidate[i].reduce((a, b) => a + b, 0) / row.length - mean;
    row.forEach((x, j) => {
      error += (candidate[i][j] - shift - x) ** 2;
      variance += (x - mean) ** 2;
    });
  });
  return error / variance;
}

// The figures of one comparison, as JSON keys.
export function compare(reference, candidate) {
  const kld = klds(reference, candidate);
  const sorted = Float64Array.from(kld).sort();
  const middle = sorted.length >> 1;
  let largest = 0;
  reference.forEach((row, i) => row.forEach((x, j) => {
    largest = Math.max(largest, Math.abs(x - candidate[i][j]));
  }));
  return {
    tokens: kld.length,
    mean_kld: kld.reduce((a, b) => a + b, 0) / kld.length,
    median_kld: sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2,
    max_kld: sorted[sorted.length - 1],
    normalized_squared_error: normalizedError(reference, candidate),
    max_abs_logit_difference: largest,
    top1_agreement:
      reference.filter((row, i) => argmax(row) === argmax(candidate[i])).length / kld.length,
  };
}
