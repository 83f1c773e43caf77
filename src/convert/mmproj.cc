#include "convert/mmproj.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "convert/mmproj_rows.h"
#include "convert/parts.h"
#include "convert/resumable_target.h"
#include "convert/transcode.h"
#include "quant/scheme.h"

namespace carat::convert {
namespace {

using model::TowersConfig;
using model::TowerTensor;

constexpr int64_t kWindowValues = int64_t{1} << 20;
constexpr int64_t kHeadBytes = int64_t{1} << 20;  // more than keys and tensor descriptions

uint32_t u32(int64_t v) { return static_cast<uint32_t>(v); }

// Keys in the order and of the types of published files.
io::GgufFields mmproj_fields(const TowersConfig& c, const std::string& name) {
  constexpr float kMean[3] = {0, 0, 0}, kDeviation[3] = {1, 1, 1};
  io::GgufFields f;
  f.add_string("general.architecture", "clip");
  f.add_string("general.type", "mmproj");
  f.add_string("general.name", name);
  f.add_u32("general.file_type", 32);  // BF16
  if (c.vision) {
    const model::VisionConfig& v = *c.vision;
    f.add_bool("clip.has_vision_encoder", true);
    f.add_u32("clip.vision.projection_dim", u32(c.text_dim));
    f.add_u32("clip.vision.image_size", 224);  // unused, but asked for
    f.add_u32("clip.vision.patch_size", u32(v.patch));
    f.add_u32("clip.vision.embedding_length", u32(v.dim));
    f.add_u32("clip.vision.feed_forward_length", u32(v.ffn_dim));
    f.add_u32("clip.vision.block_count", u32(v.n_layers));
    f.add_u32("clip.vision.attention.head_count", u32(v.n_heads));
    f.add_f32s("clip.vision.image_mean", kMean);
    f.add_f32s("clip.vision.image_std", kDeviation);
    if (v.pooling != 3) f.add_u32("clip.vision.projector.scale_factor", u32(v.pooling));
  }
  if (c.audio) {
    const model::AudioConfig& a = *c.audio;
    f.add_bool("clip.has_audio_encoder", true);
    f.add_u32("clip.audio.projection_dim", u32(c.text_dim));
    f.add_u32("clip.audio.embedding_length", u32(a.dim));
    f.add_u32("clip.audio.feed_forward_length", u32(a.unified ? 0 : a.ffn_dim()));
    f.add_u32("clip.audio.block_count", u32(a.n_layers));
    f.add_u32("clip.audio.attention.head_count", u32(a.n_heads));
  }
  f.add_u32("general.quantization_version", 2);
  if (c.vision) {
    f.add_string("clip.vision.projector_type", c.vision->unified ? "gemma4uv" : "gemma4v");
    f.add_f32("clip.vision.attention.layer_norm_epsilon", c.vision->norm_eps);
  }
  if (c.audio) {
    f.add_string("clip.audio.projector_type", c.audio->unified ? "gemma4ua" : "gemma4a");
    f.add_u32("clip.audio.num_mel_bins", u32(c.audio->n_mel_bins));
    f.add_f32("clip.audio.attention.layer_norm_epsilon", c.audio->norm_eps);
  }
  return f;
}

// A softplus kept as F32 tells its argument no better than this.
int64_t count_near(const std::vector<float>& source, const std::vector<float>& written) {
  int64_t near = 0;
  for (size_t i = 0; i < source.size(); ++i) {
    near += std::fabs(written[i] - source[i]) <= 1e-6f * std::max(1.0f, std::fabs(source[i]));
  }
  return near;
}

// Copies tensors row by row into one of the two forms.
class TowerCopy {
 public:
  TowerCopy(TowerRows& rows, bool gguf) : rows_(rows), gguf_(gguf) {
    for (const TowerTensor& t : tower_tensors(rows.config())) {
      tensors_.push_back(t);
      specs_.push_back(
          {gguf ? tower_gguf_name(t) : tower_hf_name(t), gguf ? tower_gguf_type(t) : DType::kBF16,
           gguf ? tower_gguf_shape(rows.config(), t) : tower_hf_shape(rows.config(), t)});
    }
  }

  const std::vector<io::TensorSpec>& specs() const { return specs_; }
  int64_t total_bytes() const {
    int64_t bytes = 0;
    for (size_t i = 0; i < specs_.size(); ++i) bytes += target_bytes(i);
    return bytes;
  }

