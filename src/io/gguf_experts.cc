#include "io/gguf_experts.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include "base/error.h"

namespace carat::io {
namespace {

constexpr std::string_view kGate = ".ffn_gate_exps.weight";
constexpr std::string_view kUp = ".ffn_up_exps.weight";
constexpr std::string_view kBoth = ".ffn_gate_up_exps.weight";

// Two tensors of equal size as one, part by part in turns.
class JoinedFile final : public RandomAccessFile {
 public:
  JoinedFile(const TensorSource& source, TensorEntry first, TensorEntry second, int64_t parts)
      : source_(source),
        entries_{std::move(first), std::move(second)},
        part_bytes_(entries_[0].bytes / parts) {}

  const std::string& path() const override { return source_.path_of(entries_[0]); }
  int64_t size() const override { return 2 * entries_[0].bytes; }
  void read(int64_t offset, std::span<std::byte> out) const override {
    CHECK(offset >= 0);
    if (static_cast<int64_t>(out.size()) > size() - offset) {
      throw Error({"the tensor ends before", path(), "tensor " + entries_[0].name, {}, {}, {}});
    }
    while (!out.empty()) {
      const int64_t turn = offset / part_bytes_, within = offset % part_bytes_;
      const TensorEntry& entry = entries_[static_cast<size_t>(turn % 2)];
      const auto n = std::min(out.size(), static_cast<size_t>(part_bytes_ - within));
      source_.file_of(entry).read(entry.offset + turn / 2 * part_bytes_ + within, out.first(n));
      out = out.subspan(n);
      offset += static_cast<int64_t>(n);
    }
  }

 private:
  const TensorSource& source_;
  TensorEntry entries_[2];
  int64_t part_bytes_;
};

class JoinedSource final : public TensorSource {
 public:
  explicit JoinedSource(std::unique_ptr<TensorSource> source) : source_(std::move(source)) {
    for (const TensorEntry& entry : source_->entries()) {
      if (const TensorEntry* up = partner(entry)) {
        add_joined(entry, *up);
      } else if (!is_joined_up(entry)) {
        entries_.push_back(entry);
      }
    }
    for (size_t i = 0; i < entries_.size(); ++i) index_.emplace(entries_[i].name, i);
  }

  static bool has_pair(const TensorSource& source) {
    return std::any_of(source.entries().begin(), source.entries().end(),
                       [&](const TensorEntry& e) { return partner_in(source, e) != nullptr; });
  }

  const std::vector<TensorEntry>& entries() const override { return entries_; }
  const TensorEntry* find(std::string_view name) const override {
    const auto it = index_.find(name);
    return it == index_.end() ? nullptr : &entries_[it->second];
  }
  const std::string& path_of(const TensorEntry& entry) const override {
    const JoinedFile* file = joined(entry);
    return file ? file->path() : source_->path_of(entry);
  }
  std::vector<std::string> paths() const override { return source_->paths(); }
  TensorView view(const TensorEntry& entry) const override {
    const JoinedFile* file = joined(entry);
    if (file == nullptr) return source_->view(entry);
    const std::lock_guard lock(mutex_);
    std::unique_ptr<std::byte[]>& copy = copies_[file];
    if (!copy) {
      copy = std::make_unique_for_overwrite<std::byte[]>(static_cast<size_t>(entry.bytes));
      file->read(0, {copy.get(), static_cast<size_t>(entry.bytes)});
    }
    return {entry.dtype, entry.shape, copy.get()};
  }
  const RandomAccessFile& file_of(const TensorEntry& entry) const override {
    const JoinedFile* file = joined(entry);
    return file ? *file : source_->file_of(entry);
  }
  void release(const TensorEntry& entry, int64_t offset, int64_t length) const override {
    if (joined(entry) == nullptr) source_->release(entry, offset, length);
  }

 private:
  // The up experts of a layer whose gate experts are `gate`.
  static const TensorEntry* partner_in(const TensorSource& source, const TensorEntry& gate) {
    if (!gate.name.ends_with(kGate) || gate.shape.size() != 3) return nullptr;
    const std::string layer = gate.name.substr(0, gate.name.size() - kGate.size());
    const TensorEntry* up = source.find(layer + std::string(kUp));
    if (up == nullptr || up->dtype != gate.dtype || up->shape != gate.shape) return nullptr;
    return source.find(layer + std::string(kBoth)) == nullptr ? up : nullptr;
  }
  const TensorEntry* partner(const TensorEntry& gate) const { return partner_in(*source_, gate); }
  bool is_joined_up(const TensorEntry& entry) const {
    if (!entry.name.ends_with(kUp)) return false;
    const std::string layer = entry.name.substr(0, entry.name.size() - kUp.size());
    const TensorEntry* gate = source_->find(layer + std::string(kGate));
    return gate != nullptr && partner(*gate) != nullptr;
  }

  void add_joined(const TensorEntry& gate, const TensorEntry& up) {
    TensorEntry both = gate;
    both.name = gate.name.substr(0, gate.name.size() - kGate.size()) + std::string(kBoth);
    both.shape[1] *= 2;
    both.bytes *= 2;
    both.offset = 0;
    both.file = -1 - static_cast<int>(files_.size());
    files_.push_back(std::make_unique<JoinedFile>(*source_, gate, up, gate.shape[0]));
    entries_.push_back(std::move(both));
  }

  const JoinedFile* joined(const TensorEntry& entry) const {
    return entry.file < 0 ? files_[static_cast<size_t>(-1 - entry.file)].get() : nullptr;
  }

  std::unique_ptr<TensorSource> source_;
  std::vector<std::unique_ptr<JoinedFile>> files_;
  std::vector<TensorEntry> entries_;
  std::unordered_map<std::string_view, size_t> index_;
  mutable std::mutex mutex_;
  mutable std::map<const JoinedFile*, std::unique_ptr<std::byte[]>> copies_;
};

}  // namespace

std::unique_ptr<TensorSource> join_gate_up_experts(std::unique_ptr<TensorSource> source) {
  if (!JoinedSource::has_pair(*source)) return source;
  return std::make_unique<JoinedSource>(std::move(source));
}

bool is_joined(const RandomAccessFile& file) {
  return dynamic_cast<const JoinedFile*>(&file) != nullptr;
}

}  // namespace carat::io
