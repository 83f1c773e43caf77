#include "convert/transcode.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <vector>

#include "base/checked.h"
#include "base/error.h"
#include "base/half.h"
#include "convert/importance.h"
#include "convert/scale_shift.h"
#include "quant/blocks.h"
#include "quant/coded_rows.h"
#include "quant/float_rows.h"
#include "quant/scheme.h"

namespace carat::convert {
namespace {

constexpr int64_t kWindowChunks = 32;
constexpr int64_t kSampleBlocks = 64;

// Types that hold every value of `from` exactly.
bool holds_all(DType to, DType from) {
  return to == from || (to == DType::kF32 && (from == DType::kF16 || from == DType::kBF16));
}

// A group of columns may begin before `begin`.
void decode_codes(const SourceTensor& tensor, int64_t begin, int64_t n, std::vector<std::byte>& raw,
                  float* out) {
  if (n == 0) return;
  const int64_t columns = tensor.scales.columns;
  const int64_t first = begin / columns, last = (begin + n - 1) / columns;
  std::vector<float> scales(static_cast<size_t>(last - first + 1));
  Transcoder::read_scales(tensor, first, last - first + 1, raw, scales.data());
  raw.resize(static_cast<size_t>(row_bytes(tensor.dtype, n)));
  tensor.file->read(tensor.offset + row_bytes(tensor.dtype, begin), raw);
  const int64_t head = begin % columns == 0 ? 0 : std::min(n, columns - begin % columns);
  if (head > 0) {
    quant::decode_coded_row(tensor.dtype, raw.data(), scales.data(), columns, head, out);
  }
  quant::decode_coded_row(tensor.dtype, raw.data() + row_bytes(tensor.dtype, head),
                          scales.data() + (head > 0), columns, n - head, out + head);
}

void decode_unshifted(const SourceTensor& tensor, int64_t begin, int64_t n,
                      std::vector<std::byte>& raw, float* out) {
  CHECK(begin % kShiftGroup == 0 && n % kShiftGroup == 0);
  std::vector<int8_t> codes(static_cast<size_t>(n));
  std::vector<float> scales(static_cast<size_t>(n / kShiftGroup));
  Transcoder::read_codes(tensor, begin, n, raw, codes.data());
  Transcoder::read_scales(tensor, begin / kShiftGroup, n / kShiftGroup, raw, scales.data());
  for (int64_t g = 0; g < n / kShiftGroup; ++g) {
    const float scale = scales[static_cast<size_t>(g)];
    const UnshiftedGroup group = undo_shift(&codes[static_cast<size_t>(g * kShiftGroup)], scale);
    const float d = unshifted_step(group.d, scale);
    for (const int8_t code : group.codes) *out++ = d * static_cast<float>(code);
  }
}

// In pieces that stay in the processor's cache.
void recover_bf16(const SourceTensor& tensor, int64_t begin, int64_t n, std::vector<std::byte>& raw,
                  std::byte* out, LatticeStats& stats) {
  constexpr int64_t kPiece = int64_t{1} << 16;
  static_assert(kPiece % quant::kBlock == 0);
  for (int64_t at = 0; at < n; at += kPiece) {
    const int64_t piece = std::min(kPiece, n - at);
    raw.resize(static_cast<size_t>(row_bytes(DType::kBF16, piece)));
    tensor.file->read(tensor.offset + row_bytes(DType::kBF16, begin + at), raw);
    std::byte* to = out != nullptr ? out + row_bytes(DType::kQ4_0, at) : nullptr;
    recover_bf16_blocks(raw.data(), (begin + at) / quant::kBlock, piece / quant::kBlock, to, stats);
  }
}

}  // namespace

SourceTensor source_tensor(const io::TensorSource& source, const io::TensorEntry& entry) {
  const std::optional<int64_t> n = entry.shape.empty() ? 1 : element_count(entry.shape);
  CHECK(n.has_value());
  return {&source.file_of(entry),
          entry.offset,
          entry.dtype,
          *n,
          entry.shape.empty() ? 1 : entry.shape.back(),
          entry.name,
          {},
          false,
          {}};
}

SourceTensor source_tensor(const io::TensorSource& source, const model::StoredTensor& stored) {
  SourceTensor t = source_tensor(source, *stored.values);
  if (!stored.is_coded()) return t;
  const std::optional<int64_t> n = element_count(stored.shape);
  CHECK(n.has_value());
  t.dtype = stored.dtype;
  t.elements = *n;
  t.columns = stored.shape.back();
  t.scales = {&source.file_of(*stored.scales), stored.scales->offset, stored.scales->dtype,
              stored.scale_columns};
  return t;
}

bool is_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

int64_t count_kept(const float* source, const float* written, int64_t n) {
  int64_t kept = 0;
  for (int64_t i = 0; i < n; ++i) {
    kept += written[i] == source[i] || to_float(to_bf16(written[i])) == source[i];
  }
  return kept;
}

void Findings::add(const Findings& other) {
  weights += other.weights;
  weights_bit_exact += other.weights_bit_exact;
  lattice.add(other.lattice);
  error.add(other.error);
  groups += other.groups;
  groups_exact += other.groups_exact;
  groups_rounded_scale += other.groups_rounded_scale;
}

struct Transcoder::Lane {
  std::vector<std::byte> raw;
  std::vector<float> values, written;
};

struct Transcoder::Job {
  const SourceTensor* tensor;
  DType to;
  bool judge;
  bool write;
};

Transcoder::Transcoder(ThreadPool& pool, const std::atomic<bool>* stop)
    : pool_(pool), stop_(stop), lanes_(static_cast<size_t>(pool.size())) {}
Transcoder::~Transcoder() = default;

void Transcoder::decode(const SourceTensor& tensor, int64_t begin, int64_t n,
                        std::vector<std::byte>& raw, float* out) {
  if (tensor.undo_shift) return decode_unshifted(tensor, begin, n, raw, out);
  if (quant::is_coded(tensor.dtype)) return decode_codes(tensor, begin, n, raw, out);
  raw.resize(static_cast<size_t>(row_bytes(tensor.dtype, n)));
  tensor.file->read(tensor.offset + row_bytes(tensor.dtype, begin), raw);
  quant::decode_row(tensor.dtype, raw.data(), out, n);
}

void Transcoder::read_codes(const SourceTensor& tensor, int64_t begin, int64_t n,
                            std::vector<std::byte>& raw, int8_t* out) {
  raw.resize(static_cast<size_t>(row_bytes(tensor.dtype, n)));
  tensor.file->read(tensor.offset + row_bytes(tensor.dtype, begin), raw);
  quant::unpack_codes(tensor.dtype, raw.data(), n, out);
}

void Transcoder::read_scales(const SourceTensor& tensor, int64_t begin, int64_t n,
                             std::vector<std::byte>& raw, float* out) {
  const kernels::CodeScales& s = tensor.scales;
  raw.resize(static_cast<size_t>(row_bytes(s.dtype, n)));
  s.file->read(s.offset + row_bytes(s.dtype, begin), raw);
  quant::decode_row(s.dtype, raw.data(), out, n);
  for (int64_t i = 0; i < n; ++i) {
    if (std::isfinite(out[i])) continue;
    throw Error({"a scale of weights is not finite", s.file->path(), "tensor " + tensor.name, "",
                 fmt::format("{} at {}", out[i], begin + i), "the file is damaged"});
  }
}

void Transcoder::chunk(const Job& job, int64_t index, Lane& lane, std::byte* out,
                       Findings& findings) const {
  const SourceTensor& t = *job.tensor;
  const int64_t begin = index * kChunk;
  const int64_t n = std::min(kChunk, t.elements - begin);
  findings.weights += n;
  if (job.write && job.to == t.dtype && !job.judge) {
    t.file->read(t.offset + row_bytes(t.dtype, begin),
                 {out, static_cast<size_t>(row_bytes(t.dtype, n))});
    findings.weights_bit_exact += n;
    return;
  }
  if (t.column_weights && job.write && info(job.to).block_elements > 1) {
    lane.values.resize(static_cast<size_t>(n));
    decode(t, begin, n, lane.raw, lane.values.data());
    encode_weighted(t, begin, lane.values.data(), n, job.to, job.judge, out, findings);
    return;
  }
  const bool to_q4_0 = job.write && job.to == DType::kQ4_0;
  if (t.dtype == DType::kBF16 && (to_q4_0 || !job.write)) {
    CHECK(job.judge || to_q4_0);
    recover_bf16(t, begin, n, lane.raw, to_q4_0 ? out : nullptr, findings.lattice);
    if (to_q4_0) findings.weights_bit_exact += findings.lattice.weights_bit_exact;
    return;
  }
  lane.values.resize(static_cast<size_t>(n));
  float* values = lane.values.data();
  decode(t, begin, n, lane.raw, values);

  if (job.judge || to_q4_0) {
    const std::optional<Grid> grid =
        t.dtype == DType::kBF16 ? std::optional<Grid>(Grid::kBF16) : std::nullopt;
    recover_blocks(values, begin / quant::kBlock, n / quant::kBlock, grid, to_q4_0 ? out : nullptr,
                   findings.lattice);
  }
  if (to_q4_0) {
    findings.weights_bit_exact += findings.lattice.weights_bit_exact;
  } else if (job.write) {
    quant::encode_row(job.to, values, out, n);
    if (holds_all(job.to, t.dtype)) {
      findings.weights_bit_exact += n;
    } else {
      lane.written.resize(static_cast<size_t>(n));
      quant::decode_row(job.to, out, lane.written.data(), n);
      findings.weights_bit_exact += count_kept(values, lane.written.data(), n);
      findings.error.add(measure_error(values, lane.written.data(), n));
    }
  }
}

bool Transcoder::run(const SourceTensor& tensor, const TranscodeRequest& request,
                     Findings* findings) try {
  const Job job{&tensor, request.to, request.judge, static_cast<bool>(request.sink)};
  const int64_t n_chunks = ceil_div(tensor.elements, kChunk);
  const int64_t chunk_bytes = job.write ? row_bytes(request.to, kChunk) : 0;
  *findings = {};
  for (int64_t first = 0; first < n_chunks; first += kWindowChunks) {
    if (stop_ != nullptr && stop_->load()) throw Interrupted();
    const int64_t n = std::min(kWindowChunks, n_chunks - first);
    const int64_t elements = std::min(n * kChunk, tensor.elements - first * kChunk);
    const int64_t bytes = job.write ? row_bytes(request.to, elements) : 0;
    window_.resize(static_cast<size_t>(bytes));
    parts_.assign(static_cast<size_t>(n), Findings{});
    pool_.parallel_for(n, 1, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t i = begin; i < end; ++i) {
        std::byte* out = job.write ? window_.data() + i * chunk_bytes : nullptr;
        chunk(job, first + i, lanes_[static_cast<size_t>(thread)], out,
              parts_[static_cast<size_t>(i)]);
      }
    });
    for (const Findings& part : parts_) findings->add(part);
    if (job.write) request.sink(window_);
    if (request.advance) request.advance(row_bytes(tensor.dtype, elements));
    if (request.keep_going && !request.keep_going(*findings)) return false;
    if (job.write && request.to == DType::kQ4_0 && findings->lattice.refused > 0) {
      throw Error({"a weight is not finite or too large for Q4_0", "", "", "at most 65504 x 8",
                   fmt::format("{} such blocks of 32", findings->lattice.refused),
                   "the source is damaged, or its type must stay"});
    }
  }
  return true;
} catch (const Error& e) {
  throw e.with_file(tensor.file->path()).with_place("tensor " + tensor.name);
}

