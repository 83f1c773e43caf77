#include "convert/drafter.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "base/thread_pool.h"
#include "convert/drafter_fields.h"
#include "convert/parts.h"
#include "convert/resumable_target.h"
#include "convert/transcode.h"
#include "model/load.h"
#include "quant/blocks.h"
#include "quant/scheme.h"

namespace carat::convert {
namespace {

using model::DrafterConfig;
using model::DrafterTensor;

constexpr int64_t kHeadBytes = int64_t{64} << 20;  // more than metadata and tokenizer

std::string name_in(const DrafterTensor& t, bool gguf) {
  return gguf ? drafter_gguf_name(t) : drafter_hf_name(t);
}

// The entry of every tensor that the config calls for. Throws Error: missing, unknown, or of
// another shape or type.
std::vector<const io::TensorEntry*> bind_tensors(const io::Checkpoint& checkpoint,
                                                 const DrafterConfig& config,
                                                 const std::vector<DrafterTensor>& tensors) {
  const io::TensorSource& source = *checkpoint.tensors;
  const bool gguf = checkpoint.gguf != nullptr;
  std::vector<const io::TensorEntry*> entries;
  std::unordered_set<std::string> known;
  if (gguf) known.insert(model::kRopeFreqsName);
  for (const DrafterTensor& t : tensors) {
    const std::string name = name_in(t, gguf);
    const Shape shape = drafter_shape(config, t);
    const io::TensorEntry* entry = source.find(name);
    if (entry == nullptr) {
      throw Error({"a required tensor is missing", checkpoint.path, "tensor " + name,
                   to_string(shape), "", "the checkpoint is incomplete"});
    }
    const bool scalar = shape == Shape{1} && entry->shape.empty();
    // token_ordering is a list in some files, a matrix of groups in others.
    const bool same_count = t.row->integers && element_count(entry->shape) == shape[0];
    if (entry->shape != shape && !scalar && !same_count) {
      throw Error({"a tensor has another shape than the configuration gives it",
                   source.path_of(*entry), "tensor " + name, to_string(shape),
                   to_string(entry->shape), ""});
    }
    const bool usable = t.row->integers ? entry->dtype == DType::kI32 || entry->dtype == DType::kI64
                                        : quant::can_decode(entry->dtype);
    if (!usable) {
      throw Error({"a tensor has a type that carat does not convert", source.path_of(*entry),
                   "tensor " + name, t.row->integers ? "I32 or I64" : "floats or blocks",
                   name_of(entry->dtype), ""});
    }
    entries.push_back(entry);
    known.insert(name);
  }
  for (const io::TensorEntry& entry : source.entries()) {
    if (known.count(entry.name) != 0) continue;
    throw Error({"the checkpoint has a tensor that its configuration does not call for",
                 source.path_of(entry), "tensor " + entry.name, "", to_string(entry.shape),
                 "the file is damaged or holds another kind of model"});
  }
  return entries;
}

// Token ids between I32 and I64, checked against the vocabulary.
std::vector<std::byte> convert_ids(const io::TensorSource& source, const io::TensorEntry& entry,
                                   DType to, int64_t vocab_size) {
  std::vector<std::byte> raw(static_cast<size_t>(entry.bytes));
  source.file_of(entry).read(entry.offset, raw);
  const int64_t n = entry.bytes / info(entry.dtype).block_bytes;
  std::vector<std::byte> out(static_cast<size_t>(n * info(to).block_bytes));
  for (int64_t i = 0; i < n; ++i) {
    int64_t id = 0;
    if (entry.dtype == DType::kI64) {
      std::memcpy(&id, raw.data() + 8 * i, 8);
    } else {
      int32_t narrow;
      std::memcpy(&narrow, raw.data() + 4 * i, 4);
      id = narrow;
    }
    if (id < 0 || id >= vocab_size) {
      throw Error({"a token id is out of range", source.path_of(entry), "tensor " + entry.name,
                   fmt::format("0 to {}", vocab_size - 1), fmt::format("{} at {}", id, i), ""});
    }
    const auto narrow = static_cast<int32_t>(id);
    if (to == DType::kI64) {
      std::memcpy(out.data() + 8 * i, &id, 8);
    } else {
      std::memcpy(out.data() + 4 * i, &narrow, 4);
    }
  }
  return out;
}

class DrafterConversion {
 public:
  DrafterConversion(const ConvertOptions& options, const io::Checkpoint& checkpoint)
      : options_(options),
        checkpoint_(checkpoint),
        config_(drafter_config(checkpoint)),
        gguf_(options.format != Format::kHfBf16),
        pool_(options.threads),
        transcoder_(pool_, options.stop) {}

