// Model weights between a checkpoint and the flat array of the tape.
#pragma once

#include <string>
#include <vector>

#include "model/load.h"
#include "train/parameters.h"

namespace carat::train {

// All parameters as floats, decoded from whatever type the checkpoint has.
std::vector<float> load_parameters(const model::Weights& weights, const ParameterLayout& layout);

// What goes beside the weights.
struct ModelTexts {
  std::string tokenizer_json, tokenizer_config_json;  // left out if empty
  std::string generation_config_json;
  int32_t bos = 2, pad = 0;  // for config.json
  std::vector<int32_t> eos;
};
// Gemma 4's own sampling defaults and this vocabulary's ids.
ModelTexts texts_for(const text::Vocab& vocab);

// Writes a Hugging Face directory: model.safetensors (bf16), config.json and the texts. Creates the
// directory; replaces files of the same names.
void write_hf_model(const std::string& folder, const model::Weights& shapes,
                    const ParameterLayout& layout, const float* values, const ModelTexts& texts);

}  // namespace carat::train
