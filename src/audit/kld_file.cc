#include "audit/kld_file.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/checked.h"
#include "base/error.h"

namespace carat::audit {
namespace {

constexpr char kMagic[] = "_logits_";
constexpr int64_t kMagicBytes = 8;
constexpr int64_t kHeadBytes = kMagicBytes + 3 * 4;
constexpr int64_t kRowHeadBytes = 2 * 4;
// Three tokens are the fewest that leave one position to compare.
constexpr int64_t kLeastContext = 3;
constexpr int64_t kMostContext = int64_t{1} << 24;
constexpr int64_t kMostVocab = int64_t{1} << 24;
// Logits are raised to this far below the largest (llama.cpp's constant).
constexpr int kRange = 16;

template <class T>
T load(std::span<const std::byte> bytes, int64_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

template <class T>
void store(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof(T));
}

[[noreturn]] void refuse(const std::string& path, const char* what, std::string place,
                         std::string expected, std::string got, std::string hint = {}) {
  throw Error({what, path, std::move(place), std::move(expected), std::move(got), std::move(hint)});
}

void check_count(const std::string& path, const char* what, int64_t at, int64_t lowest,
                 int64_t highest, int64_t got) {
  if (lowest <= got && got <= highest) return;
  refuse(path, what, "byte " + std::to_string(at),
         std::to_string(lowest) + " to " + std::to_string(highest), std::to_string(got));
}

}  // namespace

KldFile::KldFile(const std::string& path) : path_(path), mapping_(path) {
  parse(mapping_->bytes());
}

KldFile::KldFile(std::string path, std::span<const std::byte> bytes) : path_(std::move(path)) {
  parse(bytes);
}

void KldFile::parse(std::span<const std::byte> bytes) {
  const auto size = static_cast<int64_t>(bytes.size());
  if (size < kMagicBytes || std::memcmp(bytes.data(), kMagic, kMagicBytes) != 0) {
    refuse(path_, "not a file of reference predictions of llama.cpp", "byte 0", "\"_logits_\"", {});
  }
  if (size < kHeadBytes) {
    refuse(path_, "the file ends in its head", {},
           "at least " + std::to_string(kHeadBytes) + " bytes", std::to_string(size) + " bytes");
  }
  context_ = load<uint32_t>(bytes, 8);
  vocab_ = load<int32_t>(bytes, 12);
  chunks_ = load<int32_t>(bytes, 16);
  check_count(path_, "the context is out of range", 8, kLeastContext, kMostContext, context_);
  check_count(path_, "the vocabulary is out of range", 12, 1, kMostVocab, vocab_);
  check_count(path_, "the number of chunks is out of range", 16, 1,
              std::numeric_limits<int32_t>::max(), chunks_);

  const char* const what = "the size that the file's head states";
  const int64_t count = mul_or_throw(chunks_, context_, what);
  const int64_t token_bytes = mul_or_throw(count, 4, what);
  const int64_t row_bytes = mul_or_throw(chunks_ * rows_per_chunk(), kld_row_bytes(vocab_), what);
  const int64_t rows_at = add_or_throw(kHeadBytes, token_bytes, what);
  const int64_t expected = add_or_throw(rows_at, row_bytes, what);
  if (size != expected) {
    refuse(path_, "the file has another size than its head states", {},
           std::to_string(expected) + " bytes for " + std::to_string(chunks_) + " chunks of " +
               std::to_string(context_) + " tokens",
           std::to_string(size) + " bytes",
           size < expected ? "the program that wrote it may have been interrupted" : "");
  }
  tokens_.resize(static_cast<size_t>(count));
  std::memcpy(tokens_.data(), bytes.data() + kHeadBytes, static_cast<size_t>(token_bytes));
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (tokens_[i] < 0 || tokens_[i] >= vocab_) {
      refuse(path_, "a token is not of the vocabulary", "token " + std::to_string(i),
             "0 to " + std::to_string(vocab_ - 1), std::to_string(tokens_[i]));
    }
  }
  rows_ = bytes.subspan(static_cast<size_t>(rows_at));
}

