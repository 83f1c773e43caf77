// carat's .carat-ref as a stored teacher: audit/teacher_store_format.h says what the bytes mean.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>

#include "audit/teacher_store_format.h"
#include "audit/teacher_store_kinds.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "base/sha256.h"

namespace carat::audit {
namespace {

constexpr uint32_t kVersion = 1;
constexpr int64_t kMostHeader = int64_t{1} << 20;
constexpr int64_t kMostDomains = 1 << 20;
constexpr int64_t kPreface = kStoreMagicBytes + 2 * 4;
// Less probability than this says too little to scale by.
constexpr double kLeastScaled = 1e-3;

uint64_t sum_of(std::span<const std::byte> bytes) {
  Sha256 sum;
  sum.update(bytes);
  const Sha256::Digest digest = sum.digest();
  uint64_t first;
  std::memcpy(&first, digest.data(), sizeof(first));
  return first;
}

Json header_json(const TeacherPlan& plan) {
  const TeacherOrigin& o = plan.origin;
  Json texts = Json::array();
  for (const auto& text : o.texts) texts.push_back({{"path", text.path}, {"sha256", text.sha256}});
  Json origin;
  origin["model"] = o.model;
  origin["model_sha256"] = o.model_sha256;
  origin["engine"] = o.engine;
  origin["texts"] = std::move(texts);
  origin["domains"] = o.domains;
  origin["format"] = o.format;
  origin["context"] = o.context;
  origin["min_context"] = o.min_context;
  Json j;
  j["vocabulary"] = plan.vocab_size;
  j["top"] = plan.top;
  j["samples"] = plan.samples;
  j["origin"] = std::move(origin);
  return j;
}

TeacherOrigin origin_of(const Json& j) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  const auto list = [&](const char* key) -> const Json& {
    const Json& value = get(j, key);
    if (!value.is_array()) throw Error(std::string("\"") + key + "\" is not a list");
    return value;
  };
  TeacherOrigin o;
  o.model = get_string(j, "model");
  o.model_sha256 = get_string(j, "model_sha256");
  o.engine = get_string(j, "engine");
  for (const Json& text : list("texts")) {
    o.texts.push_back({get_string(text, "path"), get_string(text, "sha256")});
  }
  for (const Json& domain : list("domains")) {
    if (!domain.is_string()) throw Error("a domain is not a string");
    o.domains.push_back(domain.get<std::string>());
  }
  o.format = get_string(j, "format");
  o.context = get_int(j, "context", 0, kMost);
  o.min_context = get_int(j, "min_context", 0, kMost);
  return o;
}

class RefTeacher final : public StoredTeacher {
 public:
  explicit RefTeacher(const std::string& path) : path_(path), mapping_(path) {
    open(mapping_->bytes());
  }
  RefTeacher(std::string path, std::span<const std::byte> bytes) : path_(std::move(path)) {
    open(bytes);
  }

  const std::string& path() const override { return path_; }
  int64_t vocab_size() const override { return vocab_; }
  int64_t context() const override { return context_; }
  int64_t chunk_count() const override { return static_cast<int64_t>(payloads_.size()); }
  int64_t positions() const override { return positions_; }
  const TeacherOrigin& origin() const override { return origin_; }

  Chunk chunk(int64_t chunk) const override {
    return in_chunk(chunk, [&] { return decode_ref_chunk(payload(chunk), vocab_).chunk; });
  }

  void select(int64_t chunk) override {
    if (selected_ >= 0 && selected_ != chunk && mapping_) {
      const auto old = payload(selected_);
      mapping_->release(old.data() - bytes_.data(), static_cast<int64_t>(old.size()));
    }
    selected_ = -1;
    in_chunk(chunk, [&] {
      const auto bytes = payload(chunk);
      check_sum(bytes);
      rows_ = decode_ref_rows(bytes, vocab_);
    });
    selected_ = chunk;
  }

  StoredRow fill_row(int64_t r, std::span<const float> candidate,
                     std::span<float> row) const override;

 private:
  [[noreturn]] void refuse(const char* what, int64_t at, std::string expected = {},
                           std::string got = {}) const {
    throw Error({what, path_, "byte " + std::to_string(at), std::move(expected), std::move(got),
                 "the file is damaged"});
  }

