// Gemma 4's text model in double precision, read from a GGUF file: the judge where carat and
// llama.cpp differ with weights in F32. Written for reading, one token at a time, from the
// published description of the model; it shares nothing with carat.
//
// With `halfGelu` the activation goes through f16 on both sides, as llama.cpp's table does.
import {Gguf} from "./gguf.mjs";

const HALF = new DataView(new ArrayBuffer(4));

// x rounded to the nearest f16, ties to even; |x| below 65520.
function roundToHalf(x) {
  const magnitude = Math.abs(x);
  if (magnitude < 2 ** -25) return 0;
  HALF.setFloat32(0, magnitude);
  const exponent = Math.max((HALF.getUint32(0) >>> 23) - 127, -14);
  const unit = 2 ** (exponent - 10);
  const scaled = magnitude / unit;
  let whole = Math.floor(scaled);
  const rest = scaled - whole;
  if (rest > 0.5 || (rest === 0.5 && whole % 2 === 1)) ++whole;
  return Math.sign(x) * whole * unit;
}

function gelu(x) {
  return 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
}

function tableGelu(x) {
  if (x <= -10) return 0;
  return x >= 10 ? x : roundToHalf(gelu(roundToHalf(x)));
}

function add(a, b) { return a.map((x, i) => x + b[i]); }
function scale(a, s) { return a.map((x) => x * s); }

function softmax(z) {
  const max = z.reduce((a, b) => Math.max(a, b), -Infinity);
  const e = z.map((x) => Math.exp(x - max));
  return scale(e, 1 / e.reduce((a, b) => a + b, 0));
}

class Model {
  constructor(path, halfGelu) {
    const gguf = new Gguf(path);
    this.act = halfGelu ? tableGelu : gelu;
    this.key = (name) => gguf.metadata[`gemma4.${name}`];
    this.tensors = new Map(gguf.tensors.map((t) => [t.name, {dims: t.dims, w: gguf.values(t)}]));
    this.dim = this.key("embedding_length");
    this.nLayers = this.key("block_count");
    this.eps = this.key("attention.layer_norm_rms_epsilon");
    this.pleDim = this.key("embedding_length_per_layer_input");
    this.owned = this.nLayers - (this.key("attention.shared_kv_layers") ?? 0);
    this.cache = Array.from({length: this.nLayers}, () => ({k: [], v: []}));
  }

  has(name) { return this.tensors.has(name); }
  get(name) {
    const tensor = this.tensors.get(name);
    if (!tensor) throw new Error(`no tensor ${name}`);
    return tensor;
  }

  // y = W x; of a stack of matrices, the one numbered `part`
  mul(name, x, part = 0) {
    const {dims: [columns, rows], w} = this.get(name);
    const begin = part * rows * columns;
    return Float64Array.from({length: rows}, (_, r) => {
      let sum = 0;
      for (let c = 0, at = begin + r * columns; c < columns; ++c, ++at) sum += w[at] * x[c];
      return sum;
    });
  }

  row(name, index) {
    const {dims: [columns], w} = this.get(name);
    return Float64Array.from(w.subarray(index * columns, (index + 1) * columns));
  }

  norm(x, name) {
    const square = x.reduce((a, b) => a + b * b, 0) / x.length;
    const y = scale(x, 1 / Math.sqrt(square + this.eps));
    return name ? y.map((v, i) => v * this.get(name).w[i]) : y;
  }

  perHead(x, headDim, f) {
    const out = new Float64Array(x.length);
    for (let at = 0; at < x.length; at += headDim) out.set(f(x.slice(at, at + headDim)), at);
    return out;
  }

  // Pairs (i, i + half) turn; of global layers, only those that rope_freqs does not slow to a stop.
  rope(head, position, local) {
    const half = head.length / 2;
    const base = this.key(local ? "rope.freq_base_swa" : "rope.freq_base");
    const out = head.slice();
    for (let i = 0; i < half; ++i) {
      const divisor = local ? 1 : this.get("rope_freqs.weight").w[i];
      const angle = position * base ** (-i / half) / divisor;
      const [c, s] = [Math.cos(angle), Math.sin(angle)];
      out[i] = head[i] * c - head[i + half] * s;
      out[i + half] = head[i] * s + head[i + half] * c;
    }
    return out;
  }

