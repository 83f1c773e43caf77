// llama.cpp's logits of a GGUF model, and how far another program's are from them.
//
// usage: node logits.mjs MODEL.gguf --tokens 2,5,9 [--out F] [--against F2] [--threads N] [-v]
//
// --out writes float32 logits [n_tokens, vocab_size]; --against reads such a file, as
// `carat logits` writes it, and prints KLD(F2 || llama.cpp) and more as JSON. --defaults takes
// llama.cpp's own KV cache and attention instead of float32 without rounding. -v shows its log.
import {readFileSync, writeFileSync} from "node:fs";
import {parseArgs} from "node:util";

import {compare, evaluate, logitRows, openModel} from "./peers.mjs";

const {values, positionals} = parseArgs({
  allowPositionals: true,
  options: {
    tokens: {type: "string"},
    out: {type: "string"},
    against: {type: "string"},
    threads: {type: "string", default: "2"},
    defaults: {type: "boolean"},
    verbose: {type: "boolean", short: "v"},
  },
});
if (positionals.length !== 1 || !values.tokens) {
  console.error("usage: node logits.mjs MODEL.gguf --tokens 2,5,9 [--out F] [--against F2]");
  process.exit(2);
}

const tokens = values.tokens.split(",").map(Number);
const log = values.verbose ? (line) => console.error(line) : () => {};
const model = await openModel(positionals[0], {log});
const rows = await evaluate(model, tokens, {
  threads: Number(values.threads), defaults: values.defaults,
});
if (values.out)
  writeFileSync(values.out, Buffer.concat(rows.map((row) => Buffer.from(row.buffer))));
if (values.against) {
  const reference = logitRows(readFileSync(values.against), tokens.length);
  console.log(JSON.stringify(compare(reference, rows), null, 2));
}
process.exit(0);
