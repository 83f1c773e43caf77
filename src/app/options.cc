#include "app/options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <functional>
#include <memory>

namespace carat::app {
namespace {

bool is_positional(const Option& option) { return option.names[0] != '-'; }

// "--prompt" of "-p,--prompt"; the positional's word; the short name if there is no long one.
std::string main_name(const Option& option) {
  const size_t at = option.names.find("--");
  return at == std::string::npos ? option.names : option.names.substr(at);
}

template <class Number>
Number parse_number(const Option& option, const std::string& text) {
  Number value{};
  const char* const end = text.data() + text.size();
  const auto [stop, code] = std::from_chars(text.data(), end, value);
  const char* const kind = std::is_integral_v<Number> ? "a whole number" : "a number";
  bool good = code == std::errc() && stop == end;
  if constexpr (!std::is_integral_v<Number>) good = good && std::isfinite(value);
  if (!good) {
    throw UsageError(fmt::format("{} takes {}, not '{}'", main_name(option), kind, text));
  }
  if (static_cast<double>(value) < option.lowest || static_cast<double>(value) > option.highest) {
    const std::string range = std::isinf(option.highest)
                                  ? fmt::format("at least {}", option.lowest)
                                  : fmt::format("{} to {}", option.lowest, option.highest);
    throw UsageError(fmt::format("{} must be {}, not {}", main_name(option), range, text));
  }
  return value;
}

std::vector<int32_t> parse_list(const Option& option, const std::string& text) {
  std::vector<int32_t> values;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    values.push_back(parse_number<int32_t>(option, text.substr(begin, comma - begin)));
    begin = comma + 1;
  }
  return values;
}

std::string parse_choice(const Option& option, const std::string& text) {
  const auto& choices = option.choices;
  if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end()) {
    throw UsageError(fmt::format("{} must be one of {}; not '{}'", main_name(option),
                                 fmt::join(choices, ", "), text));
  }
  return text;
}

// Assigns the text of one value to the option's target.
struct Assign {
  const Option& option;
  const std::string& text;
  void operator()(bool* target) const { *target = true; }
  void operator()(int64_t* target) const { *target = parse_number<int64_t>(option, text); }
  void operator()(double* target) const { *target = parse_number<double>(option, text); }
  void operator()(std::string* target) const { *target = parse_choice(option, text); }
  void operator()(std::optional<int64_t>* target) const {
    *target = parse_number<int64_t>(option, text);
  }
  void operator()(std::optional<double>* target) const {
    *target = parse_number<double>(option, text);
  }
  void operator()(std::optional<std::string>* target) const {
    *target = parse_choice(option, text);
  }
  void operator()(std::vector<int32_t>* target) const { *target = parse_list(option, text); }
  void operator()(std::vector<std::string>* target) const { target->push_back(text); }
};

void add_option(CLI::App& app, const Option& option) {
  if (std::holds_alternative<bool*>(option.target)) {
    app.add_flag_callback(option.names, [&option] { *std::get<bool*>(option.target) = true; });
    return;
  }
  if (std::holds_alternative<std::vector<std::string>*>(option.target)) {
    app.add_option_function<std::vector<std::string>>(
           option.names,
           [&option](const std::vector<std::string>& words) {
             for (const std::string& word : words) std::visit(Assign{option, word}, option.target);
           })
        ->required(option.required)
        ->allow_extra_args(is_positional(option));
    return;
  }
  app.add_option_function<std::string>(option.names,
                                       [&option](const std::string& text) {
                                         std::visit(Assign{option, text}, option.target);
                                       })
      ->required(option.required);
}

std::vector<std::string> long_names(const std::vector<Option>& options) {
  std::vector<std::string> names = {"--help"};
  for (const Option& option : options) {
    if (!is_positional(option)) names.push_back(main_name(option));
  }
  return names;
}

// The parser's complaint about words it could not place, in our words.
std::string explain_extras(const CLI::App& app, const std::vector<Option>& options) {
  const std::vector<std::string> extras = app.remaining();
  const std::string word = extras.empty() ? std::string() : extras.front();
  if (word.empty() || word[0] != '-') return fmt::format("unexpected argument '{}'", word);
  const std::string name = word.substr(0, word.find('='));
  const auto near = nearest(name, long_names(options));
  return fmt::format("there is no option {}{}", name,
                     near ? fmt::format("; did you mean {}?", *near) : std::string());
}

// What the target holds before parsing, for the help page; empty if there is nothing to say.
struct DefaultText {
  std::string operator()(const bool*) const { return {}; }
  std::string operator()(const int64_t* value) const { return fmt::format("{}", *value); }
  std::string operator()(const double* value) const { return fmt::format("{}", *value); }
  std::string operator()(const std::string* value) const { return *value; }
  template <class Other>
  std::string operator()(const Other*) const {
    return {};
  }
};

