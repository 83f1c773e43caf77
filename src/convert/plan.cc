#include "convert/plan.h"

#include <fmt/format.h>

#include <cmath>

#include "base/error.h"
#include "convert/parts.h"
#include "quant/blocks.h"
#include "quant/coded_rows.h"
#include "quant/scheme.h"

namespace carat::convert {
namespace {

using model::TensorClass;

// Codes and scales can be read as floats everywhere.
bool reads_as_float(DType dtype) { return is_float(dtype) || quant::is_coded(dtype); }

// Whether rows of an item are whole blocks of a type. Rows of the per-layer table are read a layer
// at a time, so there a layer's part must be whole blocks.
bool fits_blocks(const Item& item, DType dtype, const model::Config& config) {
  const int64_t unit =
      item.ref.kind == model::TensorKind::kPleTable ? config.ple_dim : item.shape.back();
  return unit % info(dtype).block_elements == 0;
}

void use_q4_0(Item& item, const model::Config& config, bool force) {
  item.judge = reads_as_float(item.source.dtype) && item.shape.back() % quant::kBlock == 0;
  if (item.source.dtype == DType::kQ4_0) {
    item.to = DType::kQ4_0;
  } else if (!fits_blocks(item, DType::kQ4_0, config)) {
    item.to = kept_type(item.source.dtype);
    item.note = "its rows are not whole blocks of 32";
  } else if (force || reads_as_float(item.source.dtype)) {
    item.to = DType::kQ4_0;
    item.conditional = true;
  } else {
    item.to = item.source.dtype;
    item.note = fmt::format("it is {} in the source", name_of(item.source.dtype));
  }
}

void use_q6_k(Item& item, const model::Config& config) {
  item.judge = reads_as_float(item.source.dtype) && item.shape.back() % quant::kBlock == 0;
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
  if (!item.is_matrix) {
    item.to = DType::kF32;
    return;
  }
  switch (options.format) {
    case Format::kGguf:
      item.to = type_in(options.recipe, config, item.ref);
      item.may_round = info(item.to).block_elements > 1;
      item.judge = item.to == DType::kQ4_0 && reads_as_float(item.source.dtype);
      return;
    case Format::kGgufBf16:
      item.to = DType::kBF16;
      return;
    case Format::kGgufGoogle:
      if (cls == TensorClass::kEmbedding || cls == TensorClass::kPleTable) {
        item.may_round = true;
        return use_q6_k(item, config);
      }
      if (cls == TensorClass::kPleProjection) {
        item.to = DType::kF16;
        item.may_round = true;
        item.judge = reads_as_float(item.source.dtype) && item.shape.back() % quant::kBlock == 0;
        return;
      }
      [[fallthrough]];
    case Format::kGgufQ4_0:
      return use_q4_0(item, config, options.force_q4_0);
    default:
      CHECK(false);  // has no such tensors
  }
}

Item gguf_item(const PlanSource& source, model::TensorRef ref, const ConvertOptions& options) {
  const model::Config& config = source.model->config();
  const auto stored = source.stored->find(ref);
  CHECK(stored.has_value());  // load_model bound it
  const TensorClass cls = model::row_of(ref.kind).cls;
  Item item;
  item.ref = ref;
  item.source = source_tensor(*source.model->source, *stored);
  item.name = model::gguf_name(ref);
  item.shape = model::shape_of(config, ref);
  item.is_matrix = cls != TensorClass::kKeep;
  choose_type(item, cls, config, options);
  if (source.importance != nullptr && item.is_matrix) {
    item.source.column_weights = source.importance->weights_of(item.name, item.shape);
  }
  return item;
}

// Static rounding that a target without it would leave out.
void check_dropped_scales(const PlanSource& source, const ConvertOptions& options,
                          Losses* happened) {
  const model::Config& config = source.model->config();
  const auto kind = coded_kind(options.format);
  bool activations = false, cache = false;
  for (const model::TensorRef ref : model::required_tensors(config)) {
    const auto t = source.stored->find(ref);
    activations = activations || (t && (t->input_scale > 0 || t->output_scale > 0));
  }
  for (int64_t i = 0; i < config.n_layers; ++i) {
    const model::KvScales scales = source.stored->kv_scales(i);
    cache = cache || scales.k > 0 || scales.v > 0;
  }
  if (activations && !(kind && is_mobile(*kind))) {
    require_accepted(Loss::kDroppedActivationScales,
                     "the static rounding of activations has no place in this format", options,
                     happened);
  }
  if (cache && kind != CodedKind::kMobileTransformers) {
    require_accepted(Loss::kDroppedCacheScales,
                     "the static rounding of cached keys and values has no place in this format",
                     options, happened);
  }
}

}  // namespace

std::optional<CodedKind> coded_kind(Format format) {
  switch (format) {
    case Format::kW4A16:
      return CodedKind::kW4A16;
    case Format::kMobileTransformers:
      return CodedKind::kMobileTransformers;
    case Format::kMobileCt:
      return CodedKind::kMobileCt;
    default:
      return std::nullopt;
  }
}

void require_accepted(Loss loss, const std::string& what, const ConvertOptions& options,
                      Losses* happened) {
  if (!options.accepted.accepts(loss)) {
    throw Error({"this conversion would lose something: " + what, options.source, "", "", "",
                 fmt::format("--accept {} converts all the same and reports how much is lost",
                             name_of(loss))});
  }
  happened->add(loss);
}

DType kept_type(DType source) { return quant::is_coded(source) ? DType::kBF16 : source; }

Plan make_plan(const PlanSource& source, const ConvertOptions& options) {
  Losses losses;
  check_dropped_scales(source, options, &losses);
  Plan plan;
  if (is_directory(options.format)) {
    plan = make_hf_plan(source, options);
  } else {
    plan.config = source.model->config();
    for (const model::TensorRef ref : model::required_tensors(plan.config)) {
      plan.items.push_back(gguf_item(source, ref, options));
    }
  }
  plan.losses = losses;
  for (Item& item : plan.items) {
    if (item.how == Item::How::kTranscode && item.to == DType::kBF16 &&
        is_kept_by_bf16(item.source.dtype, item.source.scales.dtype)) {
      item.may_round = true;
    }
  }
  return plan;
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
  item.may_round = is_kept_by_bf16(item.source.dtype, item.source.scales.dtype);
  if (so_far.refused > 0) {
    item.note = "it holds weights that are not finite or too large for Q4_0";
    return;
  }
  item.note = fmt::format("{} of {}{} blocks are off the Q4_0 lattice",
                          so_far.blocks - so_far.blocks_on_lattice, so_far.blocks,
                          sampled ? " sampled" : "");
}

}  // namespace carat::convert
