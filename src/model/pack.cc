#include "model/pack.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>

#include "base/checked.h"
#include "base/large_memory.h"
#include "kernels/tiles.h"

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

  int64_t bytes() const { return (end - begin) * from->tile_size(); }
};

std::vector<Piece> pieces_of(const std::vector<const Weight*>& weights,
                             const std::vector<std::byte*>& places) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < weights.size(); ++i) {
    const int64_t n = tiles_of(*weights[i]);
    const int64_t step = std::max<int64_t>(1, kReadBytes / (kTileRows * weights[i]->row_size()));
    for (int64_t begin = 0; begin < n; begin += step) {
      pieces.push_back({weights[i], places[i], begin, std::min(n, begin + step)});
    }
  }
  return pieces;
}

// Rows of a piece are consecutive in the file: only the last tile of a matrix has fewer than 16.
void pack_piece(const Piece& piece, std::vector<std::byte>& buffer) {
  const Weight& w = *piece.from;
  const int64_t per_matrix = ceil_div(w.rows, kTileRows), row_size = w.row_size();
  const auto row_of = [&](int64_t tile) {
    return tile / per_matrix * w.rows + tile % per_matrix * kTileRows;
  };
  const auto rows_in = [&](int64_t tile) {
    return std::min(kTileRows, w.rows - tile % per_matrix * kTileRows);
  };
  const int64_t first = row_of(piece.begin);
  const int64_t n = row_of(piece.end - 1) + rows_in(piece.end - 1) - first;
  buffer.resize(std::max(buffer.size(), static_cast<size_t>(n * row_size)));
  w.file->read(w.file_offset + first * row_size,
               std::span(buffer).first(static_cast<size_t>(n * row_size)));
  for (int64_t t = piece.begin; t < piece.end; ++t) {
    kernels::pack_tile(w.dtype, buffer.data() + (row_of(t) - first) * row_size, rows_in(t), w.cols,
                       piece.to + t * w.tile_size());
  }
}

void pack_pieces(const std::vector<Piece>& pieces, int64_t total, const PackOptions& options) {
  ThreadPool alone(1);
  ThreadPool& pool = options.pool ? *options.pool : alone;
  std::vector<std::vector<std::byte>> buffers(static_cast<size_t>(pool.size()));
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

}  // namespace

bool is_packed_kind(const Config& config, TensorRef ref, const Weight& w) {
  if (!kernels::tile_format(w.dtype) || !w.file) return false;
  switch (ref.kind) {
    case TensorKind::kPleTable:
      return false;
    // Read in slices, which must begin at a tile.
    case TensorKind::kPleProjection:
      return config.ple_dim % kTileRows == 0;
    case TensorKind::kExpertsGateUp:
      return w.rows / 2 % kTileRows == 0;
    default:
      return true;
  }
}

int64_t packed_bytes(const Weights& weights) {
  int64_t bytes = 0;
  for (size_t i = 0; i < weights.all.size(); ++i) {
    const Weight& w = weights.all[i];
    if (!is_packed_kind(weights.config, weights.refs[i], w)) continue;
    bytes = add_or_throw(bytes, padded_bytes(w), "the size of the weights in tiles");
  }
  return bytes;
}

void pack_weights(Weights& weights, const PackOptions& options, std::vector<std::string>* notes) {
  const auto note = [&](std::string text) {
    if (notes) notes->push_back(std::move(text));
  };
  const int64_t total = packed_bytes(weights);
  if (total == 0) return;
  if (total > options.memory_limit) {
    note(
        fmt::format("weights are read where the file has them, which is slower: packing takes {} "
                    "of memory, {} can be had",
                    gigabytes(total), gigabytes(options.memory_limit)));
    return;
  }
  auto memory = LargeMemory::try_allocate(total);
  if (!memory) {
    note(
        fmt::format("weights are read where the file has them, which is slower: the system "
                    "refused {} of memory",
                    gigabytes(total)));
    return;
  }

  std::vector<size_t> chosen;
  std::vector<const Weight*> from;
  std::vector<std::byte*> places;
  std::byte* place = memory->bytes().data();
  for (size_t i = 0; i < weights.all.size(); ++i) {
    const Weight& w = weights.all[i];
    if (!is_packed_kind(weights.config, weights.refs[i], w)) continue;
    chosen.push_back(i);
    from.push_back(&w);
    places.push_back(place);
    place += padded_bytes(w);
  }
  const std::vector<Piece> pieces = pieces_of(from, places);
  pack_pieces(pieces, total, options);
  for (size_t i = 0; i < chosen.size(); ++i) {
    Weight& w = weights.all[chosen[i]];
    w.data = places[i];
    w.layout = kernels::Layout::kTiles;
  }
  using Kept = std::pair<std::shared_ptr<const void>, LargeMemory>;
  weights.storage = std::make_shared<Kept>(weights.storage, std::move(*memory));
}

}  // namespace carat::model