  Error placed(const Error& e, const std::string& where) const {
    ErrorInfo info = e.info();
    info.place = where + (info.place.empty() ? "" : ", ") + info.place;
    return Error(info).with_file(path_);
  }

  template <class F>
  std::invoke_result_t<F> in_chunk(int64_t chunk, F f) const {
    try {
      return f();
    } catch (const Error& e) {
      throw placed(e, "chunk " + std::to_string(chunk));
    }
  }

  uint64_t number_at(int64_t at, size_t bytes) const {
    uint64_t value = 0;
    if (static_cast<int64_t>(bytes_.size()) - at < static_cast<int64_t>(bytes)) {
      refuse("the file ends early", at);
    }
    std::memcpy(&value, bytes_.data() + at, bytes);
    return value;
  }

  std::span<const std::byte> payload(int64_t chunk) const {
    CHECK(0 <= chunk && chunk < chunk_count());
    return payloads_[static_cast<size_t>(chunk)];
  }

  // The sum stands behind the bytes; there is room for it.
  void check_sum(std::span<const std::byte> bytes) const {
    const int64_t end = bytes.data() + bytes.size() - bytes_.data();
    if (sum_of(bytes) != number_at(end, 8)) refuse("the checksum is wrong", end);
  }

  int64_t open_header();
  void open(std::span<const std::byte> bytes);

