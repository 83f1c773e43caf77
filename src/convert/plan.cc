#include "convert/plan.h"

#include <fmt/format.h>

#include <cmath>

#include "base/error.h"
#include "quant/blocks.h"
#include "quant/scheme.h"

namespace carat::convert {
namespace {

using model::TensorClass;

bool is_gguf(Format format) { return format != Format::kHfBf16; }

// Whether rows of an item are whole blocks of a type. Rows of the per-layer table are read a layer
// at a time, so there a layer's part must be whole blocks.
bool fits_blocks(const Item& item, DType dtype, const model::Config& config) {
  const int64_t unit =
      item.ref.kind == model::TensorKind::kPleTable ? config.ple_dim : item.shape.back();
  return unit % info(dtype).block_elements == 0;
}

void use_q4_0(Item& item, const model::Config& config, bool force) {
  item.judge = is_float(item.source.dtype) && item.shape.back() % quant::kBlock == 0;
  if (item.source.dtype == DType::kQ4_0) {
    item.to = DType::kQ4_0;
  } else if (!fits_blocks(item, DType::kQ4_0, config)) {
    item.to = kept_type(item.source.dtype);
    item.note = "its rows are not whole blocks of 32";
  } else if (force || is_float(item.source.dtype)) {
    item.to = DType::kQ4_0;
    item.conditional = true;
  } else {
    item.to = item.source.dtype;
    item.note = fmt::format("it is {} in the source", name_of(item.source.dtype));
  }
}

void use_q6_k(Item& item, const model::Config& config) {
  item.judge = is_float(item.source.dtype) && item.shape.back() % quant::kBlock == 0;
  for (const DType dtype : {DType::kQ6_K, DType::kQ8_0}) {
    if (!fits_blocks(item, dtype, config)) continue;
    item.to = dtype;
    if (dtype != DType::kQ6_K) item.note = "its rows are not whole blocks of 256";
    return;
  }
  item.to = kept_type(item.source.dtype);
  item.note = "its rows are not whole blocks of 32";
}

void choose_type(Item& item, TensorClass cls, const model::Config& config,
                 const ConvertOptions& options) {
  if (!is_gguf(options.format)) {
    item.to = DType::kBF16;
    return;
  }
  if (!item.is_matrix) {
    item.to = DType::kF32;
    return;
  }
  switch (options.format) {
    case Format::kGgufBf16:
    case Format::kHfBf16:
      item.to = DType::kBF16;
      return;
    case Format::kGgufGoogle:
      if (cls == TensorClass::kEmbedding || cls == TensorClass::kPleTable) {
        return use_q6_k(item, config);
      }
      if (cls == TensorClass::kPleProjection) {
        item.to = DType::kF16;
        item.judge = is_float(item.source.dtype) && item.shape.back() % quant::kBlock == 0;
        return;
      }
      [[fallthrough]];
    case Format::kGgufQ4_0:
      return use_q4_0(item, config, options.force_q4_0);
    case Format::kMmprojBf16:
      CHECK(false);  // has no tensor of the text model
  }
}

}  // namespace

DType kept_type(DType source) { return is_float(source) ? DType::kBF16 : source; }

std::vector<Item> make_items(const model::Model& model, model::Naming naming,
                             const ConvertOptions& options) {
  const model::Config& config = model.config();
  const io::TensorSource& tensors = *model.source;
  std::vector<Item> items;
  for (size_t i = 0; i < model.weights.refs.size(); ++i) {
    const model::TensorRef ref = model.weights.refs[i];
    const io::TensorEntry* entry = tensors.find(model::name_of(ref, naming));
    CHECK(entry != nullptr);  // load_model bound it
    const TensorClass cls = model::row_of(ref.kind).cls;
    Item item;
    item.ref = ref;
    item.source = source_tensor(tensors, *entry);
    item.name = is_gguf(options.format) ? model::gguf_name(ref) : model::hf_name(ref);
    item.shape = model::shape_of(config, ref);
    item.is_matrix = cls != TensorClass::kKeep;
    choose_type(item, cls, config, options);
    items.push_back(std::move(item));
  }
  return items;
}

int64_t allowed_off_lattice(const Item& item, const ConvertOptions& options) {
  const int64_t blocks = item.source.elements / quant::kBlock;
  if (options.force_q4_0) return blocks;
  return static_cast<int64_t>(
      std::floor((1.0 - options.min_lattice_share) * static_cast<double>(blocks)));
}

void keep(Item& item, const LatticeStats& so_far, bool sampled) {
  item.conditional = false;
  item.to = kept_type(item.source.dtype);
  if (so_far.refused > 0) {
    item.note = "it holds weights that are not finite or too large for Q4_0";
    return;
  }
  item.note = fmt::format("{} of {}{} blocks are off the Q4_0 lattice",
                          so_far.blocks - so_far.blocks_on_lattice, so_far.blocks,
                          sampled ? " sampled" : "");
}

}  // namespace carat::convert
