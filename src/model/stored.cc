#include "model/stored.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <span>
#include <vector>

#include "base/checked.h"
#include "base/error.h"
#include "base/half.h"
#include "quant/coded_rows.h"

namespace carat::model {
namespace {

using io::TensorEntry;
using io::TensorSource;
using Need = TensorRole::Need;

// -- names --------------------------------------------------------------------------------------

// A tensor whose name ends in `suffix` is part of the parameter that has `whole` there instead.
struct PartName {
  const char* suffix;
  const char* whole;
};

constexpr PartName kMobileParts[] = {
    {".weight_scale", ".weight"},
    {".input_activation_scale", ".weight"},
    {".output_activation_scale", ".weight"},
    {".embedding_quantized", ".weight"},
    {".embedding_scale", ".weight"},
    {".k_cache_scale", ".k_proj.weight"},
    {".v_cache_scale", ".k_proj.weight"},  // a layer without v_proj caches V too
};

// The last three are those of ".weight" and of experts, which are stored without that word.
constexpr PartName kWordParts[] = {
    {".input_scale", ".weight"},
    {".output_scale", ".weight"},
    {"_packed", ""},
    {"_scale", ""},
    {"_shape", ""},
};

// What only asymmetric or reordered weights have.
constexpr const char* kForeignParts[] = {"_zero_point", "_g_idx", ".input_zero_point",
                                         ".output_zero_point"};

std::span<const PartName> parts_of(Coding coding) {
  if (coding == Coding::kMobile) return kMobileParts;
  if (coding == Coding::kCompressedTensors) return kWordParts;
  return {};
}

std::string whole_name(std::string_view name, const PartName& part) {
  name.remove_suffix(std::string_view(part.suffix).size());
  return std::string(name) + part.whole;
}

// "a.q_proj" of "a.q_proj.weight".
std::string module_of(std::string_view name) {
  if (name.ends_with(".weight")) name.remove_suffix(7);
  return std::string(name);
}

// -- errors and values --------------------------------------------------------------------------

[[noreturn]] void bad(const TensorSource& source, const TensorEntry& entry, std::string what,
                      std::string expected, std::string got, std::string hint = "") {
  throw Error({std::move(what), source.path_of(entry), "tensor " + entry.name, std::move(expected),
               std::move(got), std::move(hint)});
}

[[noreturn]] void bad_shape(const TensorSource& source, const TensorEntry& entry,
                            std::string expected) {
  bad(source, entry, "the parts of a quantized parameter do not fit together", std::move(expected),
      to_string(entry.shape));
}

bool is_scale_type(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16;
}

const TensorEntry& require(const TensorSource& source, const TensorEntry& values,
                           const std::string& name) {
  if (const TensorEntry* entry = source.find(name)) return *entry;
  throw Error({"a quantized parameter lacks a part", source.path_of(values), "tensor " + name,
               "beside " + values.name, "none", "the checkpoint is incomplete"});
}

void require_type(const TensorSource& source, const TensorEntry& entry, bool fits,
                  const char* expected) {
  if (fits) return;
  bad(source, entry, "a part of a quantized parameter has another type than its format gives it",
      expected, name_of(entry.dtype));
}

// One number, not negative.
float read_scale(const TensorSource& source, const TensorEntry& entry) {
  require_type(source, entry, is_scale_type(entry.dtype), "F32, BF16 or F16");
  if (!entry.shape.empty() && entry.shape != Shape{1}) bad_shape(source, entry, "one number");
  std::byte raw[4];
  const auto size = static_cast<size_t>(info(entry.dtype).block_bytes);
  source.file_of(entry).read(entry.offset, std::span(raw).first(size));
  float value;
  uint16_t half;
  std::memcpy(&half, raw, 2);
  std::memcpy(&value, raw, 4 <= size ? 4 : 0);
  if (entry.dtype == DType::kBF16) value = to_float(BF16{half});
  if (entry.dtype == DType::kF16) value = to_float(F16{half});
  if (!std::isfinite(value) || value < 0) {
    bad(source, entry, "a scale of activations is not a number that can be one",
        "0 (none) or a positive number", fmt::format("{}", value));
  }
  return value;
}

// Fills in the scales of `t`, whose shape is known: [rows, groups] (experts: [n, rows, groups]).
void attach_scales(const TensorSource& source, const TensorEntry& scales, StoredTensor& t) {
  require_type(source, scales, is_scale_type(scales.dtype), "F32, BF16 or F16");
  const int64_t columns = t.shape.back();
  Shape rows = t.shape;
  rows.pop_back();
  Shape got = scales.shape;
  const int64_t groups = got.empty() ? 0 : got.back();
  if (!got.empty()) got.pop_back();
  const bool fits = got == rows && groups > 0 && columns % groups == 0 &&
                    columns / groups * quant::code_bits(t.dtype) % 8 == 0;
  if (!fits) {
    rows.push_back(1);
    bad_shape(source, scales,
              fmt::format("{}, or more columns that divide {}", to_string(rows), columns));
  }
  t.scales = &scales;
  t.scale_columns = columns / groups;
}

// The parameter's shape as the file states it, [out, in]; of experts [n, out, in] or [out, in].
Shape read_shape(const TensorSource& source, const TensorEntry& entry, const Shape& packed) {
  require_type(source, entry, entry.dtype == DType::kI64, "I64");
  const auto rank = static_cast<int64_t>(packed.size());
  const bool fits = entry.shape == Shape{rank} || entry.shape == Shape{2};
  if (!fits) bad_shape(source, entry, to_string(Shape{rank}));
  std::vector<int64_t> dims(static_cast<size_t>(entry.shape[0]));
  source.file_of(entry).read(entry.offset, std::as_writable_bytes(std::span(dims)));
  Shape shape(packed.begin(), packed.end() - static_cast<std::ptrdiff_t>(dims.size()));
  shape.insert(shape.end(), dims.begin(), dims.end());
  Shape rows = shape, packed_rows = packed;
  rows.pop_back();
  packed_rows.pop_back();
  // A word holds at most 16 codes; more would overflow where columns are rounded up.
  if (rows != packed_rows || shape.back() < 1 || shape.back() / 16 > packed.back()) {
    bad(source, entry, "the parts of a quantized parameter do not fit together",
        fmt::format("the rows of the packed codes, {}", to_string(packed)), to_string(shape));
  }
  return shape;
}

constexpr Naming kNamings[] = {Naming::kGguf, Naming::kHfMultimodal, Naming::kHf, Naming::kHfOld};
constexpr const char* kTableForms[] = {"", "_packed"};

bool has_embedding(const TensorSource& source, Naming naming) {
  const std::string name = name_of({TensorKind::kTokenEmbedding, -1}, naming);
  for (const char* form : kTableForms) {
    if (source.find(name + form)) return true;
  }
  return source.find(module_of(name) + ".embedding_quantized") != nullptr;
}

}  // namespace

Naming naming_of(const io::Checkpoint& checkpoint) {
  if (checkpoint.gguf != nullptr) return Naming::kGguf;
  for (const Naming naming : kNamings) {
    if (has_embedding(*checkpoint.tensors, naming)) return naming;
  }
  throw Error({"a required tensor is missing", checkpoint.path,
               "tensor " + name_of({TensorKind::kTokenEmbedding, -1}, Naming::kHfMultimodal), "",
               "", "the checkpoint is incomplete or holds another kind of model"});
}

StoredTensors::StoredTensors(const io::Checkpoint& checkpoint, const Config& config)
    : source_(checkpoint.tensors.get()),
      config_(config),
      coding_(checkpoint.gguf ? Coding::kNone : coding_of(checkpoint.config)),
      naming_(naming_of(checkpoint)),
      names_(config, naming_) {
  if (coding_ == Coding::kNone) return;
  constexpr int64_t kMaxDim = int64_t{1} << 24;
  const Json* audio = carat::find(checkpoint.config, "audio_config");
  const Json* vision = carat::find(checkpoint.config, "vision_config");
  if (audio && audio->is_object()) audio_dim_ = get_int(*audio, "hidden_size", 1, kMaxDim, 1024);
  if (vision && vision->is_object()) {
    vision_dim_ = get_int(*vision, "hidden_size", 1, kMaxDim, 768);
    vision_ffn_dim_ = get_int(*vision, "intermediate_size", 1, kMaxDim, 3072);
  }
  for (const TensorEntry& entry : source_->entries()) check_part(entry);
  for (const TensorRef ref : required_tensors(config_)) (void)find(ref);
  for (int64_t i = 0; i < config_.n_layers; ++i) (void)kv_scales(i);
}

// Refuses what belongs to other formats, and parts of nothing.
void StoredTensors::check_part(const TensorEntry& entry) const {
  for (const char* foreign : kForeignParts) {
    if (!entry.name.ends_with(foreign)) continue;
    throw Error({"carat does not read this kind of quantized checkpoint", source_->path_of(entry),
                 "tensor " + entry.name, "symmetric weights in the order of their columns",
                 foreign + 1, ""});
  }
  for (const PartName& part : parts_of(coding_)) {
    if (!entry.name.ends_with(part.suffix)) continue;
    const std::string whole = whole_name(entry.name, part);
    if (names_.role(whole).ref.kind == TensorKind::kCount) continue;  // not the text model's
    const std::string module = module_of(whole);
    const bool has_values = source_->find(whole) || source_->find(whole + "_packed") ||
                            source_->find(module + ".embedding_quantized");
    if (has_values || whole.ends_with(".k_proj.weight")) continue;
    bad(*source_, entry, "a part of a quantized parameter is there without the codes",
        "beside " + whole, "none", "the checkpoint is incomplete");
  }
}

std::optional<StoredTensor> StoredTensors::find(TensorRef ref) const {
  return find(name_of(ref, naming_), shape_of(config_, ref).back());
}

std::optional<StoredTensor> StoredTensors::find(const std::string& name) const {
  const TensorRole role = names_.role(name);
  if (role.ref.kind != TensorKind::kCount) return find(role.ref);
  return find(name, tower_columns(name));
}

std::optional<StoredTensor> StoredTensors::find(const std::string& name, int64_t columns) const {
  if (coding_ == Coding::kCompressedTensors) {
    if (auto t = find_words(name)) return t;
  }
  if (coding_ != Coding::kNone) {
    if (auto t = find_bytes(name, columns)) return t;
  }
  const TensorEntry* entry = source_->find(name);
  if (entry == nullptr) return std::nullopt;
  StoredTensor t;
  t.values = entry;
  t.dtype = entry->dtype;
  t.shape = entry->shape;
  return t;
}

// Codes in bytes: the mobile format, and the 8-bit modules of compressed-tensors.
std::optional<StoredTensor> StoredTensors::find_bytes(const std::string& name,
                                                      int64_t columns) const {
  const bool mobile = coding_ == Coding::kMobile;
  const std::string module = module_of(name);
  const TensorEntry* values = source_->find(name);
  const TensorEntry* table = mobile ? source_->find(module + ".embedding_quantized") : nullptr;
  if (values && table) bad(*source_, *table, "a parameter is stored twice", "", values->name);
  const bool is_table = table != nullptr;
  if (is_table) values = table;
  const bool bytes = values && (values->dtype == DType::kI8 || values->dtype == DType::kU8);
  if (is_table) require_type(*source_, *values, bytes, "U8 or I8");
  if (!bytes) return std::nullopt;
  if (!mobile) require_type(*source_, *values, values->dtype == DType::kI8, "I8");
  if (values->shape.size() != 2) bad_shape(*source_, *values, "two dimensions");

  StoredTensor t;
  t.values = values;
  t.shape = values->shape;
  const int64_t stored = t.shape.back();
  if (values->dtype == DType::kI8) {
    t.dtype = DType::kC8;
  } else {
    if (columns == 0) {
      bad(*source_, *values,
          "the configuration does not tell how wide the matrix is, nor so how "
          "many bits a code has",
          "", to_string(values->shape));
    }
    // Not 8 * stored: that is the file's number.
    const bool two = columns % 4 == 0 && stored == columns / 4;
    const bool four = columns % 2 == 0 && stored == columns / 2;
    if (!two && !four) {
      bad_shape(*source_, *values,
                fmt::format("{} columns (codes of 2 bits) or {} (4 bits)", ceil_div(columns, 4),
                            ceil_div(columns, 2)));
    }
    t.dtype = two ? DType::kC2 : DType::kC4;
    t.shape.back() = columns;
  }
  const std::string scales = is_table ? module + ".embedding_scale" : name + "_scale";
  attach_scales(*source_, require(*source_, *values, scales), t);
  if (!is_table) {
    t.input_scale =
        activation_scale(module + (mobile ? ".input_activation_scale" : ".input_scale"), values);
    t.output_scale =
        activation_scale(module + (mobile ? ".output_activation_scale" : ".output_scale"), values);
  }
  return t;
}

// Codes in words: the 2-bit and 4-bit modules of compressed-tensors.
std::optional<StoredTensor> StoredTensors::find_words(const std::string& name) const {
  const TensorEntry* packed = source_->find(name + "_packed");
  if (packed == nullptr) return std::nullopt;
  if (const TensorEntry* plain = source_->find(name)) {
    bad(*source_, *packed, "a parameter is stored twice", "", plain->name);
  }
  require_type(*source_, *packed, packed->dtype == DType::kI32, "I32");
  if (packed->shape.size() != 2 && packed->shape.size() != 3) {
    bad_shape(*source_, *packed, "two dimensions, or three of experts");
  }
  const TensorEntry& stated = require(*source_, *packed, name + "_shape");
  StoredTensor t;
  t.values = packed;
  t.shape = read_shape(*source_, stated, packed->shape);
  const int64_t words = packed->shape.back(), columns = t.shape.back();
  const bool four = columns % 8 == 0 && words == columns / 8;
  const bool two = columns % 16 == 0 && words == columns / 16;
  if (!two && !four) {
    bad(*source_, *packed, "the codes do not fill whole words of 2-bit or 4-bit codes",
        fmt::format("{} columns (2 bits) or {} (4 bits) for the shape {}", ceil_div(columns, 16),
                    ceil_div(columns, 8), to_string(t.shape)),
        to_string(packed->shape), "carat reads rows of a multiple of 16 weights");
  }
  t.dtype = two ? DType::kC2 : DType::kC4;
  attach_scales(*source_, require(*source_, *packed, name + "_scale"), t);
  const std::string module = module_of(name);
  t.input_scale = activation_scale(module + ".input_scale", packed);
  t.output_scale = activation_scale(module + ".output_scale", packed);
  return t;
}

// 0 where a format leaves it out; the mobile format never does.
float StoredTensors::activation_scale(const std::string& name, const TensorEntry* values) const {
  const TensorEntry* entry = source_->find(name);
  if (entry) return read_scale(*source_, *entry);
  if (coding_ == Coding::kMobile) (void)require(*source_, *values, name);
  return 0;
}

KvScales StoredTensors::kv_scales(int64_t layer) const {
  if (coding_ != Coding::kMobile) return {};
  std::string name = name_of({TensorKind::kK, layer}, naming_);
  name.resize(name.size() - std::string_view("k_proj.weight").size());
  const TensorEntry* k = source_->find(name + "k_cache_scale");
  const TensorEntry* v = source_->find(name + "v_cache_scale");
  if (!k && !v) return {};
  if (!k) k = &require(*source_, *v, name + "k_cache_scale");
  if (!v) v = &require(*source_, *k, name + "v_cache_scale");
  return {read_scale(*source_, *k), read_scale(*source_, *v)};
}

// Columns of a linear layer of a tower, 0 if the config does not tell.
int64_t StoredTensors::tower_columns(std::string_view name) const {
  const auto has = [&](const char* part) { return name.find(part) != std::string_view::npos; };
  if (has("audio_tower.")) return has(".ffw_layer_2.") ? 4 * audio_dim_ : audio_dim_;
  if (has("vision_tower.")) return has(".down_proj.") ? vision_ffn_dim_ : vision_dim_;
  return 0;
}

TensorRole StoredTensors::role(std::string_view entry_name) const {
  const TensorRole own = names_.role(entry_name);
  if (own.need != Need::kUnknown) return own;
  for (const PartName& part : parts_of(coding_)) {
    if (!entry_name.ends_with(part.suffix)) continue;
    const TensorRole whole = names_.role(whole_name(entry_name, part));
    if (whole.need != Need::kUnknown) return whole;
  }
  return own;
}

}  // namespace carat::model
