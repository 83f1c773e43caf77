#include "engine/scheduler.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <new>

#include "base/seconds.h"
#include "engine/scheduler_impl.h"

namespace carat::engine {
namespace {

constexpr int64_t kMaxRunning = 4096;

void require_count(const char* place, int64_t n, int64_t most) {
  if (n >= 1 && n <= most) return;
  throw Error({"an option of the scheduler is out of range", "", place,
               fmt::format("1 to {}", most), fmt::format("{}", n), ""});
}

}  // namespace

QueueFull::QueueFull(int64_t waiting)
    : Error({"too many requests are waiting", "", "", fmt::format("at most {}", waiting),
             fmt::format("{}", waiting + 1), "try again later"}) {}

Scheduler::Impl::Impl(const model::Model& model, kernels::Ops& ops, const SchedulerOptions& options)
    : model_(model),
      ops_(ops),
      options_(options),
      limits_(context_limits(model.config(), options.kv, options.context, options.kv_budget,
                             options.prefill_tokens)),
      policy_(restart_policy(model, model::KvLayout(model.config(), options.kv))),
      pool_(model::KvPagePool::create(limits_.kv_budget)),
      cache_(model::KvLayout(model.config(), options.kv)) {
  model::require_kv_type(model.weights, options.kv);
  require_count("sequences in a step", options.max_running, kMaxRunning);
  require_count("requests that wait", options.max_waiting, INT32_MAX);
  if (options.restart_every < 0) throw Error("the distance of restart points is negative");
  if (options.restart_every > 0) policy_.every = options.restart_every;
  publish_stats();
}

// -- the inbox ------------------------------------------------------------------------------------

RequestId Scheduler::Impl::submit(Request request) {
  if (request.tokens.empty()) throw Error("the prompt is empty");
  require_vocabulary(model_.config(), request.tokens);
  require_room(model_.config(), options_.kv, limits_, static_cast<int64_t>(request.tokens.size()));
  auto lane = std::make_unique<Lane>(0, std::move(request), model_.config().vocab_size);
  if (options_.keep_prefixes) lane->restart_at = policy_.in_prompt(lane->tokens);
  const std::lock_guard lock(mutex_);
  if (published_.waiting + static_cast<int64_t>(submitted_.size()) >= options_.max_waiting) {
    throw QueueFull(options_.max_waiting);
  }
  lane->id = ++last_id_;
  submitted_.push_back(std::move(lane));
  arrived_.notify_all();
  return last_id_;
}

void Scheduler::Impl::cancel(RequestId id) {
  const std::lock_guard lock(mutex_);
  if (id == 0 || id > last_id_) return;
  cancelled_.push_back(id);
  arrived_.notify_all();
}

void Scheduler::Impl::take_inbox() {
  Lanes submitted;
  std::vector<RequestId> cancelled;
  {
    const std::lock_guard lock(mutex_);
    // Later there is no way to give back what came in.
    waiting_.reserve(waiting_.size() + submitted_.size());
    submitted.swap(submitted_);
    cancelled.swap(cancelled_);
    published_.waiting += static_cast<int64_t>(submitted.size());
    busy_ = true;
  }
  for (auto& lane : submitted) insert(waiting_, std::move(lane));
  for (const RequestId id : cancelled) {
    for (Lanes* lanes : {&running_, &waiting_}) {
      const auto it = std::find_if(lanes->begin(), lanes->end(),
                                   [id](const auto& lane) { return lane->id == id; });
      if (it == lanes->end()) continue;
      end(**it, StopReason::kCancelled);
      break;
    }
  }
}

bool Scheduler::Impl::wait(std::chrono::milliseconds longest) {
  std::unique_lock lock(mutex_);
  return arrived_.wait_for(lock, longest,
                           [&] { return busy_ || !submitted_.empty() || !cancelled_.empty(); });
}

void Scheduler::Impl::publish_stats() {
  SchedulerStats s = counts_;
  s.running = static_cast<int64_t>(running_.size());
  s.waiting = static_cast<int64_t>(waiting_.size());
  s.restart_points = cache_.restart_points();
  s.kv_bytes = pool_->bytes_in_use();
  s.kv_bytes_kept = pool_->bytes_in_use() - pool_->bytes_in_sequences();
  s.kv_bytes_budget = pool_->budget();
  s.kv_bytes_peak = pool_->peak_bytes();
  const std::lock_guard lock(mutex_);
  published_ = s;
  busy_ = !running_.empty() || !waiting_.empty();
}

SchedulerStats Scheduler::Impl::stats() const {
  const std::lock_guard lock(mutex_);
  SchedulerStats s = published_;
  s.waiting += static_cast<int64_t>(submitted_.size());
  return s;
}

// -- a step ---------------------------------------------------------------------------------------

bool Scheduler::Impl::step() {
  take_inbox();
  bool read = true;
  std::vector<Planned> next;
  try {
    next = plan();
    // The first lane in rank can have everything.
    CHECK(!next.empty() || (running_.empty() && waiting_.empty()));
    read = !next.empty();
    if (read) execute(next);
  } catch (const Error& error) {
    fail_step(next, error);
  } catch (const std::exception& error) {  // no memory
    fail_step(next, Error(error.what()));
  }
  publish_stats();
  return read;
}

// Ends the lanes of a step that could not be finished: those that it was to read or, if that was
// not decided yet, all that run, and else the first that waits, so that there is an end.
void Scheduler::Impl::fail_step(const std::vector<Planned>& plan, const Error& error) {
  // One that was about to start.
  for (const auto& lane : waiting_) give_up_blocks(*lane);
  std::vector<Lane*> lanes;
  for (const auto& lane : running_) {
    // Those that ended in this step are no longer there.
    const bool planned = std::any_of(plan.begin(), plan.end(),
                                     [&](const Planned& p) { return p.lane == lane.get(); });
    if (planned || plan.empty()) lanes.push_back(lane.get());
  }
  if (plan.empty() && lanes.empty() && !waiting_.empty()) lanes.push_back(waiting_.front().get());
  for (Lane* lane : lanes) fail(*lane, error);
}

void Scheduler::Impl::execute(const std::vector<Planned>& plan) {
  using Wanted = model::Chunk::Wanted;
  std::vector<model::Chunk> chunks;
  std::vector<Lane*> answering;
  for (const Planned& p : plan) {
    const bool ends = p.n == p.lane->unread();
    const auto begin = static_cast<size_t>(p.lane->kv->length());
    chunks.push_back({&*p.lane->kv,
                      std::span(p.lane->tokens).subspan(begin, static_cast<size_t>(p.n)),
                      ends ? Wanted::kLast : Wanted::kNone});
    if (ends) answering.push_back(p.lane);
  }
  const kernels::Value logits = model::advance(model_.weights, ops_, chunks);
  const auto vocab = static_cast<size_t>(model_.config().vocab_size);
  logits_.resize(answering.size() * vocab);
  if (!answering.empty()) ops_.read(logits, logits_);

  ++counts_.steps;
  for (const Planned& p : plan) {
    const bool decoded = p.n == 1 && !p.lane->result.tokens.empty();
    (decoded ? counts_.tokens_decoded : counts_.tokens_prefilled) += p.n;
    if (decoded) ++p.lane->result.decode_steps;
    keep_prefix(*p.lane, p.lane->kv->length() - p.n);
  }
  size_t row = 0;
  for (const Planned& p : plan) {
    const bool answers = row < answering.size() && answering[row] == p.lane;
    const size_t at = answers ? vocab * row++ : 0;
    answer(*p.lane, std::span<const float>(logits_).subspan(at, answers ? vocab : 0));
  }
}

// Reports what the lane read and, given logits, goes on with its answer. May end the lane.
void Scheduler::Impl::answer(Lane& lane, std::span<const float> logits) {
  std::optional<StopReason> reason;
  try {
    // Once the answer began, what is read is no prompt, or read again after an interruption.
    if (lane.request.on_prompt && lane.result.tokens.empty()) {
      lane.request.on_prompt(lane.kv->length(), lane.prompt_tokens());
    }
    if (!logits.empty()) reason = next_token(lane, logits);
  } catch (const Error& error) {
    return fail(lane, error);
  } catch (const std::exception& error) {  // of a hook
    return fail(lane, Error(error.what()));
  }
  if (reason) end(lane, *reason);
}

// Enters the pages read since position `from`, and the restart points in between.
void Scheduler::Impl::keep_prefix(Lane& lane, int64_t from) {
  cache_.enter(lane.tokens, *lane.kv, lane.place);
  if (!options_.keep_prefixes) return;
  const int64_t to = lane.kv->length();
  const std::vector<int64_t>& points = lane.restart_at;
  for (auto it = std::upper_bound(points.begin(), points.end(), from);
       it != points.end() && *it <= to; ++it) {
    keep_restart_point(lane, *it);
  }
  const int64_t last = to / policy_.every * policy_.every;
  if (last > std::max(from, lane.prompt_tokens())) keep_restart_point(lane, last);
}

void Scheduler::Impl::keep_restart_point(Lane& lane, int64_t position) {
  try {
    cache_.add_restart_point(lane.tokens, position, *lane.kv, lane.place);
  } catch (const std::bad_alloc&) {  // a later request reads more; this one has what it needs
  }
}

void Scheduler::Impl::give_up_blocks(Lane& lane) {
  cache_.leave(lane.place);
  lane.kv.reset();
}

// Appends a token to the answer; the reason if that ends it.
std::optional<StopReason> Scheduler::Impl::next_token(Lane& lane, std::span<const float> logits) {
  const Request& r = lane.request;
  if (!lane.answering) lane.answering = Lane::Clock::now();
  if (r.max_tokens == 0) return StopReason::kMaxTokens;
  std::span<const float> allowed = logits;
  if (r.filter) {
    filtered_.assign(logits.begin(), logits.end());
    r.filter(filtered_, lane.tokens);
    allowed = filtered_;
  }
  const int32_t token = lane.sampler.sample(allowed, lane.tokens);
  ++counts_.tokens_sampled;
  if (std::find(r.stop_ids.begin(), r.stop_ids.end(), token) != r.stop_ids.end()) {
    lane.result.stop_token = token;
    return StopReason::kStopToken;
  }
  const auto index = static_cast<int64_t>(lane.result.tokens.size());
  lane.tokens.push_back(token);
  lane.result.tokens.push_back(token);
  if (r.on_token && !r.on_token({token, index, logits})) return StopReason::kCaller;
  if (index + 1 == r.max_tokens) return StopReason::kMaxTokens;
  if (lane.kv->length() >= limits_.capacity) return StopReason::kContext;
  return std::nullopt;
}

// Takes a lane out of the lists.
std::unique_ptr<Lane> Scheduler::Impl::remove(Lane& lane) {
  for (Lanes* lanes : {&running_, &waiting_}) {
    const auto it = std::find_if(lanes->begin(), lanes->end(),
                                 [&](const auto& other) { return other.get() == &lane; });
    if (it == lanes->end()) continue;
    std::unique_ptr<Lane> taken = std::move(*it);
    lanes->erase(it);
    return taken;
  }
  CHECK(false);
  return nullptr;
}

void Scheduler::Impl::end(Lane& lane, StopReason reason) {
  const std::unique_ptr<Lane> taken = remove(lane);
  if (lane.kv) {
    if (options_.keep_prefixes && lane.kv->length() > 0) {
      keep_restart_point(lane, lane.kv->length());
    }
    give_up_blocks(lane);
  }
  ++counts_.requests_ended;
  const Lane::Clock::time_point now = Lane::Clock::now();
  lane.result.reason = reason;
  if (lane.started) {
    lane.result.prompt_seconds = in_seconds(lane.answering.value_or(now) - *lane.started);
  }
  if (lane.answering) lane.result.decode_seconds = in_seconds(now - *lane.answering);
  [&]() noexcept {
    if (lane.request.on_end) lane.request.on_end(lane.result);
  }();
}

void Scheduler::Impl::fail(Lane& lane, const Error& error) {
  const std::unique_ptr<Lane> taken = remove(lane);
  give_up_blocks(lane);
  ++counts_.requests_ended;
  [&]() noexcept {
    if (lane.request.on_error) lane.request.on_error(error);
  }();
}

void Scheduler::Impl::clear_prefixes() {
  cache_.clear();
  publish_stats();
}

// -- the public face ------------------------------------------------------------------------------

Scheduler::Scheduler(const model::Model& model, kernels::Ops& ops, const SchedulerOptions& options)
    : impl_(std::make_unique<Impl>(model, ops, options)) {}
Scheduler::~Scheduler() = default;

int64_t Scheduler::capacity() const { return impl_->limits().capacity; }
RequestId Scheduler::submit(Request request) { return impl_->submit(std::move(request)); }
void Scheduler::cancel(RequestId id) { impl_->cancel(id); }
bool Scheduler::step() { return impl_->step(); }
bool Scheduler::wait(std::chrono::milliseconds longest) { return impl_->wait(longest); }
void Scheduler::clear_prefixes() { impl_->clear_prefixes(); }
SchedulerStats Scheduler::stats() const { return impl_->stats(); }

void Scheduler::run(const std::atomic<bool>* stop) {
  while ((stop == nullptr || !stop->load(std::memory_order_relaxed)) && step()) {
  }
}

}  // namespace carat::engine
