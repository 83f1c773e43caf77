// Loads a GGUF file in llama.cpp and prints what it took it for, as JSON.
//
// usage: node load.mjs MODEL.gguf
import {openModel} from "./peers.mjs";

const model = await openModel(process.argv[2]);
console.log(JSON.stringify({
  architecture: model.fileInfo.metadata.general.architecture,
  tensorBytes: model.size,
  embeddingLength: model.embeddingVectorSize,
  contextLength: model.trainContextSize,
}));
process.exit(0);