LatticeStats Transcoder::sample(const SourceTensor& tensor, int64_t spans) {
  const int64_t n_blocks = tensor.elements / quant::kBlock;
  const int64_t n_spans = ceil_div(n_blocks, kSampleBlocks);
  const int64_t take = std::min(spans, n_spans);
  const std::optional<Grid> grid =
      tensor.dtype == DType::kBF16 ? std::optional<Grid>(Grid::kBF16) : std::nullopt;
  std::vector<LatticeStats> parts(static_cast<size_t>(take));
  pool_.parallel_for(take, 1, [&](int64_t begin, int64_t end, int thread) {
    Lane& lane = lanes_[static_cast<size_t>(thread)];
    for (int64_t i = begin; i < end; ++i) {
      const int64_t span = take == n_spans ? i : i * n_spans / take;
      const int64_t first = span * kSampleBlocks;
      const int64_t blocks = std::min(kSampleBlocks, n_blocks - first);
      lane.values.resize(static_cast<size_t>(blocks * quant::kBlock));
      decode(tensor, first * quant::kBlock, blocks * quant::kBlock, lane.raw, lane.values.data());
      recover_blocks(lane.values.data(), first, blocks, grid, nullptr,
                     parts[static_cast<size_t>(i)]);
    }
  });
  LatticeStats sum;
  for (const LatticeStats& part : parts) sum.add(part);
  return sum;
}

}  // namespace carat::convert
