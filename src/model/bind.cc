// Weights out of a checkpoint's tensors.
#include <fmt/format.h>

#include <cstring>
#include <map>

#include "base/error.h"
#include "base/half.h"
#include "io/gguf_experts.h"
#include "model/load.h"
#include "quant/scheme.h"

namespace carat::model {
namespace {

// What the weights point into.
struct Storage {
  std::shared_ptr<const io::TensorSource> source;
  std::vector<std::unique_ptr<std::byte[]>> copies;

  std::byte* allocate(int64_t bytes) {
    copies.push_back(std::make_unique<std::byte[]>(static_cast<size_t>(bytes)));
    return copies.back().get();
  }
};

struct KnownForeign {
  const char* part;
  const char* hint;
};

// Parts of names by which other kinds of checkpoint are recognised.
constexpr KnownForeign kForeign[] = {
    {"weight_packed", "config.json has no quantization_config that says how to read it"},
    {"embedding_quantized", "config.json has no quantization_config that says how to read it"},
    {"_scale", "config.json has no quantization_config that says how to read it"},
    {".experts.0.", "experts one by one are not supported; they are joined in one tensor"},
    {"ffn_gate_exps",
     "gate and up experts in two tensors must be of one type and shape to be joined as "
     "ffn_gate_up_exps"},
    {"ffn_up_exps",
     "gate and up experts in two tensors must be of one type and shape to be joined as "
     "ffn_gate_up_exps"},
};

const char* hint_for(std::string_view name, Coding coding) {
  for (const KnownForeign& f : kForeign) {
    if (name.find(f.part) == std::string_view::npos) continue;
    if (coding == Coding::kNone || f.part[0] != '_') return f.hint;
  }
  return "the file is damaged or holds another kind of model";
}

// Reads names once: refuses unknown ones, counts the ones that text does not need.
void check_names(const StoredTensors& stored, const io::TensorSource& source,
                 std::vector<std::string>* notes) {
  std::map<std::string, int64_t> skipped;
  for (const io::TensorEntry& entry : source.entries()) {
    const TensorRole role = stored.role(entry.name);
    if (role.need == TensorRole::Need::kUnknown) {
      throw Error({"the checkpoint has a tensor that its configuration does not call for",
                   source.path_of(entry), "tensor " + entry.name, "", to_string(entry.shape),
                   hint_for(entry.name, stored.coding())});
    }
    if (role.need == TensorRole::Need::kSkipped && entry.name != kRopeFreqsName) {
      ++skipped[role.part];
    }
  }
  if (notes == nullptr) return;
  for (const auto& [part, n] : skipped) {
    notes->push_back(fmt::format("skipped {} ({} {})", part, n, n == 1 ? "tensor" : "tensors"));
  }
}

[[noreturn]] void wrong_type(const io::TensorSource& source, const io::TensorEntry& entry,
                             std::string expected, std::string hint = "") {
  throw Error({"a tensor has a type that carat does not compute with", source.path_of(entry),
               "tensor " + entry.name, std::move(expected), name_of(entry.dtype), std::move(hint)});
}

[[noreturn]] void wrong_codes(const io::TensorSource& source, const StoredTensor& t,
                              std::string expected, std::string got) {
  throw Error({"a quantized parameter has a form that carat does not compute with",
               source.path_of(*t.values), "tensor " + t.values->name, std::move(expected),
               std::move(got), ""});
}

// What the kernels need of codes.
void check_codes(const Config& config, const io::TensorSource& source, const StoredTensor& t,
                 TensorKind kind) {
  const int64_t columns = t.shape.back();
  if (t.shape.size() == 1) wrong_codes(source, t, "floats", name_of(t.dtype));
  if (kind == TensorKind::kPleTable && config.ple_dim % t.scale_columns != 0) {
    wrong_codes(source, t,
                fmt::format("scales that divide the {} columns of a layer", config.ple_dim),
                fmt::format("one per {}", t.scale_columns));
  }
  if (is_looked_up_only(config, kind)) return;
  if (columns % kernels::kTileColumns != 0) {
    wrong_codes(source, t, fmt::format("a multiple of {} columns", kernels::kTileColumns),
                to_string(t.shape));
  }
  const bool by_row = t.scale_columns == columns;
  if (!by_row && (t.dtype != DType::kC4 || t.scale_columns != kernels::kTileColumns)) {
    wrong_codes(source, t, "one scale per row, or per 32 columns of 4-bit codes",
                fmt::format("one per {} columns of {}", t.scale_columns, name_of(t.dtype)));
  }
  // Parts of the matrix are multiplied, and a part is whole tiles.
  const int64_t part = kind == TensorKind::kPleProjection   ? config.ple_dim
                       : kind == TensorKind::kExpertsGateUp ? config.expert_ffn_dim
                                                            : 0;
  if (part % kernels::kTileRows != 0) {
    wrong_codes(source, t, fmt::format("parts of a multiple of {} rows", kernels::kTileRows),
                fmt::format("{}", part));
  }
  if (t.input_scale == 0 && t.output_scale == 0) return;
  if (!by_row || t.shape.size() != 2) {
    wrong_codes(source, t, "one scale per row where activations are rounded to fixed steps",
                fmt::format("one per {} columns", t.scale_columns));
  }
  // The sum of a row is exact in 32 bits.
  constexpr int64_t kMaxStaticColumns = 65536;
  if (columns > kMaxStaticColumns) {
    wrong_codes(source, t, fmt::format("at most {} columns", kMaxStaticColumns),
                fmt::format("{}", columns));
  }
}

void check_type(const Config& config, const io::TensorSource& source, const io::TensorEntry& entry,
                const TensorRow& row, bool is_vector) {
  const bool is_float =
      entry.dtype == DType::kF32 || entry.dtype == DType::kF16 || entry.dtype == DType::kBF16;
  if (is_vector) {
    if (!is_float) wrong_type(source, entry, "F32, BF16 or F16");
    return;
  }
  // Who computes asks for more (load.cc).
  if (!info(entry.dtype).computable && !quant::can_decode(entry.dtype)) {
    wrong_type(source, entry, computable_names(),
               "config.json must tell how codes are to be read; else quantize the model again");
  }
  if (row.kind == TensorKind::kPleTable && config.ple_dim % info(entry.dtype).block_elements != 0) {
    wrong_type(source, entry,
               fmt::format("a type whose blocks divide the {} columns of a layer", config.ple_dim));
  }
}

// A scalar may be written without dimensions.
bool same_shape(const Shape& file, const Shape& model) {
  return file == model || (file.empty() && model == Shape{1});
}

bool is_aligned(const io::TensorEntry& entry) {
  const DTypeInfo& type = info(entry.dtype);
  return type.block_elements > 1 || entry.offset % type.block_bytes == 0;
}

const std::byte* vector_as_f32(const io::TensorSource& source, const io::TensorEntry& entry,
                               int64_t n, Storage& storage) {
  std::vector<std::byte> raw(static_cast<size_t>(entry.bytes));
  source.file_of(entry).read(entry.offset, raw);
  std::byte* out = storage.allocate(n * 4);
  auto* floats = reinterpret_cast<float*>(out);
  if (entry.dtype == DType::kF32) {
    std::memcpy(out, raw.data(), raw.size());
    return out;
  }
  for (int64_t i = 0; i < n; ++i) {
    uint16_t bits;
    std::memcpy(&bits, raw.data() + 2 * i, 2);
    floats[i] = entry.dtype == DType::kBF16 ? to_float(BF16{bits}) : to_float(F16{bits});
  }
  return out;
}

kernels::Weight make_weight(const Config& config, const io::TensorSource& source,
                            const StoredTensor& t, const Shape& shape, TensorKind kind,
                            Storage& storage) {
  const io::TensorEntry& entry = *t.values;
  kernels::Weight w;
  w.dtype = t.dtype;
  w.count = shape.size() == 3 ? shape[0] : 1;
  w.rows = shape.size() == 1 ? 1 : shape[shape.size() - 2];
  w.cols = shape.back();
  w.file = &source.file_of(entry);
  w.file_offset = entry.offset;
  w.input_scale = t.input_scale;
  w.output_scale = t.output_scale;
  if (shape.size() == 1) {
    w.dtype = DType::kF32;
    w.data = vector_as_f32(source, entry, w.cols, storage);
  } else if (t.is_coded()) {
    w.scales = {&source.file_of(*t.scales), t.scales->offset, t.scales->dtype, t.scale_columns};
  } else if (!is_looked_up_only(config, kind) && !io::is_joined(*w.file) && is_aligned(entry)) {
    w.data = source.view(entry).data;
  }
  return w;
}

// Empty if there are none.
std::vector<KvScales> kv_scales_of(const Config& config, const StoredTensors& stored) {
  std::vector<KvScales> scales(static_cast<size_t>(config.n_layers));
  bool any = false;
  for (int64_t i = 0; i < config.n_layers; ++i) {
    KvScales& s = scales[static_cast<size_t>(i)];
    s = stored.kv_scales(i);
    any = any || s.k > 0 || s.v > 0;
  }
  if (!any) scales.clear();
  return scales;
}

}  // namespace

bool is_looked_up_only(const Config& config, TensorKind kind) {
  return kind == TensorKind::kPleTable ||
         (kind == TensorKind::kTokenEmbedding && !config.tied_embeddings);
}

Weights bind_weights(const Config& config, const StoredTensors& stored,
                     std::shared_ptr<const io::TensorSource> source,
                     std::vector<std::string>* notes) {
  config.validate();
  check_names(stored, *source, notes);
  auto storage = std::make_shared<Storage>();
  storage->source = source;

  Weights weights;
  weights.config = config;
  weights.refs = required_tensors(config);
  for (const TensorRef ref : weights.refs) {
    const TensorRow& row = row_of(ref.kind);
    const Shape shape = row.shape(config, ref.layer);
    const std::optional<StoredTensor> t = stored.find(ref);
    if (!t) {
      const std::string file =
          source->entries().empty() ? std::string() : source->path_of(source->entries().front());
      throw Error({"a required tensor is missing", file, "tensor " + name_of(ref, stored.naming()),
                   to_string(shape), "", "the checkpoint is incomplete"});
    }
    if (!same_shape(t->shape, shape)) {
      throw Error({"a tensor has another shape than the configuration gives it",
                   source->path_of(*t->values), "tensor " + t->values->name, to_string(shape),
                   to_string(t->shape), ""});
    }
    if (t->is_coded()) {
      check_codes(config, *source, *t, ref.kind);
    } else {
      check_type(config, *source, *t->values, row, shape.size() == 1);
    }
    weights.all.push_back(make_weight(config, *source, *t, shape, ref.kind, *storage));
    weights.all.back().id = static_cast<int32_t>(weights.all.size()) - 1;
  }
  weights.kv_scales = kv_scales_of(config, stored);
  weights.storage = storage;
  weights.index();
  return weights;
}

}  // namespace carat::model
