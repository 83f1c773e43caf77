// Token ids of texts, as llama.cpp and @huggingface/tokenizers make them.
//
// usage: node tokens.mjs TEXTS.json [--gguf MODEL.gguf] [--hf DIR]
//
// TEXTS.json is a list of {text, specials}: specials tells whether markers such as <|turn> in the
// text become their tokens. Prints {llama_cpp: [[ids]...], hf: [[ids]...]}; null where a program
// cannot be asked that: @huggingface/tokenizers always takes markers as tokens.
import {readFileSync} from "node:fs";
import {join} from "node:path";
import {parseArgs} from "node:util";

import {Tokenizer} from "@huggingface/tokenizers";

import {openModel} from "./peers.mjs";

const {values, positionals} = parseArgs({
  allowPositionals: true,
  options: {gguf: {type: "string"}, hf: {type: "string"}},
});
if (positionals.length !== 1) {
  console.error("usage: node tokens.mjs TEXTS.json [--gguf MODEL.gguf] [--hf DIR]");
  process.exit(2);
}
const texts = JSON.parse(readFileSync(positionals[0], "utf8"));
const result = {};

if (values.gguf) {
  const model = await openModel(values.gguf, {vocabOnly: true});
  result.llama_cpp = texts.map(({text, specials}) => model.tokenize(text, specials));
}
if (values.hf) {
  const read = (name) => JSON.parse(readFileSync(join(values.hf, name), "utf8"));
  const config = read("tokenizer_config.json");
  const tokenizer = new Tokenizer(read("tokenizer.json"), config);
  const markers = read("tokenizer.json").added_tokens.map((token) => token.content);
  result.hf = texts.map(({text, specials}) =>
    !specials && markers.some((marker) => text.includes(marker)) ? null :
      tokenizer.encode(text, {add_special_tokens: false}).ids);
}
process.stdout.write(JSON.stringify(result) + "\n", () => process.exit(0));
