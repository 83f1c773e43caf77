#include "convert/code_stream.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "base/half.h"
#include "convert/code_fit.h"
#include "quant/blocks.h"
#include "quant/coded_rows.h"
#include "quant/scheme.h"

namespace carat::convert {
namespace {

constexpr int64_t kWindowChunks = 32;

struct Lane {
  std::vector<std::byte> raw, blocks;
  std::vector<float> values, written, scales;
  std::vector<int8_t> codes;
};

// By a byte of codes: the sum of their squares, and how many are zero.
struct ByteSums {
  std::array<int16_t, 256> squares;
  std::array<int8_t, 256> zeros;
};

ByteSums make_sums(DType dtype) {
  ByteSums sums{};
  const int n = 8 / quant::code_bits(dtype);
  for (int b = 0; b < 256; ++b) {
    const auto byte = static_cast<std::byte>(b);
    int8_t codes[4];
    quant::unpack_codes(dtype, &byte, n, codes);
    for (int i = 0; i < n; ++i) {
      sums.squares[static_cast<size_t>(b)] += static_cast<int16_t>(codes[i] * codes[i]);
      sums.zeros[static_cast<size_t>(b)] += codes[i] == 0;
    }
  }
  return sums;
}

const ByteSums& sums_of(DType dtype) {
  static const ByteSums all[] = {make_sums(DType::kC2), make_sums(DType::kC4),
                                 make_sums(DType::kC8)};
  return all[dtype == DType::kC2 ? 0 : dtype == DType::kC4 ? 1 : 2];
}

// Codes one tensor, some whole rows at a time.
class Coder {
 public:
  Coder(const SourceTensor& tensor, const CodeRequest& request)
      : t_(tensor),
        layout_(request.layout),
        group_(layout_.scale_columns),
        kept_(t_.dtype == layout_.codes && t_.scales.columns == group_ && !t_.undo_shift),
        by_32_(!kept_ && layout_.codes == DType::kC4 && group_ == quant::kBlock &&
               layout_.scales == DType::kBF16) {}

  int64_t chunk_elements() const {
    return std::max<int64_t>(1, Transcoder::kChunk / t_.columns) * t_.columns;
  }

  void chunk(int64_t begin, int64_t n, Lane& lane, std::byte* codes, std::byte* scales,
             Findings& found) const {
    lane.scales.resize(static_cast<size_t>(n / group_));
    if (kept_) {
      take_over(begin, n, lane, codes, found);
    } else {
      lane.codes.resize(static_cast<size_t>(n));
      lane.values.resize(static_cast<size_t>(n));
      Transcoder::decode(t_, begin, n, lane.raw, lane.values.data());
      if (by_32_) {
        recover(begin, n, lane, found);
      } else {
        fit(n, lane, found);
      }
      quant::pack_codes(layout_.codes, lane.codes.data(), n, codes);
    }
    quant::encode_row(layout_.scales, lane.scales.data(), scales, n / group_);
    found.groups += n / group_;
    found.weights += n;
  }

 private:
  // The bytes of codes are copied; what the new scales cost follows from the codes' squares.
  void take_over(int64_t begin, int64_t n, Lane& lane, std::byte* out, Findings& found) const {
    const auto bytes = static_cast<size_t>(row_bytes(layout_.codes, n));
    t_.file->read(t_.offset + row_bytes(layout_.codes, begin), {out, bytes});
    const int64_t groups = n / group_;
    Transcoder::read_scales(t_, begin / group_, groups, lane.raw, lane.scales.data());
    const int64_t group_bytes = row_bytes(layout_.codes, group_);
    for (int64_t g = 0; g < groups; ++g) {
      float& scale = lane.scales[static_cast<size_t>(g)];
      const float rounded = round_scale(scale, layout_.scales);
      if (!std::isfinite(rounded)) refuse();
      const bool exact = rounded == scale;
      (exact ? found.groups_exact : found.groups_rounded_scale) += 1;
      if (exact) {
        found.weights_bit_exact += group_;
      } else {
        measure_scale(out + g * group_bytes, group_bytes, scale, rounded, found);
      }
      scale = rounded;
    }
  }

  // Of a group whose scale alone changes: only zeros stay what they are.
  void measure_scale(const std::byte* codes, int64_t n_bytes, float scale, float rounded,
                     Findings& found) const {
    const ByteSums& sums = sums_of(layout_.codes);
    int64_t squares = 0, zeros = 0;
    for (int64_t i = 0; i < n_bytes; ++i) {
      const auto byte = static_cast<size_t>(codes[i]);
      squares += sums.squares[byte];
      zeros += sums.zeros[byte];
    }
    const double change = static_cast<double>(rounded) - scale;
    ErrorSums error;
    error.squared_error = change * change * static_cast<double>(squares);
    error.squared_weights = static_cast<double>(scale) * scale * static_cast<double>(squares);
    if (squares > 0) error.worst_relative = std::abs(change / scale);
    found.weights_bit_exact += zeros;
    found.error.add(error);
  }

