// Small checkpoints on disk, for tests: trained by either 4-bit rule, in either container.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/half.h"
#include "base/json.h"
#include "base/rng.h"
#include "io/safetensors_writer.h"
#include "model/config.h"
#include "model/tensors.h"
#include "quant/q4_0.h"
#include "text/vocab.h"

namespace carat::convert::testing {

// A folder of its own under the test's temporary directory, empty at first; another one in every
// process, as several may run the same test.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::string& name)
      : path_(std::filesystem::path(::testing::TempDir()) /
              ("carat_convert_" + name + "_" + std::to_string(::getpid()))) {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  // Names of everything below, sorted.
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& e : std::filesystem::recursive_directory_iterator(path_)) {
      names.push_back(std::filesystem::relative(e.path(), path_).string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  std::filesystem::path path_;
};

enum class Training { kSigned8, kAbsmax7, kNone };

// One block of 32 as the training rule leaves it, rounded to bfloat16.
inline void train_block(Training rule, float* w) {
  if (rule == Training::kSigned8) {
    quant::decode_block_q4_0(quant::encode_block_q4_0(w), w);
  } else if (rule == Training::kAbsmax7) {
    float largest = 0;
    for (int j = 0; j < 32; ++j) largest = std::max(largest, std::fabs(w[j]));
    const float d = to_float(to_bf16(largest / 7.0f));
    for (int j = 0; j < 32; ++j) {
      w[j] = d == 0 ? 0.0f : d * std::clamp(std::nearbyint(w[j] / d), -7.0f, 7.0f);
    }
  }
  for (int j = 0; j < 32; ++j) w[j] = to_float(to_bf16(w[j]));
}

// The values of a parameter: matrices follow the rule (the router and vectors never do).
inline std::vector<float> make_values(const model::Config& config, model::TensorRef ref,
                                      Training rule, Rng& rng) {
  std::vector<float> values(static_cast<size_t>(*element_count(model::shape_of(config, ref))));
  const bool keeps = model::row_of(ref.kind).cls == model::TensorClass::kKeep;
  for (float& v : values) {
    // Nearly normal, and fast: tests draw millions.
    const double x = 2 * (rng.uniform() + rng.uniform() + rng.uniform() - 1.5);
    v = static_cast<float>(keeps ? 1.0 + 0.1 * x : 0.03 * x);
    if (keeps) v = to_float(to_bf16(v));
  }
  if (keeps) return values;
  for (size_t i = 0; i + 32 <= values.size(); i += 32) train_block(rule, &values[i]);
  return values;
}

inline std::vector<std::byte> as_bf16(const std::vector<float>& values) {
  std::vector<std::byte> bytes(values.size() * 2);
  for (size_t i = 0; i < values.size(); ++i) {
    const BF16 v = to_bf16(values[i]);
    std::memcpy(&bytes[2 * i], &v, 2);
  }
  return bytes;
}

inline text::Vocab small_vocab() {
  text::VocabBuilder b;
  for (const char* piece : {"<pad>", "<eos>", "<bos>", "<unk>", "<mask>"}) {
    b.add_piece(piece, text::TokenType::kControl);
  }
  for (const char* piece : {"<|turn>", "<turn|>"}) b.add_piece(piece, text::TokenType::kControl);
  for (const char* piece : {"\xe2\x96\x81", "a", "b", "c", "\n", "ab",
                            "\xe2\x96\x81"
                            "ab"}) {
    b.add_piece(piece);
  }
  b.add_merge("a", "b");
  b.add_merge("\xe2\x96\x81", "ab");
  return b.finish();
}

struct HfCheckpoint {
  std::string folder;
  model::Config config;
  model::Naming naming = model::Naming::kHf;
  Training rule = Training::kSigned8;
  bool tokenizer = true;
  bool tower = false;  // a vision tower, and K and V of layers that share
  uint64_t seed = 1;
  // Called with every parameter's values before they are written.
  std::function<void(model::TensorRef, std::vector<float>&)> change;
};

inline void write_text(const std::string& path, const std::string& text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

inline void write_hf(const HfCheckpoint& c) {
  std::filesystem::create_directories(c.folder);
  struct Tensor {
    io::TensorSpec spec;
    std::vector<std::byte> bytes;
  };
  std::vector<Tensor> tensors;
  Rng rng(c.seed);
  const auto add = [&](const std::string& name, Shape shape, const std::vector<float>& values) {
    tensors.push_back({{name, DType::kBF16, std::move(shape)}, as_bf16(values)});
  };
  for (const model::TensorRef ref : model::required_tensors(c.config)) {
    std::vector<float> values = make_values(c.config, ref, c.rule, rng);
    if (c.change) c.change(ref, values);
    add(model::name_of(ref, c.naming), model::shape_of(c.config, ref), values);
  }
  if (c.tower) {
    add("model.vision_tower.encoder.layers.0.input_layernorm.weight", {8}, std::vector<float>(8));
    add("model.embed_vision.embedding_projection.weight", {4, 8}, std::vector<float>(32));
    const int64_t last = c.config.n_layers - 1;
    for (const auto kind : {model::TensorKind::kK, model::TensorKind::kKNorm}) {
      const model::TensorRef ref{kind, last};
      if (model::row_of(kind).presence(c.config, last) != model::Presence::kUnused) continue;
      add(model::name_of(ref, c.naming), model::shape_of(c.config, ref),
          make_values(c.config, ref, c.rule, rng));
    }
  }
  std::vector<io::TensorSpec> specs;
  for (const Tensor& t : tensors) specs.push_back(t.spec);
  const auto writer = io::write_safetensors_directory(c.folder, specs, int64_t{1} << 30);
  for (const Tensor& t : tensors) writer->write(t.spec.name, t.bytes);
  writer->finish();

  write_text(c.folder + "/config.json", to_json_text(model::config_to_hf(c.config), 2));
  write_text(c.folder + "/generation_config.json",
             R"({"do_sample": true, "temperature": 0.75, "top_k": 40, "top_p": 0.9,)"
             R"( "eos_token_id": [1, 6]})");
  if (!c.tokenizer) return;
  write_text(c.folder + "/tokenizer.json", text::to_tokenizer_json(small_vocab()));
  write_text(c.folder + "/tokenizer_config.json", text::to_tokenizer_config_json(small_vocab()));
  write_text(c.folder + "/chat_template.jinja", "{{ messages }} template");
}

}  // namespace carat::convert::testing
