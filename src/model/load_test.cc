#include "model/load.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <functional>

#include "base/error.h"
#include "base/file.h"
#include "io/gguf_writer.h"
#include "io/safetensors_writer.h"
#include "model/random_tensor.h"
#include "model/testing/run_forward.h"

namespace carat::model {
namespace {

namespace fs = std::filesystem;

// What a GGUF file says about `c`, key by key, so that a test can change one of them.
struct Fields {
  explicit Fields(const Config& c) {
    for (int64_t i = 0; i < c.n_layers; ++i) {
      const LayerConfig l = c.layer(i);
      local.push_back(!l.is_global);
      kv_heads.push_back(static_cast<int32_t>(l.n_kv_heads));
      ffn.push_back(static_cast<int32_t>(l.ffn_dim));
    }
    const auto set = [&](const char* key, int64_t v) { ints[key] = static_cast<uint32_t>(v); };
    set("block_count", c.n_layers);
    set("context_length", c.max_seq_len);
    set("embedding_length", c.dim);
    set("attention.head_count", c.n_heads);
    set("attention.key_length", c.head_dim_global);
    set("attention.value_length", c.head_dim_global);
    set("attention.key_length_swa", c.head_dim_local);
    set("attention.value_length_swa", c.head_dim_local);
    set("attention.sliding_window", c.window);
    set("attention.shared_kv_layers", c.n_kv_shared_layers);
    set("embedding_length_per_layer_input", c.ple_dim);
    if (c.has_experts()) {
      set("expert_count", c.n_experts);
      set("expert_used_count", c.n_experts_active);
      set("expert_feed_forward_length", c.expert_ffn_dim);
    }
    freqs = rope_freqs(c);
  }

  std::string architecture = "gemma4";
  std::map<std::string, uint32_t> ints;
  std::vector<bool> local;
  std::vector<int32_t> kv_heads, ffn;
  std::vector<float> freqs;
  std::string tokenizer;  // tokenizer.ggml.model; empty: none
};

class Load : public ::testing::Test {
 protected:
  Load() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::path(::testing::TempDir()) / (std::string("carat_load_") + test->name());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~Load() override { fs::remove_all(folder_); }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  std::string write_gguf(const Config& c, const Fields& f, bool with_freqs = true) {
    io::GgufFields g;
    g.add_string("general.architecture", f.architecture);
    for (const auto& [key, value] : f.ints) g.add_u32("gemma4." + key, value);
    g.add_i32s("gemma4.attention.head_count_kv", f.kv_heads);
    g.add_i32s("gemma4.feed_forward_length", f.ffn);
    g.add_bools("gemma4.attention.sliding_window_pattern", f.local);
    g.add_f32("gemma4.attention.layer_norm_rms_epsilon", 1e-6f);
    g.add_f32("gemma4.final_logit_softcapping", 30.0f);
    if (!f.tokenizer.empty()) {
      g.add_string("tokenizer.ggml.model", f.tokenizer);
      g.add_strings("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b"});
      g.add_i32s("tokenizer.ggml.token_type", std::vector<int32_t>{1, 1});
      g.add_strings("tokenizer.ggml.merges", std::vector<std::string>{});
    }
    std::vector<io::TensorSpec> specs;
    for (const TensorRef t : required_tensors(c)) {
      specs.push_back({gguf_name(t), DType::kF32, shape_of(c, t)});
    }
    if (with_freqs) {
      specs.push_back({kRopeFreqsName, DType::kF32, {static_cast<int64_t>(f.freqs.size())}});
    }
    const std::string file = path("model.gguf");
    io::GgufWriter writer(file, g, std::move(specs));
    write_tensors(writer, c, Naming::kGguf);
    if (with_freqs) writer.write(kRopeFreqsName, std::as_bytes(std::span(f.freqs)));
    writer.finish();
    return file;
  }

