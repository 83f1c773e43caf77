// carat: runs, cuts and measures Gemma 4. Picks the command and turns every ending into an exit
// code.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <system_error>
#include <vector>

#include "app/command.h"
#include "app/exit_code.h"
#include "app/options.h"
#include "app/signals.h"
#include "app/version.h"
#include "base/error.h"
#include "kernels/cpu/dispatch.h"

namespace carat::app {
namespace {

using Commands = std::vector<std::unique_ptr<Command>>;

Commands all_commands() {
  Commands commands;
  commands.push_back(make_run_command());
  commands.push_back(make_logits_command());
  commands.push_back(make_inspect_command());
  commands.push_back(make_convert_command());
  commands.push_back(make_audit_command());
  commands.push_back(make_report_command());
  commands.push_back(make_imatrix_command());
  commands.push_back(make_quantize_command());
  commands.push_back(make_train_command());
  commands.push_back(make_bench_command());
  commands.push_back(make_synth_command());
  commands.push_back(make_tokenize_command());
  commands.push_back(make_fit_command());
  return commands;
}

// Commands of the stable command line that this build does not have.
const std::vector<std::string> kPlanned = {"serve", "pull"};

std::string chosen_isa(const Environment& environment) {
  return kernels::choose_kernels(environment.isa).isa;
}

std::string overview(const Commands& commands) {
  std::string page =
      "carat runs, cuts and measures Google's Gemma 4.\n\n"
      "Usage: carat COMMAND [options]\n\nCommands:\n";
  for (const auto& command : commands) {
    page += fmt::format("  {:<9} {}\n", command->name(), command->help().summary);
  }
  page +=
      "\n  carat COMMAND --help    options and examples of a command\n"
      "  carat --version         release, commit and instruction set\n"
      "\nStart here:\n"
      "  carat run -p \"Once upon a time\"      the model inside the program writes on\n"
      "  carat run gemma-4-E2B-it.gguf        chats with a model of yours\n"
      "\nResults go to standard output, everything else to standard error.\n"
      "Exit codes: 0 done, 1 failed, 2 usage, 3 the check asked for did not hold, 130 "
      "interrupted.\n"
      "CARAT_ISA=generic (or avx2) makes carat use a lower instruction set than it would choose.\n";
  return page;
}

Command* find_command(const Commands& commands, const std::string& name) {
  for (const auto& command : commands) {
    if (command->name() == name) return command.get();
  }
  if (std::find(kPlanned.begin(), kPlanned.end(), name) != kPlanned.end()) {
    throw Error({"this build of carat does not have the command yet", {}, name, {}, {}, {}});
  }
  std::vector<std::string> names;
  for (const auto& command : commands) names.push_back(command->name());
  const auto near = nearest(name, names);
  throw UsageError(fmt::format("there is no command '{}'{}", name,
                               near ? fmt::format("; did you mean {}?", *near) : std::string()));
}

int dispatch(const std::vector<std::string>& args, const Environment& environment,
             std::string& command_name) {
  const Commands commands = all_commands();
  if (args.empty() || args[0] == "--help" || args[0] == "-h" ||
      (args[0] == "help" && args.size() == 1)) {
    fmt::print("{}", overview(commands));
    return kDone;
  }
  if (args[0] == "--version" || args[0] == "-V") {
    fmt::print("carat {} (commit {}, {})\n", version(), commit(), chosen_isa(environment));
    return kDone;
  }
  const bool only_help = args[0] == "help";
  if (args[0][0] == '-') {
    throw UsageError(fmt::format("a command comes first, not '{}'", args[0]));
  }
  Command* const command = find_command(commands, only_help ? args[1] : args[0]);
  command_name = " " + command->name();
  const std::vector<Option> options = command->options();
  if (only_help || !parse_options(command->name(), options, {args.begin() + 1, args.end()})) {
    // A fresh object, because parsing may have changed the defaults that the page shows.
    const Commands fresh = all_commands();
    Command* const shown = find_command(fresh, command->name());
    fmt::print("{}", help_page(shown->name(), shown->help(), shown->options()));
    return kDone;
  }
  return command->run(environment);
}

// The words as a POSIX shell would take them.
std::string quoted(const std::vector<std::string>& words) {
  constexpr const char* kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=@%+,:";
  std::string line = "carat";
  for (const std::string& word : words) {
    line += ' ';
    if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) {
      line += word;
      continue;
    }
    line += '\'';
    for (const char c : word) line += c == '\'' ? std::string("'\\''") : std::string(1, c);
    line += '\'';
  }
  return line;
}

// Everything a command printed must have arrived; a full disk is a failure, not a success.
int flush_output(int code) {
  if (std::fflush(stdout) == 0 && !std::ferror(stdout)) return code;
  if (code == kDone) fmt::print(stderr, "carat: cannot write to standard output\n");
  return code == kDone ? kFailed : code;
}

int run_program(int argc, char** argv) {
  install_signal_handlers();
  std::string command;
  try {
    Environment environment;
    if (const char* isa = std::getenv("CARAT_ISA"); isa && *isa) environment.isa = isa;
    environment.stop = &stop_flag();
    const std::vector<std::string> args(argv + 1, argv + argc);
    environment.command_line = quoted(args);
    return flush_output(dispatch(args, environment, command));
  } catch (const UsageError& error) {
    fmt::print(stderr, "carat{}: {}\n  hint: carat{} --help\n", command, error.what(), command);
    return kUsage;
  } catch (const Interrupted&) {
    std::fflush(stdout);
    fmt::print(stderr, "carat{}: interrupted\n", command);
    return kInterrupted;
  } catch (const Error& error) {
    std::fflush(stdout);
    fmt::print(stderr, "carat{}: {}\n", command, error.what());
    return kFailed;
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "carat{}: out of memory\n", command);
    return kFailed;
  } catch (const std::system_error& error) {  // of fmt, when standard output cannot be written
    fmt::print(stderr, "carat{}: {}\n", command, error.what());
    return kFailed;
  }
}

}  // namespace
}  // namespace carat::app

int main(int argc, char** argv) { return carat::app::run_program(argc, argv); }