  // Writes tensor i and tells what became of its weights.
  Findings write(size_t i, io::TensorWriter& writer) {
    const TowerTensor& t = tensors_[i];
    const int64_t columns = tower_columns(rows_.config(), t);
    const int64_t n_rows = tower_row_count(rows_.config(), t);
    TowerOrder order(rows_.config(), t);
    const bool one_by_one = gguf_ && !order.keeps_rows();
    const int64_t window = one_by_one ? 1 : std::max<int64_t>(1, kWindowValues / columns);
    Findings found;
    found.weights = columns * n_rows;
    writer.begin(specs_[i].name);
    for (int64_t row = 0; row < n_rows; row += window) {
      const int64_t n = std::min(window, n_rows - row);
      values_.resize(static_cast<size_t>(n * columns));
      rows_.read(t, one_by_one ? order.hf_row(row) : row, n, values_.data());
      write_rows(order, specs_[i].dtype, columns, n, writer, &found);
    }
    return found;
  }

  // Throws Error for a loss that was not accepted.
  void report(size_t i, const Findings& found, ConvertReport* report) const {
    TensorReport t;
    t.name = specs_[i].name;
    t.source_name = rows_.name(tensors_[i]);
    t.from = rows_.dtype(tensors_[i]);
    t.to = specs_[i].dtype;
    t.shape = specs_[i].shape;
    t.bytes = target_bytes(i);
    t.is_matrix = t.to == DType::kBF16 && t.shape.size() > 1;
    set_findings(t, found);
    check_rounded(t, rows_.scale_dtype(tensors_[i]), report->options, &report->losses);
    add_tensor(*report, std::move(t), source_bytes(i));
  }

  int64_t target_bytes(size_t i) const { return row_bytes(specs_[i].dtype, elements(i)); }

 private:
  int64_t source_bytes(size_t i) const { return row_bytes(rows_.dtype(tensors_[i]), elements(i)); }
  int64_t elements(size_t i) const {
    const TowersConfig& c = rows_.config();
    return tower_columns(c, tensors_[i]) * tower_row_count(c, tensors_[i]);
  }

  // Writes the rows in values_ and counts how many of their values can be had back.
  void write_rows(TowerOrder& order, DType to, int64_t columns, int64_t n, io::TensorWriter& writer,
                  Findings* found) {
    const int64_t count = n * columns;
    written_ = values_;
    if (gguf_) {
      for (int64_t r = 0; r < n; ++r) order.to_gguf(written_.data() + r * columns);
    }
    bytes_.resize(static_cast<size_t>(row_bytes(to, count)));
    quant::encode_row(to, written_.data(), bytes_.data(), count);
    writer.append(bytes_);
    quant::decode_row(to, bytes_.data(), written_.data(), count);
    if (gguf_) {
      for (int64_t r = 0; r < n; ++r) order.to_hf(written_.data() + r * columns);
    }
    const int64_t kept = order.keeps_values() ? count_kept(values_.data(), written_.data(), count)
                                              : count_near(values_, written_);
    found->weights_bit_exact += kept;
    if (kept < count) found->error.add(measure_error(values_.data(), written_.data(), count));
  }

