#include "audit/llama_statistics.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>

#include "base/error.h"

namespace carat::audit {
namespace {

// Below this log p a token does not count.
constexpr float kLeastLogP = -16.0f;
constexpr int64_t kLeastPositions = 100;

// printf's own formats, which also fix how not-a-number looks.
[[gnu::format(printf, 2, 3)]] void append(std::string& out, const char* format, ...) {
  char line[256];
  va_list arguments;
  va_start(arguments, format);
  const int n = std::vsnprintf(line, sizeof(line), format, arguments);
  va_end(arguments);
  CHECK(n >= 0);
  out.append(line, std::min<size_t>(static_cast<size_t>(n), sizeof(line) - 1));
}

float percentile(const std::vector<float>& sorted, float fraction) {
  if (fraction <= 0) return sorted.front();
  if (fraction >= 1) return sorted.back();
  float rank = fraction * static_cast<float>(sorted.size() - 1);
  const auto low = static_cast<size_t>(rank);
  rank -= static_cast<float>(low);
  return (1 - rank) * sorted[low] + rank * sorted[std::min(low + 1, sorted.size() - 1)];
}

float median(const std::vector<float>& sorted) {
  const size_t middle = sorted.size() / 2;
  if (sorted.size() % 2 == 1) return sorted[middle];
  return 0.5f * (sorted[middle] + sorted[middle - 1]);
}

std::vector<float> sorted(std::vector<float> values) {
  std::sort(values.begin(), values.end());
  return values;
}

struct Percentile {
  const char* label;
  float fraction;  // above 1: the median
};
constexpr float kMedian = 2;

}  // namespace

LlamaPosition llama_position(const KldRow& base, std::span<const float> logits, int32_t next) {
  CHECK(!logits.empty() && next >= 0 && static_cast<size_t>(next) < logits.size());
  size_t top = 0;
  for (size_t v = 1; v < logits.size(); ++v) {
    if (logits[v] > logits[top]) top = v;
  }
  const float highest = logits[top];
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - highest);
  const auto log_sum = static_cast<float>(std::log(sum));
  const float normalizer = highest + log_sum;

  LlamaPosition out;
  out.nll = normalizer - logits[static_cast<size_t>(next)];
  out.nll_base = -base.log_p(next);
  size_t base_top = 0;
  float base_highest = 0;
  for (size_t v = 0; v < logits.size(); ++v) {
    const float log_p = base.log_p(static_cast<int64_t>(v));
    if (v == 0 || log_p > base_highest) {
      base_highest = log_p;
      base_top = v;
    }
    if (log_p > kLeastLogP) out.kld += std::exp(log_p) * (log_p - logits[v] + normalizer);
  }
  out.p_diff = std::exp(-out.nll) - std::exp(-out.nll_base);
  out.same_top = top == base_top;
  return out;
}

void LlamaStatistics::add(const LlamaPosition& p) {
  // Squares of floats are floats; those of the divergence and of the difference's square are not.
  sums_.nll += p.nll;
  sums_.nll2 += p.nll * p.nll;
  sums_.base += p.nll_base;
  sums_.base2 += p.nll_base * p.nll_base;
  sums_.nll_base += p.nll * p.nll_base;
  sums_.kld += p.kld;
  sums_.kld2 += p.kld * p.kld;
  sums_.p_diff += p.p_diff;
  const double square = p.p_diff * p.p_diff;
  sums_.p_diff2 += square;
  sums_.p_diff4 += square * square;
  sums_.same_top += p.same_top;
  kld_.push_back(static_cast<float>(p.kld));
  p_diff_.push_back(p.p_diff);
}

Estimate LlamaStatistics::mean(double sum, double sum_of_squares) const {
  CHECK(count() > 0);
  const auto n = static_cast<double>(count());
  const double value = sum / n;
  const double variance = sum_of_squares / n - value * value;
  return {value, variance > 0 && count() > 10 ? std::sqrt(variance / (n - 1)) : 0};
}

double LlamaStatistics::covariance() const {
  if (count() < 10) return 0;
  const auto n = static_cast<double>(count());
  return (sums_.nll_base / n - (sums_.nll / n) * (sums_.base / n)) / (n - 1);
}

Estimate LlamaStatistics::log_perplexity() const { return mean(sums_.nll, sums_.nll2); }
Estimate LlamaStatistics::log_base_perplexity() const { return mean(sums_.base, sums_.base2); }

Estimate LlamaStatistics::perplexity() const {
  const Estimate log = log_perplexity();
  return {std::exp(log.value), std::exp(log.value) * log.error};
}

Estimate LlamaStatistics::base_perplexity() const {
  const Estimate log = log_base_perplexity();
  return {std::exp(log.value), std::exp(log.value) * log.error};
}

double LlamaStatistics::correlation() const {
  return covariance() / (log_perplexity().error * log_base_perplexity().error);
}

Estimate LlamaStatistics::log_ratio() const {
  const Estimate a = log_perplexity();
  const Estimate b = log_base_perplexity();
  return {a.value - b.value, std::sqrt(a.error * a.error + b.error * b.error - 2.0 * covariance())};
}

Estimate LlamaStatistics::ratio() const {
  const Estimate log = log_ratio();
  return {std::exp(log.value), std::exp(log.value) * log.error};
}

