#include "io/tensor_writer.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_set>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "io/names.h"

namespace carat::io {
namespace {

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

TensorWriter::TensorWriter(std::vector<TensorSpec> specs, int64_t max_name,
                           const WriteOptions& options)
    : specs_(std::move(specs)), options_(options) {
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

int TensorWriter::add_file(const std::string& path) {
  files_.push_back(std::make_unique<PartFile>(path, options_.resumable));
  ends_.push_back(0);
  return static_cast<int>(files_.size()) - 1;
}

void TensorWriter::send() {
  if (buffered_ == 0) return;
  PartFile* file = files_[static_cast<size_t>(buffered_file_)].get();
  queue_.add(std::move(buffer_), std::exchange(buffered_, 0),
             [file](std::span<const std::byte> bytes) { file->write(bytes); });
}

void TensorWriter::put(int file, std::span<const std::byte> bytes) {
  if (file != buffered_file_) send();
  buffered_file_ = file;
  ends_[static_cast<size_t>(file)] += static_cast<int64_t>(bytes.size());
  while (!bytes.empty()) {
    if (!buffer_) buffer_ = queue_.buffer();
    const size_t n = std::min(bytes.size(), WriteQueue::kBufferBytes - buffered_);
    std::memcpy(buffer_.get() + buffered_, bytes.data(), n);
    buffered_ += n;
    bytes = bytes.subspan(n);
    if (buffered_ == WriteQueue::kBufferBytes) send();
  }
}

void TensorWriter::set_slots(std::vector<Slot> slots) {
  CHECK(slots.size() == specs_.size());
  slots_ = std::move(slots);
  for (const Slot& s : slots_) total_ = add_or_throw(total_, s.bytes, "the checkpoint's size");
}

void TensorWriter::pad_to(int file, int64_t offset) {
  static constexpr std::array<std::byte, 4096> kZeros{};
  CHECK(position(file) <= offset);
  while (position(file) < offset) {
    const int64_t n = std::min<int64_t>(offset - position(file), kZeros.size());
    put(file, std::span(kZeros).first(static_cast<size_t>(n)));
  }
}

void TensorWriter::begin(std::string_view name) {
  CHECK(next_ < specs_.size() && specs_[next_].name == name);
  CHECK(next_ == 0 || filled_ == slots_[next_ - 1].bytes);
  const Slot& slot = slots_[next_];
  pad_to(slot.file, slot.offset);
  ++next_;
  filled_ = 0;
}

void TensorWriter::append(std::span<const std::byte> bytes) {
  CHECK(next_ > 0);
  const Slot& slot = slots_[next_ - 1];
  const auto n = static_cast<int64_t>(bytes.size());
  CHECK(n <= slot.bytes - filled_);
  put(slot.file, bytes);
  filled_ += n;
  written_ += n;
}

void TensorWriter::mark(std::function<void(const FileMark&)> done) {
  CHECK(next_ > 0 && filled_ == slots_[next_ - 1].bytes);
  send();
  const PartFile* file = files_[static_cast<size_t>(slots_[next_ - 1].file)].get();
  queue_.add([file, done = std::move(done)] { done({file->position(), file->sha256().digest()}); });
}

size_t TensorWriter::take_over(std::span<const FileMark> marks) {
  CHECK(options_.resumable && next_ == 0 && marks.size() <= specs_.size());
  send();
  queue_.drain();
  for (; next_ < marks.size(); ++next_) {
    const Slot& slot = slots_[next_];
    const FileMark& mark = marks[next_];
    const auto file = static_cast<size_t>(slot.file);
    if (mark.bytes != slot.offset + slot.bytes) break;
    if (!files_[file]->take_over(mark.bytes, mark.digest)) break;
    ends_[file] = mark.bytes;
    filled_ = slot.bytes;
    written_ += slot.bytes;
  }
  for (const auto& file : files_) file->end_reuse();
  return next_;
}

void TensorWriter::keep() {
  send();
  queue_.drain();
  for (const auto& file : files_) file->keep();
}

void TensorWriter::flush() {
  CHECK(next_ == specs_.size() && written_ == total_ && !flushed_);
  complete();
  send();
  queue_.drain();
  for (const auto& file : files_) file->flush();
  flushed_ = true;
}

void TensorWriter::finish() {
  if (!flushed_) flush();
  retract();
  for (auto file = files_.rbegin(); file != files_.rend(); ++file) (*file)->commit();
  committed();
}

std::vector<std::string> TensorWriter::paths() const {
  std::vector<std::string> out;
  for (const auto& file : files_) out.push_back(file->path());
  return out;
}

std::vector<WrittenFile> TensorWriter::files() const {
  std::vector<WrittenFile> out;
  for (const auto& file : files_) {
    out.push_back({file->path(), file->position(), to_hex(file->sha256().digest())});
  }
  return out;
}

}  // namespace carat::io
