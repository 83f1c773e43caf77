#include "audit/teacher_store_format.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>

#include "base/error.h"

namespace carat::audit {
namespace {

constexpr float kCodes = 65535;
constexpr float kGapUnits = 2048;
// Logits this far below the largest have probability 0, also in double.
constexpr float kNeverBelow = 700;
// What rounding may put above probability 1.
constexpr float kSlack = 1e-3f;

void put_varint(std::string& out, uint64_t value) {
  while (value >= 0x80) {
    out.push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<char>(value));
}

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

// Reads a payload front to back.
class PayloadReader {
 public:
  PayloadReader(std::span<const std::byte> bytes, size_t at) : bytes_(bytes), at_(at) {}

  size_t at() const { return at_; }
  size_t left() const { return bytes_.size() - at_; }

  [[noreturn]] void fail(const char* what, std::string expected = {}, std::string got = {}) const {
    throw Error({what,
                 {},
                 "byte " + std::to_string(at_) + " of the chunk",
                 std::move(expected),
                 std::move(got),
                 "the file is damaged"});
  }

  template <class T>
  T take(const char* what) {
    if (left() < sizeof(T)) fail("the chunk ends early", what);
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }

  int64_t varint(const char* what, int64_t lowest, int64_t highest) {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      if (shift > 56) fail("a number has too many bytes", what);
      const auto byte = take<uint8_t>(what);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    const auto number = static_cast<int64_t>(value);  // at most 63 bits
    if (number < lowest || number > highest) {
      fail("a number is out of range",
           std::string(what) + " from " + std::to_string(lowest) + " to " + std::to_string(highest),
           std::to_string(number));
    }
    return number;
  }

  float number(const char* what, float lowest, float highest) {
    const auto value = take<float>(what);
    if (!(value >= lowest && value <= highest)) {
      fail("a number is out of range",
           std::string(what) + " from " + std::to_string(lowest) + " to " + std::to_string(highest),
           std::to_string(value));
    }
    return value;
  }