  ConvertReport run() {
    report_.options = options_;
    const std::vector<DrafterTensor> all = drafter_tensors(config_);
    const std::vector<const io::TensorEntry*> entries = bind_tensors(checkpoint_, config_, all);
    for (size_t i = 0; i < all.size(); ++i) add(all[i], *entries[i]);
    if (!gguf_) {
      std::stable_partition(items_.begin(), items_.end(),
                            [](const Item& item) { return item.spec.dtype == DType::kI64; });
    }
    for (Item& item : items_) choose(item);
    int64_t bytes = kHeadBytes;
    for (const Item& item : items_) bytes += *byte_count(item.spec.dtype, item.spec.shape);
    check_disk_space(options_.target, bytes);
    write_all();
    report_.notes.push_back(describe(config_));
    if (gguf_ && config_.has_centroids()) {
      report_.notes.push_back(
          "the centroids of the masked head are left out: every token is scored without them");
    }
    return std::move(report_);
  }

 private:
  struct Item {
    DrafterTensor tensor;
    const io::TensorEntry* entry;
    io::TensorSpec spec;
    bool is_matrix = false;
    bool judge = false;
    std::string note;
  };

  void add(const DrafterTensor& t, const io::TensorEntry& entry) {
    if (gguf_ && t.row->centroids) return;
    Item item;
    item.tensor = t;
    item.entry = &entry;
    item.is_matrix = t.row->cls != model::TensorClass::kKeep;
    item.spec.name = name_in(t, gguf_);
    item.spec.shape = drafter_shape(config_, t);
    item.spec.dtype = t.row->integers            ? DType::kI64
                      : gguf_ && !item.is_matrix ? DType::kF32
                                                 : DType::kBF16;
    total_ += entry.bytes;
    items_.push_back(std::move(item));
  }

  // Q4_0 if enough of the matrix lies on its lattice: all of it is looked at first.
  void choose(Item& item) {
    if (options_.format != Format::kGgufQ4_0 || !item.is_matrix) return;
    const SourceTensor source = source_tensor(*checkpoint_.tensors, *item.entry);
    if (item.entry->dtype == DType::kQ4_0) {
      item.spec.dtype = DType::kQ4_0;
    } else if (item.spec.shape.back() % quant::kBlock != 0) {
      item.note = "its rows are not whole blocks of 32";
    } else if (!is_float(item.entry->dtype) && !options_.force_q4_0) {
      item.spec.dtype = item.entry->dtype;
      item.note = fmt::format("it is {} in the source", name_of(item.entry->dtype));
    } else if (options_.force_q4_0) {
      item.spec.dtype = DType::kQ4_0;
      item.judge = is_float(item.entry->dtype);
    } else {
      judge(item, source);
    }
  }

  void judge(Item& item, const SourceTensor& source) {
    Findings found;
    TranscodeRequest request;
    request.judge = true;
    transcoder_.run(source, request, &found);
    const LatticeStats& s = found.lattice;
    const auto least = options_.min_lattice_share * static_cast<double>(s.blocks);
    if (s.refused == 0 && static_cast<double>(s.blocks_on_lattice) >= least) {
      item.spec.dtype = DType::kQ4_0;
      item.judge = true;
      return;
    }
    item.note = fmt::format("{} of {} blocks are off the Q4_0 lattice",
                            s.blocks - s.blocks_on_lattice, s.blocks);
  }

  TargetParts target_parts() const {
    const SideFiles side = read_side_files(checkpoint_);
    const auto tokenizer = model::tokenizer_of(checkpoint_);
    const text::Vocab* vocab = tokenizer ? &tokenizer->vocab() : nullptr;
    TargetParts parts;
    parts.path = options_.target;
    parts.is_folder = !gguf_;
    for (const Item& item : items_) parts.specs.push_back(item.spec);
    if (gguf_) {
      const uint32_t file_type = options_.format == Format::kGgufQ4_0 ? 2 : 32;
      parts.fields = drafter_fields(config_, vocab, side.name, side.chat_template, file_type);
      parts.rope_freqs = model::rope_freqs(config_.layers);
    } else {
      parts.texts = hf_texts(model::drafter_to_hf(config_), vocab, side);
      parts.max_file_bytes = options_.max_shard_bytes;
    }
    return parts;
  }

