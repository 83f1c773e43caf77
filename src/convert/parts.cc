#include "convert/parts.h"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>

#include "base/error.h"
#include "base/file.h"
#include "convert/plan.h"
#include "io/safetensors_writer.h"
#include "quant/coded_rows.h"

namespace carat::convert {
namespace {

namespace fs = std::filesystem;

class GgufPart final : public PartWriter {
 public:
  GgufPart(const std::string& path, const io::GgufFields& fields, std::vector<io::TensorSpec> specs)
      : writer_(path, fields, std::move(specs)) {}
  io::TensorWriter& tensors() override { return writer_; }
  void finish() override { writer_.finish(); }

 private:
  io::GgufWriter writer_;
};

class HfPart final : public PartWriter {
 public:
  HfPart(std::string folder, const Texts& texts, std::vector<io::TensorSpec> specs,
         int64_t max_shard_bytes)
      : folder_(std::move(folder)) {
    std::error_code code;
    made_ = fs::create_directory(folder_, code);
    if (code)
      throw Error({"cannot make the directory: " + code.message(), folder_, {}, {}, {}, {}});
    try {
      for (const auto& [name, text] : texts) {
        files_.push_back(std::make_unique<AtomicFile>((fs::path(folder_) / name).string()));
        files_.back()->write(text);
      }
      writer_ = io::write_safetensors_directory(folder_, std::move(specs), max_shard_bytes);
    } catch (...) {
      clean_up();
      throw;
    }
  }
  ~HfPart() override {
    if (!finished_) clean_up();
  }

  io::TensorWriter& tensors() override { return *writer_; }
  void finish() override {
    writer_->finish();
    for (const auto& file : files_) file->commit();
    finished_ = true;
  }

 private:
  void clean_up() {
    writer_.reset();
    files_.clear();
    std::error_code ignored;
    if (made_) fs::remove(folder_, ignored);  // only if it is empty
  }

  std::string folder_;
  bool made_ = false, finished_ = false;
  std::vector<std::unique_ptr<AtomicFile>> files_;
  std::unique_ptr<io::TensorWriter> writer_;
};

}  // namespace

std::unique_ptr<PartWriter> PartWriter::gguf(const std::string& path, const io::GgufFields& fields,
                                             std::vector<io::TensorSpec> specs) {
  return std::make_unique<GgufPart>(path, fields, std::move(specs));
}

std::unique_ptr<PartWriter> PartWriter::hf(const std::string& folder, const Texts& texts,
                                           std::vector<io::TensorSpec> specs,
                                           int64_t max_shard_bytes) {
  return std::make_unique<HfPart>(folder, texts, std::move(specs), max_shard_bytes);
}

void check_rounded(const TensorReport& tensor, const ConvertOptions& options, Losses* happened) {
  if (tensor.weights_bit_exact == tensor.weights) return;
  // A 4-bit lattice in bfloat16 can be found again.
  const bool lattice = tensor.from == DType::kQ4_0 || quant::is_coded(tensor.from);
  if (tensor.to == DType::kQ4_0 || (tensor.to == DType::kBF16 && lattice)) return;
  require_accepted(
      Loss::kRoundedWeights,
      fmt::format("{} of {} weights of {} change", tensor.weights - tensor.weights_bit_exact,
                  tensor.weights, tensor.source_name),
      options, happened);
}

void add_tensor(ConvertReport& report, TensorReport tensor, int64_t source_bytes) {
  report.source_bytes += source_bytes;
  report.target_bytes += tensor.bytes;
  if (tensor.is_matrix) {
    ++report.matrices;
    report.matrices_kept += !tensor.note.empty();
    report.weights += tensor.weights;
    report.weights_bit_exact += tensor.weights_bit_exact;
    report.lattice.add(tensor.lattice);
    report.error.add(tensor.error);
  }
  report.tensors.push_back(std::move(tensor));
}

}  // namespace carat::convert
