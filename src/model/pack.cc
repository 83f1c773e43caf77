#include "model/pack.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>

#include "base/checked.h"
#include "base/error.h"
#include "base/large_memory.h"
#include "kernels/tiles.h"
#include "model/pack_codes.h"

namespace carat::model {
namespace {

using kernels::kTileRows;
using kernels::Weight;

// Bytes of rows that a thread reads at a time, about.
constexpr int64_t kReadBytes = int64_t{1} << 20;

int64_t tiles_of(const Weight& w) { return w.count * ceil_div(w.rows, kTileRows); }

// Tiles [begin, end) of a weight, counted through its `count` matrices.
struct Piece {
  const Weight* from;
  std::byte* to;  // first tile of the weight
  int64_t begin, end;
  std::atomic<bool>* needs_floats;  // of the weight: its scales do not fit the tiles

  int64_t bytes() const { return (end - begin) * from->tile_size(); }
};

std::vector<Piece> pieces_of(const std::vector<const Weight*>& weights,
                             const std::vector<std::byte*>& places,
                             std::vector<std::atomic<bool>>& needs_floats) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < weights.size(); ++i) {
    const int64_t n = tiles_of(*weights[i]);
    const int64_t step = std::max<int64_t>(1, kReadBytes / (kTileRows * weights[i]->row_size()));
    for (int64_t begin = 0; begin < n; begin += step) {
      pieces.push_back({weights[i], places[i], begin, std::min(n, begin + step), &needs_floats[i]});
    }
  }
  return pieces;
}

struct Buffers {
  std::vector<std::byte> rows;
  CodeBuffers codes;
};

// Rows of a piece are consecutive in the file: only the last tile of a matrix has fewer than 16.
void pack_piece(const Piece& piece, Buffers& buffers) {
  const Weight& w = *piece.from;
  if (piece.needs_floats->load()) return;
  const int64_t per_matrix = ceil_div(w.rows, kTileRows), row_size = w.row_size();
  const auto row_of = [&](int64_t tile) {
    return tile / per_matrix * w.rows + tile % per_matrix * kTileRows;
  };
  const auto rows_in = [&](int64_t tile) {
    return std::min(kTileRows, w.rows - tile % per_matrix * kTileRows);
  };
  const int64_t first = row_of(piece.begin);
  const int64_t n = row_of(piece.end - 1) + rows_in(piece.end - 1) - first;
  std::vector<std::byte>& rows = buffers.rows;
  rows.resize(std::max(rows.size(), static_cast<size_t>(n * row_size)));
  w.file->read(w.file_offset + first * row_size,
               std::span(rows).first(static_cast<size_t>(n * row_size)));
  const bool coded = !w.scales.empty();
  if (coded) read_scales(w, first, n, buffers.codes);
  for (int64_t t = piece.begin; t < piece.end; ++t) {
    const int64_t at = row_of(t) - first;
    const std::byte* from = rows.data() + at * row_size;
    std::byte* to = piece.to + t * w.tile_size();
    if (!coded) {
      kernels::pack_tile(w.dtype, from, rows_in(t), w.cols, to);
    } else if (!pack_code_tile(w, from, at, rows_in(t), buffers.codes, to)) {
      piece.needs_floats->store(true);
      return;
    }
  }
}

void pack_pieces(const std::vector<Piece>& pieces, int64_t total, const PackOptions& options) {
  ThreadPool alone(1);
  ThreadPool& pool = options.pool ? *options.pool : alone;
  std::vector<Buffers> buffers(static_cast<size_t>(pool.size()));
  std::atomic<int64_t> done{0};
  pool.parallel_for(static_cast<int64_t>(pieces.size()), 1,
                    [&](int64_t begin, int64_t end, int thread) {
                      for (int64_t i = begin; i < end; ++i) {
                        const Piece& piece = pieces[static_cast<size_t>(i)];
                        pack_piece(piece, buffers[static_cast<size_t>(thread)]);
                        done += piece.bytes();
                        if (thread == 0 && options.progress) options.progress(done, total);
                      }
                    });
}

// Tiles begin at cache lines.
int64_t padded_bytes(const Weight& w) {
  const int64_t bytes = mul_or_throw(tiles_of(w), w.tile_size(), "the size of a matrix in tiles");
  return round_up(add_or_throw(bytes, 64, "the size of a matrix in tiles") - 64, 64);
}

std::string gigabytes(int64_t bytes) {
  return fmt::format("{:.2f} GB", static_cast<double>(bytes) / 1e9);
}

// One block of memory, and which weights go where in it.
struct Plan {
  std::vector<size_t> chosen;  // of Weights::all
  std::vector<int64_t> places;
  int64_t bytes = 0;
  bool has_blocks = false, has_codes = false;
};

Plan plan_of(const Weights& weights, bool only_codes) {
  Plan plan;
  for (size_t i = 0; i < weights.all.size(); ++i) {
    const Weight& w = weights.all[i];
    const bool coded = !w.scales.empty();
    if (w.layout == kernels::Layout::kTiles ||
        !is_packed_kind(weights.config, weights.refs[i], w)) {
      continue;
    }
    if (only_codes && !coded) continue;
    plan.chosen.push_back(i);
    plan.places.push_back(plan.bytes);
    plan.bytes = add_or_throw(plan.bytes, padded_bytes(w), "the size of the weights in tiles");
    (coded ? plan.has_codes : plan.has_blocks) = true;
  }
  return plan;
}

[[noreturn]] void no_memory(int64_t bytes, const std::string& available) {
  throw Error({"there is not enough memory for the weights", "", "", gigabytes(bytes), available,
               "carat fit names smaller models"});
}

