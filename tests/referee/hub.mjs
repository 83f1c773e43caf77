// What Hugging Face's own reader finds in a GGUF file, as JSON: all metadata, the file's head among
// it (version, tensor_count, kv_count), and the tensors' names, shapes (fastest first), types and
// offsets.
//
// usage: node hub.mjs FILE.gguf
import {gguf} from "@huggingface/gguf";

const {metadata, tensorInfos} = await gguf(process.argv[2], {allowLocalFile: true});
const metadataOf = (key, value) => (typeof value === "bigint" ? Number(value) : value);
process.stdout.write(JSON.stringify({
  metadata: JSON.parse(JSON.stringify(metadata, metadataOf)),
  tensors: tensorInfos.map(({name, shape, dtype, offset}) =>
    ({name, dims: [...shape].map(Number), type: dtype, offset: Number(offset)})),
}) + "\n");
