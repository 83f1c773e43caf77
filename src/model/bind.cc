// Weights out of a checkpoint's tensors.
#include <fmt/format.h>

#include <cstring>
#include <map>

#include "base/error.h"
#include "base/half.h"
#include "model/load.h"

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
    {"weight_packed",
     "this is a compressed-tensors checkpoint; open the one it was made from, or "
     "the GGUF of the same model"},
    {"embedding_quantized", "this is a mobile checkpoint; open the q4_0 one of the same model"},
    {"weight_scale", "this is a quantized checkpoint; open the q4_0 one of the same model"},
    {"ffn_gate_exps",
     "separate gate and up experts are not supported; convert the model again, "
     "which joins them in ffn_gate_up_exps"},
    {"ffn_up_exps",
     "separate gate and up experts are not supported; convert the model again, "
     "which joins them in ffn_gate_up_exps"},
    {"output.weight",
     "Gemma 4 uses the token embedding as output matrix; a separate one would "
     "change the model"},
};

const char* hint_for(std::string_view name) {
  for (const KnownForeign& f : kForeign) {
    if (name.find(f.part) != std::string_view::npos) return f.hint;
  }
  return "the file is damaged or holds another kind of model";
}

// Reads names once: refuses unknown ones, counts the ones that text does not need.
void check_names(const Config& config, const io::TensorSource& source, Naming naming,
                 std::vector<std::string>* notes) {
  const TensorNames names(config, naming);
  std::map<std::string, int64_t> skipped;
  for (const io::TensorEntry& entry : source.entries()) {
    const TensorRole role = names.role(entry.name);
    if (role.need == TensorRole::Need::kUnknown) {
      throw Error({"the checkpoint has a tensor that its configuration does not call for",
                   source.path_of(entry), "tensor " + entry.name, "", to_string(entry.shape),
                   hint_for(entry.name)});
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

void check_type(const Config& config, const io::TensorSource& source, const io::TensorEntry& entry,
                const TensorRow& row, bool is_vector) {
  const bool is_float =
      entry.dtype == DType::kF32 || entry.dtype == DType::kF16 || entry.dtype == DType::kBF16;
  if (is_vector) {
    if (!is_float) wrong_type(source, entry, "F32, BF16 or F16");
    return;
  }
  if (!info(entry.dtype).computable) {
    wrong_type(source, entry, computable_names(),
               "quantize the model again with one of these types");
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

kernels::Weight make_weight(const io::TensorSource& source, const io::TensorEntry& entry,
                            const Shape& shape, TensorKind kind, Storage& storage) {
  kernels::Weight w;
  w.dtype = entry.dtype;
  w.count = shape.size() == 3 ? shape[0] : 1;
  w.rows = shape.size() == 1 ? 1 : shape[shape.size() - 2];
  w.cols = shape.back();
  w.file = &source.file_of(entry);
  w.file_offset = entry.offset;
  if (shape.size() == 1) {
    w.dtype = DType::kF32;
    w.data = vector_as_f32(source, entry, w.cols, storage);
  } else if (kind == TensorKind::kPleTable) {
    w.data = nullptr;
  } else if (is_aligned(entry)) {
    w.data = source.view(entry).data;
  } else {
    std::byte* copy = storage.allocate(entry.bytes);
    w.file->read(entry.offset, {copy, static_cast<size_t>(entry.bytes)});
    w.data = copy;
  }
  return w;
}

}  // namespace

Weights bind_weights(const Config& config, std::shared_ptr<const io::TensorSource> source,
                     Naming naming, std::vector<std::string>* notes) {
  config.validate();
  check_names(config, *source, naming, notes);
  auto storage = std::make_shared<Storage>();
  storage->source = source;

  Weights weights;
  weights.config = config;
  weights.refs = required_tensors(config);
  for (const TensorRef ref : weights.refs) {
    const TensorRow& row = row_of(ref.kind);
    const std::string name = name_of(ref, naming);
    const Shape shape = row.shape(config, ref.layer);
    const io::TensorEntry* entry = source->find(name);
    if (entry == nullptr) {
      const std::string file =
          source->entries().empty() ? std::string() : source->path_of(source->entries().front());
      throw Error({"a required tensor is missing", file, "tensor " + name, to_string(shape), "",
                   "the checkpoint is incomplete"});
    }
    if (!same_shape(entry->shape, shape)) {
      throw Error({"a tensor has another shape than the configuration gives it",
                   source->path_of(*entry), "tensor " + name, to_string(shape),
                   to_string(entry->shape), ""});
    }
    check_type(config, *source, *entry, row, shape.size() == 1);
    weights.all.push_back(make_weight(*source, *entry, shape, ref.kind, *storage));
    weights.all.back().id = static_cast<int32_t>(weights.all.size()) - 1;
  }
  weights.storage = storage;
  weights.index();
  return weights;
}

}  // namespace carat::model
