// The logits that llama-perplexity reads, appended to the file that CARAT_DUMP names, as it reads
// them: linked into the tool with -Wl,--wrap=llama_get_logits_ith.
#include <cstdio>
#include <cstdlib>

#include "llama.h"

extern "C" float* __real_llama_get_logits_ith(llama_context* context, int32_t i);

extern "C" float* __wrap_llama_get_logits_ith(llama_context* context, int32_t i) {
  float* const logits = __real_llama_get_logits_ith(context, i);
  const char* const path = std::getenv("CARAT_DUMP");
  const char* const length = std::getenv("CARAT_CONTEXT");
  if (path && length) {
    const size_t n = std::strtoul(length, nullptr, 10);
    const size_t vocab = llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(context)));
    std::FILE* const file = std::fopen(path, "ab");
    if (!file || std::fwrite(logits, 4 * vocab, n - 1 - n / 2, file) != n - 1 - n / 2) std::abort();
    std::fclose(file);
  }
  return logits;
}
