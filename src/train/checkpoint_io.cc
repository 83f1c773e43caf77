#include "train/checkpoint_io.h"

#include <filesystem>
#include <system_error>

#include "base/error.h"
#include "io/safetensors_writer.h"
#include "quant/float_rows.h"
#include "quant/scheme.h"

namespace carat::train {
namespace {

void write_text(const std::string& folder, const char* name, const std::string& text) {
  if (text.empty()) return;
  AtomicFile file((std::filesystem::path(folder) / name).string());
  file.write(text);
  file.commit();
}

}  // namespace

std::vector<float> load_parameters(const model::Weights& weights, const ParameterLayout& layout) {
  std::vector<float> values(static_cast<size_t>(layout.total()), 0.0f);
  std::vector<std::byte> row;
  for (size_t id = 0; id < weights.all.size(); ++id) {
    const kernels::Weight& w = weights.all[id];
    float* to = values.data() + layout[static_cast<int64_t>(id)].offset;
    const int64_t size = w.row_size();
    for (int64_t r = 0; r < w.count * w.rows; ++r, to += w.cols) {
      const std::byte* from = w.data ? w.data + r * size : nullptr;
      if (!from) {
        CHECK(w.file);
        row.resize(static_cast<size_t>(size));
        w.file->read(w.file_offset + r * size, row);
        from = row.data();
      }
      quant::decode_row(w.dtype, from, to, w.cols);
    }
  }
  return values;
}

ModelTexts texts_for(const text::Vocab& vocab) {
  Json generation;
  generation["bos_token_id"] = vocab.special.bos;
  generation["eos_token_id"] = vocab.stop_ids;
  generation["pad_token_id"] = vocab.special.pad;
  generation["do_sample"] = true;
  generation["temperature"] = 1.0;
  generation["top_k"] = 64;
  generation["top_p"] = 0.95;
  return {text::to_tokenizer_json(vocab),
          text::to_tokenizer_config_json(vocab),
          to_json_text(generation, 2) + "\n",
          vocab.special.bos,
          vocab.special.pad,
          vocab.stop_ids};
}

void write_hf_model(const std::string& folder, const model::Weights& shapes,
                    const ParameterLayout& layout, const float* values, const ModelTexts& texts) {
  std::error_code code;
  std::filesystem::create_directories(folder, code);
  if (code) throw Error({"cannot create the directory", folder, {}, {}, code.message(), {}});

  std::vector<io::TensorSpec> specs;
  for (const model::TensorRef& ref : shapes.refs) {
    specs.push_back({model::hf_name(ref), DType::kBF16, model::shape_of(shapes.config, ref)});
  }
  const auto writer =
      io::write_safetensors((std::filesystem::path(folder) / "model.safetensors").string(), specs);
  std::vector<std::byte> bytes;
  for (size_t id = 0; id < shapes.refs.size(); ++id) {
    const auto& e = layout[static_cast<int64_t>(id)];
    bytes.resize(static_cast<size_t>(e.size) * 2);
    quant::encode_bf16(values + e.offset, nullptr, bytes.data(), e.size);
    writer->write(specs[id].name, bytes);
  }
  writer->finish();
  Json config = model::config_to_hf(shapes.config);
  config["bos_token_id"] = texts.bos;
  config["eos_token_id"] = texts.eos;
  config["pad_token_id"] = texts.pad;
  write_text(folder, "config.json", to_json_text(config, 2) + "\n");
  write_text(folder, "tokenizer.json", texts.tokenizer_json);
  write_text(folder, "tokenizer_config.json", texts.tokenizer_config_json);
  write_text(folder, "generation_config.json", texts.generation_config_json);
}

}  // namespace carat::train
