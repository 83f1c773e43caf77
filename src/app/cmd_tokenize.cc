#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdio>

#include "app/command.h"
#include "app/exit_code.h"
#include "app/model_path.h"
#include "app/standard_input.h"
#include "base/json.h"
#include "text/tokenizer.h"

namespace carat::app {
namespace {

class TokenizeCommand final : public Command {
 public:
  std::string name() const override { return "tokenize"; }

  HelpText help() const override {
    return {.summary = "shows the token ids of a text",
            .description =
                "The text is -p's, or standard input. It is taken as a user's text: markers such "
                "as <|turn> are spelled out in ordinary tokens, unless --specials says that the "
                "text may hold them. Nothing is put in front.",
            .examples = {{"carat tokenize model.gguf -p \"Hello there\"", "ids, one line"},
                         {"carat tokenize model/ --json < book.txt", "ids and pieces as JSON"}}};
  }

  std::vector<Option> options() override {
    return {
        {.names = "MODEL",
         .target = &model_,
         .help = "GGUF file, model directory or tokenizer.json; without it, the built-in model"},
        {.names = "-p,--prompt", .value = "TEXT", .target = &prompt_, .help = "the text"},
        {.names = "--specials", .target = &specials_, .help = "markers in the text become tokens"},
        json_option(&json_)};
  }

  int run(const Environment&) override {
    const auto tokenizer = open_tokenizer(model_);
    const std::string text = prompt_ ? *prompt_ : read_standard_input();
    const std::vector<int32_t> ids =
        specials_ ? tokenizer->encode_with_specials(text) : tokenizer->encode(text);
    if (json_) {
      Json j;
      j["count"] = ids.size();
      j["tokens"] = ids;
      Json pieces = Json::array();
      for (const int32_t id : ids) pieces.push_back(tokenizer->vocab().piece(id));
      j["pieces"] = std::move(pieces);
      fmt::print("{}\n", to_json_text(j));
    } else {
      fmt::print("{}\n", fmt::join(ids, ","));
    }
    return kDone;
  }

 private:
  ModelName model_;
  std::optional<std::string> prompt_;
  bool specials_ = false;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_tokenize_command() { return std::make_unique<TokenizeCommand>(); }

}  // namespace carat::app
