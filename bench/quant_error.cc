// How much each block type loses when carat encodes and when another program does.
//
//   quant_error fill MODEL.gguf normal|heavy|FLOATS.safetensors
//       overwrites the F32 tensors of a model with other values: normally distributed ones; ones
//       with outliers, whose rows differ in size; or those of trained matrices
//   quant_error compare FLOAT.gguf QUANTIZED.gguf
//       for each type in the second file: the relative root mean square error of its values to the
//       first file's, and that of the same tensors encoded by carat; one line of text a type
//
// tests/vectors/quant_error.py runs both over all types.
#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/rng.h"
#include "io/gguf_reader.h"
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

struct Sums {
  int64_t weights = 0;
  double squared = 0, theirs = 0, ours = 0;
};

void compare(const std::string& float_path, const std::string& quantized_path) {
  const auto floats = carat::io::open_gguf(float_path);
  const auto quantized = carat::io::open_gguf(quantized_path);
  std::map<DType, Sums> types;
  for (const TensorEntry& entry : quantized->entries()) {
    if (carat::info(entry.dtype).block_elements == 1) continue;
    const TensorEntry* source = floats->find(entry.name);
    if (source == nullptr) throw carat::Error("no tensor " + entry.name + " in " + float_path);
    const std::vector<float> want = values_of(*floats, *source);
    const std::vector<float> theirs = values_of(*quantized, entry);
    std::vector<std::byte> row(static_cast<size_t>(entry.bytes));
    std::vector<float> ours(want.size());
    const auto n = static_cast<int64_t>(want.size());
    carat::quant::encode_row(entry.dtype, want.data(), row.data(), n);
    carat::quant::decode_row(entry.dtype, row.data(), ours.data(), n);
    Sums& sums = types[entry.dtype];
    sums.weights += n;
    for (size_t i = 0; i < want.size(); ++i) {
      const double w = want[i], t = w - theirs[i], o = w - ours[i];
      sums.squared += w * w;
      sums.theirs += t * t;
      sums.ours += o * o;
    }
  }
  for (const auto& [type, s] : types) {
    fmt::print("{} {} {:.6f} {:.6f}\n", carat::name_of(type), s.weights,
               std::sqrt(s.theirs / s.squared), std::sqrt(s.ours / s.squared));
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string command = argc == 4 ? argv[1] : "";
  try {
    if (command == "fill") {
      fill(argv[2], argv[3]);
    } else if (command == "compare") {
      compare(argv[2], argv[3]);
    } else {
      fmt::print(stderr, "usage: quant_error fill MODEL VALUES | compare FLOAT QUANTIZED\n");
      return 2;
    }
  } catch (const carat::Error& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
  return 0;
}