  void write_hf(const Config& c) {
    std::vector<io::TensorSpec> specs;
    for (const TensorRef t : required_tensors(c)) {
      specs.push_back({hf_name(t), DType::kF32, shape_of(c, t)});
    }
    const auto writer = io::write_safetensors_directory(folder_.string(), specs, 1 << 30);
    write_tensors(*writer, c, Naming::kHf);
    writer->finish();
    put("config.json", to_json_text(config_to_hf(c, "float32")));
  }

  void put(const std::string& name, const std::string& text) {
    AtomicFile f(path(name));
    f.write(text);
    f.commit();
  }

  static std::string error_of(const std::string& model) {
    try {
      (void)load_model(model);
      return "";
    } catch (const Error& e) {
      return e.what();
    }
  }

  fs::path folder_;

 private:
  static void write_tensors(io::TensorWriter& writer, const Config& c, Naming naming) {
    for (const TensorRef t : required_tensors(c)) {
      std::vector<std::byte> bytes(static_cast<size_t>(*byte_count(DType::kF32, shape_of(c, t))));
      RandomTensor(c, t, DType::kF32, 1).next(bytes);
      writer.write(name_of(t, naming), bytes);
    }
  }
};

TEST_F(Load, BothFormsOfAKindGiveTheSameBits) {
  const std::vector<int32_t> tokens = {2, 5, 9, 300, 17, 17, 4};
  for (const char* size : {"tiny", "tinykv", "tinymoe"}) {
    const Config c = config_of_size(size);
    const Model gguf = load_model(write_gguf(c, Fields(c)));
    EXPECT_EQ(gguf.config(), c) << size;
    EXPECT_EQ(gguf.tokenizer, nullptr);
    fs::remove(path("model.safetensors"));
    write_hf(c);
    const Model hf = load_model(folder_.string());
    EXPECT_EQ(hf.config(), c) << size;
    EXPECT_EQ(hf.generation.stop_ids, (std::vector<int32_t>{1, 106}));  // config.json's
    EXPECT_EQ(testing::run_forward(hf.weights, tokens, {}),
              testing::run_forward(gguf.weights, tokens, {}));
  }
}

// A header of odd length, as some programs write it: only who computes pays for a copy.
TEST_F(Load, FloatsAtOddPlacesAreCopiedOnlyToCompute) {
  const Config c = config_of_size("tinymoe");
  write_hf(c);
  const std::vector<int32_t> tokens = {2, 5, 9, 300, 17};
  const auto want = testing::run_forward(load_model(folder_.string()).weights, tokens, {});
  const std::string file = path("model.safetensors");
  std::string bytes = read_text_file(file, int64_t{1} << 30);
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), 8);
  bytes.insert(8 + header, " ");
  ++header;
  std::memcpy(bytes.data(), &header, 8);
  put("model.safetensors", bytes);
  const Model rows = load_model(folder_.string());
  EXPECT_EQ(mapped_bytes(rows.weights), 0);
  for (size_t i = 0; i < rows.weights.all.size(); ++i) {
    const bool is_vector = shape_of(c, rows.weights.refs[i]).size() == 1;
    EXPECT_EQ(rows.weights.all[i].data != nullptr, is_vector) << i;
  }
  const Model model = load_model(folder_.string(), {.pack = true, .packing = {}});
  EXPECT_EQ(testing::run_forward(model.weights, tokens, {}), want);
}

