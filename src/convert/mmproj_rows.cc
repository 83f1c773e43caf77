#include "convert/mmproj_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "base/half.h"
#include "base/rng.h"
#include "model/load.h"
#include "model/stored.h"
#include "quant/coded_rows.h"
#include "quant/scheme.h"

namespace carat::convert {
namespace {

using model::TowerChange;
using model::TowerClip;
using model::TowersConfig;
using model::TowerTensor;

bool same_shape(const Shape& file, const Shape& expected) {
  if (file == expected) return true;
  return (file.empty() || file == Shape{1}) && (expected.empty() || expected == Shape{1});
}

void check_shape(const io::TensorSource& source, const io::TensorEntry& entry, const Shape& file,
                 const Shape& expected) {
  if (same_shape(file, expected)) return;
  throw Error({"a tensor has another shape than the configuration gives it", source.path_of(entry),
               "tensor " + entry.name, to_string(expected), to_string(entry.shape), ""});
}

[[noreturn]] void missing(const io::Checkpoint& checkpoint, const std::string& name,
                          const Shape& shape) {
  throw Error({"a required tensor is missing", checkpoint.path, "tensor " + name, to_string(shape),
               "", "the checkpoint is incomplete"});
}

// Names under which the towers' tensors stand in a Hugging Face checkpoint.
constexpr const char* kTowerPrefixes[] = {"model.vision_tower.", "model.vision_embedder.",
                                          "model.embed_vision.", "model.audio_tower.",
                                          "model.embed_audio."};

class HfTowerRows final : public TowerRows {
 public:
  explicit HfTowerRows(const io::Checkpoint& checkpoint)
      : source_(*checkpoint.tensors), path_(checkpoint.path) {
    config_ = model::towers_from_hf(checkpoint.config);
    if (model::coding_of(checkpoint.config) != model::Coding::kNone) {
      coded_.emplace(checkpoint, model::config_of(checkpoint));
    }
    drop_absent_bounds();
    std::unordered_set<std::string> known;
    for (const TowerTensor& t : tower_tensors(config_)) {
      const std::string name = tower_hf_name(t);
      const std::optional<model::StoredTensor> stored = find(name);
      if (!stored) missing(checkpoint, name, tower_hf_shape(config_, t));
      check_shape(source_, *stored->values, stored->shape, tower_hf_shape(config_, t));
      known.insert(name);
    }
    check_unknown(known);
  }

  void read(const TowerTensor& t, int64_t row, int64_t n, float* out) override {
    const model::StoredTensor stored = *find(tower_hf_name(t));
    const int64_t columns = tower_columns(config_, t);
    const io::TensorEntry& entry = *stored.values;
    const int64_t bytes = row_bytes(stored.dtype, columns);
    raw_.resize(static_cast<size_t>(n * bytes));
    source_.file_of(entry).read(entry.offset + row * bytes, raw_);
    if (!stored.is_coded()) return quant::decode_row(stored.dtype, raw_.data(), out, n * columns);
    const int64_t groups = columns / stored.scale_columns;
    const io::TensorEntry& scales = *stored.scales;
    const int64_t scale_bytes = row_bytes(scales.dtype, n * groups);
    std::vector<std::byte> raw_scales(static_cast<size_t>(scale_bytes));
    source_.file_of(scales).read(scales.offset + row * row_bytes(scales.dtype, groups), raw_scales);
    std::vector<float> values(static_cast<size_t>(n * groups));
    quant::decode_row(scales.dtype, raw_scales.data(), values.data(), n * groups);
    for (int64_t r = 0; r < n; ++r) {
      quant::decode_coded_row(stored.dtype, raw_.data() + r * bytes, values.data() + r * groups,
                              stored.scale_columns, columns, out + r * columns);
    }
  }

