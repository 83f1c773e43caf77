#include "convert/inspect_codes.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/checked.h"
#include "model/tensors.h"
#include "quant/coded_rows.h"

namespace carat::convert {
namespace {

using model::TensorKind;

constexpr int64_t kSpanGroups = 64;
constexpr int64_t kChunkGroups = Transcoder::kChunk / kShiftGroup;

const char* class_of(TensorKind kind) {
  switch (kind) {
    case TensorKind::kTokenEmbedding:
      return "token embedding";
    case TensorKind::kLmHead:
      return "output matrix";
    case TensorKind::kPleTable:
      return "per-layer embeddings";
    case TensorKind::kPleProjection:
      return "per-layer model projection";
    case TensorKind::kPleGate:
    case TensorKind::kPleOut:
      return "per-layer gate and projection";
    case TensorKind::kQ:
    case TensorKind::kK:
    case TensorKind::kV:
    case TensorKind::kO:
      return "attention";
    case TensorKind::kExpertsGateUp:
    case TensorKind::kExpertsDown:
      return "experts";
    case TensorKind::kRouter:
      return "router";
    default:
      return "feed-forward";
  }
}

void add_to_class(std::vector<CodedReport::Class>& classes, TensorKind kind,
                  const model::StoredTensor& t) {
  const int bits = quant::code_bits(t.dtype);
  const int64_t columns = t.scale_columns == t.shape.back() ? 0 : t.scale_columns;
  const char* name = class_of(kind);
  auto it = std::find_if(classes.begin(), classes.end(), [&](const CodedReport::Class& c) {
    return c.name == name && c.bits == bits && c.scale_columns == columns;
  });
  if (it == classes.end()) {
    it = classes.insert(classes.end(), {name, bits, columns, 0, 0, 0, 0, 0});
  }
  ++it->parameters;
  it->weights += element_count(t.shape).value_or(0);
  it->bytes += t.values->bytes + t.scales->bytes;
  it->static_inputs += t.input_scale > 0;
  it->static_outputs += t.output_scale > 0;
}

std::string kind_of(model::Coding coding, const std::vector<CodedReport::Class>& classes,
                    bool coded_embedding) {
  if (classes.empty()) return "";
  if (coding == model::Coding::kMobile) return "mobile-transformers";
  const auto small = [](const CodedReport::Class& c) {
    return c.bits == 4 && c.scale_columns == kShiftGroup && c.static_inputs == 0;
  };
  if (coded_embedding) return "mobile-ct";
  return std::all_of(classes.begin(), classes.end(), small) ? "w4a16-ct" : "compressed-tensors";
}

// Groups [begin, begin + n) of a parameter.
struct Span {
  int64_t begin, n;
};

std::vector<Span> spans_of(int64_t groups, bool all, int64_t wanted) {
  std::vector<Span> spans;
  if (all || groups <= wanted * kSpanGroups) {
    for (int64_t g = 0; g < groups; g += kChunkGroups) {
      spans.push_back({g, std::min(kChunkGroups, groups - g)});
    }
    return spans;
  }
  const int64_t n_spans = groups / kSpanGroups;
  for (int64_t i = 0; i < wanted; ++i) {
    spans.push_back({i * n_spans / wanted * kSpanGroups, kSpanGroups});
  }
  return spans;
}

struct Lane {
  std::vector<std::byte> raw;
  std::vector<int8_t> codes;
  std::vector<float> scales, weights;
};

std::string percent(int64_t part, int64_t whole) {
  return fmt::format("{:.1f} %", whole > 0 ? 100.0 * double(part) / double(whole) : 0.0);
}

}  // namespace

CodedReport describe_codes(const model::Config& config, const model::StoredTensors& stored) {
  CodedReport report;
  bool coded_embedding = false;
  for (const model::TensorRef ref : model::required_tensors(config)) {
    const auto t = stored.find(ref);
    if (!t || !t->is_coded()) continue;
    add_to_class(report.classes, ref.kind, *t);
    coded_embedding |= ref.kind == TensorKind::kTokenEmbedding;
  }
  for (int64_t i = 0; i < config.n_owners(); ++i) {
    const model::KvScales s = stored.kv_scales(i);
    report.static_kv_layers += s.k > 0 || s.v > 0;
  }
  report.kind = kind_of(stored.coding(), report.classes, coded_embedding);
  return report;
}

bool has_small_groups(const SourceTensor& tensor) {
  return tensor.dtype == DType::kC4 && tensor.scales.columns == kShiftGroup;
}

void find_shift(ThreadPool& pool, const SourceTensor& coded, const SourceTensor* floats, bool all,
                int64_t spans, CodedReport& report) {
  const int64_t groups = coded.elements / kShiftGroup;
  const std::vector<Span> parts = spans_of(groups, all, spans);
  std::vector<Lane> lanes(static_cast<size_t>(pool.size()));
  std::vector<ShiftStats> stats(parts.size());
  std::vector<ShiftPairs> pairs(parts.size());
  pool.parallel_for(
      static_cast<int64_t>(parts.size()), 1, [&](int64_t begin, int64_t end, int thread) {
        Lane& lane = lanes[static_cast<size_t>(thread)];
        for (int64_t i = begin; i < end; ++i) {
          const auto at = static_cast<size_t>(i);
          const Span& span = parts[at];
          const int64_t first = span.begin * kShiftGroup, n = span.n * kShiftGroup;
          lane.codes.resize(static_cast<size_t>(n));
          lane.scales.resize(static_cast<size_t>(span.n));
          Transcoder::read_codes(coded, first, n, lane.raw, lane.codes.data());
          Transcoder::read_scales(coded, span.begin, span.n, lane.raw, lane.scales.data());
          count_groups(lane.codes.data(), lane.scales.data(), span.n, stats[at]);
          if (floats == nullptr) continue;
          lane.weights.resize(static_cast<size_t>(n));
          Transcoder::decode(*floats, first, n, lane.raw, lane.weights.data());
          compare_groups(lane.codes.data(), lane.scales.data(), lane.weights.data(), span.n,
                         pairs[at]);
        }
      });
  int64_t seen = 0;
  for (const Span& span : parts) seen += span.n;
  report.sampled |= seen < groups;
  if (!report.shift) report.shift.emplace();
  for (const ShiftStats& s : stats) report.shift->add(s);
  if (floats == nullptr) return;
  if (!report.pairs) report.pairs.emplace();
  for (const ShiftPairs& p : pairs) report.pairs->add(p);
}

std::vector<std::string> shift_sentences(const CodedReport& report) {
  std::vector<std::string> out;
  if (!report.shift || report.shift->groups == 0) return out;
  const ShiftStats& s = *report.shift;
  const char* seen = report.sampled ? " looked at" : "";
  if (s.follows_min_max()) {
    out.push_back(fmt::format(
        "scales: as an exporter makes them that divides the largest magnitude by 7.5 (all {} "
        "groups{} reach -8, 7 or -7, none has a negative scale); of weights trained on the Q4_0 "
        "lattice they are 8/7.5 too large",
        s.groups, seen));
    out.push_back(
        fmt::format("if so, the codes before are known in {} of the groups ({} with a -8, {} with "
                    "one 7 or -7, which "
                    "was the peak) and not in {}",
                    percent(s.proven(), s.groups), percent(s.with_minus8, s.groups),
                    percent(s.single_peak, s.groups), percent(s.ambiguous, s.groups)));
  } else {
    out.push_back(
        fmt::format("scales: not of the largest magnitude / 7.5 ({} of {} groups{} reach neither "
                    "-8 nor 7 nor -7, {} "
                    "have a negative scale)",
                    s.foreign, s.groups, seen, s.negative_scales));
  }
  if (!report.pairs || report.pairs->groups == 0) return out;
  const ShiftPairs& p = *report.pairs;
  out.push_back(fmt::format(
      "beside the other checkpoint: {} of {} groups have scales 8/7.5 too large, {} have the right "
      "ones, {} fit neither",
      p.shifted, p.groups, p.as_stored, p.neither));
  if (p.shifted > 0) {
    out.push_back(fmt::format("of the {} groups whose codes the rule proves, {} have these codes",
                              p.proven, p.proven_right));
  }
  return out;
}

Json to_json(const CodedReport& r) {
  Json j;
  j["kind"] = r.kind;
  j["classes"] = Json::array();
  for (const CodedReport::Class& c : r.classes) {
    j["classes"].push_back({{"name", c.name},
                            {"bits", c.bits},
                            {"scale_columns", c.scale_columns > 0 ? Json(c.scale_columns) : Json()},
                            {"parameters", c.parameters},
                            {"weights", c.weights},
                            {"bytes", c.bytes},
                            {"static_inputs", c.static_inputs},
                            {"static_outputs", c.static_outputs}});
  }
  j["static_kv_layers"] = r.static_kv_layers;
  j["sampled"] = r.sampled;
  if (r.shift) j["shift"] = to_json(*r.shift);
  if (r.pairs) j["shift_against"] = to_json(*r.pairs);
  return j;
}

}  // namespace carat::convert
