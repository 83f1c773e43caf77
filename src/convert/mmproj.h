// The vision and audio towers from one container to the other: a multimodal Hugging Face
// checkpoint to the GGUF file that llama.cpp's multimodal tool loads ("mmproj"), and back.
//
// Every value of a bfloat16 checkpoint survives the way there. On the way back the softplus of
// per_dim_scale is undone, which rounding to bfloat16 makes exact but for the last bit of very
// small scales; the report counts what it was.
#pragma once

#include <cstdint>
#include <string>

#include "convert/convert.h"
#include "io/checkpoint.h"
#include "model/towers.h"

namespace carat::convert {

// Whether it is an mmproj file, or a model directory that has towers and no text model.
bool is_towers_only(const io::Checkpoint& checkpoint);

// Writes `options.format`: mmproj-bf16 (a .gguf file) or hf-bf16 (a directory that holds only the
// towers). Throws Error, also for other formats.
ConvertReport convert_towers(const ConvertOptions& options, const io::Checkpoint& checkpoint);

// A random checkpoint of towers, in either container.
struct TowersSynthOptions {
  model::TowersConfig config;
  std::string name;    // for general.name
  std::string target;  // an mmproj .gguf file, or a directory
  bool gguf = true;
  uint64_t seed = 1;
};
// Tensors, parameters and bytes of tensors.
ConvertReport write_synthetic_towers(const TowersSynthOptions& options);

// One line for people: "vision: 16 layers of width 768; audio: 12 layers of width 1024".
std::string describe(const model::TowersConfig& config);

}  // namespace carat::convert