  TowerRows& rows_;
  bool gguf_;
  std::vector<TowerTensor> tensors_;
  std::vector<io::TensorSpec> specs_;
  std::vector<float> values_, written_;
  std::vector<std::byte> bytes_;
};

// Of a whole model's shards only those that the towers are read from.
std::vector<std::string> files_of_towers(const io::TensorSource& source, const TowerRows& rows) {
  std::unordered_set<std::string> used;
  for (const TowerTensor& t : tower_tensors(rows.config())) {
    for (std::string& path : rows.files(t)) used.insert(std::move(path));
  }
  std::vector<std::string> paths = source.paths();
  std::erase_if(paths, [&](const std::string& path) { return !used.contains(path); });
  return paths;
}

TargetParts target_parts(const TowersConfig& config, const std::string& name, const TowerCopy& copy,
                         const ConvertOptions& options) {
  TargetParts parts;
  parts.path = options.target;
  parts.is_folder = options.format != Format::kMmprojBf16;
  parts.specs = copy.specs();
  if (parts.is_folder) {
    parts.texts = {{"config.json", to_json_text(model::towers_to_hf(config), 2) + "\n"}};
    parts.max_file_bytes = options.max_shard_bytes;
  } else {
    parts.fields = mmproj_fields(config, name);
  }
  return parts;
}

// Calls write(i) for the tensors from `first` on.
void write_tensors(const TowerCopy& copy, size_t first, const ConvertOptions& options,
                   const std::function<void(size_t i)>& write) {
  const int64_t total = copy.total_bytes();
  int64_t done = 0;
  for (size_t i = 0; i < copy.specs().size(); ++i) {
    if (options.stop != nullptr && options.stop->load()) throw Interrupted();
    if (i >= first) write(i);
    done += copy.target_bytes(i);
    if (options.progress) options.progress(done, total, copy.specs()[i].name);
  }
}

void write_towers(TowerRows& rows, const std::string& name, const io::TensorSource& source,
                  const ConvertOptions& options, ConvertReport* report) {
  TowerCopy copy(rows, options.format == Format::kMmprojBf16);
  check_disk_space(options.target, copy.total_bytes() + kHeadBytes);
  ResumableTarget target(options, target_parts(rows.config(), name, copy, options),
                         plan_digest(options, copy.specs(), source.paths()), source.paths());
  const std::vector<Findings> earlier = target.take_over();
  for (size_t i = 0; i < earlier.size(); ++i) copy.report(i, earlier[i], report);
  try {
    write_tensors(copy, earlier.size(), options, [&](size_t i) {
      const Findings found = copy.write(i, target.tensors());
      copy.report(i, found, report);
      target.mark(found);
    });
    target.finish();
  } catch (const Interrupted&) {
    target.leave();
    throw;
  }
  report->target_files = digests_of(target.tensors().files());
}

}  // namespace

bool is_towers_only(const io::Checkpoint& checkpoint) {
  if (checkpoint.gguf != nullptr) {
    return checkpoint.gguf->metadata().get_string("general.architecture", "") == "clip";
  }
  if (!checkpoint.config.is_object() || !model::has_towers(checkpoint.config)) return false;
  return std::none_of(
      checkpoint.tensors->entries().begin(), checkpoint.tensors->entries().end(),
      [](const io::TensorEntry& e) { return e.name.find("embed_tokens") != std::string::npos; });
}

ConvertReport convert_towers(const ConvertOptions& options, const io::Checkpoint& checkpoint) {
  const auto begin = std::chrono::steady_clock::now();
  const bool gguf = options.format == Format::kMmprojBf16;
  if (!gguf && options.format != Format::kHfBf16) {
    throw Error({"vision and audio towers cannot be written in this format", checkpoint.path,
                 "--to", "mmproj-bf16 or hf-bf16", name_of(options.format), ""});
  }
  check_target(options, *checkpoint.tensors);
  const auto rows = open_tower_rows(checkpoint);
  // The checksums come first: a damaged source must not get a result.
  std::vector<FileDigest> source_files = digest_files(
      files_of_towers(*checkpoint.tensors, *rows), options.stop, [&](int64_t done, int64_t total) {
        if (options.progress) options.progress(done, total, "checksum of the source");
      });
  check_recorded(source_files);
  ConvertReport report;
  report.options = options;
  write_towers(*rows, read_side_files(checkpoint).name, *checkpoint.tensors, options, &report);
  report.source_files = std::move(source_files);
  report.notes.push_back(describe(rows->config()));
  if (!gguf && rows->config().audio && !rows->config().audio->unified) {
    report.notes.push_back(
        "mmproj files hold the softplus of per_dim_scale: it was undone, within rounding");
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return report;
}

ConvertReport write_synthetic_towers(const TowersSynthOptions& synth) {
  ConvertOptions options;
  options.target = synth.target;
  options.format = synth.gguf ? Format::kMmprojBf16 : Format::kHfBf16;
  const auto rows = random_tower_rows(synth.config, synth.seed);
  TowerCopy copy(*rows, synth.gguf);
  check_disk_space(options.target, copy.total_bytes() + kHeadBytes);
  Target target(target_parts(synth.config, synth.name, copy, options), false);
  ConvertReport report;
  report.options = options;
  write_tensors(copy, 0, options,
                [&](size_t i) { copy.report(i, copy.write(i, target.tensors()), &report); });
  target.finish();
  return report;
}

std::string describe(const TowersConfig& c) {
  std::string text;
  if (c.vision) {
    text = c.vision->unified
               ? fmt::format("vision: patches of {} pixels straight to width {}",
                             c.vision->model_patch(), c.vision->dim)
               : fmt::format("vision: {} layers of width {}", c.vision->n_layers, c.vision->dim);
  }
  if (c.audio) {
    if (!text.empty()) text += "; ";
    text += c.audio->unified
                ? fmt::format("audio: {} samples a token, no layers", c.audio->dim)
                : fmt::format("audio: {} layers of width {}", c.audio->n_layers, c.audio->dim);
  }
  return text + fmt::format("; for a text model of width {}", c.text_dim);
}

}  // namespace carat::convert
