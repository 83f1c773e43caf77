#include "quantize/layer_tape.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "model/forward.h"
#include "train/checkpoint_io.h"

namespace carat::quantize {
namespace {

using kernels::Value;
using model::TensorKind;
using model::TensorRef;

TensorKind output_matrix(const model::Config& config) {
  return config.tied_embeddings ? TensorKind::kTokenEmbedding : TensorKind::kLmHead;
}

bool belongs(const model::Config& config, const LayerTape::Part& part, TensorRef ref) {
  if (ref.layer >= 0) return ref.layer >= part.begin && ref.layer < part.end;
  switch (ref.kind) {
    case TensorKind::kPleTable:
    case TensorKind::kPleProjection:
    case TensorKind::kPleProjectionNorm:
      return part.end > part.begin;
    case TensorKind::kOutputNorm:
      return part.output;
    default:
      return part.output && ref.kind == output_matrix(config);
  }
}

// What the tape needs to know. The per-layer table has a row for each token of a chunk instead of
// one for each of the vocabulary.
model::Weights shapes_of_part(const model::Weights& weights, const LayerTape::Part& part) {
  model::Weights shapes = train::shapes_only(weights.config);
  shapes.kv_scales = weights.kv_scales;
  for (size_t i = 0; i < shapes.all.size(); ++i) {
    kernels::Weight& w = shapes.all[i];
    if (!belongs(weights.config, part, shapes.refs[i])) w.rows = 0;
    if (shapes.refs[i].kind == TensorKind::kPleTable && w.rows > 0) w.rows = part.most_tokens;
  }
  return shapes;
}

// The same parameters with the bytes that the values come from; none for the per-layer table, and
// for codes, which have their scales elsewhere.
model::Weights sources_of_part(const model::Weights& weights, const model::Weights& shapes) {
  model::Weights sources = shapes;
  for (size_t i = 0; i < shapes.all.size(); ++i) {
    kernels::Weight& w = sources.all[i];
    const kernels::Weight& from = weights.all[i];
    const bool looked_up = shapes.refs[i].kind == TensorKind::kPleTable;
    if (w.rows == 0 || looked_up || !from.scales.empty()) {
      w.rows = 0;
      continue;
    }
    w = from;
    if (w.layout == kernels::Layout::kTiles) w.data = nullptr;  // its rows are in the file
  }
  return sources;
}

// Floats that the tape keeps for a token of a chunk of n: values of one layer, without gradients.
int64_t layer_floats(const model::Config& c, int64_t layer, int64_t n) {
  const model::LayerConfig l = c.layer(layer);
  const int64_t q = c.n_heads * l.head_dim, kv = l.n_kv_heads * l.head_dim;
  const int64_t keys = l.window > 0 ? std::min(n, l.window + 64) : n;
  int64_t floats = 12 * c.dim + 5 * q + 8 * kv + c.n_heads * keys + 4 * l.ffn_dim + 2 * l.ffn_dim;
  if (c.has_experts()) {
    floats +=
        8 * c.dim + 3 * c.n_experts + c.n_experts_active * (3 * c.dim + 5 * c.expert_ffn_dim + 8);
  }
  if (c.has_ple()) floats += 10 * c.ple_dim + 4 * c.dim;
  return floats;
}

}  // namespace

LayerTape::LayerTape(const model::Weights& weights, const Part& part, ThreadPool& pool,
                     const kernels::KernelTable& table)
    : weights_(weights),
      part_(part),
      cpu_(pool, table),
      shapes_(shapes_of_part(weights, part)),
      layout_(shapes_),
      values_(train::load_parameters(sources_of_part(weights, shapes_), layout_)),
      gradients_(values_.size(), 0.0f),
      recording_(layout_, values_.data(), gradients_.data(), pool),
      still_(layout_, values_.data(), nullptr, pool) {
  for (size_t i = 0; i < shapes_.all.size(); ++i) {
    const kernels::Weight& w = weights.all[i];
    if (shapes_.all[i].rows == 0 || w.scales.empty() || w.count > 1) continue;
    if (shapes_.refs[i].kind == TensorKind::kPleTable) continue;
    std::vector<int32_t> rows(static_cast<size_t>(w.rows));
    std::iota(rows.begin(), rows.end(), 0);
    const std::span<float> to = values(shapes_.refs[i]);
    cpu_.read(cpu_.embed(w, rows, 0, w.cols, 1.0f), to);
  }
}

int64_t LayerTape::bytes(const model::Config& config, const Part& part) {
  int64_t parameters = 0;
  for (const TensorRef ref : model::required_tensors(config)) {
    if (!belongs(config, part, ref)) continue;
    Shape shape = model::shape_of(config, ref);
    if (ref.kind == TensorKind::kPleTable) shape[0] = part.most_tokens;
    parameters += *element_count(shape) + 16;
  }
  int64_t floats = 4 * config.dim;
  for (int64_t layer = part.begin; layer < part.end; ++layer) {
    floats += layer_floats(config, layer, part.most_tokens);
  }
  if (part.output) floats += 3 * config.vocab_size + 2 * config.dim;
  // Values and gradients; the arena takes pieces of 16 MiB and may leave their ends unused. The
  // tape without gradients has an arena too.
  const int64_t activations = part.most_tokens * floats * 4;
  return parameters * 8 + 3 * activations + 4 * (int64_t{16} << 20);
}

int64_t LayerTape::held() const {
  return static_cast<int64_t>(values_.size()) * 8 + recording_.bytes() + still_.bytes();
}

const train::ParameterLayout::Entry& LayerTape::entry(TensorRef ref) const {
  const kernels::Weight& w = shapes_.at(ref.kind, ref.layer);
  CHECK(w.id >= 0 && w.rows > 0);
  return layout_[w.id];
}

std::span<float> LayerTape::values(TensorRef ref) {
  const auto& e = entry(ref);
  return std::span(values_).subspan(static_cast<size_t>(e.offset), static_cast<size_t>(e.size));
}

std::span<const float> LayerTape::gradients(TensorRef ref) const {
  const auto& e = entry(ref);
  return std::span(gradients_).subspan(static_cast<size_t>(e.offset), static_cast<size_t>(e.size));
}

void LayerTape::clear_gradients() { std::fill(gradients_.begin(), gradients_.end(), 0.0f); }

void LayerTape::look_up(std::span<const int32_t> tokens) {
  const int64_t width = weights_.config.ple_dim * (part_.end - part_.begin);
  const int64_t begin = weights_.config.ple_dim * part_.begin;
  const Value rows = cpu_.embed(weights_.at(TensorKind::kPleTable), tokens, begin, width, 1.0f);
  const std::span<const float> from = cpu_.view(rows);
  const std::span<float> to = values({TensorKind::kPleTable, -1});
  const int64_t all = shapes_.at(TensorKind::kPleTable).cols;
  for (int64_t t = 0; t < static_cast<int64_t>(tokens.size()); ++t) {
    std::copy_n(from.begin() + t * width, width, to.begin() + t * all + begin);
  }
}

Value LayerTape::run(Tape& tape, const Input& input) {
  const auto n = static_cast<int64_t>(input.tokens.size());
  const model::Config& config = weights_.config;
  CHECK(n > 0 && n <= part_.most_tokens);
  if (config.has_ple() && part_.end > part_.begin) look_up(input.tokens);
  model::Residual r;
  r.x = tape.input(n, config.dim, input.x);
  if (config.has_ple()) r.embedded = tape.input(n, config.dim, input.embedded);
  for (int32_t t = 0; t < n; ++t) r.rows.push_back({0, t});
  // Row t of the table is what was looked up for token t.
  r.tokens.resize(static_cast<size_t>(n));
  std::iota(r.tokens.begin(), r.tokens.end(), 0);
  if (!input.k.empty()) {
    const model::LayerConfig l = config.layer(part_.begin);
    const int64_t width = l.n_kv_heads * l.head_dim;
    kernels::AttentionCall call;  // of no queries: it only brings keys and values
    call.n_heads = config.n_heads;
    call.n_kv_heads = l.n_kv_heads;
    call.head_dim = l.head_dim;
    call.kv_layer = static_cast<int32_t>(l.kv_layer);
    call.kv_rows = r.rows;
    (void)tape.attention(tape.input(0, config.n_heads * l.head_dim, {}),
                         tape.input(n, width, input.k), tape.input(n, width, input.v), call);
  }
  model::Step step;
  step.skip = false;
  const std::vector<kernels::RowRef> rows = r.rows;
  step.rows = rows;
  const Value x = model::run_layers(shapes_, tape, step, std::move(r), part_.begin, part_.end).x;
  return part_.output ? model::logits_of(shapes_, tape, x) : x;
}

namespace {

double squared_distance(const float* y, std::span<const float> wanted, float* difference) {
  double sum = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const double d = double{y[i]} - wanted[i];
    sum += d * d;
    if (difference != nullptr) difference[i] = static_cast<float>(d);
  }
  return sum;
}

}  // namespace

double LayerTape::distance(const Input& input, std::span<const float> wanted) {
  CHECK(!part_.output && wanted.size() == input.x.size());
  const Value y = run(still_, input);
  const double sum = squared_distance(still_.data(y), wanted, nullptr);
  still_.reset();
  return sum;
}

double LayerTape::distance_and_gradient(const Input& input, std::span<const float> wanted,
                                        double weight) {
  CHECK(!part_.output && wanted.size() == input.x.size());
  const Value y = run(recording_, input);
  std::vector<float> difference(wanted.size());
  const double sum = squared_distance(recording_.data(y), wanted, difference.data());
  (void)recording_.project(y, std::span<const float>(difference), 2 * weight);
  recording_.backward();
  recording_.reset();
  return sum;
}

double LayerTape::divergence_and_gradient(const Input& input, const float* teacher, double weight) {
  CHECK(part_.output);
  const Value logits = run(recording_, input);
  const double sum = recording_.distillation(logits, teacher, weight);
  recording_.backward();
  recording_.reset();
  return sum;
}

}  // namespace carat::quantize