  DType dtype(const TowerTensor& t) const override { return find(tower_hf_name(t))->dtype; }
  DType scale_dtype(const TowerTensor& t) const override {
    const model::StoredTensor stored = *find(tower_hf_name(t));
    return stored.is_coded() ? stored.scales->dtype : DType::kF32;
  }
  std::string name(const TowerTensor& t) const override {
    return find(tower_hf_name(t))->values->name;
  }
  std::vector<std::string> files(const TowerTensor& t) const override {
    const model::StoredTensor stored = *find(tower_hf_name(t));
    std::vector<std::string> paths = {source_.path_of(*stored.values)};
    if (stored.is_coded()) paths.push_back(source_.path_of(*stored.scales));
    return paths;
  }

 private:
  std::optional<model::StoredTensor> find(const std::string& name) const {
    if (coded_) return coded_->find(name);
    const io::TensorEntry* entry = source_.find(name);
    // Old checkpoints lack the outer "model.".
    if (entry == nullptr) entry = source_.find(std::string_view(name).substr(6));
    if (entry == nullptr) return std::nullopt;
    if (!quant::can_decode(entry->dtype)) {
      throw Error({"a tensor has a type that carat does not convert", source_.path_of(*entry),
                   "tensor " + entry->name, "F32, BF16 or F16", name_of(entry->dtype), ""});
    }
    model::StoredTensor stored;
    stored.values = entry;
    stored.dtype = entry->dtype;
    stored.shape = entry->shape;
    return stored;
  }

  // Mobile checkpoints have no bounds, whatever their config says.
  void drop_absent_bounds() {
    const auto lacks = [&](const char* name) { return !find(name); };
    if (config_.vision && config_.vision->clipped) {
      config_.vision->clipped =
          !lacks("model.vision_tower.encoder.layers.0.self_attn.q_proj.input_min");
    }
    if (config_.audio && config_.audio->clipped) {
      config_.audio->clipped = !lacks("model.audio_tower.layers.0.self_attn.q_proj.input_min");
    }
  }

  void check_unknown(const std::unordered_set<std::string>& known) const {
    for (const io::TensorEntry& entry : source_.entries()) {
      const bool tower =
          std::any_of(std::begin(kTowerPrefixes), std::end(kTowerPrefixes),
                      [&](const char* prefix) { return entry.name.starts_with(prefix); });
      if (!tower || known.count(entry.name) != 0 || is_part_of_codes(entry.name, known)) continue;
      throw Error({"the checkpoint has a tensor that its configuration does not call for",
                   source_.path_of(entry), "tensor " + entry.name, "", to_string(entry.shape),
                   "the file is damaged or holds another kind of model"});
    }
  }

  // Codes, scales and what else stands for the weight of a module that the towers have.
  bool is_part_of_codes(const std::string& name,
                        const std::unordered_set<std::string>& known) const {
    if (!coded_) return false;
    for (const char* end :
         {".weight_packed", ".weight_scale", ".weight_shape", ".input_activation_scale",
          ".output_activation_scale", ".input_scale", ".output_scale"}) {
      if (!name.ends_with(end)) continue;
      const std::string weight =
          name.substr(0, name.size() - std::string_view(end).size()) + ".weight";
      const auto stored = known.count(weight) != 0 ? find(weight) : std::nullopt;
      if (stored && stored->is_coded()) return true;
    }
    return false;
  }

  const io::TensorSource& source_;
  std::string path_;
  std::optional<model::StoredTensors> coded_;
  std::vector<std::byte> raw_;
};

class MmprojRows final : public TowerRows {
 public:
  explicit MmprojRows(const io::Checkpoint& checkpoint) : source_(*checkpoint.tensors) {
    config_ = model::towers_from_gguf(checkpoint.gguf->metadata(), source_);
    std::unordered_set<std::string> known;
    for (const TowerTensor& t : tower_tensors(config_)) {
      const std::string name = tower_gguf_name(t);
      const io::TensorEntry* entry = source_.find(name);
      if (entry == nullptr) missing(checkpoint, name, tower_gguf_shape(config_, t));
      check_shape(source_, *entry, entry->shape, tower_gguf_shape(config_, t));
      check_type(*entry, t);
      known.insert(name);
    }
    for (const io::TensorEntry& entry : source_.entries()) {
      if (known.count(entry.name) != 0) continue;
      throw Error({"the checkpoint has a tensor that its configuration does not call for",
                   source_.path_of(entry), "tensor " + entry.name, "", to_string(entry.shape),
                   "the file is damaged or holds another kind of model"});
    }
  }

