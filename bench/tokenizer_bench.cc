// tokenizer_bench DIR: makes a tokenizer of the published size in DIR (once) and prints how fast it
// loads in both forms, how much memory that takes, and how fast it encodes and decodes.
//
// Every measurement runs in a process of its own, so that its peak resident memory is its own.
// Speeds of encode and decode are per second of processor time, the best of three.
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "io/gguf_reader.h"
#include "io/gguf_writer.h"
#include "model/load.h"
#include "text/tokenizer.h"
#include "tokenizer_vocab.h"

namespace carat::bench {
namespace {

// Of this process, which has one thread: other programs on the machine do not count.
double processor_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

double wall_seconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

void write_file(const std::string& path, const std::string& text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

void write_gguf(const std::string& path, const text::Vocab& vocab) {
  std::vector<std::string> pieces, merges;
  std::vector<int32_t> types;
  for (int32_t id = 0; id < vocab.size(); ++id) {
    pieces.emplace_back(vocab.piece(id));
    types.push_back(static_cast<int32_t>(text::gguf_token_type(vocab, id)));
  }
  for (const text::Vocab::Merge& m : vocab.merges) {
    merges.push_back(std::string(vocab.piece(m.left)) + " " + std::string(vocab.piece(m.right)));
  }
  io::GgufFields fields;
  fields.add_string("general.architecture", "gemma4");
  fields.add_string("tokenizer.ggml.model", "gemma4");
  fields.add_strings("tokenizer.ggml.tokens", pieces);
  fields.add_f32s("tokenizer.ggml.scores", std::vector<float>(pieces.size(), -1000.0f));
  fields.add_i32s("tokenizer.ggml.token_type", types);
  fields.add_strings("tokenizer.ggml.merges", merges);
  io::GgufWriter(path, fields, {}).finish();
}

void generate(const std::string& dir) {
  const GeneratedVocab generated = generate_vocab(1, 16 << 20);
  std::filesystem::create_directories(dir);
  write_file(dir + "/sample.txt", generated.sample);
  write_gguf(dir + "/tokenizer.gguf", generated.vocab);
  write_file(dir + "/tokenizer.json", text::to_tokenizer_json(generated.vocab));
}

double peak_megabytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024 / 1e6;
}

void load(const std::string& dir, bool gguf) {
  const std::string path = dir + (gguf ? "/tokenizer.gguf" : "/tokenizer.json");
  const double wall = wall_seconds(), processor = processor_seconds();
  const text::Tokenizer tokenizer(gguf ? model::vocab_from_gguf(io::GgufFile(path).metadata())
                                       : text::read_tokenizer_json(path));
  fmt::print(
      "load {:<14} {:6.3f} s, {:6.3f} s of processor   peak resident {:4.0f} MB   file {:.1f} MB, "
      "{} "
      "tokens, {} merges\n",
      gguf ? "tokenizer.gguf" : "tokenizer.json", wall_seconds() - wall,
      processor_seconds() - processor, peak_megabytes(),
      static_cast<double>(std::filesystem::file_size(path)) / 1e6, tokenizer.vocab().size(),
      tokenizer.vocab().merges.size());
}

void encode(const text::Tokenizer& tokenizer, const char* name, const std::string& text) {
  double best = 1e9;
  std::vector<int32_t> ids;
  for (int round = 0; round < 3; ++round) {
    ids.clear();
    const double start = processor_seconds();
    tokenizer.encode(text, &ids);
    best = std::min(best, processor_seconds() - start);
  }
  const auto bytes = static_cast<double>(text.size());
  fmt::print("encode {:<34} {:7.1f} MB/s  {:7.3f} s   {:.2f} bytes/token\n", name,
             bytes / best / 1e6, best, bytes / static_cast<double>(ids.size()));
  double decode = 1e9;
  for (int round = 0; round < 3; ++round) {
    const double start = processor_seconds();
    if (tokenizer.decode_bytes(ids) != text) throw Error("the text changed");
    decode = std::min(decode, processor_seconds() - start);
  }
  fmt::print("decode {:<34} {:7.1f} MB/s\n", name, bytes / decode / 1e6);
}

void speed(const std::string& dir) {
  const text::Tokenizer tokenizer(text::read_tokenizer_json(dir + "/tokenizer.json"));
  const std::string sample = read_text_file(dir + "/sample.txt", 1 << 30);
  encode(tokenizer, "English-like, 16 MiB", sample);
  encode(tokenizer, "the first 2 KiB of it", sample.substr(0, 2048));
  std::string no_space;
  for (char c : sample.substr(0, 1 << 20)) {
    if (c >= 'a' && c <= 'z') no_space += c;
  }
  encode(tokenizer, "its letters alone, one word", no_space);
  encode(tokenizer, "1 MiB of one letter", std::string(1 << 20, 'a'));
  encode(tokenizer, "1 MiB of newlines", std::string(1 << 20, '\n'));
}

// Runs f in a child process; false if it failed.
bool apart(const std::function<void()>& f) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    int code = 0;
    try {
      f();
    } catch (const std::exception& e) {
      fmt::print(stderr, "tokenizer_bench: {}\n", e.what());
      code = 1;
    }
    std::fflush(stdout);
    _exit(code);
  }
  int status = 1;
  return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

int run(const std::string& dir) {
  const bool made = std::filesystem::exists(dir + "/tokenizer.json");
  bool good = made || apart([&] { generate(dir); });
  good = good && apart([&] { load(dir, false); });
  good = good && apart([&] { load(dir, true); });
  good = good && apart([&] { speed(dir); });
  return good ? 0 : 1;
}

}  // namespace
}  // namespace carat::bench

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: tokenizer_bench DIR\n");
    return 2;
  }
  return carat::bench::run(argv[1]);
}