std::span<const int32_t> KldFile::tokens(int64_t chunk) const {
  CHECK(0 <= chunk && chunk < chunks_);
  return std::span(tokens_).subspan(static_cast<size_t>(chunk * context_),
                                    static_cast<size_t>(context_));
}

std::span<const std::byte> KldFile::chunk_bytes(int64_t chunk) const {
  CHECK(0 <= chunk && chunk < chunks_);
  const int64_t bytes = rows_per_chunk() * kld_row_bytes(vocab_);
  return rows_.subspan(static_cast<size_t>(chunk * bytes), static_cast<size_t>(bytes));
}

KldRow KldFile::row(int64_t chunk, int64_t row) const {
  CHECK(0 <= row && row < rows_per_chunk());
  const auto bytes = chunk_bytes(chunk).subspan(static_cast<size_t>(row * kld_row_bytes(vocab_)));
  const KldRow r{load<float>(bytes, 0), load<float>(bytes, 4), bytes.data() + kRowHeadBytes};
  // The largest code stands for the largest log probability, which is 0 at most, before rounding.
  const float highest = r.scale * 65535.0f + r.floor;
  if (!(r.scale >= 0) || !std::isfinite(r.floor) || !(highest < 1)) {
    refuse(path_, "a row does not hold log probabilities",
           "chunk " + std::to_string(chunk) + ", row " + std::to_string(row),
           "a scale of at least 0, a finite floor and a largest value of about 0 at most",
           "scale " + std::to_string(r.scale) + ", floor " + std::to_string(r.floor));
  }
  return r;
}

void KldFile::release(int64_t chunk) const {
  if (!mapping_) return;
  const auto bytes = chunk_bytes(chunk);
  mapping_->release(bytes.data() - mapping_->bytes().data(), static_cast<int64_t>(bytes.size()));
}

int64_t kld_row_bytes(int64_t vocab_size) { return kRowHeadBytes + 2 * round_up(vocab_size, 2); }

void encode_kld_row(std::span<const float> logits, std::span<std::byte> row) {
  CHECK(!logits.empty());
  CHECK(static_cast<int64_t>(row.size()) == kld_row_bytes(static_cast<int64_t>(logits.size())));
  const float highest = *std::max_element(logits.begin(), logits.end());
  const float lowest = std::max(*std::min_element(logits.begin(), logits.end()),
                                highest - static_cast<float>(kRange));
  CHECK(std::isfinite(highest));
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - highest);
  const auto log_sum = static_cast<float>(std::log(sum));
  const float scale = (highest - lowest) / 65535.0f;
  store<float>(row.data(), scale);
  store<float>(row.data() + 4, lowest - highest - log_sum);
  std::fill(row.begin() + kRowHeadBytes, row.end(), std::byte{0});
  if (scale == 0) return;
  const float inverse = 1 / scale;
  for (size_t v = 0; v < logits.size(); ++v) {
    if (!(logits[v] > lowest)) continue;
    const float code = std::nearbyint(inverse * (logits[v] - lowest));  // to even, at half
    store(row.data() + kRowHeadBytes + 2 * v, static_cast<uint16_t>(code));
  }
}

std::string kld_head(int64_t context, int64_t vocab_size, int64_t chunks,
                     std::span<const int32_t> tokens) {
  CHECK(kLeastContext <= context && context <= kMostContext);
  CHECK(1 <= vocab_size && vocab_size <= kMostVocab);
  CHECK(1 <= chunks && chunks <= std::numeric_limits<int32_t>::max());
  CHECK(static_cast<int64_t>(tokens.size()) == chunks * context);
  std::string head(static_cast<size_t>(kHeadBytes) + 4 * tokens.size(), '\0');
  std::memcpy(head.data(), kMagic, kMagicBytes);
  auto* const bytes = reinterpret_cast<std::byte*>(head.data());
  store(bytes + 8, static_cast<uint32_t>(context));
  store(bytes + 12, static_cast<int32_t>(vocab_size));
  store(bytes + 16, static_cast<int32_t>(chunks));
  std::memcpy(bytes + kHeadBytes, tokens.data(), 4 * tokens.size());
  return head;
}

}  // namespace carat::audit
