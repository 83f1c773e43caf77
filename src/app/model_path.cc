#include "app/model_path.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "app/memory.h"
#include "app/nano.h"
#include "app/progress.h"
#include "base/error.h"

namespace carat::app {
namespace {

// A file without a place on the disk that holds `bytes`, closed when it goes.
class MemoryDescriptor {
 public:
  explicit MemoryDescriptor(std::span<const std::byte> bytes)
      : fd_(memfd_create("nano", MFD_CLOEXEC)) {
    if (fd_ < 0) fail();
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) fail();
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
  }
  ~MemoryDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  MemoryDescriptor(const MemoryDescriptor&) = delete;
  MemoryDescriptor& operator=(const MemoryDescriptor&) = delete;

  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  [[noreturn]] static void fail() {
    throw Error({"cannot unpack", "the built-in model", {}, {}, std::strerror(errno), {}});
  }
  int fd_;
};

io::Checkpoint open_nano() {
  const std::span<const std::byte> bytes = nano_model();
  if (bytes.empty()) {
    throw Error({"this program was built without the built-in model",
                 {},
                 {},
                 {},
                 {},
                 "name a model: carat run MODEL; or build again with models/nano in place"});
  }
  // The readers open files; the mapping they make outlives the descriptor.
  const MemoryDescriptor file(bytes);
  return io::open_checkpoint(file.path());
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

io::Checkpoint open_model_checkpoint(const ModelName& model) {
  if (!model) return open_nano();
  if (model->empty()) throw Error("the name of the model is empty");
  if (::access(model->c_str(), F_OK) != 0 && errno == ENOENT) {
    throw Error({"there is no such file or directory",
                 *model,
                 {},
                 {},
                 {},
                 "MODEL is a .gguf file or a directory with config.json; models are not looked up "
                 "by name yet"});
  }
  return io::open_checkpoint(*model);
}

model::PackOptions pack_options(ThreadPool& pool) {
  model::PackOptions options;
  options.pool = &pool;
  options.memory_limit = share_for_model(available_memory());
  return options;
}

int64_t kv_memory(const model::Model& model) {
  const int64_t free = available_memory() - model::mapped_bytes(model.weights);
  return std::max<int64_t>(1, share_for_model(free));
}

model::Model load_to_compute(io::Checkpoint checkpoint, ThreadPool& pool, bool pack) {
  Progress progress("MB of weights");
  model::LoadOptions options;
  options.pack = true;
  options.packing = pack_options(pool);
  options.packing.only_codes = !pack;
  options.packing.progress = [&](int64_t done, int64_t total) {
    progress.update(done / 1'000'000, total / 1'000'000);
  };
  return model::load_model(std::move(checkpoint), options);
}

model::Model open_model(const ModelName& model, ThreadPool& pool, bool pack) {
  model::Model loaded = load_to_compute(open_model_checkpoint(model), pool, pack);
  loaded.path = display_name(model);
  return loaded;
}

void print_notes(const model::Model& model) {
  for (const std::string& note : model.notes) fmt::print(stderr, "note: {}\n", note);
}

std::shared_ptr<const text::Tokenizer> open_tokenizer(const ModelName& model) {
  if (model && ends_with(*model, ".json")) {
    return std::make_shared<const text::Tokenizer>(text::read_tokenizer_json(*model));
  }
  auto tokenizer = model::tokenizer_of(open_model_checkpoint(model));
  if (!tokenizer) {
    throw Error({"the checkpoint has no tokenizer", display_name(model), {}, {}, {}, {}});
  }
  return tokenizer;
}

const text::Tokenizer& require_tokenizer(const model::Model& model) {
  if (!model.tokenizer) {
    throw Error({"the checkpoint has no tokenizer",
                 model.path,
                 {},
                 {},
                 {},
                 "a model directory needs a tokenizer.json; `carat logits` works without one"});
  }
  return *model.tokenizer;
}

}  // namespace carat::app
