#include "convert/inspect.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "base/half.h"
#include "base/thread_pool.h"
#include "convert/transcode.h"
#include "model/load.h"
#include "model/tensors.h"
#include "quant/blocks.h"
#include "quant/scheme.h"

namespace carat::convert {
namespace {

constexpr int64_t kSampleSpans = 64;
constexpr int64_t kWindowChunks = 16;

// A checkpoint's tensors by what they are to the model, whatever it calls them.
struct Opened {
  io::Checkpoint checkpoint;
  model::Config config;
  std::unique_ptr<model::StoredTensors> stored;

  const io::TensorSource& tensors() const { return *checkpoint.tensors; }
  std::optional<SourceTensor> find(model::TensorRef ref) const {
    const auto t = stored->find(ref);
    if (!t) return std::nullopt;
    return source_tensor(tensors(), *t);
  }
};

Opened open(const std::string& path) {
  Opened o;
  o.checkpoint = io::open_checkpoint(path);
  o.config = model::config_of(o.checkpoint);
  o.stored = std::make_unique<model::StoredTensors>(o.checkpoint, o.config);
  return o;
}

// Sums over one chunk of two tensors.
struct Part {
  int64_t equal = 0;
  double squared_difference = 0, squared = 0;
};

Part compare_values(const float* a, const float* b, int64_t n) {
  Part p;
  for (int64_t i = 0; i < n; ++i) {
    p.equal += to_float(to_bf16(a[i])) == to_float(to_bf16(b[i]));
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    p.squared_difference += d * d;
    p.squared += static_cast<double>(a[i]) * static_cast<double>(a[i]);
  }
  return p;
}

double ratio(double difference, double whole) {
  if (difference == 0) return 0;
  return whole > 0 ? std::sqrt(difference / whole) : std::sqrt(difference);
}

class Inspection {
 public:
  Inspection(const InspectOptions& options, InspectReport& report)
      : options_(options),
        report_(report),
        pool_(options.threads),
        transcoder_(pool_, options.stop),
        lanes_(static_cast<size_t>(options.threads)) {}

  void run() {
    const Opened mine = open(options_.path);
    describe(mine);
    std::optional<Opened> other;
    if (!options_.against.empty()) {
      other = open(options_.against);
      check_same_model(mine, *other);
      report_.against = options_.against;
    }
    list(mine);
    report_.codes = describe_codes(mine.config, *mine.stored);
    total_ = work(other.has_value());
    for (size_t i = 0; i < report_.tensors.size(); ++i) {
      if (options_.stop != nullptr && options_.stop->load()) throw Interrupted();
      judge(mine, report_.tensors[i]);
      judge_codes(mine, other ? &*other : nullptr, report_.tensors[i]);
      if (other) compare(mine, *other, report_.tensors[i]);
    }
    report_.comparison.relative_rms = ratio(squared_difference_, squared_);
  }

 private:
  using Need = model::TensorRole::Need;

  void describe(const Opened& o) {
    report_.path = options_.path;
    report_.kind = io::name_of(o.checkpoint.kind);
    report_.config = o.config;
    report_.parameters = model::parameter_count(o.config);
    const auto tokenizer = model::tokenizer_of(o.checkpoint);
    report_.has_tokenizer = tokenizer != nullptr;
    if (tokenizer != nullptr) report_.tokenizer_size = tokenizer->vocab().size();
    if (tokenizer == nullptr) report_.notes.push_back("the checkpoint has no tokenizer");
  }

  // The mobile kinds have an output matrix beside the embedding that it is elsewhere.
  static std::vector<model::TensorRef> tied_tensors(model::Config config) {
    config.tied_embeddings = true;
    return model::required_tensors(config);
  }

  static void check_same_model(const Opened& a, const Opened& b) {
    const auto refs_a = tied_tensors(a.config);
    const auto refs_b = tied_tensors(b.config);
    bool same = refs_a.size() == refs_b.size();
    for (size_t i = 0; same && i < refs_a.size(); ++i) {
      same = refs_a[i].kind == refs_b[i].kind && refs_a[i].layer == refs_b[i].layer &&
             model::shape_of(a.config, refs_a[i]) == model::shape_of(b.config, refs_b[i]);
    }
    if (same) return;
    throw Error({"the two checkpoints are not of the same model", b.checkpoint.path, "--against",
                 fmt::format("the tensors and shapes of {}", a.checkpoint.path), "others", ""});
  }

