// What Hugging Face's own reader finds in a GGUF file, as JSON: metadata but for long arrays, and
// the tensors' names, shapes (fastest first), types and offsets.
//
// usage: node hub.mjs FILE.gguf
import {gguf} from "@huggingface/gguf";

const {metadata, tensorInfos} = await gguf(process.argv[2], {allowLocalFile: true});
const metadataOf = (key, value) => {
  if (typeof value === "bigint") return Number(value);
  return Array.isArray(value) && value.length > 64 ? `array of ${value.length}` : value;
};
console.log(JSON.stringify({
  metadata: JSON.parse(JSON.stringify(metadata, metadataOf)),
  tensors: tensorInfos.map(({name, shape, dtype, offset}) =>
    ({name, dims: [...shape].map(Number), type: dtype, offset: Number(offset)})),
}));
