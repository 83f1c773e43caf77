#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "app/command.h"
#include "app/exit_code.h"
#include "app/outputs.h"
#include "audit/page/page.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

namespace carat::app {
namespace {

class ReportCommand final : public Command {
 public:
  std::string name() const override { return "report"; }

  HelpText help() const override {
    return {.summary = "shows audits as one HTML page",
            .description =
                "Reads what `carat audit --json` printed and writes a page with tables and "
                "figures. It is one file without scripts, loads nothing, and can be read on a "
                "phone, on paper, in light and dark. Of several audits, candidates that were "
                "measured against the same reference over the same tokens stand together; others "
                "get a part of the page of their own.",
            .examples = {
                {"carat audit teacher/ a.gguf b.gguf --text t.txt --json > audit.json",
                 "an audit, saved"},
                {"carat report audit.json -o page.html", "its page"},
                {"carat report monday.json tuesday.json -o page.html", "two audits on one page"}}};
  }

  std::vector<Option> options() override {
    return {{.names = "AUDIT",
             .target = &audits_,
             .required = true,
             .help = "what carat audit --json printed; several are joined"},
            {.names = "-o,--out",
             .value = "FILE",
             .target = &out_,
             .required = true,
             .help = "where the page goes"}};
  }

  int run(const Environment&) override {
    check_outputs({{.option = "--out",
                    .path = out_,
                    .is_ours = is_page,
                    .hint = "remove it, or give another name"}},
                  audits_);
    std::vector<audit::PageSource> sources;
    for (const std::string& path : audits_) {
      sources.push_back({.name = path, .report = read_json_file(path)});
    }
    const std::string page = audit::audit_page(sources);
    AtomicFile file(out_);
    file.write(page);
    file.commit();
    fmt::print(stderr, "wrote {} ({} bytes)\n", out_, page.size());
    return kDone;
  }

 private:
  std::vector<std::string> audits_;
  std::string out_;
};

}  // namespace

std::unique_ptr<Command> make_report_command() { return std::make_unique<ReportCommand>(); }

}  // namespace carat::app
