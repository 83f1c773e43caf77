// Rows of the towers' tensors as a multimodal Hugging Face checkpoint orders them, whatever they
// are read from; and the same rows as an mmproj file has them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "model/towers.h"

namespace carat::convert {

// Values of a row: the last dimension in Hugging Face; 1 for scalars.
int64_t tower_columns(const model::TowersConfig& config, const model::TowerTensor& t);
int64_t tower_row_count(const model::TowersConfig& config, const model::TowerTensor& t);

class TowerRows {
 public:
  virtual ~TowerRows() = default;
  const model::TowersConfig& config() const { return config_; }

  // Rows [row, row + n) in Hugging Face's order. Throws Error.
  virtual void read(const model::TowerTensor& t, int64_t row, int64_t n, float* out) = 0;
  // As the source has it.
  virtual DType dtype(const model::TowerTensor& t) const = 0;
  // Of its scales, if the source has codes; otherwise nothing that matters.
  virtual DType scale_dtype(const model::TowerTensor&) const { return DType::kF32; }
  virtual std::string name(const model::TowerTensor& t) const = 0;
  // The path of every file that holds a part of it; none of random rows.
  virtual std::vector<std::string> files(const model::TowerTensor& t) const = 0;

 protected:
  model::TowersConfig config_;
};

// A multimodal model directory (floats, or codes as the mobile formats have them) or an mmproj
// file. Throws Error: it has no towers, or a tensor is missing, unknown or of another shape. The
// checkpoint must outlive the result.
std::unique_ptr<TowerRows> open_tower_rows(const io::Checkpoint& checkpoint);

// Random values of a sane size, all of which bfloat16 holds.
std::unique_ptr<TowerRows> random_tower_rows(const model::TowersConfig& config, uint64_t seed);

// Row `row` of the mmproj tensor, made of the Hugging Face rows of `source`; and the other way
// round for one who holds an mmproj file.
class TowerOrder {
 public:
  TowerOrder(const model::TowersConfig& config, const model::TowerTensor& t);

  // Row of the one form that row `row` of the other is.
  int64_t hf_row(int64_t gguf_row) const;
  int64_t gguf_row(int64_t hf_row) const;
  // A row's values, in place.
  void to_gguf(float* values);
  void to_hf(float* values);
  // Whether rows keep their places, so that several can be read at a time.
  bool keeps_rows() const { return change_ != model::TowerChange::kSwapAxes; }
  // Whether to_gguf and to_hf only move values: others come back within rounding.
  bool keeps_values() const { return change_ != model::TowerChange::kSoftplus; }

 private:
  model::TowerChange change_;
  int64_t columns_;
  int64_t n_positions_ = 0;
  std::vector<int32_t> planes_;
  std::vector<float> copy_;
};

}  // namespace carat::convert
