#include "app/audit_text.h"

#include <fmt/format.h>

#include <cstdio>

#include "app/model_path.h"
#include "base/error.h"
#include "convert/target.h"

namespace carat::app {
namespace {

// The tokenizer must fit its own weights, and chunks need <bos>.
std::shared_ptr<const text::Tokenizer> checked_tokenizer(const io::Checkpoint& checkpoint,
                                                         const model::Config& config) {
  auto tokenizer = model::tokenizer_of(checkpoint);
  const std::string& path = checkpoint.path;
  if (!tokenizer) {
    throw Error({"the checkpoint has no tokenizer",
                 path,
                 {},
                 {},
                 {},
                 "a model directory needs a tokenizer.json"});
  }
  if (tokenizer->vocab().size() > config.vocab_size) {
    throw Error({"the tokenizer has more tokens than the model",
                 path,
                 {},
                 std::to_string(config.vocab_size),
                 std::to_string(tokenizer->vocab().size()),
                 {}});
  }
  if (tokenizer->vocab().special.bos == text::kNoToken) {
    throw Error({"the tokenizer has no <bos>", path, {}, {}, {}, {}});
  }
  return tokenizer;
}

}  // namespace

std::shared_ptr<const text::Tokenizer> audit_tokenizer(const std::string& from) {
  const io::Checkpoint checkpoint = open_model_checkpoint(from);
  return checked_tokenizer(checkpoint, model::config_of(checkpoint));
}

AuditText read_audit_text(const AuditRequest& request, const std::string& from) {
  AuditText text;
  const io::Checkpoint checkpoint = open_model_checkpoint(from);
  const model::Config config = model::config_of(checkpoint);
  text.tokenizer = checked_tokenizer(checkpoint, config);
  const bool has_template = !convert::read_side_files(checkpoint).chat_template.empty();
  text.chat = !request.raw && has_template && text.tokenizer->vocab().special.has_turns();

  audit::CorpusOptions options = request.corpus;
  options.chat = text.chat;
  options.small_family = config.is_small_family();
  std::vector<audit::TextFile> files;
  for (const std::string& argument : request.texts) {
    files.push_back(audit::parse_text_file(argument));
  }
  text.corpus = audit::read_corpus(files, *text.tokenizer, options);
  for (const audit::TextCounts& file : text.corpus.files) {
    if (file.cut_tokens > 0) {
      fmt::print(stderr,
                 "note: {}: {} tokens of conversations longer than --context are left out\n",
                 file.path, file.cut_tokens);
    }
  }
  if (request.calibration.empty()) return text;
  std::vector<std::vector<int32_t>> known;
  for (const std::string& path : request.calibration) {
    for (auto& document : audit::read_documents(path, *text.tokenizer)) {
      known.push_back(std::move(document));
    }
  }
  text.overlap = audit::find_overlap(text.corpus.documents, known);
  return text;
}

}  // namespace carat::app
