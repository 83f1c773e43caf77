#include "convert/inspect.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
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
  model::Naming naming;
};

Opened open(const std::string& path) {
  Opened o;
  o.checkpoint = io::open_checkpoint(path);
  o.config = model::config_of(o.checkpoint);
  o.naming = model::naming_of(o.checkpoint);
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
    total_ = work(other.has_value());
    for (size_t i = 0; i < report_.tensors.size(); ++i) {
      if (options_.stop != nullptr && options_.stop->load()) throw Interrupted();
      judge(mine, report_.tensors[i]);
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

  static void check_same_model(const Opened& a, const Opened& b) {
    const auto refs_a = model::required_tensors(a.config);
    const auto refs_b = model::required_tensors(b.config);
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

  // All tensors of the file; those that the table does not know are named, not refused: to look
  // at a checkpoint that does not load is what this is for.
  void list(const Opened& o) {
    const model::TensorNames names(o.config, o.naming);
    for (const io::TensorEntry& entry : o.checkpoint.tensors->entries()) {
      InspectedTensor t;
      t.name = entry.name;
      t.dtype = entry.dtype;
      t.shape = entry.shape;
      t.bytes = entry.bytes;
      const model::TensorRole role = names.role(entry.name);
      if (role.need == Need::kSkipped) t.skipped = role.part;
      if (role.need == Need::kUnknown) t.skipped = "unknown";
      const int64_t weights = source_tensor(*o.checkpoint.tensors, entry).elements;
      report_.bytes += entry.bytes;
      if (t.skipped.empty()) {
        count(report_.types, name_of(entry.dtype), weights, entry.bytes);
      } else {
        count(report_.skipped, t.skipped, weights, entry.bytes);
      }
      report_.tensors.push_back(std::move(t));
      roles_.push_back(role);
    }
    for (const model::TensorRef ref : model::required_tensors(o.config)) {
      const std::string name = model::name_of(ref, o.naming);
      if (o.checkpoint.tensors->find(name) == nullptr) {
        report_.notes.push_back(fmt::format("the tensor {} is missing", name));
      }
    }
    for (const InspectReport::Group& g : report_.skipped) {
      if (g.name == "unknown") {
        report_.notes.push_back(fmt::format(
            "{} tensors are not part of the model that the configuration describes", g.tensors));
      }
    }
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
    const SourceTensor source =
        source_tensor(*o.checkpoint.tensors, *o.checkpoint.tensors->find(t.name));
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

  void compare(const Opened& mine, const Opened& other, InspectedTensor& t) {
    const model::TensorRole& role = role_of(t);
    if (role.need != Need::kRequired) return;
    const std::string name = model::name_of(role.ref, other.naming);
    const io::TensorEntry* entry = other.checkpoint.tensors->find(name);
    if (entry == nullptr) {
      report_.different.push_back(t.name);
      report_.notes.push_back(fmt::format("{} lacks the tensor {}", options_.against, name));
      return;
    }
    const SourceTensor a =
        source_tensor(*mine.checkpoint.tensors, *mine.checkpoint.tensors->find(t.name));
    const SourceTensor b = source_tensor(*other.checkpoint.tensors, *entry);
    if (a.elements != b.elements) {
      throw Error({"a tensor has another shape than the configuration gives it", options_.against,
                   "tensor " + name, to_string(t.shape), to_string(entry->shape), ""});
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
