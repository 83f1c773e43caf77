#include "convert/weight_difference.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/checked.h"
#include "base/error.h"
#include "convert/transcode.h"
#include "model/load.h"
#include "model/stored.h"
#include "model/tensors.h"

namespace carat::convert {
namespace {

constexpr int64_t kChunk = Transcoder::kChunk;  // elements that a thread takes
constexpr int64_t kWindow = 64;                 // chunks between two looks at `stop`

struct Side {
  explicit Side(const io::Checkpoint& checkpoint)
      : config(model::config_of(checkpoint)),
        source(*checkpoint.tensors),
        stored(checkpoint, config) {}

  // The output matrix of a tied checkpoint is its token embedding.
  std::optional<model::StoredTensor> find(model::TensorRef ref) const {
    if (ref.kind == model::TensorKind::kLmHead && config.tied_embeddings) {
      ref.kind = model::TensorKind::kTokenEmbedding;
    }
    return stored.find(ref);
  }

  model::Config config;
  const io::TensorSource& source;
  model::StoredTensors stored;
};

struct Sums {
  double difference = 0, squared = 0, largest = 0;
};

Sums sums_of(const std::vector<float>& a, const std::vector<float>& b, int64_t n) {
  Sums s;
  for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
    const double d = double{b[i]} - a[i];
    s.difference += d * d;
    s.squared += double{a[i]} * a[i];
    s.largest = std::max(s.largest, std::abs(d));
  }
  return s;
}

std::vector<model::TensorRef> tied_tensors(model::Config config) {
  config.tied_embeddings = true;
  return model::required_tensors(config);
}

class Measuring {
 public:
  Measuring(ThreadPool& pool, const WeightDifferenceHooks& hooks, int64_t total)
      : pool_(pool), hooks_(hooks), total_(total), lanes_(static_cast<size_t>(pool.size())) {}

  Sums sums(const SourceTensor& a, const SourceTensor& b) {
    Sums all;
    const int64_t chunks = ceil_div(a.elements, kChunk);
    for (int64_t first = 0; first < chunks; first += kWindow) {
      if (hooks_.stop != nullptr && hooks_.stop->load()) throw Interrupted();
      const int64_t n = std::min(kWindow, chunks - first);
      std::vector<Sums> parts(static_cast<size_t>(n));
      pool_.parallel_for(n, 1, [&](int64_t begin, int64_t end, int thread) {
        Lane& lane = lanes_[static_cast<size_t>(thread)];
        for (int64_t i = begin; i < end; ++i) {
          const int64_t at = (first + i) * kChunk, count = std::min(kChunk, a.elements - at);
          lane.a.resize(static_cast<size_t>(count));
          lane.b.resize(static_cast<size_t>(count));
          Transcoder::decode(a, at, count, lane.raw, lane.a.data());
          Transcoder::decode(b, at, count, lane.raw, lane.b.data());
          parts[static_cast<size_t>(i)] = sums_of(lane.a, lane.b, count);
        }
      });
      for (const Sums& p : parts) {
        all.difference += p.difference;
        all.squared += p.squared;
        all.largest = std::max(all.largest, p.largest);
      }
      done_ += std::min(n * kChunk, a.elements - first * kChunk);
      if (hooks_.progress) hooks_.progress(done_, total_);
    }
    return all;
  }

 private:
  struct Lane {
    std::vector<std::byte> raw;
    std::vector<float> a, b;
  };

  ThreadPool& pool_;
  const WeightDifferenceHooks& hooks_;
  int64_t done_ = 0, total_;
  std::vector<Lane> lanes_;
};

}  // namespace

bool are_same_network(const model::Config& a, const model::Config& b) {
  const auto refs_a = tied_tensors(a), refs_b = tied_tensors(b);
  return std::equal(refs_a.begin(), refs_a.end(), refs_b.begin(), refs_b.end(),
                    [&](model::TensorRef x, model::TensorRef y) {
                      return x.kind == y.kind && x.layer == y.layer &&
                             model::shape_of(a, x) == model::shape_of(b, y);
                    });
}

std::vector<WeightDifference> measure_weight_differences(const io::Checkpoint& a,
                                                         const io::Checkpoint& b, ThreadPool& pool,
                                                         const WeightDifferenceHooks& hooks) {
  const Side mine(a), other(b);
  CHECK(are_same_network(mine.config, other.config));
  // An output matrix of its own in either is looked at in both.
  const auto refs =
      model::required_tensors(other.config.tied_embeddings ? mine.config : other.config);
  int64_t total = 0;
  for (const model::TensorRef ref : refs) total += *element_count(shape_of(mine.config, ref));
  Measuring measuring(pool, hooks, total);
  std::vector<WeightDifference> found;
  for (const model::TensorRef ref : refs) {
    const auto from = mine.find(ref), to = other.find(ref);
    if (!from || !to) continue;
    const SourceTensor x = source_tensor(mine.source, *from);
    const SourceTensor y = source_tensor(other.source, *to);
    if (x.elements != y.elements) {
      throw Error({"a tensor has another shape than in the reference", b.path, "tensor " + y.name,
                   to_string(from->shape), to_string(to->shape), ""});
    }
    const Sums s = measuring.sums(x, y);
    WeightDifference d{model::gguf_name(ref), to->dtype, ref.layer, x.elements,
                       to->values->bytes,     0,         0};
    if (to->scales != nullptr) d.bytes += to->scales->bytes;
    const double rms = std::sqrt(s.squared / static_cast<double>(x.elements));
    if (!std::isfinite(s.difference) || !std::isfinite(rms)) continue;
    if (s.difference > 0) {
      d.relative_rms = s.squared > 0 ? std::sqrt(s.difference / s.squared) : 1;
      d.largest = rms > 0 ? s.largest / rms : 1;
    }
    found.push_back(std::move(d));
  }
  return found;
}

}  // namespace carat::convert
