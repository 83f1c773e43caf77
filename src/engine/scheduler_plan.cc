// What the next step reads: who starts, who goes on, who makes room.
#include <algorithm>

#include "engine/scheduler_impl.h"

namespace carat::engine {
namespace {

using kernels::kKvPageTokens;

// Fewer tokens are read rather than waited for, or taken from another sequence's blocks.
constexpr int64_t kWorthSharing = 32;

}  // namespace

void Scheduler::Impl::insert(Lanes& lanes, std::unique_ptr<Lane> lane) {
  const auto at = std::lower_bound(lanes.begin(), lanes.end(), lane,
                                   [](const auto& a, const auto& b) { return a->goes_before(*b); });
  lanes.insert(at, std::move(lane));
}

std::vector<Scheduler::Impl::Planned> Scheduler::Impl::plan() {
  // Prefixes first: what is found now may leave its window when the others go on.
  for (const auto& lane : running_) {
    if (lane->unread() > 1) count_reused(*lane, take_up_prefix(*lane, kWorthSharing));
  }
  admit();
  std::vector<Planned> plan;
  std::vector<Lane*> decoding;
  for (const auto& lane : running_) {
    if (lane->unread() == 1) decoding.push_back(lane.get());
  }
  for (Lane* lane : decoding) {
    // One that lost its blocks to a lane before it waits again.
    if (lane->kv && make_room(*lane, 1, plan)) plan.push_back({lane, 1});
  }
  plan_prefill(plan);
  return plan;
}

// The last token is always read: its logits start the answer. Returns the tokens gained.
int64_t Scheduler::Impl::take_up_prefix(Lane& lane, int64_t least_gain) {
  const int64_t held = lane.kv->length();
  const int64_t length = cache_.take_up(std::span(lane.tokens).first(lane.tokens.size() - 1),
                                        held + least_gain - 1, *lane.kv, lane.place);
  return length == 0 ? 0 : length - held;
}

void Scheduler::Impl::count_reused(Lane& lane, int64_t n) {
  counts_.tokens_reused += n;
  if (!lane.was_preempted) lane.result.reused_tokens += n;
}

// Starts waiting requests in rank order, as long as there is room.
void Scheduler::Impl::admit() {
  while (!waiting_.empty() && static_cast<int64_t>(running_.size()) < options_.max_running) {
    Lane& lane = *waiting_.front();
    lane.kv.emplace(model_.config(), options_.kv, pool_);
    const int64_t reused = take_up_prefix(lane, 1);
    if (!fits(lane)) return give_up_blocks(lane);
    running_.reserve(running_.size() + 1);
    count_reused(lane, reused);
    if (!lane.started) lane.started = Lane::Clock::now();
    insert(running_, std::move(waiting_.front()));
    waiting_.erase(waiting_.begin());
  }
}

int64_t Scheduler::Impl::worst_bytes(const Lane& lane) const {
  int64_t longest = limits_.capacity;
  if (lane.request.max_tokens >= 0) {
    longest = std::min(longest, lane.prompt_tokens() + std::min(longest, lane.request.max_tokens));
  }
  return model::kv_bytes(model_.config(), options_.kv, longest, limits_.chunk);
}

// What a lane will still take to read what it has and a page more.
int64_t Scheduler::Impl::promised_bytes(const Lane& lane) const {
  const int64_t chunk = lane.unread() > 1 ? limits_.chunk : 1;
  const int64_t tokens = std::min(limits_.capacity, lane.length() + kKvPageTokens);
  const int64_t need = model::kv_bytes(model_.config(), options_.kv, tokens, chunk);
  return std::max<int64_t>(0, need - lane.kv->bytes_held());
}

// Whether a lane that is about to start can be expected to get far beside those that run. Alone it
// always can.
bool Scheduler::Impl::fits(const Lane& lane) const {
  if (running_.empty()) return true;
  int64_t bytes =
      options_.reserve ? worst_bytes(lane) : pool_->bytes_in_sequences() + promised_bytes(lane);
  for (const auto& other : running_) {
    bytes += options_.reserve ? worst_bytes(*other) : promised_bytes(*other);
    if (bytes > limits_.kv_budget) return false;
  }
  return bytes <= limits_.kv_budget;
}

// The shortest rest goes first; but the first lane in rank has a quarter, so that short prompts
// never keep a long one from being read.
void Scheduler::Impl::plan_prefill(std::vector<Planned>& plan) {
  std::vector<Lane*> lanes;
  for (const auto& lane : running_) {
    if (lane->unread() > 1) lanes.push_back(lane.get());
  }
  if (lanes.empty()) return;
  const Lane* const first = lanes.front();
  std::stable_sort(lanes.begin(), lanes.end(), [](const Lane* a, const Lane* b) {
    return a->request.priority != b->request.priority ? a->request.priority > b->request.priority
                                                      : a->unread() < b->unread();
  });
  int64_t left = options_.prefill_tokens;
  int64_t quarter = std::min(first->unread(), std::max<int64_t>(1, left / 4));
  for (Lane* lane : lanes) {
    if (lane == first) quarter = 0;
    if (!lane->kv || gains_by_waiting(*lane, plan)) continue;
    const int64_t n = std::min({lane->unread(), left - quarter, limits_.chunk});
    if (n <= 0 || !make_room(*lane, n, plan)) continue;
    plan.push_back({lane, n});
    left -= n;
  }
}

// How long a beginning of a lane's tokens can be taken up after it has read [from, to): whole
// pages, or up to a restart point.
int64_t Scheduler::Impl::findable(const Lane& lane, int64_t from, int64_t to) const {
  const int64_t pages = to / kKvPageTokens * kKvPageTokens;
  if (!options_.keep_prefixes) return pages;
  const std::vector<int64_t>& points = lane.restart_at;
  const auto after = std::upper_bound(points.begin(), points.end(), to);
  const int64_t point = after == points.begin() ? 0 : *(after - 1);
  return point > from ? std::max(pages, point) : pages;
}

// Whether a lane before it in this step reads what it would read too.
bool Scheduler::Impl::gains_by_waiting(const Lane& lane, const std::vector<Planned>& plan) const {
  const int64_t held = lane.kv->length();
  for (const Planned& p : plan) {
    const int64_t from = p.lane->kv->length(), to = from + p.n;
    if (p.n == 1 || to < held + kWorthSharing) continue;
    const int64_t shared = std::min({common_tokens(lane.tokens, p.lane->tokens),
                                     findable(*p.lane, from, to), lane.length() - 1});
    // Before `from` the other's window may be gone.
    if (shared >= from && shared - held >= kWorthSharing) return true;
  }
  return false;
}

// Makes the lane's next n rows its own. False: not in this step.
bool Scheduler::Impl::make_room(Lane& lane, int64_t n, std::vector<Planned>& plan) {
  model::KvSequence& kv = *lane.kv;
  kv.drop_unseen();
  for (;;) {
    if (kv.bytes_to_prepare(n) <= pool_->bytes_free()) {
      kv.prepare(n);
      return true;
    }
    const int64_t least = pool_->bytes_in_sequences() + kv.growth_to_prepare(n);
    if (least <= limits_.kv_budget && cache_.evict()) {
      ++counts_.evictions;
      continue;
    }
    Lane& last = *running_.back();
    if (&last == &lane) return false;
    waiting_.reserve(waiting_.size() + 1);
    std::erase_if(plan, [&](const Planned& p) { return p.lane == &last; });
    preempt(last);
  }
}

// It waits again and keeps its rank, its answer so far and its random numbers.
void Scheduler::Impl::preempt(Lane& lane) {
  ++counts_.preemptions;
  lane.was_preempted = true;
  give_up_blocks(lane);
  insert(waiting_, remove(lane));
}

}  // namespace carat::engine
