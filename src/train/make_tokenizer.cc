#include "train/make_tokenizer.h"

#include <filesystem>
#include <system_error>

#include "base/error.h"
#include "base/file.h"
#include "text/bpe_trainer.h"
#include "text/tokenizer.h"

namespace carat::train {
namespace {

constexpr int64_t kTextLimit = int64_t{1} << 30;

void write_file(const std::string& path, const std::string& text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

}  // namespace

TokenizerResult make_tokenizer(const std::vector<std::string>& text_files, int64_t vocab_size,
                               const std::string& out_dir) {
  std::string text;
  for (const std::string& path : text_files) text += read_text_file(path, kTextLimit);

  text::BpeTrainerOptions options;
  options.vocab_size = static_cast<int32_t>(vocab_size);
  const text::Tokenizer tokenizer(text::train_bpe(text, options));

  std::error_code error;
  std::filesystem::create_directories(out_dir, error);
  if (error)
    throw Error({"cannot make the directory: " + error.message(), out_dir, {}, {}, {}, {}});
  write_file(out_dir + "/tokenizer.json", text::to_tokenizer_json(tokenizer.vocab()));
  write_file(out_dir + "/tokenizer_config.json", text::to_tokenizer_config_json(tokenizer.vocab()));
  return {static_cast<int64_t>(text.size()), static_cast<int64_t>(tokenizer.encode(text).size())};
}

}  // namespace carat::train