  std::string path_;
  std::optional<MappedFile> mapping_;
  std::span<const std::byte> bytes_;
  int64_t vocab_ = 0, context_ = 0, positions_ = 0;
  TeacherOrigin origin_;
  std::vector<std::span<const std::byte>> payloads_;
  int64_t selected_ = -1;
  RefChunk rows_;  // of the selected chunk
};

// Answers where the first chunk begins.
int64_t RefTeacher::open_header() {
  const auto size = static_cast<int64_t>(bytes_.size());
  if (size < kStoreMagicBytes || std::memcmp(bytes_.data(), kRefMagic, kStoreMagicBytes) != 0) {
    throw Error({"not a file of stored predictions", path_, "byte 0", "\"CARATREF\"", {}, {}});
  }
  const uint64_t version = number_at(kStoreMagicBytes, 4);
  if (version != kVersion) {
    throw Error({"another version of the format", path_, "byte 8", std::to_string(kVersion),
                 std::to_string(version), "a newer carat may have written it"});
  }
  const auto length = static_cast<int64_t>(number_at(kStoreMagicBytes + 4, 4));
  if (length > kMostHeader || length > size - kPreface - 8) {
    refuse("the header's length is out of range", kStoreMagicBytes + 4,
           "at most " +
               std::to_string(std::min(kMostHeader, std::max<int64_t>(size - kPreface - 8, 0))),
           std::to_string(length));
  }
  check_sum(bytes_.first(static_cast<size_t>(kPreface + length)));
  const auto text = bytes_.subspan(kPreface, static_cast<size_t>(length));
  try {
    const Json j =
        parse_json(std::string_view(reinterpret_cast<const char*>(text.data()), text.size()));
    vocab_ = get_int(j, "vocabulary", 1, kMostRefVocab);
    origin_ = origin_of(get(j, "origin"));
  } catch (const Error& e) {
    throw placed(e, "header");
  }
  return kPreface + length + 8;
}

void RefTeacher::open(std::span<const std::byte> bytes) {
  bytes_ = bytes;
  const auto size = static_cast<int64_t>(bytes_.size());
  int64_t at = open_header();
  while (true) {
    const uint64_t length = number_at(at, 8);
    at += 8;
    if (length == 0) break;
    if (size - at < 8 || length > static_cast<uint64_t>(size - at - 8)) {
      refuse("a chunk reaches past the end of the file", at - 8,
             "at most " + std::to_string(std::max<int64_t>(size - at - 8, 0)) + " bytes",
             std::to_string(length) + " bytes");
    }
    payloads_.push_back(bytes_.subspan(static_cast<size_t>(at), static_cast<size_t>(length)));
    const Chunk head = chunk(chunk_count() - 1);
    context_ = std::max(context_, static_cast<int64_t>(head.tokens.size()));
    positions_ += static_cast<int64_t>(head.compared.size());
    if (head.domain >= static_cast<int64_t>(std::max<size_t>(origin_.domains.size(), 1))) {
      refuse("a chunk's domain has no name", at, {}, std::to_string(head.domain));
    }
    at += static_cast<int64_t>(length) + 8;
  }
  const uint64_t chunks = number_at(at, 8);
  at += 8;
  if (chunks != payloads_.size() || chunks == 0) {
    refuse("the number of chunks is wrong", at - 8, std::to_string(payloads_.size()),
           std::to_string(chunks));
  }
  if (at != size) refuse("bytes follow the end", at);
}

StoredRow RefTeacher::fill_row(int64_t r, std::span<const float> candidate,
                               std::span<float> row) const {
  CHECK(selected_ >= 0);
  const auto vocab = static_cast<size_t>(vocab_);
  CHECK(candidate.size() == vocab && row.size() == vocab);
  CHECK(0 <= r && static_cast<size_t>(r) < rows_.row_at.size());
  const auto position = static_cast<size_t>(rows_.chunk.compared[static_cast<size_t>(r)]);
  const int32_t next = rows_.chunk.tokens[position + 1];
  size_t at = rows_.row_at[static_cast<size_t>(r)];
  const RefRow stored = decode_ref_row(payload(selected_), at, vocab_, next);

  // Codes are rounded, so the listed probabilities are scaled to what `next` and the tail leave;
  // next stays exact.
  const double tail = stored.tail;
  const double next_p = std::exp(static_cast<double>(stored.next_log_p));
  double listed = 0;
  for (const RefToken& t : stored.top) {
    if (t.token != next) listed += std::exp(static_cast<double>(t.log_p));
  }
  const double wanted = 1 - tail - next_p;
  const double shift =
      listed > kLeastScaled && wanted > kLeastScaled ? std::log(wanted / listed) : 0;

  // All others in the candidate's proportions.
  const double top = *std::max_element(candidate.begin(), candidate.end());
  double candidate_rest = 0;
  auto skip = stored.top.begin();
  const auto is_known = [&](size_t v) {
    const auto token = static_cast<int32_t>(v);
    while (skip != stored.top.end() && skip->token < token) ++skip;
    return token == next || (skip != stored.top.end() && skip->token == token);
  };
  for (size_t v = 0; v < vocab; ++v) {
    if (!is_known(v)) candidate_rest += std::exp(static_cast<double>(candidate[v]) - top);
  }
  const double candidate_log_rest = top + std::log(candidate_rest);
  const double log_tail = std::log(tail);
  const bool shared = candidate_rest > 0;
  // A candidate that gives the rest nothing cannot say how to share it: evenly.
  const double even = log_tail - std::log(static_cast<double>(vocab - stored.top.size()));
  for (size_t v = 0; v < vocab; ++v) {
    row[v] = static_cast<float>(
        shared ? static_cast<double>(candidate[v]) - candidate_log_rest + log_tail : even);
  }
  for (const RefToken& t : stored.top) {
    row[static_cast<size_t>(t.token)] = static_cast<float>(static_cast<double>(t.log_p) + shift);
  }
  row[static_cast<size_t>(next)] = stored.next_log_p;

  StoredRow out;
  out.entropy = stored.entropy;
  if (!stored.samples.empty()) {
    // With r = q / p, both normalised to the rest, KL = E_p[r - 1 - log r], because E_p[r] = 1.
    // Each term is at least 0 and of the second order, so its noise is far below that of -log r.
    double sum = 0;
    for (const RefToken& t : stored.samples) {
      const double log_r =
          (static_cast<double>(candidate[static_cast<size_t>(t.token)]) - candidate_log_rest) -
          (static_cast<double>(t.log_p) - log_tail);
      sum += std::expm1(log_r) - log_r;
    }
    out.missing_kld = tail * sum / static_cast<double>(stored.samples.size());
  }
  return out;
}

class RefWriter final : public TeacherWriter {
 public:
  RefWriter(const std::string& path, const TeacherPlan& plan)
      : plan_(plan), path_(path), file_(path) {
    // Figures look at the five most likely tokens.
    CHECK(8 <= plan.top && plan.top <= kMostRefTop);
    CHECK(0 <= plan.samples && plan.samples <= kMostRefSamples);
    CHECK(plan.vocab_size <= kMostRefVocab);
    for (const Chunk& chunk : plan.chunks) {
      CHECK(chunk.domain >= 0 && chunk.domain < kMostDomains);
      CHECK(chunk.domain < static_cast<int64_t>(std::max<size_t>(plan.origin.domains.size(), 1)));
    }
    const std::string json = to_json_text(header_json(plan));
    CHECK(static_cast<int64_t>(json.size()) <= kMostHeader);
    std::string head(kRefMagic, kStoreMagicBytes);
    put(head, kVersion);
    put(head, static_cast<uint32_t>(json.size()));
    head += json;
    put(head, sum_of(std::as_bytes(std::span(head))));
    file_.write(head);
  }