  static void count(std::vector<InspectReport::Group>& groups, const std::string& name,
                    int64_t weights, int64_t bytes) {
    auto it = std::find_if(groups.begin(), groups.end(),
                           [&](const InspectReport::Group& g) { return g.name == name; });
    if (it == groups.end()) it = groups.insert(groups.end(), {name, 0, 0, 0});
    ++it->tensors;
    it->weights += weights;
    it->bytes += bytes;
  }

  // All tensors of the file, the parts of a parameter as one; those that the table does not know
  // are named, not refused: to look at a checkpoint that does not load is what this is for.
  void list(const Opened& o) {
    std::map<std::pair<model::TensorKind, int64_t>, size_t> seen;
    for (const io::TensorEntry& entry : o.tensors().entries()) {
      report_.bytes += entry.bytes;
      const model::TensorRole role = o.stored->role(entry.name);
      const bool is_known = role.ref.kind != model::TensorKind::kCount;
      const auto known = seen.find({role.ref.kind, role.ref.layer});
      if (is_known && known != seen.end()) {
        report_.tensors[known->second].bytes += entry.bytes;
        continue;
      }
      if (is_known) seen[{role.ref.kind, role.ref.layer}] = report_.tensors.size();
      report_.tensors.push_back(listed(o, entry, role));
      roles_.push_back(role);
    }
    for (const InspectedTensor& t : report_.tensors) {
      const int64_t weights = t.shape.empty() ? 1 : element_count(t.shape).value_or(0);
      if (t.skipped.empty()) {
        count(report_.types, name_of(t.dtype), weights, t.bytes);
      } else {
        count(report_.skipped, t.skipped, weights, t.bytes);
      }
    }
    for (const model::TensorRef ref : model::required_tensors(o.config)) {
      if (o.stored->find(ref)) continue;
      report_.notes.push_back(
          fmt::format("the tensor {} is missing", model::name_of(ref, o.stored->naming())));
    }
    for (const InspectReport::Group& g : report_.skipped) {
      if (g.name == "unknown") {
        report_.notes.push_back(fmt::format(
            "{} tensors are not part of the model that the configuration describes", g.tensors));
      }
    }
  }

  static InspectedTensor listed(const Opened& o, const io::TensorEntry& entry,
                                const model::TensorRole& role) {
    InspectedTensor t;
    t.name = entry.name;
    t.dtype = entry.dtype;
    t.shape = entry.shape;
    t.bytes = entry.bytes;
    if (role.need == Need::kSkipped) t.skipped = role.part;
    if (role.need == Need::kUnknown) t.skipped = "unknown";
    if (role.ref.kind == model::TensorKind::kCount) return t;
    const auto stored = o.stored->find(role.ref);
    if (stored && stored->is_coded()) {
      t.name = model::name_of(role.ref, o.stored->naming());
      t.dtype = stored->dtype;
      t.shape = stored->shape;
    }
    return t;
  }

  const model::TensorRole& role_of(const InspectedTensor& t) const {
    return roles_[static_cast<size_t>(&t - report_.tensors.data())];
  }

  bool can_judge(const InspectedTensor& t) const {
    return options_.lattice && t.skipped.empty() && is_float(t.dtype) && !t.shape.empty() &&
           t.shape.back() % quant::kBlock == 0 &&
           model::row_of(role_of(t).ref.kind).cls != model::TensorClass::kKeep;
  }

  int64_t work(bool against) const {
    int64_t bytes = 0;
    for (const InspectedTensor& t : report_.tensors) {
      if (options_.full && can_judge(t)) bytes += t.bytes;
      if (against && t.skipped.empty()) bytes += t.bytes;
    }
    return bytes;
  }

  void advance(int64_t bytes, const std::string& note) {
    done_ += bytes;
    if (options_.progress) options_.progress(done_, total_, note);
  }

  void judge(const Opened& o, InspectedTensor& t) {
    if (!can_judge(t)) return;
    const SourceTensor source = source_tensor(o.tensors(), *o.tensors().find(t.name));
    if (options_.full) {
      TranscodeRequest request;
      request.judge = true;
      request.advance = [&](int64_t bytes) { advance(bytes, t.name); };
      Findings findings;
      transcoder_.run(source, request, &findings);
      t.lattice = findings.lattice;
    } else {
      t.lattice = transcoder_.sample(source, kSampleSpans);
      report_.lattice_sampled |= t.lattice->weights < source.elements;
    }
    report_.lattice.add(*t.lattice);
  }

