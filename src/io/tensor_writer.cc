#include "io/tensor_writer.h"

#include <algorithm>
#include <array>
#include <unordered_set>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "io/names.h"

namespace carat::io {
namespace {

constexpr int64_t kWindow = int64_t{64} << 20;

void check_spec(const TensorSpec& spec, int64_t max_name) {
  const std::string place = "tensor " + in_quotes(spec.name);
  if (const char* fault = name_fault(spec.name)) {
    throw Error({std::string("bad tensor name: ") + fault, {}, place, {}, {}, {}});
  }
  if (static_cast<int64_t>(spec.name.size()) > max_name) {
    throw Error({"the tensor's name is too long for the format",
                 {},
                 place,
                 "at most " + std::to_string(max_name) + " bytes",
                 std::to_string(spec.name.size()) + " bytes",
                 {}});
  }
  if (spec.shape.size() > 4 || !byte_count(spec.dtype, spec.shape)) {
    throw Error({std::string("a tensor of this shape cannot be written as ") + name_of(spec.dtype),
                 {},
                 place,
                 {},
                 carat::to_string(spec.shape),
                 {}});
  }
}

}  // namespace

TensorWriter::TensorWriter(std::vector<TensorSpec> specs, int64_t max_name)
    : specs_(std::move(specs)) {
  std::unordered_set<std::string_view> seen;
  for (const TensorSpec& spec : specs_) {
    check_spec(spec, max_name);
    if (!seen.insert(spec.name).second) {
      throw Error({"a tensor is declared twice", {}, "tensor " + in_quotes(spec.name), {}, {}, {}});
    }
  }
}

int64_t TensorWriter::spec_bytes(size_t i) const {
  return *byte_count(specs_[i].dtype, specs_[i].shape);
}

AtomicFile& TensorWriter::add_file(const std::string& path) {
  files_.push_back(std::make_unique<AtomicFile>(path));
  return *files_.back();
}

void TensorWriter::set_slots(std::vector<Slot> slots) {
  CHECK(slots.size() == specs_.size());
  slots_ = std::move(slots);
  for (const Slot& s : slots_) total_ = add_or_throw(total_, s.bytes, "the checkpoint's size");
}

void TensorWriter::pad_to(AtomicFile& file, int64_t offset) {
  static constexpr std::array<std::byte, 4096> kZeros{};
  CHECK(file.position() <= offset);
  while (file.position() < offset) {
    const int64_t n = std::min<int64_t>(offset - file.position(), kZeros.size());
    file.write(std::span(kZeros).first(static_cast<size_t>(n)));
  }
}

void TensorWriter::begin(std::string_view name) {
  CHECK(next_ < specs_.size() && specs_[next_].name == name);
  CHECK(next_ == 0 || filled_ == slots_[next_ - 1].bytes);
  const Slot& slot = slots_[next_];
  pad_to(*files_[static_cast<size_t>(slot.file)], slot.offset);
  ++next_;
  filled_ = 0;
}

void TensorWriter::append(std::span<const std::byte> bytes) {
  CHECK(next_ > 0);
  const Slot& slot = slots_[next_ - 1];
  CHECK(static_cast<int64_t>(bytes.size()) <= slot.bytes - filled_);
  AtomicFile& file = *files_[static_cast<size_t>(slot.file)];
  while (!bytes.empty()) {
    const auto piece = bytes.first(std::min(bytes.size(), static_cast<size_t>(kWindow)));
    file.write(piece);
    bytes = bytes.subspan(piece.size());
    filled_ += static_cast<int64_t>(piece.size());
    written_ += static_cast<int64_t>(piece.size());
    since_flush_ += static_cast<int64_t>(piece.size());
    if (since_flush_ >= kWindow) {
      file.flush_window();
      since_flush_ = 0;
    }
  }
}

void TensorWriter::finish() {
  CHECK(next_ == specs_.size() && written_ == total_);
  complete();
  for (const auto& file : files_) file->commit();
  committed();
}

}  // namespace carat::io