TEST_F(Load, MalformedGgufIsRefused) {
  Config c = config_of_size("tiny");
  c.vocab_size = c.ple_vocab_size = 32;
  c.ple_dim = c.ffn_dim = 32;
  const std::vector<std::pair<std::function<void(Fields&)>, const char*>> edits = {
      {[](Fields& f) { f.architecture = "llama"; }, "general.architecture"},
      {[](Fields& f) { f.architecture = "gemma4-assistant"; }, "drafter"},
      {[](Fields& f) { f.ints.erase("block_count"); }, "block_count"},
      {[](Fields& f) { f.ints["block_count"] = 7; }, "7"},
      {[](Fields& f) { f.ints["block_count"] = 4000000000; }, "block_count"},
      {[](Fields& f) { f.ints["embedding_length"] = 255; }, "255"},
      {[](Fields& f) { f.ints["attention.head_count"] = 0; }, "head_count"},
      {[](Fields& f) { f.ints["attention.value_length"] = 32; }, "value_length"},
      {[](Fields& f) { f.ints["attention.shared_kv_layers"] = 6; }, "shared_kv_layers"},
      {[](Fields& f) { f.ints["attention.sliding_window"] = 0; }, "sliding_window"},
      {[](Fields& f) { f.kv_heads[1] = 2; }, "head_count_kv"},
      {[](Fields& f) { f.kv_heads.pop_back(); }, "head_count_kv"},
      {[](Fields& f) { f.ffn[1] = 30; }, "feed_forward_length"},
      {[](Fields& f) { f.local.push_back(true); }, "sliding_window_pattern"},
      {[](Fields& f) { f.local.back() = true; }, "layer"},
      {[](Fields& f) { f.freqs[1] = 3.0f; }, "rope_freqs"},
      {[](Fields& f) { f.freqs.pop_back(); }, "rope_freqs"},
      {[](Fields& f) { f.tokenizer = "llama"; }, "tokenizer.ggml.model"},
  };
  for (size_t i = 0; i < edits.size(); ++i) {
    Fields f(c);
    edits[i].first(f);
    const std::string message = error_of(write_gguf(c, f));
    EXPECT_NE(message.find(edits[i].second), std::string::npos) << i << ": " << message;
    EXPECT_NE(message.find("model.gguf"), std::string::npos) << i << ": " << message;
  }
  EXPECT_NE(error_of(write_gguf(c, Fields(c), false)).find("rope_freqs"), std::string::npos);
}

TEST_F(Load, PartOfThePairsTurns) {
  Config c = config_of_size("tinykv");
  c.partial_rotary_factor = 0.5f;
  EXPECT_EQ(load_model(write_gguf(c, Fields(c))).config(), c);
}

TEST_F(Load, HuggingFaceTextsAreChecked) {
  write_hf(config_of_size("tinykv"));
  const Json good = config_to_hf(config_of_size("tinykv"));
  const auto with_config = [&](const std::function<void(Json&)>& edit) {
    Json j = good;
    edit(j);
    put("config.json", to_json_text(j));
    const std::string message = error_of(folder_.string());
    put("config.json", to_json_text(good));
    return message;
  };
  EXPECT_NE(
      with_config([](Json& j) { j["quantization_config"]["quant_method"] = "gptq"; }).find("gptq"),
      std::string::npos);
  EXPECT_NE(with_config([](Json& j) { j["num_hidden_layers"] = 5; }).find("config.json"),
            std::string::npos);
  EXPECT_NE(with_config([](Json& j) { j["intermediate_size"] = 512; }).find("another shape"),
            std::string::npos);

  const auto with_generation = [&](const std::string& text) {
    put("generation_config.json", text);
    return error_of(folder_.string());
  };
  EXPECT_NE(with_generation(R"({"top_k": "many"})").find("top_k"), std::string::npos);
  EXPECT_NE(with_generation(R"({"top_p": 1.5})").find("top_p"), std::string::npos);
  EXPECT_NE(with_generation(R"({"eos_token_id": [1, 100000]})").find("100000"), std::string::npos);
  EXPECT_NE(with_generation(R"({"eos_token_id": [1.5]})").find("eos_token_id"), std::string::npos);
  put("generation_config.json",
      R"({"do_sample": false, "top_k": 5, "eos_token_id": 1, "suppress_tokens": [9, 8]})");
  const Model m = load_model(folder_.string());
  EXPECT_EQ(m.generation.temperature, 0);
  EXPECT_EQ(m.generation.top_k, 5);
  EXPECT_EQ(m.generation.stop_ids, std::vector<int32_t>{1});
  EXPECT_EQ(m.generation.suppress_ids, (std::vector<int32_t>{8, 9}));
  EXPECT_EQ(m.notes, std::vector<std::string>{"the checkpoint has no tokenizer"});

  fs::remove(path("config.json"));
  EXPECT_NE(error_of(path("model.safetensors")).find("config.json"), std::string::npos);
}

}  // namespace
}  // namespace carat::model
