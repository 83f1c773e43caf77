#include "app/audit_inputs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "app/command.h"
#include "app/options.h"
#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "convert/lattice_stats.h"
#include "convert/target.h"
#include "quant/float_rows.h"

namespace carat::app {
namespace {

constexpr int64_t kSampledBlocks = 2048;

bool is_float(DType type) {
  return type == DType::kF32 || type == DType::kF16 || type == DType::kBF16;
}

std::vector<float> first_values(const kernels::Weight& w, int64_t n) {
  std::vector<float> values(static_cast<size_t>(n));
  if (w.dtype == DType::kBF16) quant::decode_bf16(w.data, values.data(), n);
  if (w.dtype == DType::kF16) quant::decode_f16(w.data, values.data(), n);
  if (w.dtype == DType::kF32) quant::decode_f32(w.data, values.data(), n);
  return values;
}

// Whether the matrices that Q4_0 training rounds lie on its lattice, by a sample of each.
bool is_on_lattice(const model::Weights& weights) {
  convert::LatticeStats stats;
  for (size_t i = 0; i < weights.all.size(); ++i) {
    const kernels::Weight& w = weights.all[i];
    const auto kind = weights.refs[i].kind;
    const bool trained = kind == model::TensorKind::kQ || kind == model::TensorKind::kDown;
    if (!trained || w.data == nullptr || !is_float(w.dtype) || w.cols % 32 != 0) continue;
    const int64_t blocks = std::min(kSampledBlocks, w.count * w.rows * w.cols / 32);
    const std::vector<float> values = first_values(w, blocks * 32);
    convert::recover_blocks(values.data(), 0, blocks, std::nullopt, nullptr, stats);
  }
  return stats.blocks > 0 && stats.blocks_on_lattice * 100 >= stats.blocks * 99;
}

struct Sizes {
  int64_t weights = 0, bytes = 0;
};
Sizes sizes_of(const model::Weights& weights) {
  Sizes sizes;
  for (const kernels::Weight& w : weights.all) {
    const int64_t n = w.count * w.rows * w.cols;
    sizes.weights += n;
    sizes.bytes += w.count * w.rows * w.row_size();
    if (!w.scales.empty()) sizes.bytes += n / w.scales.columns * info(w.scales.dtype).block_bytes;
  }
  return sizes;
}

DType main_type(const model::Weights& weights) {
  std::map<DType, int64_t> by_type;
  for (const kernels::Weight& w : weights.all) by_type[w.dtype] += w.count * w.rows * w.cols;
  return std::max_element(by_type.begin(), by_type.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

}  // namespace

ModelSpec parse_model_spec(const std::string& text, const std::string& default_kv) {
  ModelSpec spec{.text = text, .path = text, .kv = default_kv, .role = {}};
  const size_t at = text.rfind('@');
  if (at == std::string::npos || text.find('=', at) == std::string::npos) return spec;
  spec.path = text.substr(0, at);
  std::string_view rest = std::string_view(text).substr(at + 1);
  while (!rest.empty()) {
    const std::string_view item = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), item.size() + 1));
    const std::string_view key = item.substr(0, item.find('='));
    const std::string value(item.substr(std::min(item.size(), key.size() + 1)));
    const std::vector<std::string> kv_types = kv_type_names();
    const bool is_kv =
        key == "kv" && std::find(kv_types.begin(), kv_types.end(), value) != kv_types.end();
    const bool is_role = key == "role" && (value == "original" || value == "qat");
    if (!is_kv && !is_role) {
      throw UsageError(fmt::format("'{}' in {}: after @ come kv={}, role=original or role=qat",
                                   item, text, fmt::join(kv_types, ", kv=")));
    }
    (is_kv ? spec.kv : spec.role) = value;
  }
  return spec;
}

const OpenedModel& OpenedModels::open(const std::string& path, bool mapped) {
  auto& slot = models_[path];
  if (slot) return *slot;
  io::Checkpoint checkpoint = open_model_checkpoint(path);
  auto opened = std::make_unique<OpenedModel>();
  const bool has_template = !convert::read_side_files(checkpoint).chat_template.empty();
  if (!checkpoint.tokenizer_path.empty()) opened->paths.push_back(checkpoint.tokenizer_path);
  opened->model = load_to_compute(std::move(checkpoint), pool_, !mapped);
  opened->model.path = path;
  for (const std::string& p : opened->model.source->paths()) opened->paths.push_back(p);
  const auto& tokenizer = opened->model.tokenizer;
  opened->instruction_tuned = has_template && tokenizer && tokenizer->vocab().special.has_turns();
  slot = std::move(opened);
  return *slot;
}

std::string describe_weights(const model::Model& model, const std::string& role) {
  if (role == "original") return "original bf16";
  if (role == "qat") return "QAT bf16";
  const DType type = main_type(model.weights);
  if (!is_float(type)) return name_of(type);
  const char* name = type == DType::kBF16 ? "bf16" : type == DType::kF16 ? "f16" : "f32";
  return fmt::format("{} {}", is_on_lattice(model.weights) ? "QAT" : "original", name);
}

audit::FileInfo file_info(const std::string& path, bool with_digest) {
  audit::FileInfo info;
  info.path = path;
  const auto file = open_file(path);
  info.bytes = file->size();
  if (!with_digest) return info;
  Sha256 sum;
  std::vector<std::byte> window(size_t{4} << 20);
  for (int64_t at = 0; at < info.bytes;) {
    const auto n = std::min(info.bytes - at, static_cast<int64_t>(window.size()));
    const auto bytes = std::span(window).first(static_cast<size_t>(n));
    file->read(at, bytes);
    sum.update(bytes);
    at += n;
  }
  info.sha256 = to_hex(sum.digest());
  return info;
}

audit::ModelInfo model_info(const ModelSpec& spec, const OpenedModel& opened) {
  audit::ModelInfo info;
  info.path = spec.text;
  info.what = describe_weights(opened.model, spec.role);
  info.kv = spec.kv;
  for (const std::string& path : opened.paths) {
    info.files.push_back(file_info(path, true));
    info.bytes += info.files.back().bytes;
  }
  const Sizes sizes = sizes_of(opened.model.weights);
  info.weights = sizes.weights;
  info.bits_per_weight =
      8.0 * static_cast<double>(sizes.bytes) / static_cast<double>(sizes.weights);
  return info;
}

Json file_marks(const std::vector<std::string>& paths) {
  Json marks = Json::array();
  for (const std::string& path : paths) {
    struct stat s {};
    if (::stat(path.c_str(), &s) != 0) {
      throw Error({"cannot read", path, {}, {}, std::strerror(errno), {}});
    }
    Json mark;
    mark["path"] = path;
    mark["bytes"] = static_cast<int64_t>(s.st_size);
    mark["changed"] = fmt::format("{}.{:09}", static_cast<int64_t>(s.st_mtim.tv_sec),
                                  static_cast<int64_t>(s.st_mtim.tv_nsec));
    marks.push_back(std::move(mark));
  }
  return marks;
}

}  // namespace carat::app
