// What a conversion will write: one item per tensor of the target, in the target's order.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "convert/coded_layout.h"
#include "convert/convert.h"
#include "convert/importance.h"
#include "convert/transcode.h"
#include "model/load.h"
#include "model/stored.h"
#include "model/tensors.h"

namespace carat::convert {

// Where the items come from. Owns nothing.
struct PlanSource {
  const model::Model* model = nullptr;
  const model::StoredTensors* stored = nullptr;
  const Json* hf_config = nullptr;         // config.json; null for GGUF files
  const Importance* importance = nullptr;  // null: all columns count alike
};

struct Item {
  enum class How : uint8_t {
    kTranscode,  // elements in another type, or copied
    kCodes,      // elements as codes
    kScales,     // the scales of those
    kLiteral,    // bytes that the plan knows
  } how = How::kTranscode;

  model::TensorRef ref{model::TensorKind::kCount, -1};  // kCount: not the text model's
  SourceTensor source;                                  // kLiteral: what it tells about
  std::string name;                                     // in the target
  Shape shape;                                          // in the target
  DType to = DType::kF32;                               // in the target's file
  bool is_matrix = false;                               // quantization may touch it
  bool judge = false;                                   // its blocks' lattice is wanted
  // Written as Q4_0 only while enough of its blocks lie on the lattice.
  bool conditional = false;
  bool may_round = false;  // that its weights change was asked for, or keeps the lattice
  std::string note;

  CodedLayout layout;              // kCodes, kScales
  std::string module;              // kCodes, kScales: the same for both
  std::vector<std::byte> literal;  // kLiteral

  int64_t target_bytes() const { return *byte_count(to, shape); }
  // Of the source, read for this item alone.
  int64_t source_bytes() const {
    return how == How::kTranscode || how == How::kCodes ? source.bytes() : 0;
  }
  DType element_type() const { return how == How::kCodes ? layout.codes : to; }
};

// What a target is, besides its items.
struct Plan {
  std::vector<Item> items;
  model::Config config;  // of the target
  model::Naming naming = model::Naming::kGguf;
  std::vector<CodedModule> modules;  // that are coded
  std::vector<std::string> kept;     // modules that a reader must not take for coded ones
  Losses losses;                     // known before anything is read
};

std::optional<CodedKind> coded_kind(Format format);

// Every tensor that the model computes with, in the order of the model's table, with the type that
// the format gives it; in a directory that comes from a directory, other tensors too. Throws Error
// if the format would lose what was not accepted.
Plan make_plan(const PlanSource& source, const ConvertOptions& options);
// Of a directory.
Plan make_hf_plan(const PlanSource& source, const ConvertOptions& options);

// Throws Error, naming the flag, unless the loss was accepted; else notes it in the plan.
void require_accepted(Loss loss, const std::string& what, const ConvertOptions& options,
                      Losses* happened);

// The type of a matrix that does not become Q4_0: its own, or BF16 for codes.
DType kept_type(DType source);

// Turns a conditional item into one that keeps its weights, with a note that says why.
void keep(Item& item, const LatticeStats& so_far, bool sampled);

// Blocks of the item that may lie off the lattice before it is kept.
int64_t allowed_off_lattice(const Item& item, const ConvertOptions& options);

// config.json of a directory: the source's own with its unknown keys, or a text-only one.
Json target_config(const PlanSource& source, const Plan& plan, const ConvertOptions& options);

}  // namespace carat::convert