  attention(x, layer, position) {
    const b = `blk.${layer}.`;
    const local = this.key("attention.sliding_window_pattern")[layer];
    const headDim = this.key(local ? "attention.key_length_swa" : "attention.key_length");
    const turned = (y, name) =>
      this.perHead(y, headDim, (h) => this.rope(this.norm(h, name), position, local));
    const q = turned(this.mul(`${b}attn_q.weight`, x), `${b}attn_q_norm.weight`);
    if (layer < this.owned) {
      const k = this.mul(`${b}attn_k.weight`, x);
      const v = this.has(`${b}attn_v.weight`) ? this.mul(`${b}attn_v.weight`, x) : k;
      this.cache[layer].k.push(turned(k, `${b}attn_k_norm.weight`));
      this.cache[layer].v.push(this.perHead(v, headDim, (h) => this.norm(h)));
    }
    const {k, v} = this.cache[layer < this.owned ? layer : this.owned - (local ? 2 : 1)];
    const first = local ? Math.max(0, position - this.key("attention.sliding_window") + 1) : 0;
    const perKv = q.length / k[0].length;  // query heads that read one key head
    const out = new Float64Array(q.length);
    for (let h = 0; h < q.length / headDim; ++h) {
      const at = Math.floor(h / perKv) * headDim;
      const scores = [];
      for (let t = first; t <= position; ++t) {
        let dot = 0;
        for (let i = 0; i < headDim; ++i) dot += q[h * headDim + i] * k[t][at + i];
        scores.push(dot);
      }
      softmax(scores).forEach((p, t) => {
        for (let i = 0; i < headDim; ++i) out[h * headDim + i] += p * v[first + t][at + i];
      });
    }
    return this.mul(`${b}attn_output.weight`, out);
  }

  gated(x, gate, up, down) {
    const u = this.mul(up, x);
    return this.mul(down, this.mul(gate, x).map((g, i) => this.act(g) * u[i]));
  }

  feedForward(x, layer) {
    const b = `blk.${layer}.`;
    const dense = this.gated(this.norm(x, `${b}ffn_norm.weight`), `${b}ffn_gate.weight`,
                             `${b}ffn_up.weight`, `${b}ffn_down.weight`);
    if (!this.has(`${b}ffn_gate_inp.weight`)) return dense;

    const router = this.get(`${b}ffn_gate_inp.scale`).w;
    const z = this.norm(x).map((v, i) => v * router[i] / Math.sqrt(this.dim));
    const p = softmax(this.mul(`${b}ffn_gate_inp.weight`, z));
    const best = [...p.keys()].sort((i, j) => p[j] - p[i]).slice(0, this.key("expert_used_count"));
    const total = best.reduce((a, e) => a + p[e], 0);
    const input = this.norm(x, `${b}pre_ffw_norm_2.weight`);
    let experts = new Float64Array(this.dim);
    for (const e of best) {
      const both = this.mul(`${b}ffn_gate_up_exps.weight`, input, e);
      const half = both.length / 2;
      const inner = both.slice(0, half).map((g, i) => this.act(g) * both[half + i]);
      const y = this.mul(`${b}ffn_down_exps.weight`, inner, e);
      experts = add(experts, scale(y, p[e] / total * this.get(`${b}ffn_down_exps.scale`).w[e]));
    }
    return add(this.norm(dense, `${b}post_ffw_norm_1.weight`),
               this.norm(experts, `${b}post_ffw_norm_2.weight`));
  }

  // [n_layers, ple_dim]
  perLayerInputs(token, embedding) {
    const n = this.pleDim;
    const context = scale(this.mul("per_layer_model_proj.weight", embedding), this.dim ** -0.5);
    const table = scale(this.row("per_layer_token_embd.weight", token), Math.sqrt(n));
    return Array.from({length: this.nLayers}, (_, l) => {
      const c = this.norm(context.slice(l * n, (l + 1) * n), "per_layer_proj_norm.weight");
      return scale(add(c, table.slice(l * n, (l + 1) * n)), Math.SQRT1_2);
    });
  }

  logits(token, position) {
    let x = scale(this.row("token_embd.weight", token), Math.sqrt(this.dim));
    const perLayer = this.pleDim > 0 ? this.perLayerInputs(token, x) : null;
    for (let l = 0; l < this.nLayers; ++l) {
      const b = `blk.${l}.`;
      const attended = this.attention(this.norm(x, `${b}attn_norm.weight`), l, position);
      x = add(x, this.norm(attended, `${b}post_attention_norm.weight`));
      x = add(x, this.norm(this.feedForward(x, l), `${b}post_ffw_norm.weight`));
      if (perLayer) {
        const gate = this.mul(`${b}inp_gate.weight`, x).map((g, i) => this.act(g) * perLayer[l][i]);
        x = add(x, this.norm(this.mul(`${b}proj.weight`, gate), `${b}post_norm.weight`));
      }
      x = scale(x, this.get(`${b}layer_output_scale.weight`).w[0]);
    }
    const cap = this.key("final_logit_softcapping");
    return this.mul("token_embd.weight", this.norm(x, "output_norm.weight"))
      .map((z) => cap * Math.tanh(z / cap));
  }
}

// The logits of every position, as rows of Float64Array(vocab_size).
export function forward(path, tokens, {halfGelu = false} = {}) {
  const model = new Model(path, halfGelu);
  return tokens.map((token, position) => model.logits(token, position));
}