  void recover(int64_t begin, int64_t n, Lane& lane, Findings& found) const {
    const std::optional<Grid> fixed =
        t_.dtype == DType::kBF16 ? std::optional<Grid>(Grid::kBF16) : std::nullopt;
    const int64_t groups = n / quant::kBlock;
    lane.blocks.resize(static_cast<size_t>(row_bytes(DType::kQ4_0, n)));
    lane.written.resize(quant::kBlock);
    LatticeStats stats;
    recover_blocks(lane.values.data(), begin / quant::kBlock, groups, fixed, lane.blocks.data(),
                   stats);
    if (stats.refused > 0) refuse();
    found.lattice.add(stats);
    for (int64_t g = 0; g < groups; ++g) {
      const float* w = &lane.values[static_cast<size_t>(g * quant::kBlock)];
      quant::BlockQ4_0 block;
      std::memcpy(&block, &lane.blocks[static_cast<size_t>(g) * sizeof(block)], sizeof(block));
      const Grid grid = fixed ? *fixed : grid_of(w, quant::kBlock);
      int8_t* codes = &lane.codes[static_cast<size_t>(g * quant::kBlock)];
      float& scale = lane.scales[static_cast<size_t>(g)];
      const Fit fit = fit_group_of_32(w, grid, block, codes, &scale);
      found.groups_exact += fit == Fit::kExact;
      found.groups_rounded_scale += fit == Fit::kRoundedScale;
      for (int j = 0; j < quant::kBlock; ++j) {
        lane.written[static_cast<size_t>(j)] = static_cast<float>(codes[j]) * scale;
      }
      measure(w, lane.written.data(), fit == Fit::kExact, grid, found);
    }
  }

  void fit(int64_t n, Lane& lane, Findings& found) const {
    lane.written.resize(static_cast<size_t>(group_));
    const bool bf16 = t_.dtype == DType::kBF16;
    for (int64_t g = 0; g < n / group_; ++g) {
      const float* w = &lane.values[static_cast<size_t>(g * group_)];
      int8_t* codes = &lane.codes[static_cast<size_t>(g * group_)];
      float& scale = lane.scales[static_cast<size_t>(g)];
      if (!fit_group(w, group_, layout_.codes, layout_.scales, codes, &scale)) refuse();
      for (int64_t i = 0; i < group_; ++i) {
        lane.written[static_cast<size_t>(i)] = static_cast<float>(codes[i]) * scale;
      }
      const int64_t before = found.weights_bit_exact;
      measure(w, lane.written.data(), false, bf16 ? std::optional<Grid>(Grid::kBF16) : std::nullopt,
              found);
      found.groups_exact += found.weights_bit_exact - before == group_;
    }
  }

  // Counts and sums of one group; weights on a grid are compared on it.
  void measure(const float* w, const float* written, bool exact, std::optional<Grid> grid,
               Findings& found) const {
    if (exact) {
      found.weights_bit_exact += group_;
      return;
    }
    for (int64_t i = 0; i < group_; ++i) {
      const float value = grid ? round_to_grid(written[i], *grid) : written[i];
      found.weights_bit_exact += value == w[i];
    }
    found.error.add(measure_error(w, written, group_, group_));
  }

  [[noreturn]] void refuse() const {
    throw Error({"weights that are not finite, or too large, have no codes", t_.file->path(),
                 "tensor " + t_.name, "", "", "the file may be damaged"});
  }

  const SourceTensor& t_;
  const CodedLayout layout_;
  const int64_t group_;
  const bool kept_;   // the source has these very codes
  const bool by_32_;  // they may lie on the lattice of Q4_0
};

}  // namespace

bool stream_codes(ThreadPool& pool, const std::atomic<bool>* stop, const SourceTensor& tensor,
                  const CodeRequest& request, Findings* found, std::vector<std::byte>* scales) try {
  const CodedLayout& layout = request.layout;
  CHECK(tensor.columns % layout.scale_columns == 0);
  const Coder coder(tensor, request);
  const int64_t step = coder.chunk_elements();
  const int64_t n_chunks = ceil_div(tensor.elements, step);
  const int64_t chunk_bytes = row_bytes(layout.codes, step);
  const int64_t chunk_scales = row_bytes(layout.scales, step / layout.scale_columns);
  scales->resize(
      static_cast<size_t>(row_bytes(layout.scales, tensor.elements / layout.scale_columns)));
  *found = {};
  std::vector<Lane> lanes(static_cast<size_t>(pool.size()));
  std::vector<std::byte> window;
  for (int64_t first = 0; first < n_chunks; first += kWindowChunks) {
    if (stop != nullptr && stop->load()) throw Interrupted();
    const int64_t n = std::min(kWindowChunks, n_chunks - first);
    const int64_t elements = std::min(n * step, tensor.elements - first * step);
    window.resize(static_cast<size_t>(row_bytes(layout.codes, elements)));
    std::vector<Findings> parts(static_cast<size_t>(n));
    pool.parallel_for(n, 1, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = (first + i) * step;
        coder.chunk(at, std::min(step, tensor.elements - at), lanes[static_cast<size_t>(thread)],
                    window.data() + i * chunk_bytes, scales->data() + (first + i) * chunk_scales,
                    parts[static_cast<size_t>(i)]);
      }
    });
    for (const Findings& part : parts) found->add(part);
    if (request.sink) request.sink(window);
    if (request.advance) request.advance(row_bytes(tensor.dtype, elements));
    if (request.keep_going && !request.keep_going(*found)) return false;
  }
  return true;
} catch (const Error& e) {
  throw e.with_file(tensor.file->path()).with_place("tensor " + tensor.name);
}

}  // namespace carat::convert