  void read(const TowerTensor& t, int64_t row, int64_t n, float* out) override {
    const io::TensorEntry& entry = *source_.find(tower_gguf_name(t));
    const int64_t columns = tower_columns(config_, t);
    TowerOrder order(config_, t);
    const int64_t bytes = row_bytes(entry.dtype, columns);
    const int64_t at_once = order.keeps_rows() ? n : 1;
    raw_.resize(static_cast<size_t>(at_once * bytes));
    for (int64_t i = 0; i < n; i += at_once) {
      source_.file_of(entry).read(entry.offset + order.gguf_row(row + i) * bytes, raw_);
      quant::decode_row(entry.dtype, raw_.data(), out + i * columns, at_once * columns);
    }
    for (int64_t i = 0; i < n; ++i) order.to_hf(out + i * columns);
  }

  DType dtype(const TowerTensor& t) const override {
    return source_.find(tower_gguf_name(t))->dtype;
  }
  std::string name(const TowerTensor& t) const override { return tower_gguf_name(t); }
  std::vector<std::string> files(const TowerTensor& t) const override {
    return {source_.path_of(*source_.find(tower_gguf_name(t)))};
  }

 private:
  // Blocks must not reach over the rows that are read one by one.
  void check_type(const io::TensorEntry& entry, const TowerTensor& t) const {
    if (quant::can_decode(entry.dtype) &&
        tower_columns(config_, t) % info(entry.dtype).block_elements == 0) {
      return;
    }
    throw Error({"a tensor has a type that carat does not convert", source_.path_of(entry),
                 "tensor " + entry.name, "F32, BF16 or F16", name_of(entry.dtype), ""});
  }

  const io::TensorSource& source_;
  std::vector<std::byte> raw_;
};

// Matrices keep the size of what they multiply; norms are near one; bounds are wide.
class RandomTowerRows final : public TowerRows {
 public:
  RandomTowerRows(const TowersConfig& config, uint64_t seed) : seed_(seed) { config_ = config; }

  void read(const TowerTensor& t, int64_t row, int64_t n, float* out) override {
    const int64_t columns = tower_columns(config_, t);
    for (int64_t r = 0; r < n; ++r) {
      Rng rng(row_seed(t, row + r));
      for (int64_t i = 0; i < columns; ++i) {
        out[r * columns + i] = to_float(to_bf16(value(t, columns, rng)));
      }
    }
  }

  DType dtype(const TowerTensor&) const override { return DType::kBF16; }
  std::string name(const TowerTensor& t) const override { return tower_hf_name(t); }
  std::vector<std::string> files(const TowerTensor&) const override { return {}; }

 private:
  // FNV-1a of the name, then the row.
  uint64_t row_seed(const TowerTensor& t, int64_t row) const {
    uint64_t h = 0xcbf29ce484222325u ^ seed_;
    for (const char c : tower_hf_name(t)) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    return h + static_cast<uint64_t>(row) * 0x9e3779b97f4a7c15u;
  }

