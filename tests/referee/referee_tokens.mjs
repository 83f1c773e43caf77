// Holds carat's token ids against llama.cpp's, on GGUF files, and against @huggingface/tokenizers',
// on tokenizer.json; and carat's ids from the two files against each other.
//
// usage: node referee_tokens.mjs CARAT FOLDER
import {existsSync, readdirSync, writeFileSync} from "node:fs";
import {join} from "node:path";

import {Referee, root} from "./harness.mjs";

const referee = new Referee(process.argv[2], process.argv[3]);

const PLAIN = [
  "It is a truth universally acknowledged, that a single man in possession of a good fortune, " +
    "must be in want of a wife.",
  "a", " ", "  ", "   leading and trailing   ", "one  two   three    four",
  "\n", "\n\n", "a\n\nb", "\n\n\n\n\na\n", " \n \n", "line\r\nline\r\n", "tab\tand\u00a0no-break",
  "Mr. Bennet--\"You want to tell me, and I have no objection to hearing it.\"",
  "0 12 345 6789 3.14159 1e-6", "naïve café Ångström œuvre", "日本語のテキスト", "Привет, мир",
  "مرحبا بالعالم", "e\u0301 combining", "👩‍👩‍👧 family, 🇩🇪 flag, 🤷🏽", "▁already▁marked", "\u0000\u0001\u007f",
  "<0x41> is not a byte", "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
  "for (int i = 0; i < n; ++i) { x[i] += y[i]; }\n\treturn x;",
  ...Array.from({length: 34}, (_, i) => "\n".repeat(i + 3)),
  ...Array.from({length: 12}, (_, i) => "a" + "\n".repeat(i + 1) + "b"),
];
const MARKED = [
  "<|turn>user\nHi<turn|>\n<|turn>model\n",
  "<bos><|turn>system\n<|think|>\nBe brief.<turn|>\n",
  "<|channel>thought\nhm\n<channel|>yes<turn|>",
  "a<eos>b <bos> c",
];
// Markers in a user's text are only text. llama.cpp agrees for the tokens of type "control"; those
// of type "user defined", such as <|channel>, it takes as tokens even then.
const SPELLED = MARKED.filter((text) => !text.includes("<|channel>"))
  .map((text) => ({text, specials: false}));
const texts = [
  ...PLAIN.map((text) => ({text, specials: false})),
  ...MARKED.map((text) => ({text, specials: true})),
  ...SPELLED,
];

function caratIds(model, {text, specials}) {
  const args = ["tokenize", model, "--json", ...(specials ? ["--specials"] : [])];
  return JSON.parse(referee.carat(args, {input: text})).tokens;
}

function same(a, b) { return JSON.stringify(a) === JSON.stringify(b); }

function compareIds(name, gguf, hf) {
  referee.run(name, () => {
    const file = referee.path("texts.json");
    writeFileSync(file, JSON.stringify(texts));
    const peers = JSON.parse(referee.peer("tokens.mjs", [
      file, ...(gguf ? ["--gguf", gguf] : []), ...(hf ? ["--hf", hf] : [])]));
    texts.forEach((text, i) => {
      const shown = `${name}: ${JSON.stringify(text.text)}${text.specials ? " with markers" : ""}`;
      const fromGguf = gguf && caratIds(gguf, text);
      const fromHf = hf && caratIds(hf, text);
      if (gguf && hf)
        referee.check(same(fromGguf, fromHf), `${shown}: GGUF ${fromGguf}, tokenizer.json ${fromHf}`);
      if (gguf) {
        referee.check(same(fromGguf, peers.llama_cpp[i]),
                      `${shown}: carat ${fromGguf}, llama.cpp ${peers.llama_cpp[i]}`);
      }
      if (hf && peers.hf[i] !== null) {
        referee.check(same(fromHf, peers.hf[i]),
                      `${shown}: carat ${fromHf}, tokenizers ${peers.hf[i]}`);
      }
    });
  });
}

const nano = join(root, "models", "nano");
const entries = existsSync(nano) ? readdirSync(nano).map((name) => join(nano, name)) : [];
const ggufs = entries.filter((path) => path.endsWith(".gguf"));
const folders = entries.filter((path) => existsSync(join(path, "tokenizer.json")));
if (ggufs.length > 0 && folders.length > 0) compareIds("nano", ggufs[0], folders[0]);

referee.run("tiny", () => {
  const gguf = referee.path("tiny.gguf");
  const hf = referee.path("tiny");
  referee.carat(["synth", "tiny", gguf, "--type", "f32", "--seed", "1"]);
  referee.carat(["synth", "tiny", hf, "--format", "hf", "--type", "bf16", "--seed", "1"]);
  compareIds("tiny", gguf, existsSync(join(hf, "tokenizer.json")) ? hf : null);
});

process.exit(referee.finish());
