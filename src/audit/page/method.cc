#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "audit/page/html.h"
#include "audit/page/parts.h"

namespace carat::audit::page {
namespace {

std::string note(const std::string& title, const std::string& text) {
  return fmt::format("<div><h3>{}</h3><p>{}</p></div>\n", title, text);
}

std::string window_text(const Run& run) {
  if (run.context == 0) return {};
  return fmt::format(
      "The text is cut into chunks of at most {} tokens, each beginning with the model&#39;s mark "
      "of "
      "a beginning and read afresh. A token counts if it has at least {} tokens before it. {}",
      count_text(run.context), count_text(run.min_context),
      run.format == "chat"
          ? "It is put into the model&#39;s chat template, and only the model&#39;s "
            "turns count."
          : "It is read as it is, without a chat template.");
}

std::string interval_note(const Run& run) {
  if (run.resamples == 0) return {};
  return fmt::format(
      "Intervals are 95&nbsp;%: whole chunks are drawn {} times, with replacement, and a figure is "
      "computed from each draw; tokens of one chunk are alike and stay together. A figure without "
      "one rests on too little text.{}",
      count_text(run.resamples),
      run.precision > 0 ? fmt::format(" Reading was to stop when half the interval of the mean was "
                                      "at most {} of it.",
                                      percent_text(run.precision, 1))
                        : std::string());
}

std::string noise_note(const Run& run) {
  if (!run.noise_kld) return {};
  std::string text =
      fmt::format("The reference against itself, read again{}: {}.",
                  run.noise_how.empty() ? "" : " " + escape(run.noise_how),
                  *run.noise_kld == 0 ? "KLD <b>0</b>, exactly"
                                      : "KLD up to <b>" + nats_text(*run.noise_kld) + "</b>");
  text += *run.noise_kld == 0 ? " What a candidate shows is its own."
                              : " A candidate below that cannot be told from the reference.";
  return text;
}

std::string disjoint_note(const Run& run) {
  for (const CheckText& check : run.checks) {
    if (check.name == "disjoint text") return {};
  }
  return "This audit was not told what text its candidates were fitted to, so it could not check "
         "that none of it was used here.";
}

std::string fact(const std::string& name, const std::string& html) {
  return html.empty() ? html : fmt::format("<dt>{}</dt><dd>{}</dd>\n", name, html);
}

std::string hash_html(const FileText& file) {
  return file.sha256.empty() ? "" : "<div class=\"hash\">sha256 " + escape(file.sha256) + "</div>";
}

std::string model_html(const ModelText& m) {
  std::string html = "<bdi><code>" + escape(m.path) + "</code></bdi>";
  if (!m.what.empty()) html += " <span class=\"chip\">" + escape(m.what) + "</span>";
  std::string more;
  const auto add = [&](const std::string& text) { more += (more.empty() ? "" : ", ") + text; };
  if (m.bytes > 0) add(count_text(m.bytes) + " bytes");
  if (m.weights > 0) add(count_text(m.weights) + " weights");
  if (m.bits_per_weight > 0) add(fixed_text(m.bits_per_weight, 3) + " bits per weight");
  if (!m.kv.empty()) add("keys and values in " + escape(m.kv));
  if (!more.empty()) html += "<div class=\"soft\">" + more + "</div>";
  for (const FileText& file : m.files) {
    if (m.files.size() > 1 || file.path != m.path) {
      html += "<div class=\"soft\"><bdi>" + escape(file.path) + "</bdi></div>";
    }
    html += hash_html(file);
  }
  return html;
}

std::string text_html(const TextText& text) {
  std::string html = "<bdi><code>" + escape(text.file.path) + "</code></bdi>";
  if (!text.domain.empty()) html += " <span class=\"chip\">" + escape(text.domain) + "</span>";
  html += fmt::format("<div class=\"soft\">{} bytes, {} tokens</div>", count_text(text.file.bytes),
                      count_text(text.tokens));
  return html + hash_html(text.file);
}

std::string checks_html(const Run& run) {
  std::string html;
  for (const CheckText& check : run.checks) {
    html += fmt::format("<div><span class=\"chip {}\">{}</span> {}: {}</div>",
                        check.passed ? "role" : "bad", check.passed ? "passed" : "failed",
                        escape(check.name), escape(check.detail));
  }
  return html;
}

std::string run_html(const Document& document, size_t index) {
  const Run& run = document.runs[index];
  std::string facts;
  for (const ModelText& m : run.models) {
    facts += fact(m.is_reference ? "Reference" : "Candidate", model_html(m));
  }
  for (const TextText& text : run.texts) facts += fact("Text", text_html(text));
  facts += fact("Checks", checks_html(run));
  std::string program = run.version.empty() ? "" : "carat " + escape(run.version);
  if (!run.commit.empty()) program += ", commit <code>" + escape(run.commit) + "</code>";
  facts += fact("Program", program);
  std::string machine = escape(run.isa);
  if (run.threads > 0) {
    machine += (machine.empty() ? "" : ", ") + counted(run.threads, "thread", "threads");
  }
  facts += fact("Machine", machine);
  facts += fact("Keys and values", escape(run.kv));
  if (!run.seed.empty()) {
    facts += fact("Bootstrap",
                  fmt::format("seed {}, {} draws", escape(run.seed), count_text(run.resamples)));
  }
  if (!run.command_line.empty())
    facts += fact("Command", "<pre>" + escape(run.command_line) + "</pre>");
  std::string title;
  if (document.runs.size() > 1) {
    title = fmt::format("<h3>Audit {}: <bdi>{}</bdi></h3>", index + 1,
                        run.source.empty() ? "" : escape(run.source));
  }
  return "<div class=\"card\">" + title + "<dl class=\"facts\">" + facts + "</dl></div>\n";
}

}  // namespace

std::string method_html(const Document& document) {
  const Run& run = document.runs.front();
  std::string notes = note(
      "What is compared",
      "Reference and candidate read the same tokens. After each, both say how likely every token "
      "of the vocabulary is to come next; the Kullback-Leibler divergence KL(reference&nbsp;|| "
      "candidate), in nats, says how far the candidate&#39;s expectation is from the "
      "reference&#39;s. It is 0 where they agree and is summed over the whole vocabulary.");
  const auto add = [&](const char* title, const std::string& text) {
    if (!text.empty()) notes += note(title, text);
  };
  add("Which tokens", window_text(run));
  add("How sure the figures are", interval_note(run));
  add("The noise floor", noise_note(run));
  notes += note(
      "The other figures",
      "Same top\u20111: the most likely token is the same. Same top\u20115: mean share of the "
      "reference&#39;s five most likely tokens among the candidate&#39;s. Perplexity ratio: the "
      "candidate&#39;s by the reference&#39;s, on the same tokens; below 1 is no merit, for it "
      "too is a difference. RMS \u0394p: root mean square change of the probability of the "
      "token that follows.");
  add("Text that was used for fitting", disjoint_note(run));
  notes += note("What it does not say",
                "KLD measures fidelity to the reference, not quality: not whether the reference is "
                "right, and not whether a change did harm. Between two candidates that are both "
                "close it does not rank how useful they are. It holds for this text; other text "
                "can lose more. Perplexities of different models or tokenizers must not be "
                "compared.");
  return "<h2 id=\"method\">How it was measured</h2><div class=\"notes\">" + notes + "</div>\n";
}

std::string provenance_html(const Document& document) {
  std::string html = "<h2 id=\"provenance\">Provenance</h2>\n";
  for (size_t i = 0; i < document.runs.size(); ++i) html += run_html(document, i);
  return html;
}

}  // namespace carat::audit::page