  void add(std::span<const float> logits, ThreadPool& pool) override {
    const auto vocab = static_cast<size_t>(plan_.vocab_size);
    CHECK(logits.size() % vocab == 0);
    const size_t rows = logits.size() / vocab;
    // Of which chunk and position each row is.
    std::vector<std::pair<size_t, size_t>> places;
    size_t chunk = chunk_, row = row_;
    for (size_t i = 0; i < rows; ++i) {
      CHECK(chunk < plan_.chunks.size());
      places.emplace_back(chunk, row);
      if (++row == plan_.chunks[chunk].compared.size()) {
        ++chunk;
        row = 0;
      }
    }
    std::vector<std::string> encoded(rows);
    pool.parallel_for(static_cast<int64_t>(rows), 1, [&](int64_t from, int64_t to, int) {
      for (auto i = static_cast<size_t>(from); i < static_cast<size_t>(to); ++i) {
        const auto values = logits.subspan(i * vocab, vocab);
        const Chunk& of = plan_.chunks[places[i].first];
        check_logits(values, path_, rows_ + static_cast<int64_t>(i));
        const auto position = static_cast<size_t>(of.compared[places[i].second]);
        Rng rng((static_cast<uint64_t>(places[i].first) << 32) | places[i].second);
        encoded[i] = encode_ref_row(values, of.tokens[position + 1], plan_.top, plan_.samples,
                                    rng.uniform());
      }
    });
    for (const std::string& bytes : encoded) append_row(bytes);
  }

  void commit() override {
    CHECK(chunk_ > 0);
    std::string end;
    put(end, uint64_t{0});
    put(end, static_cast<uint64_t>(chunk_));
    file_.write(end);
    file_.commit();
  }

 private:
  template <class T>
  static void put(std::string& out, T value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }

  void append_row(const std::string& bytes) {
    if (row_ == 0) payload_ = encode_ref_chunk(plan_.chunks[chunk_]);
    payload_ += bytes;
    ++rows_;
    if (++row_ < plan_.chunks[chunk_].compared.size()) return;
    std::string length, sum;
    put(length, static_cast<uint64_t>(payload_.size()));
    put(sum, sum_of(std::as_bytes(std::span(payload_))));
    file_.write(length);
    file_.write(payload_);
    file_.write(sum);
    if (file_.position() - flushed_ >= kStoreWindow) {
      file_.flush_window();
      flushed_ = file_.position();
    }
    ++chunk_;
    row_ = 0;
  }

  TeacherPlan plan_;
  std::string path_;
  AtomicFile file_;
  size_t chunk_ = 0, row_ = 0;  // of the next row
  int64_t rows_ = 0, flushed_ = 0;
  std::string payload_;  // of the chunk that is being filled
};

}  // namespace

std::unique_ptr<StoredTeacher> open_ref_teacher(const std::string& path) {
  return std::make_unique<RefTeacher>(path);
}

std::unique_ptr<StoredTeacher> open_ref_teacher(const std::string& path,
                                                std::span<const std::byte> bytes) {
  return std::make_unique<RefTeacher>(path, bytes);
}

std::unique_ptr<TeacherWriter> make_ref_writer(const std::string& path, const TeacherPlan& plan) {
  return std::make_unique<RefWriter>(path, plan);
}

}  // namespace carat::audit
