#include "convert/tied_head.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "convert/transcode.h"

namespace carat::convert {

void check_tied_head(const model::Config& config, const io::TensorSource& source,
                     const model::StoredTensors& stored, const std::atomic<bool>* stop) {
  using K = model::TensorKind;
  if (!config.tied_embeddings) return;
  const auto head = stored.find(model::TensorRef{K::kLmHead, -1});
  const auto table = stored.find(model::TensorRef{K::kTokenEmbedding, -1});
  if (!head || !table) return;
  const SourceTensor a = source_tensor(source, *head);
  const SourceTensor b = source_tensor(source, *table);
  const auto refuse = [&](const std::string& expected, const std::string& got) {
    throw Error(
        {"the checkpoint has an output matrix that is not its token embedding, although "
         "its configuration ties the two",
         source.path_of(*head->values), "tensor " + a.name, expected, got,
         "set tie_word_embeddings to false in config.json if the output matrix counts, or "
         "remove it"});
  };
  if (head->shape != table->shape) refuse(to_string(table->shape), to_string(head->shape));
  std::vector<std::byte> raw;
  std::vector<float> x(static_cast<size_t>(Transcoder::kChunk)), y(x.size());
  for (int64_t begin = 0; begin < a.elements; begin += Transcoder::kChunk) {
    if (stop != nullptr && stop->load()) throw Interrupted();
    const int64_t n = std::min(Transcoder::kChunk, a.elements - begin);
    Transcoder::decode(a, begin, n, raw, x.data());
    Transcoder::decode(b, begin, n, raw, y.data());
    for (int64_t i = 0; i < n; ++i) {
      const float got = x[static_cast<size_t>(i)], expected = y[static_cast<size_t>(i)];
      if (got == expected || (got != got && expected != expected)) continue;
      refuse(fmt::format("{} of {}", expected, b.name),
             fmt::format("{} at row {}, column {}", got, (begin + i) / a.columns,
                         (begin + i) % a.columns));
    }
  }
}

}  // namespace carat::convert
