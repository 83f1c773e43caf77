#include "train/state.h"

#include <bit>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "base/file.h"

namespace carat::train {
namespace {

constexpr std::string_view kMagic = "carat-train-1\n";
constexpr int64_t kMaxHeader = int64_t{1} << 24;

std::span<const std::byte> bytes_of(const std::vector<float>& v) {
  return std::as_bytes(std::span(v));
}

// JSON has no 64 significant bits for doubles in every reader: the exact value as an integer.
int64_t bits_of(double x) { return std::bit_cast<int64_t>(x); }

[[noreturn]] void damaged(const std::string& path, std::string what) {
  throw Error({std::move(what), path, {}, {}, {}, "start again, or use an older checkpoint"});
}

}  // namespace

void save_state(const std::string& path, const Json& fingerprint, const TrainState& state) {
  Json header;
  header["fingerprint"] = fingerprint;
  header["step"] = state.step;
  header["parameters"] = static_cast<int64_t>(state.weights.size());
  header["smooth_loss_bits"] = bits_of(state.smooth_loss);
  header["learning_rate_sum_bits"] = bits_of(state.learning_rate_sum);
  const std::string text = to_json_text(header);
  AtomicFile file(path);
  file.write(std::string(kMagic));
  const auto length = static_cast<uint64_t>(text.size());
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(text);
  for (const auto* v : {&state.weights, &state.m, &state.v}) file.write(bytes_of(*v));
  file.commit();
}

TrainState load_state(const std::string& path, const Json& fingerprint, int64_t n) {
  const auto file = open_file(path);
  const auto magic_size = static_cast<int64_t>(kMagic.size());
  std::string magic(kMagic.size(), '\0');
  if (file->size() < magic_size + 8) damaged(path, "this is no training checkpoint");
  file->read(0, std::as_writable_bytes(std::span(magic)));
  if (magic != kMagic) damaged(path, "this is no training checkpoint");
  uint64_t length = 0;
  file->read(magic_size, std::as_writable_bytes(std::span(&length, 1)));
  if (length > static_cast<uint64_t>(kMaxHeader) ||
      static_cast<int64_t>(length) > file->size() - magic_size - 8) {
    damaged(path, "the checkpoint's header reaches past its end");
  }
  std::string text(length, '\0');
  file->read(magic_size + 8, std::as_writable_bytes(std::span(text)));
  const Json header = parse_json(text);

  const Json& theirs = get(header, "fingerprint");
  if (theirs != fingerprint) {
    for (const auto& [key, value] : fingerprint.items()) {
      const Json* other = find(theirs, key.c_str());
      if (other && *other == value) continue;
      throw Error({"the checkpoint belongs to another run", path, key, to_json_text(value),
                   other ? to_json_text(*other) : "nothing",
                   "resume with the options of the run that wrote it"});
    }
    throw Error({"the checkpoint belongs to another run", path, {}, {}, {}, {}});
  }
  if (get_int(header, "parameters", 0, INT64_MAX) != n) {
    damaged(path, "the checkpoint has another number of parameters");
  }
  const int64_t array = mul_or_throw(n, 4, "the checkpoint's size");
  int64_t at = magic_size + 8 + static_cast<int64_t>(length);
  if (file->size() != at + 3 * array) damaged(path, "the checkpoint is cut short");

  TrainState s;
  s.step = get_int(header, "step", 0, INT64_MAX);
  s.smooth_loss = std::bit_cast<double>(get_int(header, "smooth_loss_bits", INT64_MIN, INT64_MAX));
  s.learning_rate_sum =
      std::bit_cast<double>(get_int(header, "learning_rate_sum_bits", INT64_MIN, INT64_MAX));
  for (auto* v : {&s.weights, &s.m, &s.v}) {
    v->resize(static_cast<size_t>(n));
    file->read(at, std::as_writable_bytes(std::span(*v)));
    at += array;
  }
  return s;
}

}  // namespace carat::train
