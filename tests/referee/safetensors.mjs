// Reads the tensors of a model directory with one safetensors file. Written from the description of
// the format, apart from carat's own reader.
import {readFileSync} from "node:fs";
import {join} from "node:path";

export class Safetensors {
  constructor(folder) {
    const file = readFileSync(join(folder, "model.safetensors"));
    this.view = new DataView(file.buffer, file.byteOffset, file.byteLength);
    const length = Number(this.view.getBigUint64(0, true));
    this.header = JSON.parse(file.subarray(8, 8 + length).toString());
    delete this.header.__metadata__;
    this.dataBegin = 8 + length;
  }

  names() { return Object.keys(this.header); }
  shape(name) { return this.header[name].shape; }

  // Values of a BF16 or F32 tensor.
  values(name) {
    const {dtype, data_offsets: [begin, end]} = this.header[name];
    const at = this.dataBegin + begin;
    if (dtype === "F32") {
      return Float32Array.from({length: (end - begin) / 4},
                               (_, i) => this.view.getFloat32(at + 4 * i, true));
    }
    if (dtype !== "BF16") throw new Error(`${name}: ${dtype}`);
    const words = new Uint32Array((end - begin) / 2);
    for (let i = 0; i < words.length; ++i) words[i] = this.view.getUint16(at + 2 * i, true) << 16;
    return new Float32Array(words.buffer);
  }
}
