// The command line as tables: every option of a command is one row, and parsing, range checks and
// the help page all come from it. Only options.cc knows the parsing library.
#pragma once

#include <cstdint>
#include <exception>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace carat::app {

// Where a parsed value goes. Must outlive the parse. A bool is a flag without a value; the optional
// kinds stay empty when the option is not given; a vector of numbers is written "2,5,9"; a vector
// of strings takes all remaining words of a positional, and of an option one word each time that it
// is given.
using Target = std::variant<bool*, int64_t*, double*, std::string*, std::optional<int64_t>*,
                            std::optional<double>*, std::optional<std::string>*,
                            std::vector<int32_t>*, std::vector<std::string>*>;

struct Option {
  std::string names;       // "-p,--prompt"; a positional has a bare word: "MODEL"
  std::string value = {};  // placeholder in the help, "PROMPT"; empty for flags and positionals
  Target target;
  bool required = false;
  std::string help = {};  // one sentence or two; the default is added by itself
  double lowest = -std::numeric_limits<double>::infinity();
  double highest = std::numeric_limits<double>::infinity();
  std::vector<std::string> choices = {};  // of a string
  std::string default_text = {};          // shown instead of the target's present value
};

// A command line that makes no sense: `main` prints it and ends with kUsage.
class UsageError : public std::exception {
 public:
  explicit UsageError(std::string text) : text_(std::move(text)) {}
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  std::string text_;
};

// Parses `args` (without the program's and the command's name) into the targets. Returns false if
// the help page was asked for (-h, --help), in which case no target is meaningful. Throws
// UsageError with the nearest known name for an unknown option.
[[nodiscard]] bool parse_options(const std::string& command, const std::vector<Option>& options,
                                 const std::vector<std::string>& args);

// An example in a help page.
struct Example {
  std::string command;
  std::string explanation;
};

// What a help page is made of besides the options.
struct HelpText {
  std::string summary;      // one line without a full stop
  std::string description;  // paragraphs parted by a newline
  std::vector<Example> examples;
};

// The help page of a command: summary, synopsis, description, options, examples.
std::string help_page(const std::string& command, const HelpText& text,
                      const std::vector<Option>& options);

// Breaks `text` into lines of at most `width` columns, each after the first indented by `indent`.
std::string wrap(const std::string& text, size_t indent, size_t width = 96);

// The one of `known` nearest to `word` by edit distance, if it is near enough to be meant.
std::optional<std::string> nearest(const std::string& word, const std::vector<std::string>& known);

}  // namespace carat::app