// A plan that the memory suffices for, and the memory; blocks are left out if need be, with a note.
std::optional<LargeMemory> allocate(const Weights& weights, const PackOptions& options, Plan& plan,
                                    std::vector<std::string>* notes) {
  std::string available;
  for (const bool only_codes : {options.only_codes, true}) {
    plan = plan_of(weights, only_codes);
    if (plan.bytes == 0) return std::nullopt;
    if (plan.bytes > options.memory_limit) {
      available = gigabytes(options.memory_limit) + " can be had";
    } else if (auto memory = LargeMemory::try_allocate(plan.bytes)) {
      return memory;
    } else {
      available = "the system refused it";
    }
    if (notes && plan.has_blocks) {
      notes->push_back(
          fmt::format("weights are read where the file has them, which is slower: packing takes {} "
                      "of memory, {}",
                      gigabytes(plan.bytes), available));
    }
    if (!plan.has_codes) return std::nullopt;
  }
  no_memory(plan.bytes, available);
}

using Kept = std::pair<std::shared_ptr<const void>, LargeMemory>;

void keep(Weights& weights, LargeMemory memory) {
  weights.storage = std::make_shared<Kept>(weights.storage, std::move(memory));
}

// Puts codes in memory as floats, beside `taken` bytes of the limit. The floats' bytes.
int64_t expand(Weights& weights, Weight& w, int64_t taken, const PackOptions& options) {
  const int64_t rows = mul_or_throw(w.count, w.rows, "the size of a matrix");
  const int64_t bytes =
      mul_or_throw(mul_or_throw(rows, w.cols, "the size of a matrix"), 4, "the size of a matrix");
  const int64_t total = add_or_throw(taken, bytes, "the size of the weights in memory");
  if (total > options.memory_limit) no_memory(total, gigabytes(options.memory_limit));
  std::optional<LargeMemory> memory = LargeMemory::try_allocate(bytes);
  if (!memory) no_memory(bytes, "the system refused it");
  std::byte* data = memory->bytes().data();
  ThreadPool alone(1);
  ThreadPool& pool = options.pool ? *options.pool : alone;
  std::vector<Buffers> buffers(static_cast<size_t>(pool.size()));
  const int64_t step = std::max<int64_t>(1, kReadBytes / w.row_size());
  pool.parallel_for(ceil_div(rows, step), 1, [&](int64_t begin, int64_t end, int thread) {
    Buffers& b = buffers[static_cast<size_t>(thread)];
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * step, n = std::min(step, rows - first);
      expand_rows(w, first, n, b.rows, b.codes,
                  reinterpret_cast<float*>(data + first * w.cols * 4));
    }
  });
  w.dtype = DType::kF32;
  w.data = data;
  w.file = nullptr;
  w.file_offset = 0;
  w.scales = {};
  keep(weights, std::move(*memory));
  return bytes;
}

// Scales of what is only looked up; those of products are looked at when they are packed.
void check_table_scales(const Weights& weights) {
  CodeBuffers buffers;
  for (size_t i = 0; i < weights.all.size(); ++i) {
    const Weight& w = weights.all[i];
    if (w.scales.empty() || is_packed_kind(weights.config, weights.refs[i], w)) continue;
    const int64_t rows = w.count * w.rows, per_row = w.cols / w.scales.columns;
    const int64_t step = std::max<int64_t>(1, kReadBytes / (4 * per_row));
    for (int64_t r = 0; r < rows; r += step) {
      read_scales(w, r, std::min(step, rows - r), buffers);
    }
  }
}

}  // namespace

bool is_packed_kind(const Config& config, TensorRef ref, const Weight& w) {
  if (!w.tiles() || !w.file) return false;
  switch (ref.kind) {
    case TensorKind::kPleTable:
      return false;
    // Only looked up beside an output matrix of its own.
    case TensorKind::kTokenEmbedding:
      return config.tied_embeddings;
    // Read in slices, which must begin at a tile.
    case TensorKind::kPleProjection:
      return config.ple_dim % kTileRows == 0;
    case TensorKind::kExpertsGateUp:
      return w.rows / 2 % kTileRows == 0;
    default:
      return true;
  }
}

int64_t packed_bytes(const Weights& weights) { return plan_of(weights, false).bytes; }

void pack_weights(Weights& weights, const PackOptions& options, std::vector<std::string>* notes) {
  check_table_scales(weights);
  Plan plan;
  std::optional<LargeMemory> memory = allocate(weights, options, plan, notes);
  if (!memory) return;
  std::vector<const Weight*> from;
  std::vector<std::byte*> places;
  for (size_t i = 0; i < plan.chosen.size(); ++i) {
    from.push_back(&weights.all[plan.chosen[i]]);
    places.push_back(memory->bytes().data() + plan.places[i]);
  }
  std::vector<std::atomic<bool>> needs_floats(plan.chosen.size());
  pack_pieces(pieces_of(from, places, needs_floats), plan.bytes, options);
  keep(weights, std::move(*memory));
  int64_t expanded = 0, first_expanded = -1, taken = plan.bytes;
  for (size_t i = 0; i < plan.chosen.size(); ++i) {
    Weight& w = weights.all[plan.chosen[i]];
    if (needs_floats[i].load()) {
      taken += expand(weights, w, taken, options);
      if (expanded++ == 0) first_expanded = static_cast<int64_t>(plan.chosen[i]);
    } else {
      w.data = places[i];
      w.layout = kernels::Layout::kTiles;
    }
  }
  if (expanded == 0 || !notes) return;
  notes->push_back(fmt::format(
      "{} of 4-bit codes expanded to F32, {} the first: a scale is not a binary16 number",
      expanded == 1 ? "1 matrix" : fmt::format("{} matrices", expanded),
      hf_name(weights.refs[static_cast<size_t>(first_expanded)])));
}

}  // namespace carat::model