  void write_all() {
    const std::vector<std::string> sources = checkpoint_.tensors->paths();
    TargetParts parts = target_parts();
    const std::string plan = plan_digest(options_, parts.specs, sources);
    ResumableTarget target(options_, std::move(parts), plan, sources);
    const std::vector<Findings> earlier = target.take_over();
    for (size_t i = 0; i < earlier.size(); ++i) {
      done_ += items_[i].entry->bytes;
      report(items_[i], earlier[i]);
    }
    try {
      for (size_t i = earlier.size(); i < items_.size(); ++i) {
        if (options_.stop != nullptr && options_.stop->load()) throw Interrupted();
        const Findings findings = write(items_[i], target.tensors());
        report(items_[i], findings);
        target.mark(findings);
      }
      report_.source_files = digest_files(sources, options_.stop, {});
      check_recorded(report_.source_files);
      target.finish();
    } catch (const Interrupted&) {
      target.leave();
      throw;
    }
    report_.target_files = digests_of(target.tensors().files());
  }

  Findings write(const Item& item, io::TensorWriter& writer) {
    Findings findings;
    writer.begin(item.spec.name);
    if (item.tensor.row->integers) {
      writer.append(convert_ids(*checkpoint_.tensors, *item.entry, item.spec.dtype,
                                config_.layers.vocab_size));
      findings.weights = findings.weights_bit_exact = item.spec.shape[0];
      return findings;
    }
    TranscodeRequest request;
    request.to = item.spec.dtype;
    request.judge = item.judge;
    request.sink = [&](std::span<const std::byte> bytes) { writer.append(bytes); };
    request.advance = [&](int64_t bytes) {
      done_ += bytes;
      if (options_.progress) options_.progress(done_, total_, item.spec.name);
    };
    transcoder_.run(source_tensor(*checkpoint_.tensors, *item.entry), request, &findings);
    return findings;
  }

  // Throws Error for a loss that was not accepted.
  void report(const Item& item, const Findings& findings) {
    TensorReport t;
    t.name = item.spec.name;
    t.source_name = item.entry->name;
    t.from = item.entry->dtype;
    t.to = item.spec.dtype;
    t.shape = item.spec.shape;
    t.bytes = *byte_count(t.to, t.shape);
    t.is_matrix = item.is_matrix;
    t.note = item.note;
    set_findings(t, findings);
    check_rounded(t, DType::kF32, options_, &report_.losses);
    add_tensor(report_, std::move(t), item.entry->bytes);
  }

  const ConvertOptions& options_;
  const io::Checkpoint& checkpoint_;
  DrafterConfig config_;
  bool gguf_;
  ThreadPool pool_;
  Transcoder transcoder_;
  std::vector<Item> items_;
  ConvertReport report_;
  int64_t done_ = 0, total_ = 0;
};

}  // namespace

bool is_drafter(const io::Checkpoint& checkpoint) {
  return checkpoint.gguf != nullptr ? model::is_drafter(checkpoint.gguf->metadata())
                                    : model::is_drafter(checkpoint.config);
}

DrafterConfig drafter_config(const io::Checkpoint& checkpoint) {
  try {
    return checkpoint.gguf != nullptr
               ? model::drafter_from_gguf(checkpoint.gguf->metadata(), *checkpoint.tensors)
               : model::drafter_from_hf(checkpoint.config);
  } catch (const Error& e) {
    throw e.with_file(checkpoint.path);
  }
}

ConvertReport convert_drafter(const ConvertOptions& options, const io::Checkpoint& checkpoint) {
  const auto begin = std::chrono::steady_clock::now();
  if (options.format != Format::kGgufQ4_0 && options.format != Format::kGgufBf16 &&
      options.format != Format::kHfBf16) {
    throw Error({"a drafter cannot be written in this format", checkpoint.path, "--to",
                 "gguf-q4_0, gguf-bf16 or hf-bf16", name_of(options.format), ""});
  }
  check_target(options, *checkpoint.tensors);
  ConvertReport report = DrafterConversion(options, checkpoint).run();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return report;
}

std::string describe(const DrafterConfig& d) {
  const auto global = std::count(d.layers.is_global.begin(), d.layers.is_global.end(), true);
  std::string text =
      fmt::format("drafter: {} layers of width {} ({} local), for a model of width {}",
                  d.layers.n_layers, d.layers.dim, d.layers.n_layers - global, d.backbone_dim);
  if (d.has_centroids()) text += fmt::format("; {} centroids", d.n_centroids);
  return text;
}

}  // namespace carat::convert
