// A subcommand of the program. Each lives in its own file, cmd_NAME.cc, and is made by a function
// that `main` lists.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "app/options.h"
#include "kernels/kv_pages.h"

namespace carat::app {

// What `main` read from outside, passed down: nothing below reads the environment.
struct Environment {
  std::optional<std::string> isa;           // CARAT_ISA; without it, the best this machine has
  const std::atomic<bool>* stop = nullptr;  // set by Ctrl-C
  std::string command_line;                 // "carat audit ...", as a shell would take it
};

class Command {
 public:
  virtual ~Command() = default;
  virtual std::string name() const = 0;
  virtual HelpText help() const = 0;
  // Rows whose targets are members of this object.
  virtual std::vector<Option> options() = 0;
  // Called after the options were parsed. Returns an ExitCode; throws Error, UsageError,
  // Interrupted. Results go to standard output, everything else to standard error.
  virtual int run(const Environment& environment) = 0;
};

std::unique_ptr<Command> make_run_command();
std::unique_ptr<Command> make_logits_command();
std::unique_ptr<Command> make_inspect_command();
std::unique_ptr<Command> make_convert_command();
std::unique_ptr<Command> make_audit_command();
std::unique_ptr<Command> make_report_command();
std::unique_ptr<Command> make_imatrix_command();
std::unique_ptr<Command> make_quantize_command();
std::unique_ptr<Command> make_train_command();
std::unique_ptr<Command> make_bench_command();
std::unique_ptr<Command> make_synth_command();
std::unique_ptr<Command> make_tokenize_command();
std::unique_ptr<Command> make_fit_command();

// Rows that many commands share.
Option json_option(bool* target);
Option threads_option(int64_t* target);
Option verbose_option(bool* target);

Option no_pack_option(bool* target);

// --kv, one of f32, f16, int8, int4, int4r; the default is what `target` holds.
Option kv_option(std::string* target);
std::vector<std::string> kv_type_names();
// REQUIRES: one of kv_type_names().
kernels::KvType kv_type(const std::string& name);

// The number of threads that -t asked for; 0 means every processor this process may use.
int resolve_threads(int64_t asked);

}  // namespace carat::app