Estimate LlamaStatistics::difference() const {
  const Estimate a = perplexity();
  const Estimate b = base_perplexity();
  const double shared = a.value * b.value * covariance();
  return {a.value - b.value, std::sqrt(a.error * a.error + b.error * b.error - 2.0 * shared)};
}

Estimate LlamaStatistics::mean_kld() const { return mean(sums_.kld, sums_.kld2); }
Estimate LlamaStatistics::mean_p_diff() const { return mean(sums_.p_diff, sums_.p_diff2); }

Estimate LlamaStatistics::rms_p_diff() const {
  const Estimate square = mean(sums_.p_diff2, sums_.p_diff4);
  const double root = std::sqrt(square.value);
  return {root, 0.5 / root * square.error};
}

Estimate LlamaStatistics::same_top() const {
  CHECK(count() > 0);
  const auto n = static_cast<double>(count());
  const double share = static_cast<double>(sums_.same_top) / n;
  return {share, std::sqrt(share * (1.0 - share) / (n - 1))};
}

float LlamaStatistics::kld_percentile(float fraction) const {
  return percentile(sorted(kld_), fraction);
}
float LlamaStatistics::p_diff_percentile(float fraction) const {
  return percentile(sorted(p_diff_), fraction);
}
float LlamaStatistics::kld_median() const { return median(sorted(kld_)); }
float LlamaStatistics::p_diff_median() const { return median(sorted(p_diff_)); }

std::string LlamaStatistics::chunk_line(int64_t chunk) const {
  const Estimate ppl = perplexity();
  const Estimate log = log_ratio();
  const Estimate kld = mean_kld();
  const Estimate rms = rms_p_diff();
  const Estimate top = same_top();
  std::string out;
  append(out, "%4lld", static_cast<long long>(chunk));
  append(out, "    %9.4f ± %9.4f", ppl.value, ppl.error);
  append(out, "    %10.5f ± %10.5f", log.value, log.error);
  append(out, "    %10.5f ± %10.5f", kld.value, kld.error);
  append(out, "    %6.3f ± %6.3f %%", 100.0 * rms.value, 100.0 * rms.error);
  append(out, "    %6.3f ± %6.3f %%\n", 100.0 * top.value, 100.0 * top.error);
  return out;
}

std::string LlamaStatistics::text() const {
  if (count() < kLeastPositions) return {};
  std::string out;
  const auto line = [&](const char* label, Estimate e) {
    append(out, "%s: %10.6f ± %10.6f\n", label, e.value, e.error);
  };
  const auto percent_line = [&](const char* label, Estimate e) {
    append(out, "%s: %6.3f ± %5.3f %%\n", label, 100.0 * e.value, 100.0 * e.error);
  };
  out += "====== Perplexity statistics ======\n";
  line("Mean PPL(Q)                   ", perplexity());
  line("Mean PPL(base)                ", base_perplexity());
  append(out, "Cor(ln(PPL(Q)), ln(PPL(base))): %6.2f%%\n", 100.0 * correlation());
  line("Mean ln(PPL(Q)/PPL(base))     ", log_ratio());
  line("Mean PPL(Q)/PPL(base)         ", ratio());
  line("Mean PPL(Q)-PPL(base)         ", difference());

  out += "\n====== KL divergence statistics ======\n";
  line("Mean    KLD", mean_kld());
  const std::vector<float> klds = sorted(kld_);
  constexpr Percentile kKld[] = {{"Maximum", 1},      {"99.9%  ", 0.999f}, {"99.0%  ", 0.990f},
                                 {"95.0%  ", 0.950f}, {"90.0%  ", 0.900f}, {"Median ", kMedian},
                                 {"10.0%  ", 0.100f}, {" 5.0%  ", 0.050f}, {" 1.0%  ", 0.010f},
                                 {" 0.1%  ", 0.001f}, {"Minimum", 0}};
  for (const Percentile& p : kKld) {
    const float value = p.fraction == kMedian ? median(klds) : percentile(klds, p.fraction);
    append(out, "%s KLD: %10.6f\n", p.label, static_cast<double>(value));
  }

  out += "\n====== Token probability statistics ======\n";
  percent_line("Mean    Δp", mean_p_diff());
  const std::vector<float> differences = sorted(p_diff_);
  constexpr Percentile kDifference[] = {
      {"Maximum", 1},      {"99.9%  ", 0.999f}, {"99.0%  ", 0.990f},  {"95.0%  ", 0.950f},
      {"90.0%  ", 0.900f}, {"75.0%  ", 0.750f}, {"Median ", kMedian}, {"25.0%  ", 0.250f},
      {"10.0%  ", 0.100f}, {" 5.0%  ", 0.050f}, {" 1.0%  ", 0.010f},  {" 0.1%  ", 0.001f},
      {"Minimum", 0}};
  for (const Percentile& p : kDifference) {
    const float value =
        p.fraction == kMedian ? median(differences) : percentile(differences, p.fraction);
    append(out, "%s Δp: %6.3f%%\n", p.label, 100.0 * static_cast<double>(value));
  }
  percent_line("RMS Δp    ", rms_p_diff());
  percent_line("Same top p", same_top());
  return out;
}

}  // namespace carat::audit
