#include "audit/greedy.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "audit/resume.h"
#include "base/error.h"
#include "base/rng.h"

namespace carat::audit {
namespace {

using Answer = std::vector<int32_t>;

// Chunks that give the prompts, ascending.
std::vector<size_t> draw_prompts(std::span<const Chunk> chunks, const GreedyOptions& options,
                                 int64_t longest) {
  std::vector<size_t> usable;
  for (size_t c = 0; c < chunks.size(); ++c) {
    if (chunks[c].prompt > 0 && chunks[c].prompt + options.tokens <= longest) usable.push_back(c);
  }
  Rng rng(options.seed);
  for (size_t i = usable.size(); i > 1; --i) std::swap(usable[i - 1], usable[rng.below(i)]);
  usable.resize(std::min(usable.size(), static_cast<size_t>(options.prompts)));
  std::sort(usable.begin(), usable.end());
  return usable;
}

Answer generate(LogitSource& model, std::span<const int32_t> prompt, const GreedyOptions& options) {
  std::vector<float> logits(static_cast<size_t>(model.vocab_size()));
  Answer answer;
  model.start(prompt);
  for (auto row = static_cast<int32_t>(prompt.size()) - 1;; ++row) {
    model.read(std::span(&row, 1), logits);
    answer.push_back(argmax(logits));
    if (static_cast<int64_t>(answer.size()) == options.tokens) break;
    if (std::binary_search(options.stop_ids.begin(), options.stop_ids.end(), answer.back())) break;
    model.extend(std::span(answer).last(1));
  }
  return answer;
}

// A model's answers, taken from the state where it has them.
std::vector<Answer> answers_of(LogitSource& model, const std::string& record,
                               std::span<const Chunk> chunks, std::span<const size_t> prompts,
                               const GreedyOptions& options, const AuditHooks& hooks,
                               AuditProgress& progress) {
  std::vector<Answer> answers;
  for (const size_t c : prompts) {
    const auto index = static_cast<int64_t>(c);
    const auto* stored = hooks.state ? hooks.state->find(record, index) : nullptr;
    if (stored != nullptr) {
      Answer answer(stored->size() / sizeof(int32_t));
      std::memcpy(answer.data(), stored->data(), answer.size() * sizeof(int32_t));
      answers.push_back(std::move(answer));
    } else {
      const auto prompt = std::span(chunks[c].tokens).first(static_cast<size_t>(chunks[c].prompt));
      answers.push_back(generate(model, prompt, options));
      if (hooks.state) hooks.state->add(record, index, std::as_bytes(std::span(answers.back())));
    }
    ++progress.done;
    if (hooks.progress) hooks.progress(progress);
    if (hooks.stop && hooks.stop->load(std::memory_order_relaxed)) throw Interrupted();
  }
  return answers;
}

}  // namespace

int64_t common_tokens(std::span<const int32_t> a, std::span<const int32_t> b, int64_t limit) {
  const auto [x, y] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return x == a.end() && y == b.end() ? limit : x - a.begin();
}

std::vector<GreedyDivergence> run_greedy(const AuditModels& models, std::span<const Chunk> chunks,
                                         const GreedyOptions& options, const AuditHooks& hooks) {
  // Models that occur twice answer once.
  std::vector<LogitSource*> sources;
  const auto index_of = [&](LogitSource* source) {
    const auto index = std::find(sources.begin(), sources.end(), source) - sources.begin();
    if (static_cast<size_t>(index) == sources.size()) sources.push_back(source);
    return static_cast<size_t>(index);
  };
  std::vector<size_t> references, candidates;
  for (const Reference& r : models.references) {
    if (r.model == nullptr) {
      throw Error({"a stored reference does not continue texts",
                   r.stored->path(),
                   {},
                   {},
                   {},
                   "leave out --greedy"});
    }
    references.push_back(index_of(r.model));
  }
  for (LogitSource* c : models.candidates) candidates.push_back(index_of(c));
  int64_t longest = INT64_MAX;
  for (const LogitSource* s : sources) longest = std::min(longest, s->max_context());
  const std::vector<size_t> prompts = draw_prompts(chunks, options, longest);

  AuditProgress progress;
  progress.total = static_cast<int64_t>(prompts.size() * sources.size());
  std::vector<std::vector<Answer>> answers;
  for (size_t s = 0; s < sources.size(); ++s) {
    const std::string record = "greedy " + std::to_string(s) + " " + std::to_string(options.tokens);
    answers.push_back(answers_of(*sources[s], record, chunks, prompts, options, hooks, progress));
  }
  std::vector<GreedyDivergence> out;
  for (const size_t r : references) {
    for (const size_t c : candidates) {
      GreedyDivergence d;
      d.limit = options.tokens;
      for (size_t i = 0; i < prompts.size(); ++i) {
        d.first_differences.push_back(common_tokens(answers[r][i], answers[c][i], options.tokens));
      }
      out.push_back(std::move(d));
    }
  }
  return out;
}

}  // namespace carat::audit
