#include "train/data.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/rng.h"

namespace carat::train {
namespace {

constexpr int64_t kMaxText = int64_t{1} << 32;

void append_window(const std::vector<int32_t>& tokens, int64_t start, int64_t length, int32_t bos,
                   Batch* batch) {
  const auto first = tokens.begin() + start;
  batch->tokens.push_back(bos);
  batch->tokens.insert(batch->tokens.end(), first, first + length - 1);
  batch->targets.insert(batch->targets.end(), first, first + length);
  ++batch->sequences;
}

}  // namespace

std::vector<int32_t> tokenize_files(const std::vector<std::string>& paths,
                                    const text::Tokenizer& tokenizer) {
  std::vector<int32_t> tokens;
  for (const std::string& path : paths) {
    if (!tokens.empty()) tokens.push_back(tokenizer.vocab().special.bos);
    tokenizer.encode(read_text_file(path, kMaxText), &tokens);
  }
  return tokens;
}

TrainingData::TrainingData(std::vector<int32_t> tokens, int64_t length, int32_t bos, uint64_t seed)
    : tokens_(std::move(tokens)), length_(length), bos_(bos), seed_(seed) {
  // One window is lost to the random first place.
  windows_ = token_count() / length_ - 1;
  if (windows_ < 1) {
    throw Error({"the training text is too short",
                 {},
                 {},
                 "at least " + std::to_string(2 * length_) + " tokens",
                 std::to_string(token_count()) + " tokens",
                 "give more text, or a smaller sequence length"});
  }
}

void TrainingData::start_epoch(int64_t epoch) {
  if (epoch == epoch_) return;
  epoch_ = epoch;
  Rng rng(seed_ + 0x9e3779b97f4a7c15u * static_cast<uint64_t>(epoch + 1));
  const auto shift = static_cast<int64_t>(rng.below(static_cast<uint64_t>(length_)));
  starts_.resize(static_cast<size_t>(windows_));
  for (int64_t i = 0; i < windows_; ++i) starts_[static_cast<size_t>(i)] = shift + i * length_;
  for (int64_t i = windows_ - 1; i > 0; --i) {
    const auto j = static_cast<size_t>(rng.below(static_cast<uint64_t>(i + 1)));
    std::swap(starts_[static_cast<size_t>(i)], starts_[j]);
  }
}

Batch TrainingData::batch(int64_t first, int64_t n) {
  Batch b;
  for (int64_t k = first; k < first + n; ++k) {
    start_epoch(k / windows_);
    append_window(tokens_, starts_[static_cast<size_t>(k % windows_)], length_, bos_, &b);
  }
  return b;
}

uint64_t TrainingData::fingerprint() const {
  uint64_t h = 0xcbf29ce484222325u;
  for (const int32_t t : tokens_) h = (h ^ static_cast<uint32_t>(t)) * 0x100000001b3u;
  return h;
}

HeldOutData::HeldOutData(std::vector<int32_t> tokens, int64_t length, int32_t bos)
    : tokens_(std::move(tokens)), length_(length), bos_(bos) {}

int64_t HeldOutData::sequences() const { return static_cast<int64_t>(tokens_.size()) / length_; }

Batch HeldOutData::batch(int64_t first, int64_t n) const {
  Batch b;
  for (int64_t k = first; k < std::min(first + n, sequences()); ++k) {
    append_window(tokens_, k * length_, length_, bos_, &b);
  }
  return b;
}

}  // namespace carat::train
