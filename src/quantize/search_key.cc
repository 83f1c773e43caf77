#include "quantize/search_key.h"

#include <algorithm>
#include <string>

#include "base/json.h"
#include "base/rng.h"
#include "base/sha256.h"
#include "quant/scheme.h"

namespace carat::quantize {
namespace {

constexpr int64_t kPiece = 1 << 16, kPieces = 16;  // bytes, and pieces of a large tensor

class Digest {
 public:
  void add(std::span<const std::byte> bytes) { sum_.update(bytes); }
  void add(const std::string& text) {
    add_number(text.size());
    add(std::as_bytes(std::span(text)));
  }
  void add_number(uint64_t n) { add(std::as_bytes(std::span(&n, 1))); }
  template <class T>
  void add_all(const std::vector<T>& values) {
    add_number(values.size());
    add(std::as_bytes(std::span(values)));
  }
  void add_chunks(std::span<const std::vector<int32_t>> chunks) {
    add_number(chunks.size());
    for (const auto& c : chunks) add_all(c);
  }
  std::string text() const { return to_hex(sum_.digest()).substr(0, 32); }

 private:
  Sha256 sum_;
};

std::string model_digest(const Job& job) {
  Digest d;
  d.add(to_json_text(model::config_to_hf(job.source.config())));
  const io::TensorSource& source = *job.source.source;
  std::vector<std::byte> bytes;
  for (const io::TensorEntry& e : source.entries()) {
    job.check_stop();
    d.add(e.name);
    d.add(name_of(e.dtype));
    for (const int64_t n : e.shape) d.add_number(static_cast<uint64_t>(n));
    const int64_t pieces = e.bytes <= kPiece * kPieces ? 1 : kPieces;
    const int64_t size = pieces == 1 ? e.bytes : kPiece;
    for (int64_t i = 0; i < pieces; ++i) {
      const int64_t at = pieces == 1 ? 0 : (e.bytes - size) / (pieces - 1) * i;
      bytes.resize(static_cast<size_t>(size));
      source.file_of(e).read(e.offset + at, bytes);
      d.add(bytes);
    }
  }
  return d.text();
}

// Codes of rows that are always the same: encoders may change between versions.
std::string types_digest(std::span<const DType> types) {
  constexpr int64_t kColumns = 512;
  Rng rng(1);
  std::vector<float> row(kColumns), weights(kColumns);
  for (size_t i = 0; i < row.size(); ++i) {
    row[i] = static_cast<float>(rng.uniform() + rng.uniform() + rng.uniform() - 1.5);
    weights[i] = static_cast<float>(rng.uniform()) + 0.01f;
  }
  Digest d;
  for (const DType type : types) {
    d.add(name_of(type));
    std::vector<std::byte> bytes(static_cast<size_t>(row_bytes(type, kColumns)));
    quant::encode_row(type, row.data(), bytes.data(), kColumns, weights.data());
    d.add(bytes);
  }
  return d.text();
}

std::string importance_digest(const Job& job) {
  Digest d;
  if (job.imatrix == nullptr) {
    d.add_chunks(job.chunks);
    return d.text();
  }
  for (const io::ImatrixEntry& e : job.imatrix->entries) {
    d.add(e.name);
    d.add_all(e.sums);
    d.add_all(e.counts);
  }
  return d.text();
}

}  // namespace

std::vector<LogKey> search_key(const Job& job, const SearchText& text,
                               std::span<const DType> types) {
  Digest chunks;
  chunks.add_chunks(text.search);
  chunks.add_chunks(text.check);
  return {{"isa", job.table.isa, "another instruction set"},
          {"model", model_digest(job), "another model"},
          {"text", chunks.text(),
           "another text, or of other --context, --search-tokens or --check-tokens"},
          {"importance", importance_digest(job),
           "another importance matrix, or of one made of another text"},
          {"types", types_digest(types), "other --types, or of another version of carat"}};
}

}  // namespace carat::quantize
