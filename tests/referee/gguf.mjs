// Reads GGUF files, and rewrites them with every tensor in F32. Written from the description of the
// format, apart from carat's own reader: an error in one shows against the other.
import {closeSync, copyFileSync, openSync, readFileSync, writeSync} from "node:fs";

// metadata value types that are numbers: [bytes, (view, at) => value]
const VALUES = {
  0: [1, (v, at) => v.getUint8(at)], 1: [1, (v, at) => v.getInt8(at)],
  2: [2, (v, at) => v.getUint16(at, true)], 3: [2, (v, at) => v.getInt16(at, true)],
  4: [4, (v, at) => v.getUint32(at, true)], 5: [4, (v, at) => v.getInt32(at, true)],
  6: [4, (v, at) => v.getFloat32(at, true)], 7: [1, (v, at) => v.getUint8(at) !== 0],
  10: [8, (v, at) => Number(v.getBigUint64(at, true))],
  11: [8, (v, at) => Number(v.getBigInt64(at, true))], 12: [8, (v, at) => v.getFloat64(at, true)],
};

function f16(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

// Element j of 32 whose low four bits are in the nibbles of 16 bytes at `at`.
function nibble(v, at, j) {
  const byte = v.getUint8(at + (j % 16));
  return j < 16 ? byte & 15 : byte >> 4;
}

// The same with a fifth bit in the four bytes at `high`.
function five(v, at, high, j) {
  return nibble(v, at, j) | (((v.getUint8(high + (j >> 3)) >> (j & 7)) & 1) << 4);
}

// Scale and minimum of sub-block b of Q4_K and Q5_K, packed in the 12 bytes at `at`.
function scaleAndMin(v, at, b) {
  const byte = (i) => v.getUint8(at + i);
  if (b < 4) return [byte(b) & 63, byte(b + 4) & 63];
  return [(byte(b + 4) & 15) | ((byte(b - 4) >> 6) << 4),
          (byte(b + 4) >> 4) | ((byte(b) >> 6) << 4)];
}

// Q4_K and Q5_K: `high` is the distance of the fifth bits from the block, or null.
function decodeK(v, at, out, i, codes, high) {
  const d = f16(v.getUint16(at, true));
  const dmin = f16(v.getUint16(at + 2, true));
  for (let b = 0; b < 8; ++b) {
    const [scale, min] = scaleAndMin(v, at + 4, b);
    for (let l = 0; l < 32; ++l) {
      const byte = v.getUint8(at + codes + 32 * (b >> 1) + l);
      let code = b & 1 ? byte >> 4 : byte & 15;
      if (high !== null) code |= ((v.getUint8(at + high + l) >> b) & 1) << 4;
      out[i + 32 * b + l] = d * scale * code - dmin * min;
    }
  }
}

const IQ4_LEVELS = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

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
  3: [32, 20, (v, at, out, i) => {  // Q4_1
    const d = f16(v.getUint16(at, true));
    const m = f16(v.getUint16(at + 2, true));
    for (let j = 0; j < 32; ++j) out[i + j] = d * nibble(v, at + 4, j) + m;
  }],
  6: [32, 22, (v, at, out, i) => {  // Q5_0
    const d = f16(v.getUint16(at, true));
    for (let j = 0; j < 32; ++j) out[i + j] = d * (five(v, at + 6, at + 2, j) - 16);
  }],
  7: [32, 24, (v, at, out, i) => {  // Q5_1
    const d = f16(v.getUint16(at, true));
    const m = f16(v.getUint16(at + 2, true));
    for (let j = 0; j < 32; ++j) out[i + j] = d * five(v, at + 8, at + 4, j) + m;
  }],
  20: [32, 18, (v, at, out, i) => {  // IQ4_NL
    const d = f16(v.getUint16(at, true));
    for (let j = 0; j < 32; ++j) out[i + j] = d * IQ4_LEVELS[nibble(v, at + 2, j)];
  }],
  10: [256, 84, (v, at, out, i) => {  // Q2_K
    const d = f16(v.getUint16(at + 80, true));
    const dmin = f16(v.getUint16(at + 82, true));
    for (let e = 0; e < 256; ++e) {
      const scales = v.getUint8(at + (e >> 4));
      const code = (v.getUint8(at + 16 + 32 * (e >> 7) + (e & 31)) >> (2 * ((e >> 5) & 3))) & 3;
      out[i + e] = d * (scales & 15) * code - dmin * (scales >> 4);
    }
  }],
  11: [256, 110, (v, at, out, i) => {  // Q3_K
    const d = f16(v.getUint16(at + 108, true));
    for (let e = 0; e < 256; ++e) {
      const lane = e & 31;
      const pass = (e >> 5) & 3;
      const low = (v.getUint8(at + 32 + 32 * (e >> 7) + lane) >> (2 * pass)) & 3;
      const high = (v.getUint8(at + lane) >> (4 * (e >> 7) + pass)) & 1;
      const b = e >> 4;
      const packed = v.getUint8(at + 96 + (b & 7));
      const top = (v.getUint8(at + 104 + (b & 3)) >> (2 * (b >> 2))) & 3;
      const scale = ((b < 8 ? packed & 15 : packed >> 4) | (top << 4)) - 32;
      out[i + e] = d * scale * (low + 4 * high - 4);
    }
  }],
  12: [256, 144, (v, at, out, i) => decodeK(v, at, out, i, 16, null)],  // Q4_K
  13: [256, 176, (v, at, out, i) => decodeK(v, at, out, i, 48, 16)],    // Q5_K
  23: [256, 136, (v, at, out, i) => {                                   // IQ4_XS
    const d = f16(v.getUint16(at, true));
    const high = v.getUint16(at + 2, true);
    for (let b = 0; b < 8; ++b) {
      const low = v.getUint8(at + 4 + (b >> 1));
      const scale = ((b & 1 ? low >> 4 : low & 15) | (((high >> (2 * b)) & 3) << 4)) - 32;
      for (let j = 0; j < 32; ++j)
        out[i + 32 * b + j] = d * scale * IQ4_LEVELS[nibble(v, at + 8 + 16 * b, j)];
    }
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

  // A metadata value: type 8 is a string, 9 an array.
  value(type) {
    if (type === 8) return this.string();
    if (type === 9) {
      const element = this.u32();
      return Array.from({length: this.u64()}, () => this.value(element));
    }
    const [bytes, read] = VALUES[type];
    this.at += bytes;
    return read(this.view, this.at - bytes);
  }
}

function pad(length, alignment) { return (alignment - (length % alignment)) % alignment; }

function size(dims) { return dims.reduce((a, b) => a * b, 1); }

// A GGUF file: `metadata` by key, `tensors` as a list of {name, dims, type, offset}, dims fastest
// first; the tensors' values are decoded when asked for.
export class Gguf {
  constructor(path) {
    const file = readFileSync(path);
    this.view = new DataView(file.buffer, file.byteOffset, file.byteLength);
    const cursor = new Cursor(this.view);
    if (cursor.bytes(4).toString() !== "GGUF" || cursor.u32() !== 3) throw new Error("not GGUF 3");
    const nTensors = cursor.u64();
    this.nKeys = cursor.u64();
    const keysBegin = cursor.at;
    this.metadata = {};
    for (let i = 0; i < this.nKeys; ++i) {
      const key = cursor.string();
      this.metadata[key] = cursor.value(cursor.u32());
    }
    this.keyBytes = file.subarray(keysBegin, cursor.at);
    this.tensors = [];
    for (let i = 0; i < nTensors; ++i) {
      const name = cursor.string();
      const dims = Array.from({length: cursor.u32()}, () => cursor.u64());
      this.tensors.push({name, dims, type: cursor.u32(), offset: cursor.u64()});
    }
    this.alignment = this.metadata["general.alignment"] ?? 32;
    this.dataBegin = cursor.at + pad(cursor.at, this.alignment);
  }

  // The bytes of a tensor of the list.
  bytes({name, dims, type}) {
    if (!TYPES[type]) throw new Error(`${name}: type ${type} is not known`);
    const [block, bytes] = TYPES[type];
    return size(dims) / block * bytes;
  }

  // The values of a tensor of the list.
  values({name, dims, type, offset}) {
    if (!TYPES[type]) throw new Error(`${name}: no decoder for type ${type}`);
    const [block, bytes, decode] = TYPES[type];
    const values = new Float32Array(size(dims));
    for (let i = 0, at = this.dataBegin + offset; i < values.length; i += block, at += bytes)
      decode(this.view, at, values, i);
    return values;
  }
}

function u32(value) { const b = Buffer.alloc(4); b.writeUInt32LE(value); return b; }
function u64(value) { const b = Buffer.alloc(8); b.writeBigUInt64LE(BigInt(value)); return b; }

// Reads the GGUF file `from` and writes `to`, the same model in F32: what is then lost in a forward
// pass is not lost in the weights. Returns the tensors' names by the type they had:
// {2: ["blk.0.attn_q.weight", ...], ...}.
export function ggufToF32(from, to) {
  const gguf = new Gguf(from);
  const out = openSync(to, "w");
  const parts = [Buffer.from("GGUF"), u32(3), u64(gguf.tensors.length), u64(gguf.nKeys),
                 gguf.keyBytes];
  let offset = 0;
  for (const {name, dims} of gguf.tensors) {
    const text = Buffer.from(name);
    parts.push(u64(text.length), text, u32(dims.length), ...dims.map(u64), u32(0), u64(offset));
    offset += 4 * size(dims) + pad(4 * size(dims), gguf.alignment);
  }
  const header = Buffer.concat(parts);
  writeSync(out, header);
  writeSync(out, Buffer.alloc(pad(header.length, gguf.alignment)));
  const byType = {};
  for (const tensor of gguf.tensors) {
    (byType[tensor.type] ??= []).push(tensor.name);
    const data = Buffer.from(gguf.values(tensor).buffer);
    writeSync(out, data);
    writeSync(out, Buffer.alloc(pad(data.length, gguf.alignment)));
  }
  closeSync(out);
  return byType;
}

// Copies the GGUF file `from` to `to` with element `index` of each F32 vector in `names` multiplied
// by `factor`.
export function amplify(from, to, names, index, factor) {
  const gguf = new Gguf(from);
  copyFileSync(from, to);
  const out = openSync(to, "r+");
  for (const name of names) {
    const tensor = gguf.tensors.find((t) => t.name === name);
    if (!tensor || tensor.type !== 0) throw new Error(`no F32 tensor ${name}`);
    const word = Buffer.alloc(4);
    word.writeFloatLE(gguf.values(tensor)[index] * factor);
    writeSync(out, word, 0, 4, gguf.dataBegin + tensor.offset + 4 * index);
  }
  closeSync(out);
}
