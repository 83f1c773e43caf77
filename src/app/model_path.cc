#include "app/model_path.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "app/nano.h"
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

model::Model open_model(const ModelName& model) {
  model::Model loaded = model::load_model(open_model_checkpoint(model));
  loaded.path = display_name(model);
  return loaded;
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