  static float value(const TowerTensor& t, int64_t columns, Rng& rng) {
    switch (t.clip) {
      case TowerClip::kInputMin:
      case TowerClip::kOutputMin:
        return static_cast<float>(-10 - 10 * rng.uniform());
      case TowerClip::kInputMax:
      case TowerClip::kOutputMax:
        return static_cast<float>(10 + 10 * rng.uniform());
      case TowerClip::kNone:
        break;
    }
    const double x = 2 * (rng.uniform() + rng.uniform() + rng.uniform() - 1.5);  // nearly normal
    const std::string_view name = t.row->hf;
    if (name.ends_with("bias")) return static_cast<float>(0.02 * x);
    if (t.row->change == TowerChange::kSoftplus) return static_cast<float>(0.5 * x);
    const bool norm = name.find("norm") != std::string_view::npos ||
                      name.find("_ln") != std::string_view::npos || name == "std_scale";
    if (norm) return static_cast<float>(1 + 0.1 * x);
    if (name.find("pos") != std::string_view::npos &&
        t.row->kind != model::TowerRow::Kind::kLinear) {
      return static_cast<float>(0.02 * x);
    }
    return static_cast<float>(x / std::sqrt(static_cast<double>(columns)));
  }

  uint64_t seed_;
};

}  // namespace

int64_t tower_columns(const TowersConfig& config, const TowerTensor& t) {
  const Shape shape = tower_hf_shape(config, t);
  return shape.empty() ? 1 : shape.back();
}

int64_t tower_row_count(const TowersConfig& config, const TowerTensor& t) {
  const Shape shape = tower_hf_shape(config, t);
  return shape.empty() ? 1 : *element_count(shape) / shape.back();
}

TowerOrder::TowerOrder(const TowersConfig& config, const TowerTensor& t)
    : change_(t.clip == TowerClip::kNone ? t.row->change : TowerChange::kNone),
      columns_(tower_columns(config, t)) {
  if (change_ == TowerChange::kSwapAxes) n_positions_ = tower_hf_shape(config, t)[0];
  if (change_ == TowerChange::kPlanes) {
    planes_ = model::planes_permutation(config.vision->model_patch());
    copy_.resize(planes_.size());
  }
}

int64_t TowerOrder::hf_row(int64_t gguf_row) const {
  if (change_ != TowerChange::kSwapAxes) return gguf_row;
  return gguf_row % n_positions_ * 2 + gguf_row / n_positions_;
}

int64_t TowerOrder::gguf_row(int64_t hf_row) const {
  if (change_ != TowerChange::kSwapAxes) return hf_row;
  return hf_row % 2 * n_positions_ + hf_row / 2;
}

void TowerOrder::to_gguf(float* values) {
  if (change_ == TowerChange::kPlanes) {
    std::copy_n(values, copy_.size(), copy_.begin());
    for (size_t i = 0; i < copy_.size(); ++i) values[i] = copy_[static_cast<size_t>(planes_[i])];
  } else if (change_ == TowerChange::kSoftplus) {
    for (int64_t i = 0; i < columns_; ++i) {
      const auto x = static_cast<double>(values[i]);
      values[i] = static_cast<float>(std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x))));
    }
  }
}

void TowerOrder::to_hf(float* values) {
  if (change_ == TowerChange::kPlanes) {
    std::copy_n(values, copy_.size(), copy_.begin());
    for (size_t i = 0; i < copy_.size(); ++i) values[static_cast<size_t>(planes_[i])] = copy_[i];
  } else if (change_ == TowerChange::kSoftplus) {
    for (int64_t i = 0; i < columns_; ++i) {
      // A softplus is positive; a file that says otherwise gets the least that float can tell.
      const auto y = std::max(static_cast<double>(values[i]), 1e-45);
      values[i] = static_cast<float>(y + std::log(-std::expm1(-y)));
    }
  }
}

std::unique_ptr<TowerRows> open_tower_rows(const io::Checkpoint& checkpoint) {
  try {
    if (checkpoint.gguf != nullptr) return std::make_unique<MmprojRows>(checkpoint);
    return std::make_unique<HfTowerRows>(checkpoint);
  } catch (const Error& e) {
    throw e.with_file(checkpoint.path);
  }
}

std::unique_ptr<TowerRows> random_tower_rows(const TowersConfig& config, uint64_t seed) {
  return std::make_unique<RandomTowerRows>(config, seed);
}

}  // namespace carat::convert
