#include "app/fit.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "app/memory.h"
#include "app/options.h"
#include "app/progress.h"
#include "app/traffic.h"
#include "base/checked.h"
#include "base/error.h"
#include "convert/coded_layout.h"
#include "convert/recipe.h"
#include "convert/synth.h"
#include "engine/limits.h"
#include "engine/restart_policy.h"
#include "model/drafter.h"
#include "model/kv_cache.h"

namespace carat::app {
namespace {

using convert::CodedKind;

constexpr FitKind kKinds[] = {{"hf-bf16", false, "bf16", false},
                              {"w4a16-ct", false, "w4a16-ct", false},
                              {"gguf-google", true, "q4_0", false},
                              {"gguf-q4_0", true, "q4_0_all", false},
                              {"gguf-q4_k_m", true, "q4_k_m", false},
                              {"gguf-q8_0", true, "q8_0", false},
                              {"mobile", false, "mobile-transformers", true}};

constexpr FitSize kSizes[] = {{"E2B", 11.4, 2.9, 1.1, 0.84},
                              {"E4B", 17.9, 4.5, 2.5, 2.2},
                              {"12B", 26.7, 6.7, 0, 0},
                              {"26B-A4B", 57.7, 14.4, 0, 0},
                              {"31B", 69.9, 17.5, 0, 0}};

// Written faster than most people read.
constexpr double kReadingPace = 5;  // tokens a second

// The 4-bit kinds that hold the lattice that training put the weights on, smallest first.
constexpr const char* kLatticeKinds[] = {"gguf-q4_0", "gguf-google", "w4a16-ct"};

std::optional<CodedKind> coded_kind(const FitKind& kind) {
  if (kind.gguf || std::string_view(kind.synthetic) == "bf16") return std::nullopt;
  return kind.small_only ? CodedKind::kMobileTransformers : CodedKind::kW4A16;
}

model::Weights weights_of(const FitKind& kind, model::Config config) {
  const auto coded = coded_kind(kind);
  if (coded) config.tied_embeddings = !convert::is_mobile(*coded);
  return model::weights_of_shape(config, [&](model::TensorRef ref) -> model::StoredType {
    if (kind.gguf) {
      return {convert::type_in(convert::gguf_recipe(kind.synthetic), config, ref)};
    }
    const auto layout = coded ? convert::coded_layout(*coded, config, ref) : std::nullopt;
    if (!layout) return {DType::kBF16};
    const bool head = ref.kind == model::TensorKind::kLmHead;  // has no scale of its own
    return {layout->codes, layout->scale_columns, layout->scales,
            convert::is_mobile(*coded) && !head};
  });
}

std::string gigabytes(int64_t bytes) {
  return fmt::format("{:.1f} GB", static_cast<double>(bytes) / 1e9);
}

}  // namespace

std::span<const FitKind> fit_kinds() { return kKinds; }
std::span<const FitSize> fit_sizes() { return kSizes; }

int64_t drafter_bytes(const model::Config& config) {
  for (const FitSize& size : kSizes) {
    const model::DrafterConfig drafter = model::drafter_of_size(size.name);
    if (drafter.backbone_dim != config.dim) continue;
    int64_t bytes = 0;
    for (const model::DrafterTensor& t : model::drafter_tensors(drafter)) {
      const DType type = t.row->integers ? DType::kI64 : DType::kBF16;
      bytes += *byte_count(type, model::drafter_shape(drafter, t));
    }
    return bytes;
  }
  return 0;
}

int64_t kept_prefix_bytes(const model::Config& config, kernels::KvType kv, int64_t n_tokens) {
  const model::KvLayout layout(config, kv);
  model::Model nothing;
  nothing.weights.config = config;
  const int64_t every = engine::restart_policy(nothing, layout).every;
  std::set<int64_t> pages;
  for (int64_t at = every; at < n_tokens; at += every) {
    for (int64_t page = layout.first_visible(at) / kernels::kKvPageTokens;
         page < ceil_div(at, kernels::kKvPageTokens); ++page) {
      pages.insert(page);
    }
  }
  // Those at the end are the sequence's own.
  const int64_t own = layout.first_visible(n_tokens) / kernels::kKvPageTokens;
  pages.erase(pages.lower_bound(own), pages.end());
  return static_cast<int64_t>(pages.size()) * layout.local_bytes;
}

Fit fit_model(const model::Weights& weights, int64_t tokenizer, const FitInput& input) {
  const model::Config& config = weights.config;
  CHECK(input.context >= 1 && input.threads >= 1);
  Fit f;
  f.parameters = model::parameter_count(config);
  f.max_context = config.max_seq_len;
  f.context = std::min(input.context, f.max_context);
  f.weights = model::weight_memory(weights);
  f.kv = model::kv_memory(config, input.kv, f.context, std::min(kFitChunk, f.context));
  f.activations =
      model::activation_bytes(weights, input.kv, std::min(kFitChunk, f.context), input.threads);
  f.tokenizer = tokenizer;
  f.program = kProgramBytes;

  // What `carat run` would set aside for keys and values.
  const int64_t rest = input.memory - (f.total() - f.kv.total());
  const int64_t kv_budget = share_for_model(rest);
  if (f.weights.packed <= share_for_model(input.memory) && kv_budget > 0) {
    f.longest_context = engine::context_limits(config, input.kv, 0, kv_budget, kFitChunk).capacity;
  }
  f.fits = f.longest_context >= input.context;

  model::Model shape;
  shape.weights = weights;
  f.speed_limit = input.bandwidth / static_cast<double>(decode_bytes(
                                        shape, input.kv, std::max<int64_t>(0, f.context - 1)));
  return f;
}

std::vector<Fit> fit_all(const FitInput& input) {
  std::vector<Fit> fits;
  Progress progress("kinds of checkpoint");
  constexpr auto kMost = static_cast<int64_t>(std::size(kSizes) * std::size(kKinds));
  int64_t done = 0;
  std::optional<text::Vocab> vocab;  // that of all sizes
  for (const FitSize& size : kSizes) {
    const model::Config config = model::config_of_size(size.name);
    for (const FitKind& kind : kKinds) {
      progress.update(++done, kMost);
      if (kind.small_only && !config.is_small_family()) continue;
      if (!vocab || vocab->size() != config.vocab_size) {
        vocab = convert::synthetic_vocab(static_cast<int32_t>(config.vocab_size));
      }
      FitInput of_kind = input;
      // Mobile checkpoints state 8-bit scales of keys and values and cannot have fewer.
      if (kind.small_only && kernels::is_kv4(input.kv)) of_kind.kv = kernels::KvType::kI8;
      Fit f = fit_model(weights_of(kind, config), model::tokenizer_bytes(*vocab), of_kind);
      f.size = size.name;
      f.kind = kind.name;
      convert::SynthOptions synth;
      synth.size = size.name;
      synth.gguf = kind.gguf;
      synth.type = kind.synthetic;
      f.file_bytes = convert::synthetic_bytes(synth, *vocab);
      fits.push_back(std::move(f));
    }
  }
  progress.finish();
  return fits;
}

std::optional<Fit> recommended(const std::vector<Fit>& fits) {
  std::optional<Fit> best;
  const auto is_lattice = [](const Fit& f) {
    return std::any_of(std::begin(kLatticeKinds), std::end(kLatticeKinds),
                       [&](const char* name) { return f.kind == name; });
  };
  for (const Fit& f : fits) {
    if (!f.fits || !is_lattice(f) || f.speed() < kReadingPace) continue;
    const bool larger = !best || f.parameters > best->parameters;
    const bool smaller = best && f.size == best->size && f.total() < best->total();
    if (larger || smaller) best = f;
  }
  if (best) return best;
  for (const Fit& f : fits) {
    if (f.fits && (!best || f.speed() > best->speed())) best = f;
  }
  return best;
}

std::string recommendation(const std::vector<Fit>& fits, const FitInput& input) {
  const auto best = recommended(fits);
  if (!best) {
    const bool any =
        std::any_of(fits.begin(), fits.end(), [](const Fit& f) { return f.longest_context > 0; });
    return fmt::format("Nothing fits {} with a context of {} tokens: {}.", gigabytes(input.memory),
                       input.context,
                       any ? "ask for a shorter one" : "the weights alone take more");
  }
  return fmt::format(
      "Take {} as {}: it needs {} of {} with a context of {} tokens, which can grow to {}, and "
      "writes about {:.0f} tokens/s.",
      best->size, best->kind, gigabytes(best->total()), gigabytes(input.memory), best->context,
      best->longest_context, best->speed());
}

int64_t parse_tokens(const std::string& text, const std::string& option) {
  int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, code] = std::from_chars(text.data(), end, value);
  const std::string_view unit(stop, static_cast<size_t>(end - stop));
  const int64_t factor = unit == "k" || unit == "K" ? 1024 : 1;
  if (code != std::errc() || (factor == 1 && !unit.empty()) || value < 1 ||
      value > (int64_t{1} << 22) / factor) {
    throw UsageError(option + " takes a number of tokens, with k for 1024, not '" + text + "'");
  }
  return value * factor;
}

}  // namespace carat::app
