// The tensors of a random checkpoint, for synth.cc.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "base/json.h"
#include "convert/coded_layout.h"
#include "convert/synth.h"
#include "io/tensor_writer.h"
#include "model/config.h"

namespace carat::convert {

// Takes the bytes of the tensor at hand; looks at options.stop and tells the progress.
using SynthSink = std::function<void(std::span<const std::byte>)>;

// One tensor: declared first, made when its turn comes.
struct SynthPiece {
  io::TensorSpec spec;
  std::function<void(const SynthSink&)> make;
};

inline constexpr int64_t kSynthWindow = int64_t{4} << 20;  // bytes made at a time

// The shape that the options ask for. Throws Error.
model::Config synth_config(const SynthOptions& options);

// A GGUF file's, or those of a directory of floats.
std::vector<SynthPiece> float_pieces(const SynthOptions& options, const model::Config& config);
Json float_config_json(const SynthOptions& options, const model::Config& config);

// A checkpoint of codes, in an order that keeps everything aligned; mobile kinds have K and V of
// layers that share them too, as published. REQUIRES: a config of coded_synth_config.
std::vector<SynthPiece> coded_pieces(const SynthOptions& options, const model::Config& config,
                                     CodedKind kind);
// With a separate output matrix if the kind has one. Throws Error if the kind has no form for it.
model::Config coded_synth_config(model::Config config, CodedKind kind);
// config.json: the multimodal form without towers.
Json coded_config_json(const model::Config& config, CodedKind kind);

}  // namespace carat::convert
