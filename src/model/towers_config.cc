// The towers' configs: out of config.json, out of an mmproj file, and the published ones.
#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "model/config.h"
#include "model/towers.h"

namespace carat::model {
namespace {

constexpr int64_t kMaxInt = int64_t{1} << 31;  // validate() knows the real limits
constexpr int64_t kMaxDim = int64_t{1} << 16;
constexpr int64_t kMaxLayers = 512;

void require_range(const char* name, int64_t value, int64_t lo, int64_t hi) {
  if (value >= lo && value <= hi) return;
  throw Error({"the towers' configuration is not usable", "", name, fmt::format("{} to {}", lo, hi),
               fmt::format("{}", value), "the file is damaged or describes another kind of model"});
}

void require_type(const Json& j, const char* place, const char* encoder, const char* unified,
                  bool* is_unified) {
  const std::string type = get_string(j, "model_type", encoder);
  *is_unified = type == unified;
  if (type == encoder || type == unified) return;
  throw Error({"carat does not know this variant of Gemma 4", "",
               std::string(place) + ".model_type", fmt::format("{} or {}", encoder, unified), type,
               ""});
}

void require_activation(const Json& j, const char* key, const std::string& expected) {
  const std::string got = get_string(j, key, expected);
  if (got == expected) return;
  throw Error({"carat does not know this variant of Gemma 4", "", key, expected, got, ""});
}

VisionConfig vision_from_hf(const Json& j) {
  VisionConfig v;
  require_type(j, "vision_config", "gemma4_vision", "gemma4_unified_vision", &v.unified);
  v.patch = get_int(j, "patch_size", 1, kMaxInt, 16);
  v.pooling = get_int(j, "pooling_kernel_size", 1, kMaxInt, 3);
  v.norm_eps = static_cast<float>(get_number(j, "rms_norm_eps", 0, 1, 1e-6));
  if (v.unified) {
    v.dim = get_int(j, "mm_embed_dim", 1, kMaxInt, 3840);
    v.n_positions = get_int(j, "mm_posemb_size", 1, kMaxInt, 1120);
    return v;
  }
  require_activation(j, "hidden_activation", "gelu_pytorch_tanh");
  v.dim = get_int(j, "hidden_size", 1, kMaxInt, 768);
  v.ffn_dim = get_int(j, "intermediate_size", 1, kMaxInt, 3072);
  v.n_layers = get_int(j, "num_hidden_layers", 1, kMaxInt, 16);
  v.n_heads = get_int(j, "num_attention_heads", 1, kMaxInt, 12);
  v.head_dim = get_int(j, "head_dim", 1, kMaxInt, 64);
  const int64_t n_kv_heads = get_int(j, "num_key_value_heads", 1, kMaxInt, v.n_heads);
  require_range("vision_config.num_key_value_heads", n_kv_heads, v.n_heads, v.n_heads);
  v.n_positions = get_int(j, "position_embedding_size", 1, kMaxInt, 10240);
  v.clipped = get_bool(j, "use_clipped_linears", false);
  v.standardized = get_bool(j, "standardize", false);
  if (const Json* rope = find(j, "rope_parameters")) {
    v.rope_theta = static_cast<float>(get_number(*rope, "rope_theta", 1, 1e12, 100));
  }
  return v;
}

AudioConfig audio_from_hf(const Json& j) {
  AudioConfig a;
  require_type(j, "audio_config", "gemma4_audio", "gemma4_unified_audio", &a.unified);
  a.norm_eps = static_cast<float>(get_number(j, "rms_norm_eps", 0, 1, 1e-6));
  if (a.unified) {
    a.dim = a.out_dim = get_int(j, "audio_embed_dim", 1, kMaxInt, 640);
    a.clipped = false;
    return a;
  }
  require_activation(j, "hidden_act", "silu");
  a.dim = get_int(j, "hidden_size", 1, kMaxInt, 1024);
  a.n_layers = get_int(j, "num_hidden_layers", 1, kMaxInt, 12);
  a.n_heads = get_int(j, "num_attention_heads", 1, kMaxInt, 8);
  if (const Json* channels = find(j, "subsampling_conv_channels")) {
    if (!channels->is_array() || channels->size() != 2 || !(*channels)[0].is_number_integer() ||
        !(*channels)[1].is_number_integer()) {
      throw Error({"carat does not know this variant of Gemma 4", "",
                   "audio_config.subsampling_conv_channels", "two numbers", channels->dump(), ""});
    }
    for (size_t i = 0; i < 2; ++i) a.conv_channels[i] = (*channels)[i].get<int64_t>();
  }
  a.n_mel_bins = get_int(j, "input_feat_size", 1, kMaxInt, 128);
  a.conv_kernel = get_int(j, "conv_kernel_size", 1, kMaxInt, 5);
  a.out_dim = get_int(j, "output_proj_dims", 1, kMaxInt, 1536);
  a.clipped = get_bool(j, "use_clipped_linears", true);
  a.chunk = get_int(j, "attention_chunk_size", 1, kMaxInt, 12);
  a.context_left = get_int(j, "attention_context_left", 0, kMaxInt, 13);
  a.context_right = get_int(j, "attention_context_right", 0, kMaxInt, 0);
  a.logit_cap = static_cast<float>(get_number(j, "attention_logit_cap", 0, 1e9, 50));
  a.residual_weight = static_cast<float>(get_number(j, "residual_weight", 0, 1e3, 0.5));
  return a;
}

double shortest(float v) { return std::stod(fmt::format("{}", v)); }

Json vision_to_hf(const VisionConfig& v) {
  Json j;
  j["model_type"] = v.unified ? "gemma4_unified_vision" : "gemma4_vision";
  j["patch_size"] = v.patch;
  j["pooling_kernel_size"] = v.pooling;
  j["rms_norm_eps"] = shortest(v.norm_eps);
  if (v.unified) {
    j["mm_embed_dim"] = j["output_proj_dims"] = v.dim;
    j["mm_posemb_size"] = v.n_positions;
    return j;
  }
  j["hidden_activation"] = "gelu_pytorch_tanh";
  j["hidden_size"] = v.dim;
  j["intermediate_size"] = v.ffn_dim;
  j["num_hidden_layers"] = v.n_layers;
  j["num_attention_heads"] = j["num_key_value_heads"] = v.n_heads;
  j["head_dim"] = v.head_dim;
  j["position_embedding_size"] = v.n_positions;
  j["use_clipped_linears"] = v.clipped;
  j["standardize"] = v.standardized;
  j["rope_parameters"] = {{"rope_theta", v.rope_theta}, {"rope_type", "default"}};
  return j;
}

Json audio_to_hf(const AudioConfig& a) {
  Json j;
  j["model_type"] = a.unified ? "gemma4_unified_audio" : "gemma4_audio";
  j["rms_norm_eps"] = shortest(a.norm_eps);
  if (a.unified) {
    j["audio_embed_dim"] = a.dim;
    return j;
  }
  j["hidden_act"] = "silu";
  j["hidden_size"] = a.dim;
  j["num_hidden_layers"] = a.n_layers;
  j["num_attention_heads"] = a.n_heads;
  j["subsampling_conv_channels"] = {a.conv_channels[0], a.conv_channels[1]};
  if (a.n_mel_bins != 128) j["input_feat_size"] = a.n_mel_bins;
  j["conv_kernel_size"] = a.conv_kernel;
  j["output_proj_dims"] = a.out_dim;
  j["use_clipped_linears"] = a.clipped;
  j["attention_chunk_size"] = a.chunk;
  j["attention_context_left"] = a.context_left;
  j["attention_context_right"] = a.context_right;
  j["attention_logit_cap"] = a.logit_cap;
  j["residual_weight"] = a.residual_weight;
  return j;
}

// -- mmproj files ---------------------------------------------------------------------------------

const Shape& shape_in(const io::TensorSource& tensors, const char* name, size_t dims) {
  const io::TensorEntry* entry = tensors.find(name);
  if (entry != nullptr && entry->shape.size() == dims) return entry->shape;
  throw Error({entry ? "a tensor has another number of dimensions than expected"
                     : "a required tensor is missing",
               "", std::string("tensor ") + name, fmt::format("{} dimensions", dims),
               entry ? to_string(entry->shape) : "", "the file is incomplete"});
}

[[noreturn]] void unknown_projector(const char* key, const char* expected, std::string_view got) {
  throw Error({"carat does not know these towers", "", key, expected, std::string(got),
               "carat knows only those of the Gemma 4 family"});
}

VisionConfig vision_from_gguf(const io::GgufMetadata& m, const io::TensorSource& tensors) {
  VisionConfig v;
  const std::string_view type = m.get_string("clip.vision.projector_type");
  if (type != "gemma4v" && type != "gemma4uv") {
    unknown_projector("clip.vision.projector_type", "gemma4v or gemma4uv", type);
  }
  v.unified = type == "gemma4uv";
  v.dim = m.get_int("clip.vision.embedding_length", 1, kMaxInt);
  v.patch = m.get_int("clip.vision.patch_size", 1, kMaxInt);
  v.pooling = m.get_int("clip.vision.projector.scale_factor", 1, kMaxInt, 3);
  v.norm_eps =
      static_cast<float>(m.get_number("clip.vision.attention.layer_norm_epsilon", 0, 1, 1e-6));
  v.n_positions = shape_in(tensors, "v.position_embd.weight", 3)[1];
  if (v.unified) return v;
  v.ffn_dim = m.get_int("clip.vision.feed_forward_length", 1, kMaxInt);
  v.n_layers = m.get_int("clip.vision.block_count", 1, kMaxInt);
  v.n_heads = m.get_int("clip.vision.attention.head_count", 1, kMaxInt);
  v.head_dim = shape_in(tensors, "v.blk.0.attn_q_norm.weight", 1)[0];
  v.clipped = tensors.find("v.blk.0.attn_q.input_min") != nullptr;
  v.standardized = tensors.find("v.std_bias") != nullptr;
  return v;
}

AudioConfig audio_from_gguf(const io::GgufMetadata& m, const io::TensorSource& tensors) {
  AudioConfig a;
  const std::string_view type = m.get_string("clip.audio.projector_type");
  if (type != "gemma4a" && type != "gemma4ua") {
    unknown_projector("clip.audio.projector_type", "gemma4a or gemma4ua", type);
  }
  a.unified = type == "gemma4ua";
  a.dim = m.get_int("clip.audio.embedding_length", 1, kMaxInt);
  a.out_dim = a.dim;
  a.clipped = tensors.find("a.blk.0.attn_q.input_min") != nullptr;
  if (a.unified) return a;
  a.n_layers = m.get_int("clip.audio.block_count", 1, kMaxInt);
  a.n_heads = m.get_int("clip.audio.attention.head_count", 1, kMaxInt);
  a.n_mel_bins = m.get_int("clip.audio.num_mel_bins", 1, kMaxInt, 128);
  for (size_t i = 0; i < 2; ++i) {
    const char* name = i == 0 ? "a.conv1d.0.weight" : "a.conv1d.1.weight";
    a.conv_channels[i] = shape_in(tensors, name, 4)[0];
  }
  a.conv_kernel = shape_in(tensors, "a.blk.0.conv_dw.weight", 2)[1];
  a.out_dim = shape_in(tensors, "a.pre_encode.out.weight", 2)[0];
  return a;  // the epsilon in the file is often wrong
}

// -- published shapes -----------------------------------------------------------------------------

VisionConfig small_vision() {
  VisionConfig v;
  v.dim = 768;
  v.ffn_dim = 3072;
  v.n_layers = 16;
  v.n_heads = 12;
  v.head_dim = 64;
  v.n_positions = 10240;
  v.clipped = true;
  return v;
}

VisionConfig large_vision() {
  VisionConfig v = small_vision();
  v.dim = 1152;
  v.ffn_dim = 4304;
  v.n_layers = 27;
  v.n_heads = 16;
  v.head_dim = 72;
  v.clipped = false;
  v.standardized = true;
  return v;
}

VisionConfig unified_vision(int64_t dim, int64_t n_positions) {
  VisionConfig v;
  v.unified = true;
  v.dim = dim;
  v.n_positions = n_positions;
  return v;
}

AudioConfig conformer() {
  AudioConfig a;
  a.dim = 1024;
  a.n_layers = 12;
  a.n_heads = 8;
  a.out_dim = 1536;
  return a;
}

AudioConfig raw_audio(int64_t samples) {
  AudioConfig a;
  a.unified = true;
  a.dim = a.out_dim = samples;
  a.clipped = false;
  return a;
}

void make_tiny(TowersConfig& t) {
  t.vision = small_vision();
  t.vision->dim = 64;
  t.vision->ffn_dim = 96;
  t.vision->n_layers = 2;
  t.vision->n_heads = 2;
  t.vision->head_dim = 32;
  t.vision->n_positions = 160;
  t.audio = conformer();
  t.audio->dim = 64;
  t.audio->n_layers = 2;
  t.audio->n_heads = 2;
  t.audio->conv_channels[0] = 8;
  t.audio->conv_channels[1] = 4;
  t.audio->out_dim = 96;
}

}  // namespace

bool has_towers(const Json& config) {
  return find(config, "vision_config") != nullptr || find(config, "audio_config") != nullptr;
}

TowersConfig towers_from_hf(const Json& config) {
  if (!has_towers(config)) {
    throw Error({"the checkpoint has no vision or audio tower", "", "vision_config", "an object",
                 "none", "text-only checkpoints have none; open the multimodal one"});
  }
  TowersConfig t;
  const Json* text = find(config, "text_config");
  t.text_dim = get_int(text ? *text : config, "hidden_size", 1, kMaxInt);
  if (const Json* vision = find(config, "vision_config")) t.vision = vision_from_hf(*vision);
  if (const Json* audio = find(config, "audio_config")) t.audio = audio_from_hf(*audio);
  t.validate();
  return t;
}

Json towers_to_hf(const TowersConfig& config) {
  const bool unified =
      (config.vision && config.vision->unified) || (config.audio && config.audio->unified);
  Json j;
  j["architectures"] = {unified ? "Gemma4UnifiedForConditionalGeneration"
                                : "Gemma4ForConditionalGeneration"};
  j["model_type"] = unified ? "gemma4_unified" : "gemma4";
  j["dtype"] = "bfloat16";
  j["text_config"] = {{"hidden_size", config.text_dim},
                      {"model_type", unified ? "gemma4_unified_text" : "gemma4_text"}};
  j["vision_config"] = config.vision ? vision_to_hf(*config.vision) : Json();
  j["audio_config"] = config.audio ? audio_to_hf(*config.audio) : Json();
  return j;
}

TowersConfig towers_from_gguf(const io::GgufMetadata& m, const io::TensorSource& tensors) {
  const std::string_view architecture = m.get_string("general.architecture");
  if (architecture != "clip") {
    throw Error({"not a file of vision and audio towers", "", "general.architecture", "clip",
                 std::string(architecture), ""});
  }
  TowersConfig t;
  if (m.get_bool("clip.has_vision_encoder", false)) {
    t.vision = vision_from_gguf(m, tensors);
    t.text_dim = m.get_int("clip.vision.projection_dim", 1, kMaxInt);
  }
  if (m.get_bool("clip.has_audio_encoder", false)) {
    t.audio = audio_from_gguf(m, tensors);
    t.text_dim = m.get_int("clip.audio.projection_dim", 1, kMaxInt);
  }
  t.validate();
  return t;
}

TowersConfig towers_of_size(std::string_view name) {
  TowersConfig t;
  t.text_dim = config_of_size(name).dim;
  std::string lower(name);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (lower == "e2b" || lower == "e4b") {
    t.vision = small_vision();
    t.audio = conformer();
  } else if (lower == "12b") {
    t.vision = unified_vision(3840, 1120);
    t.audio = raw_audio(640);
  } else if (lower == "26b-a4b" || lower == "31b") {
    t.vision = large_vision();
  } else if (lower == "tinykv") {
    t.vision = unified_vision(64, 40);
    t.audio = raw_audio(640);  // llama.cpp knows no other number of samples
  } else {
    make_tiny(t);
  }
  return t;
}

void TowersConfig::validate() const {
  require_range("towers", (vision ? 1 : 0) + (audio ? 1 : 0), 1, 2);
  require_range("width of the text model", text_dim, 1, int64_t{1} << 20);
  if (vision) {
    require_range("width of the vision tower", vision->dim, 1, kMaxDim);
    require_range("patch size", vision->patch, 1, 256);
    require_range("pooling", vision->pooling, 1, 64);
    require_range("positions", vision->n_positions, 1, int64_t{1} << 20);
    if (!vision->unified) {
      require_range("feed-forward width of the vision tower", vision->ffn_dim, 1, kMaxDim);
      require_range("layers of the vision tower", vision->n_layers, 1, kMaxLayers);
      require_range("heads of the vision tower", vision->n_heads, 1, 4096);
      require_range("head size of the vision tower", vision->head_dim, 1, 4096);
    }
  }
  if (audio) {
    require_range("width of the audio tower", audio->dim, 1, kMaxDim);
    require_range("output width of the audio tower", audio->out_dim, 1, kMaxDim);
    if (!audio->unified) {
      require_range("layers of the audio tower", audio->n_layers, 1, kMaxLayers);
      require_range("heads of the audio tower", audio->n_heads, 1, audio->dim);
      require_range("mel bins", audio->n_mel_bins, 4, 4096);
      require_range("audio convolution channels", audio->conv_channels[0], 1, kMaxDim);
      require_range("audio convolution channels", audio->conv_channels[1], 1, kMaxDim);
      require_range("audio convolution kernel", audio->conv_kernel, 1, 64);
    }
  }
}

}  // namespace carat::model
