#include "quantize/mix.h"

#include <algorithm>

#include "base/error.h"
#include "quantize/round.h"

namespace carat::quantize {

Mix::Mix(const Job& job, std::span<const MatrixChoices> choices, const std::string& target,
         int64_t memory)
    : job_(job),
      choices_(choices),
      tables_(target),
      live_(job.source.weights),
      picks_(choices.size()),
      left_(memory) {}

std::vector<std::byte> Mix::encoded(const MatrixPlan& plan, size_t matrix, size_t choice) {
  const auto found = kept_.find({matrix, choice});
  if (found != kept_.end()) return found->second;
  std::vector<std::byte> bytes;
  encode_rows(job_, plan, column_weights(job_.imatrix, plan),
              [&](int64_t, std::span<const std::byte> rows) {
                bytes.insert(bytes.end(), rows.begin(), rows.end());
              });
  const auto size = static_cast<int64_t>(bytes.size());
  if (size <= left_) {
    left_ -= size;
    kept_[{matrix, choice}] = bytes;
  }
  return bytes;
}

void Mix::look_up(const MatrixPlan& plan) {
  const std::string key = plan.name + " " + name_of(plan.dtype);
  if (!tables_.find(key)) {
    encode_rows(job_, plan, column_weights(job_.imatrix, plan),
                [&](int64_t first, std::span<const std::byte> rows) {
                  tables_.put(key, plan.dtype, plan.shape, first, rows);
                });
  }
  const std::optional<convert::EncodedTensor> table = tables_.find(key);
  live_.replace_looked_up(plan.ref, plan.dtype, *table->file, table->offset);
}

void Mix::set(size_t matrix, Pick pick) {
  if (picks_[matrix] == pick) return;
  picks_[matrix] = pick;
  MatrixPlan plan = choices_[matrix].plan;
  if (pick) plan.dtype = choices_[matrix].types[*pick].dtype;
  if (!pick || is_kept(job_, plan)) return live_.restore(plan.ref);
  if (model::is_looked_up_only(job_.source.config(), plan.ref.kind)) return look_up(plan);
  live_.replace(plan.ref, plan.dtype, encoded(plan, matrix, *pick));
}

void Mix::set(std::span<const Pick> picks) {
  CHECK(picks.size() == picks_.size());
  for (size_t i = 0; i < picks.size(); ++i) set(i, picks[i]);
}

}  // namespace carat::quantize
