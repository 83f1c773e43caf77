// What llama-bench does not measure of llama.cpp: reading a prompt with the logits of every token,
// and decoding behind a long context without reading that context.
//
// For the second it reads 512 tokens, takes the sequence's state and gives it back with the rows of
// keys and values repeated until there are DEPTH of them: how fast a token is made does not depend
// on what they hold. Prints tokens a second, three times. K/V in f16, flash attention.
// How to build it beside llama.cpp: docs/performance.md.
//
//     llama_extra MODEL.gguf THREADS logits P
//     llama_extra MODEL.gguf THREADS depth N DEPTH...
#include <llama.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

constexpr int kRead = 512;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "llama_extra: %s\n", what);
  std::exit(1);
}

// A state's bytes, taken from the front and put at the end of another.
struct Bytes {
  const std::vector<uint8_t>& from;
  std::vector<uint8_t> to;
  size_t at = 0;

  const uint8_t* take(size_t n) {
    if (n > from.size() - at) fail("the state is shorter than its numbers say");
    at += n;
    return from.data() + at - n;
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)), sizeof(T));
    return value;
  }
  template <class T>
  void put(T value) {
    const auto* p = reinterpret_cast<const uint8_t*>(&value);
    to.insert(to.end(), p, p + sizeof(T));
  }
  template <class T>
  T copy() {
    const T value = number<T>();
    put(value);
    return value;
  }
};

// The rows of one cache, repeated: of the cache that keeps everything all `depth` of them, of the
// cache of the windows as many as it had, the last.
void repeat_cache(Bytes& b, uint32_t depth, bool windows) {
  if (b.copy<uint32_t>() != 1) fail("more than one stream");
  const auto had = b.number<uint32_t>();
  const uint32_t cells = windows ? had : depth;
  b.put(cells);
  b.take(size_t{had} * 3 * sizeof(int32_t));
  for (uint32_t i = 0; i < cells; ++i) {
    b.put(static_cast<int32_t>(depth - cells + i));  // position
    b.put(uint32_t{1});                              // sequences
    b.put(int32_t{0});
  }
  if (b.copy<uint32_t>() != 0) fail("values are transposed: no flash attention?");
  const auto layers = b.copy<uint32_t>();
  for (uint32_t side = 0; side < 2 * layers; ++side) {
    b.copy<int32_t>();  // type
    const auto row = b.copy<uint64_t>();
    const uint8_t* rows = b.take(row * had);
    for (uint32_t done = 0; done < cells;) {
      const uint32_t n = cells - done < had ? cells - done : had;
      b.to.insert(b.to.end(), rows, rows + row * n);
      done += n;
    }
  }
}

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double tokens_per_second(llama_context* context, int n) {
  llama_token token = 1000;
  if (llama_decode(context, llama_batch_get_one(&token, 1)) != 0) fail("decode");
  const auto begin = Clock::now();
  for (int i = 0; i < n; ++i) {
    token = 1000 + i;
    if (llama_decode(context, llama_batch_get_one(&token, 1)) != 0) fail("decode");
    llama_synchronize(context);
  }
  return n / seconds_since(begin);
}

llama_context* new_context(llama_model* model, int threads, uint32_t tokens) {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = tokens;
  params.n_threads = params.n_threads_batch = threads;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
  params.swa_full = false;
  llama_context* context = llama_init_from_model(model, params);
  if (!context) fail("cannot make a context");
  return context;
}

void read_with_logits(llama_model* model, int threads, int tokens) {
  llama_context* context = new_context(model, threads, tokens);
  llama_batch batch = llama_batch_init(tokens, 0, 1);
  batch.n_tokens = tokens;
  for (int i = 0; i < tokens; ++i) {
    batch.token[i] = 1000 + i;
    batch.pos[i] = i;
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = 0;
    batch.logits[i] = 1;
  }
  std::printf("logits of %d:", tokens);
  for (int r = 0; r < 4; ++r) {
    llama_memory_clear(llama_get_memory(context), true);
    const auto begin = Clock::now();
    if (llama_decode(context, batch) != 0) fail("prefill");
    llama_synchronize(context);
    if (r > 0) std::printf(" %.2f", tokens / seconds_since(begin));  // the first warms up
  }
  std::printf(" tokens/s\n");
  llama_batch_free(batch);
  llama_free(context);
}

// Puts `depth` tokens' keys and values where the first kRead are.
void deepen(llama_context* context, uint32_t depth) {
  std::vector<uint8_t> state(llama_state_seq_get_size(context, 0));
  state.resize(llama_state_seq_get_data(context, state.data(), state.size(), 0));
  Bytes b{state, {}};
  b.copy<uint32_t>();  // magic number
  b.copy<int32_t>();   // sequence
  repeat_cache(b, depth, false);
  repeat_cache(b, depth, true);
  if (b.at != state.size()) fail("the state is longer than its numbers say");
  llama_memory_clear(llama_get_memory(context), true);
  if (llama_state_seq_set_data(context, b.to.data(), b.to.size(), 0) != b.to.size()) {
    fail("llama.cpp refused the state");
  }
}

void decode_at_depth(llama_model* model, int threads, int n, uint32_t depth) {
  llama_context* context = new_context(model, threads, depth + kRead + 4 * (n + 1));
  std::vector<llama_token> tokens(kRead);
  for (int i = 0; i < kRead; ++i) tokens[i] = 1000 + i;
  if (llama_decode(context, llama_batch_get_one(tokens.data(), kRead)) != 0) fail("prefill");
  if (depth > kRead) deepen(context, depth);
  std::printf("depth %u:", depth > kRead ? depth : kRead);
  for (int r = 0; r < 3; ++r) std::printf(" %.2f", tokens_per_second(context, n));
  std::printf(" tokens/s\n");
  llama_free(context);
}

}  // namespace

int main(int argc, char** argv) {
  const bool logits = argc == 5 && std::strcmp(argv[3], "logits") == 0;
  if (!logits && (argc < 6 || std::strcmp(argv[3], "depth") != 0)) {
    fail("usage: llama_extra MODEL.gguf THREADS logits P | depth N DEPTH...");
  }
  const int threads = std::atoi(argv[2]), count = std::atoi(argv[4]);
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  llama_backend_init();
  llama_model* model = llama_model_load_from_file(argv[1], llama_model_default_params());
  if (!model) fail("cannot load the model");
  if (logits) read_with_logits(model, threads, count);
  for (int a = 5; a < argc; ++a) {
    decode_at_depth(model, threads, count, static_cast<uint32_t>(std::atoi(argv[a])));
  }
  llama_model_free(model);
}
