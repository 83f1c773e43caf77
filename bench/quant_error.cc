// How much each block type loses when carat encodes and when another program does.
//
//   quant_error fill MODEL.gguf normal|heavy|FLOATS.safetensors
//       overwrites the F32 tensors of a model with other values: normally distributed ones; ones
//       with outliers, whose rows differ in size; or those of trained matrices
//   quant_error weigh MODEL.gguf IMATRIX.gguf
//       writes an importance matrix for a model: column means whose logarithms are normally
//       distributed with a deviation of 1
//   quant_error compare FLOAT.gguf QUANTIZED.gguf [IMATRIX.gguf]
//       for each type in the second file: the relative root mean square error of its values to the
//       first file's, and that of the same tensors encoded by carat; one line of text a type. With
//       an importance matrix both count squares by it; then follow both figures once more, encoded
//       and judged by the importance times sqrt(mean square of the row + w^2), as llama.cpp does
//
// tests/vectors/quant_error.py runs them over all types.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/rng.h"
#include "io/gguf_reader.h"
#include "io/imatrix_file.h"
#include "io/safetensors_reader.h"
#include "quant/scheme.h"

namespace {

using carat::DType;
using carat::io::TensorEntry;
using carat::io::TensorSource;

std::vector<float> values_of(const TensorSource& source, const TensorEntry& entry) {
  const carat::TensorView view = source.view(entry);
  std::vector<float> values(static_cast<size_t>(view.rows() * view.columns()));
  carat::quant::decode_row(entry.dtype, view.data, values.data(),
                           static_cast<int64_t>(values.size()));
  return values;
}

// All matrices of a checkpoint, one after another.
std::vector<float> matrices_of(const std::string& path) {
  const auto source = carat::io::open_safetensors(path);
  std::vector<float> all;
  for (const TensorEntry& entry : source->entries()) {
    if (entry.shape.size() < 2) continue;
    const std::vector<float> values = values_of(*source, entry);
    all.insert(all.end(), values.begin(), values.end());
  }
  if (all.empty()) throw carat::Error("no matrices in " + path);
  return all;
}

void fill(const std::string& path, const std::string& kind) {
  std::vector<float> trained;
  if (kind != "normal" && kind != "heavy") trained = matrices_of(kind);
  const auto model = carat::io::open_gguf(path);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  carat::Rng rng(7);
  size_t next = 0;
  for (const TensorEntry& entry : model->entries()) {
    if (entry.shape.size() < 2 || entry.dtype != DType::kF32) continue;
    std::vector<float> values(static_cast<size_t>(entry.bytes / 4));
    const auto columns = static_cast<size_t>(entry.shape.back());
    double row_scale = 1;
    for (size_t i = 0; i < values.size(); ++i) {
      if (!trained.empty()) {
        values[i] = trained[next++ % trained.size()];
        continue;
      }
      if (i % columns == 0) row_scale = kind == "heavy" ? std::exp(0.7 * rng.normal()) : 1;
      double v = 0.02 * row_scale * rng.normal();
      if (kind == "heavy" && rng.below(128) == 0) v *= 6;
      values[i] = static_cast<float>(v);
    }
    file.seekp(entry.offset);
    file.write(reinterpret_cast<const char*>(values.data()),
               static_cast<std::streamsize>(entry.bytes));
  }
  if (!file.flush()) throw carat::Error("cannot write " + path);
}

void weigh(const std::string& model_path, const std::string& path) {
  const auto model = carat::io::open_gguf(model_path);
  carat::io::Imatrix imatrix;
  imatrix.datasets = {"random"};
  imatrix.chunk_count = 1;
  imatrix.chunk_size = 512;
  carat::Rng rng(11);
  for (const TensorEntry& entry : model->entries()) {
    if (entry.shape.size() < 2) continue;
    carat::io::ImatrixEntry of{entry.name, std::vector<float>(entry.shape.back()), {1}};
    for (float& sum : of.sums) sum = static_cast<float>(std::exp(rng.normal()));
    imatrix.entries.push_back(std::move(of));
  }
  std::sort(imatrix.entries.begin(), imatrix.entries.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  carat::io::write_imatrix(path, imatrix);
}

// How much the squared errors of a row count.
enum class Judge { kAlike, kImportance, kImportanceAndSize };

std::vector<float> weights_of(Judge judge, std::span<const float> row,
                              const std::vector<float>& means) {
  if (judge == Judge::kAlike) return {};
  std::vector<float> weights = means;
  if (judge == Judge::kImportance) return weights;
  double squares = 0;
  for (const float w : row) squares += double{w} * w;
  squares /= static_cast<double>(row.size());
  for (size_t c = 0; c < row.size(); ++c) {
    weights[c] *= static_cast<float>(std::sqrt(squares + double{row[c]} * row[c]));
  }
  return weights;
}

struct Sums {
  int64_t weights = 0;
  double squared = 0, theirs = 0, ours = 0;
};

void add_row(Sums& sums, DType type, std::span<const float> want, std::span<const float> theirs,
             std::span<const float> weights) {
  const auto n = static_cast<int64_t>(want.size());
  std::vector<std::byte> row(static_cast<size_t>(carat::row_bytes(type, n)));
  std::vector<float> ours(want.size());
  carat::quant::encode_row(type, want.data(), row.data(), n,
                           weights.empty() ? nullptr : weights.data());
  carat::quant::decode_row(type, row.data(), ours.data(), n);
  sums.weights += n;
  for (size_t i = 0; i < want.size(); ++i) {
    const double counts = weights.empty() ? 1 : weights[i];
    const double w = want[i], t = w - theirs[i], o = w - ours[i];
    sums.squared += counts * w * w;
    sums.theirs += counts * t * t;
    sums.ours += counts * o * o;
  }
}

// Of a tensor, with an importance matrix: those searches are slow.
constexpr size_t kMostRows = 64;

using SumsOfTypes = std::map<DType, Sums>;

SumsOfTypes compare(const TensorSource& floats, const TensorSource& quantized, Judge judge,
                    const std::optional<carat::io::Imatrix>& imatrix) {
  SumsOfTypes types;
  for (const TensorEntry& entry : quantized.entries()) {
    if (carat::info(entry.dtype).block_elements == 1) continue;
    const TensorEntry* source = floats.find(entry.name);
    if (source == nullptr) throw carat::Error("no tensor " + entry.name);
    const carat::io::ImatrixEntry* weighed = imatrix ? imatrix->find(entry.name) : nullptr;
    if (imatrix && weighed == nullptr) continue;
    const std::vector<float> want = values_of(floats, *source);
    const std::vector<float> theirs = values_of(quantized, entry);
    const auto columns = static_cast<size_t>(entry.shape.back());
    const std::vector<float> means = weighed != nullptr ? weighed->means() : std::vector<float>();
    const size_t end = imatrix ? std::min(want.size(), kMostRows * columns) : want.size();
    for (size_t at = 0; at < end; at += columns) {
      const std::span row = std::span(want).subspan(at, columns);
      add_row(types[entry.dtype], entry.dtype, row, std::span(theirs).subspan(at, columns),
              weights_of(judge, row, means));
    }
  }
  return types;
}

void print_errors(const std::string& float_path, const std::string& quantized_path,
                  const char* imatrix_path) {
  const auto floats = carat::io::open_gguf(float_path);
  const auto quantized = carat::io::open_gguf(quantized_path);
  std::optional<carat::io::Imatrix> imatrix;
  std::vector<Judge> judges = {Judge::kAlike};
  if (imatrix_path != nullptr) {
    imatrix = carat::io::read_imatrix(imatrix_path);
    judges = {Judge::kImportance, Judge::kImportanceAndSize};
  }
  std::vector<SumsOfTypes> found;
  for (const Judge judge : judges) found.push_back(compare(*floats, *quantized, judge, imatrix));
  for (const auto& [type, first] : found.front()) {
    fmt::print("{} {}", carat::name_of(type), first.weights);
    for (SumsOfTypes& sums : found) {
      const Sums& s = sums[type];
      fmt::print(" {:.6f} {:.6f}", std::sqrt(s.theirs / s.squared), std::sqrt(s.ours / s.squared));
    }
    fmt::print("\n");
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string command = argc > 3 ? argv[1] : "";
  try {
    if (command == "fill" && argc == 4) {
      fill(argv[2], argv[3]);
    } else if (command == "weigh" && argc == 4) {
      weigh(argv[2], argv[3]);
    } else if (command == "compare" && argc <= 5) {
      print_errors(argv[2], argv[3], argc == 5 ? argv[4] : nullptr);
    } else {
      fmt::print(stderr,
                 "usage: quant_error fill MODEL VALUES | weigh MODEL IMATRIX | compare FLOAT "
                 "QUANTIZED [IMATRIX]\n");
      return 2;
    }
  } catch (const carat::Error& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
  return 0;
}