  // The output matrix of a tied checkpoint is its token embedding.
  static std::optional<SourceTensor> other_of(const Opened& other, model::TensorRef ref) {
    if (ref.kind == model::TensorKind::kLmHead && other.config.tied_embeddings) {
      ref.kind = model::TensorKind::kTokenEmbedding;
    }
    return other.find(ref);
  }

  void judge_codes(const Opened& mine, const Opened* other, const InspectedTensor& t) {
    if (!options_.lattice || t.dtype != DType::kC4 || !t.skipped.empty()) return;
    const model::TensorRef ref = role_of(t).ref;
    const SourceTensor coded = *mine.find(ref);
    if (!has_small_groups(coded)) return;
    std::optional<SourceTensor> floats;
    if (other != nullptr) floats = other_of(*other, ref);
    const bool pairs = floats && is_float(floats->dtype) && floats->elements == coded.elements;
    find_shift(pool_, coded, pairs ? &*floats : nullptr, options_.full, kSampleSpans,
               report_.codes);
  }

  void compare(const Opened& mine, const Opened& other, InspectedTensor& t) {
    const model::TensorRole& role = role_of(t);
    if (role.need != Need::kRequired) return;
    const auto found = other_of(other, role.ref);
    if (!found) {
      report_.different.push_back(t.name);
      report_.notes.push_back(fmt::format("{} lacks the tensor {}", options_.against,
                                          model::name_of(role.ref, other.stored->naming())));
      return;
    }
    const SourceTensor a = *mine.find(role.ref), b = *found;
    if (a.elements != b.elements) {
      throw Error({"a tensor has another shape than the configuration gives it", options_.against,
                   "tensor " + b.name, to_string(t.shape), fmt::format("{} elements", b.elements),
                   ""});
    }
    t.comparison = compare_tensors(a, b);
    report_.comparison.weights += t.comparison->weights;
    report_.comparison.equal += t.comparison->equal;
    if (!t.comparison->all_equal()) report_.different.push_back(t.name);
  }

  struct Lane {
    std::vector<std::byte> raw;
    std::vector<float> a, b;
  };

  Comparison compare_tensors(const SourceTensor& a, const SourceTensor& b) {
    constexpr int64_t kChunk = Transcoder::kChunk;
    Comparison c;
    double difference = 0, squared = 0;
    const int64_t n_chunks = ceil_div(a.elements, kChunk);
    for (int64_t first = 0; first < n_chunks; first += kWindowChunks) {
      if (options_.stop != nullptr && options_.stop->load()) throw Interrupted();
      const int64_t n = std::min(kWindowChunks, n_chunks - first);
      std::vector<Part> parts(static_cast<size_t>(n));
      pool_.parallel_for(n, 1, [&](int64_t begin, int64_t end, int thread) {
        Lane& lane = lanes_[static_cast<size_t>(thread)];
        for (int64_t i = begin; i < end; ++i) {
          const int64_t at = (first + i) * kChunk;
          const int64_t count = std::min(kChunk, a.elements - at);
          lane.a.resize(static_cast<size_t>(count));
          lane.b.resize(static_cast<size_t>(count));
          Transcoder::decode(a, at, count, lane.raw, lane.a.data());
          Transcoder::decode(b, at, count, lane.raw, lane.b.data());
          parts[static_cast<size_t>(i)] = compare_values(lane.a.data(), lane.b.data(), count);
        }
      });
      for (const Part& p : parts) {
        c.equal += p.equal;
        difference += p.squared_difference;
        squared += p.squared;
      }
      advance(row_bytes(a.dtype, std::min(n * kChunk, a.elements - first * kChunk)), a.name);
    }
    c.weights = a.elements;
    c.relative_rms = ratio(difference, squared);
    squared_difference_ += difference;
    squared_ += squared;
    return c;
  }

  const InspectOptions& options_;
  InspectReport& report_;
  ThreadPool pool_;
  Transcoder transcoder_;
  std::vector<Lane> lanes_;
  std::vector<model::TensorRole> roles_;  // of report_.tensors
  int64_t done_ = 0, total_ = 0;
  double squared_difference_ = 0, squared_ = 0;
};

}  // namespace

InspectReport inspect(const InspectOptions& options) {
  CHECK(options.threads >= 1);
  InspectReport report;
  Inspection(options, report).run();
  return report;
}

}  // namespace carat::convert
