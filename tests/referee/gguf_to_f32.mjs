// Rewrites a GGUF file with every tensor in F32, so that a model's rounding of weights can be told
// from its rounding of activations. Written from the description of the format, apart from carat's
// own reader: an error in one shows against the other.
import {closeSync, openSync, readFileSync, writeSync} from "node:fs";

// bytes of a value of each metadata type; 8 is a string, 9 an array
const VALUE_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8};

function f16(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

// type id: [values a block, bytes a block, (view, offset of the block, out, index of the value)]
const TYPES = {
  0: [1, 4, (v, at, out, i) => { out[i] = v.getFloat32(at, true); }],
  1: [1, 2, (v, at, out, i) => { out[i] = f16(v.getUint16(at, true)); }],
  30: [1, 2, (v, at, out, i) => {
    const word = new DataView(new ArrayBuffer(4));
    word.setUint16(2, v.getUint16(at, true), true);
    out[i] = word.getFloat32(0, true);
  }],
  2: [32, 18, (v, at, out, i) => {  // Q4_0
    const d = f16(v.getUint16(at, true));
    for (let j = 0; j < 16; ++j) {
      const byte = v.getUint8(at + 2 + j);
      out[i + j] = d * ((byte & 15) - 8);
      out[i + 16 + j] = d * ((byte >> 4) - 8);
    }
  }],
  8: [32, 34, (v, at, out, i) => {  // Q8_0
    const d = f16(v.getUint16(at, true));
    for (let j = 0; j < 32; ++j) out[i + j] = d * v.getInt8(at + 2 + j);
  }],
  14: [256, 210, (v, at, out, i) => {  // Q6_K
    const d = f16(v.getUint16(at + 208, true));
    for (let half = 0; half < 2; ++half) {
      for (let lane = 0; lane < 32; ++lane) {
        const high = v.getUint8(at + 128 + 32 * half + lane);
        for (let k = 0; k < 4; ++k) {
          const low = v.getUint8(at + 64 * half + lane + 32 * (k & 1));
          const code = ((k < 2 ? low & 15 : low >> 4) | (((high >> (2 * k)) & 3) << 4)) - 32;
          const scale = v.getInt8(at + 192 + 8 * half + 2 * k + (lane >> 4));
          out[i + 128 * half + 32 * k + lane] = d * scale * code;
        }
      }
    }
  }],
};

class Cursor {
  constructor(view) { this.view = view; this.at = 0; }
  u32() { this.at += 4; return this.view.getUint32(this.at - 4, true); }
  u64() { this.at += 8; return Number(this.view.getBigUint64(this.at - 8, true)); }
  bytes(n) {
    this.at += n;
    return Buffer.from(this.view.buffer, this.view.byteOffset + this.at - n, n);
  }
  string() { return this.bytes(this.u64()).toString(); }
  skipValue(type) {
    if (type === 8) {
      this.string();
    } else if (type === 9) {
      const element = this.u32();
      const count = this.u64();
      if (element === 8) for (let i = 0; i < count; ++i) this.string();
      else this.bytes(count * VALUE_BYTES[element]);
    } else {
      this.bytes(VALUE_BYTES[type]);
    }
  }
}

function pad(length, alignment) { return (alignment - (length % alignment)) % alignment; }

function u32(value) { const b = Buffer.alloc(4); b.writeUInt32LE(value); return b; }
function u64(value) { const b = Buffer.alloc(8); b.writeBigUInt64LE(BigInt(value)); return b; }

// Reads the GGUF file `from` and writes `to`, the same model in F32. Returns the tensors' names by
// the type they had: {2: ["blk.0.attn_q.weight", ...], ...}.
export function ggufToF32(from, to) {
  const file = readFileSync(from);
  const cursor = new Cursor(new DataView(file.buffer, file.byteOffset, file.byteLength));
  if (cursor.bytes(4).toString() !== "GGUF" || cursor.u32() !== 3) throw new Error("not GGUF 3");
  const nTensors = cursor.u64();
  const nKeys = cursor.u64();
  const keysBegin = cursor.at;
  let alignment = 32;
  for (let i = 0; i < nKeys; ++i) {
    const key = cursor.string();
    const type = cursor.u32();
    if (key === "general.alignment") alignment = cursor.view.getUint32(cursor.at, true);
    cursor.skipValue(type);
  }
  const keys = file.subarray(keysBegin, cursor.at);
  const tensors = [];
  for (let i = 0; i < nTensors; ++i) {
    const name = cursor.string();
    const dims = Array.from({length: cursor.u32()}, () => cursor.u64());
    tensors.push({name, dims, type: cursor.u32(), offset: cursor.u64()});
  }
  const dataBegin = cursor.at + pad(cursor.at, alignment);

  const out = openSync(to, "w");
  const header = [Buffer.from("GGUF"), u32(3), u64(nTensors), u64(nKeys), keys];
  let offset = 0;
  for (const {name, dims} of tensors) {
    const text = Buffer.from(name);
    header.push(u64(text.length), text, u32(dims.length), ...dims.map(u64), u32(0), u64(offset));
    const bytes = 4 * dims.reduce((a, b) => a * b, 1);
    offset += bytes + pad(bytes, alignment);
  }
  const head = Buffer.concat(header);
  writeSync(out, head);
  writeSync(out, Buffer.alloc(pad(head.length, alignment)));
  const byType = {};
  for (const {name, dims, type, offset: from} of tensors) {
    if (!TYPES[type]) throw new Error(`${name}: no decoder for type ${type}`);
    (byType[type] ??= []).push(name);
    const [block, bytes, decode] = TYPES[type];
    const values = new Float32Array(dims.reduce((a, b) => a * b, 1));
    for (let i = 0, at = dataBegin + from; i < values.length; i += block, at += bytes)
      decode(cursor.view, at, values, i);
    const data = Buffer.from(values.buffer);
    writeSync(out, data);
    writeSync(out, Buffer.alloc(pad(data.length, alignment)));
  }
  closeSync(out);
  return byType;
}