 private:
  std::span<const std::byte> bytes_;
  size_t at_;
};

// The most likely tokens, the lower id first on a tie, in ascending order of ids.
std::vector<int32_t> most_likely(std::span<const float> logits, float highest, int64_t top) {
  std::vector<int32_t> ids;
  ids.reserve(logits.size());
  for (size_t v = 0; v < logits.size(); ++v) {
    if (logits[v] > highest - kNeverBelow) ids.push_back(static_cast<int32_t>(v));
  }
  const auto kept = std::min(static_cast<size_t>(top), ids.size());
  const auto logit = [&](int32_t v) { return logits[static_cast<size_t>(v)]; };
  std::nth_element(
      ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(kept - 1), ids.end(),
      [&](int32_t a, int32_t b) { return logit(a) > logit(b) || (logit(a) == logit(b) && a < b); });
  ids.resize(kept);
  std::sort(ids.begin(), ids.end());
  return ids;
}

// Draws at even distances along the sum of the tail's probabilities.
void put_samples(std::string& out, std::span<const float> logits, std::span<const double> p,
                 std::span<const bool> listed, double tail, float least, int64_t samples,
                 double draw) {
  const double distance = tail / static_cast<double>(samples);
  double sum = 0;
  int64_t drawn = 0;
  int32_t before = 0;
  int32_t last = -1;  // the last token that can be drawn: rounding may leave a draw behind the sum
  const auto put_sample = [&](int32_t v) {
    put_varint(out, static_cast<uint64_t>(v - before));
    const float gap = (least - logits[static_cast<size_t>(v)]) * kGapUnits;
    put(out, static_cast<uint16_t>(std::nearbyint(std::min(gap, kCodes))));
    before = v;
    ++drawn;
  };
  for (size_t v = 0; v < p.size(); ++v) {
    if (listed[v] || p[v] == 0) continue;
    sum += p[v];
    last = static_cast<int32_t>(v);
    while (drawn < samples && (static_cast<double>(drawn) + draw) * distance < sum)
      put_sample(last);
  }
  while (drawn < samples) put_sample(last);
}

}  // namespace

std::string encode_ref_row(std::span<const float> logits, int32_t next, int64_t top,
                           int64_t samples, double draw) {
  CHECK(1 <= top && top <= kMostRefTop && 0 <= samples && samples <= kMostRefSamples);
  CHECK(0 <= next && static_cast<size_t>(next) < logits.size());
  const float highest = *std::max_element(logits.begin(), logits.end());
  CHECK(std::isfinite(highest));
  const std::vector<int32_t> ids = most_likely(logits, highest, top);
  float least = highest;
  for (const int32_t v : ids) least = std::min(least, logits[static_cast<size_t>(v)]);

  std::vector<double> p(logits.size());
  double sum = 0;
  for (size_t v = 0; v < p.size(); ++v) {
    p[v] = std::exp(static_cast<double>(logits[v]) - highest);
    sum += p[v];
  }
  const double log_sum = std::log(sum);
  const auto listed = std::make_unique<bool[]>(p.size());
  for (const int32_t v : ids) listed[static_cast<size_t>(v)] = true;
  listed[static_cast<size_t>(next)] = true;
  double tail = 0;
  double entropy = log_sum;
  for (size_t v = 0; v < p.size(); ++v) {
    if (!listed[v]) tail += p[v];
    if (p[v] != 0) entropy -= p[v] / sum * (static_cast<double>(logits[v]) - highest);
  }
  // A tail too small for a float is none.
  const auto stored_tail = static_cast<float>(tail / sum);
  if (stored_tail == 0) samples = 0;

  std::string out;
  put_varint(out, ids.size());
  put_varint(out, static_cast<uint64_t>(samples));
  const float range = highest - least;
  put(out, static_cast<float>(-log_sum));
  put(out, range);
  put(out, static_cast<float>(static_cast<double>(logits[static_cast<size_t>(next)]) - highest -
                              log_sum));
  put(out, stored_tail);
  put(out, static_cast<float>(entropy));
  for (const int32_t v : ids) {
    const float below = highest - logits[static_cast<size_t>(v)];
    put(out, static_cast<uint16_t>(range > 0 ? std::nearbyint(below / range * kCodes) : 0));
  }
  int32_t before = -1;
  for (const int32_t v : ids) {
    put_varint(out, static_cast<uint64_t>(v - before - 1));
    before = v;
  }
  if (samples > 0) {
    put_samples(out, logits, p, std::span(listed.get(), p.size()), tail, least, samples, draw);
  }
  return out;
}

RefRow decode_ref_row(std::span<const std::byte> payload, size_t& at, int64_t vocab_size,
                      int32_t next) {
  PayloadReader in(payload, at);
  const int64_t top = in.varint("tokens listed", 1, std::min(vocab_size, kMostRefTop));
  const int64_t samples = in.varint("samples", 0, kMostRefSamples);
  RefRow row;
  const float first = in.number("log p of the first", -64, kSlack);
  const float range = in.number("range", 0, std::numeric_limits<float>::max());
  row.next_log_p = in.number("log p of the next", -std::numeric_limits<float>::infinity(), kSlack);
  row.tail = in.number("tail", 0, 1);
  row.entropy = in.number("entropy", -kSlack, 32);
  // Two bytes and one of each token; three of each sample.
  if (in.left() < 3 * (static_cast<size_t>(top) + static_cast<size_t>(samples))) {
    in.fail("the chunk ends early", "the tokens of a row");
  }
  row.top.resize(static_cast<size_t>(top));
  float least = first;
  for (RefToken& t : row.top) {
    t.log_p = first - range * (static_cast<float>(in.take<uint16_t>("code")) / kCodes);
    least = std::min(least, t.log_p);
  }
  int64_t before = -1;
  bool next_listed = false;
  for (RefToken& t : row.top) {
    before += 1 + in.varint("token", 0, vocab_size - 2 - before);
    t.token = static_cast<int32_t>(before);
    next_listed = next_listed || t.token == next;
  }
  const int64_t others = vocab_size - top - (next_listed ? 0 : 1);
  if (row.tail > 0 && others == 0) in.fail("there is a tail, but every token is listed");
  if (row.tail == 0 && samples > 0) in.fail("there are samples, but no tail");
  row.samples.resize(static_cast<size_t>(samples));
  before = 0;
  auto listed = row.top.begin();
  for (RefToken& t : row.samples) {
    before += in.varint("sampled token", 0, vocab_size - 1 - before);
    t.token = static_cast<int32_t>(before);
    const float gap = static_cast<float>(in.take<uint16_t>("gap")) / kGapUnits;
    t.log_p = least - gap;
    while (listed != row.top.end() && listed->token < t.token) ++listed;
    if (t.token == next || (listed != row.top.end() && listed->token == t.token)) {
      in.fail("a sampled token is listed too", {}, std::to_string(t.token));
    }
  }
  at = in.at();
  return row;
}

std::string encode_ref_chunk(const Chunk& chunk) {
  std::string out;
  put_varint(out, chunk.tokens.size());
  put_varint(out, chunk.compared.size());
  put_varint(out, static_cast<uint64_t>(chunk.domain));
  for (const int32_t token : chunk.tokens) put_varint(out, static_cast<uint64_t>(token));
  int32_t before = -1;
  for (const int32_t position : chunk.compared) {
    put_varint(out, static_cast<uint64_t>(position - before - 1));
    before = position;
  }
  return out;
}

RefChunk decode_ref_chunk(std::span<const std::byte> payload, int64_t vocab_size) {
  PayloadReader in(payload, 0);
  RefChunk out;
  // Every token and every position takes a byte at least.
  const auto most = static_cast<int64_t>(payload.size());
  const int64_t tokens = in.varint("tokens", 2, std::max<int64_t>(most, 2));
  const int64_t compared = in.varint("compared positions", 1, tokens - 1);
  out.chunk.domain = static_cast<int32_t>(in.varint("domain", 0, 1 << 20));
  if (static_cast<int64_t>(in.left()) < tokens + compared)
    in.fail("the chunk ends early", "tokens");
  out.chunk.tokens.reserve(static_cast<size_t>(tokens));
  for (int64_t i = 0; i < tokens; ++i) {
    out.chunk.tokens.push_back(static_cast<int32_t>(in.varint("token", 0, vocab_size - 1)));
  }
  out.chunk.compared.reserve(static_cast<size_t>(compared));
  int64_t before = -1;
  for (int64_t i = 0; i < compared; ++i) {
    // The last token predicts nothing that is known.
    before += 1 + in.varint("position", 0, tokens - 3 - before);
    out.chunk.compared.push_back(static_cast<int32_t>(before));
  }
  out.row_at.push_back(in.at());
  return out;
}

RefChunk decode_ref_rows(std::span<const std::byte> payload, int64_t vocab_size) {
  RefChunk out = decode_ref_chunk(payload, vocab_size);
  size_t at = out.row_at.front();
  out.row_at.clear();
  for (const int32_t position : out.chunk.compared) {
    out.row_at.push_back(at);
    const int32_t next = out.chunk.tokens[static_cast<size_t>(position) + 1];
    (void)decode_ref_row(payload, at, vocab_size, next);
  }
  if (at != payload.size()) {
    throw Error({"bytes follow the last row of a chunk",
                 {},
                 {},
                 std::to_string(at),
                 std::to_string(payload.size()),
                 "the file is damaged"});
  }
  return out;
}

}  // namespace carat::audit