std::string option_help(const Option& option) {
  std::string text = option.help;
  if (!option.choices.empty()) text += fmt::format(": {}", fmt::join(option.choices, ", "));
  std::string value = option.default_text;
  if (value.empty() && !option.required) {
    value = std::visit([](const auto* target) { return DefaultText{}(target); }, option.target);
  }
  if (!value.empty()) text += fmt::format(" [default: {}]", value);
  return text;
}

std::string synopsis(const std::string& command, const std::vector<Option>& options) {
  std::string line = "carat " + command;
  for (const Option& option : options) {
    if (!is_positional(option)) continue;
    const bool many = std::holds_alternative<std::vector<std::string>*>(option.target);
    const std::string word = option.names + (many ? "..." : "");
    line += option.required ? " " + word : " [" + word + "]";
  }
  for (const Option& option : options) {
    if (!is_positional(option) && option.required) {
      line += fmt::format(" {} {}", main_name(option), option.value);
    }
  }
  return line + " [options]";
}

}  // namespace

bool parse_options(const std::string& command, const std::vector<Option>& options,
                   const std::vector<std::string>& args) {
  // Help wins over every complaint about the rest of the line.
  for (const std::string& arg : args) {
    if (arg == "--") break;
    if (arg == "-h" || arg == "--help") return false;
  }
  CLI::App app{"", command};
  app.set_help_flag();
  for (const Option& option : options) add_option(app, option);
  std::vector<std::string> reversed(args.rbegin(), args.rend());
  try {
    app.parse(std::move(reversed));
  } catch (const CLI::ExtrasError&) {
    throw UsageError(explain_extras(app, options));
  } catch (const CLI::RequiredError& error) {
    throw UsageError(fmt::format("something is missing: {}", error.what()));
  } catch (const CLI::ParseError& error) {
    throw UsageError(error.what());
  }
  return true;
}

std::string wrap(const std::string& text, size_t indent, size_t width) {
  std::string out;
  size_t column = indent;
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.find_first_of(" \n", begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    if (column > indent && column + 1 + word.size() > width) {
      out += '\n' + std::string(indent, ' ');
      column = indent;
    } else if (column > indent) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
    if (end < text.size() && text[end] == '\n') {
      out += '\n' + std::string(indent, ' ');
      column = indent;
    }
    begin = end + 1;
  }
  return out;
}

std::string help_page(const std::string& command, const HelpText& text,
                      const std::vector<Option>& options) {
  std::string page =
      fmt::format("carat {}: {}\n\nUsage: {}\n", command, text.summary, synopsis(command, options));
  if (!text.description.empty()) page += "\n" + wrap(text.description, 0) + "\n";
  std::vector<std::pair<std::string, std::string>> rows;
  size_t width = 0;
  for (const bool positional : {true, false}) {
    for (const Option& option : options) {
      if (is_positional(option) != positional) continue;
      std::string name = option.names;
      if (const size_t comma = name.find(','); comma != std::string::npos) {
        name.insert(comma + 1, " ");
      }
      if (!option.value.empty()) name += " " + option.value;
      rows.emplace_back(name, option_help(option));
    }
  }
  rows.emplace_back("-h, --help", "shows this page");
  for (const auto& row : rows) width = std::max(width, row.first.size());
  width = std::min<size_t>(width, 28);
  page += "\nOptions:\n";
  for (const auto& [name, help] : rows) {
    const std::string gap = name.size() > width ? "\n" + std::string(width + 4, ' ')
                                                : std::string(width - name.size() + 2, ' ');
    page += fmt::format("  {}{}{}\n", name, gap, wrap(help, width + 4));
  }
  if (!text.examples.empty()) page += "\nExamples:\n";
  for (const Example& example : text.examples) {
    page += fmt::format("  {}\n      {}\n", example.command, wrap(example.explanation, 6));
  }
  return page;
}

std::optional<std::string> nearest(const std::string& word, const std::vector<std::string>& known) {
  std::optional<std::string> best;
  size_t best_distance = std::max<size_t>(1, word.size() / 3) + 1;
  for (const std::string& candidate : known) {
    // Edit distance, one row of the table at a time.
    std::vector<size_t> row(candidate.size() + 1);
    for (size_t j = 0; j < row.size(); ++j) row[j] = j;
    for (size_t i = 1; i <= word.size(); ++i) {
      size_t diagonal = row[0];
      row[0] = i;
      for (size_t j = 1; j < row.size(); ++j) {
        const size_t substitute = diagonal + (word[i - 1] != candidate[j - 1]);
        diagonal = row[j];
        row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
      }
    }
    if (row.back() < best_distance) {
      best_distance = row.back();
      best = candidate;
    }
  }
  return best;
}

}  // namespace carat::app
