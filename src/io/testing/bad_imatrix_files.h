// The table of bad_files.h for importance matrices, both kinds.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "io/testing/bad_files.h"
#include "io/testing/bad_gguf_files.h"

namespace carat::io::testing {

// An entry of the binary file: a name, a number of chunks, values.
inline Bytes imatrix_entry(const std::string& name, uint32_t chunks, std::vector<float> values) {
  Bytes b;
  b.u32(static_cast<uint32_t>(name.size())).raw(name).u32(chunks);
  b.u32(static_cast<uint32_t>(values.size()));
  for (const float v : values) b.f32(v);
  return b;
}

struct ImatrixTensor {
  std::string name;
  std::vector<uint64_t> ne;  // fastest first
  std::vector<float> values;
};

// A GGUF file with the keys that llama.cpp asks for.
inline std::string imatrix_gguf(const std::vector<ImatrixTensor>& tensors,
                                const std::string& type = "imatrix") {
  Bytes b = gguf_start(tensors.size(), 4);
  b.str("general.type").u32(kTypeString).str(type);
  b.str("imatrix.datasets").u32(kTypeArray).u32(kTypeString).u64(1).str("a.txt");
  b.str("imatrix.chunk_count").u32(kTypeU32).u32(3);
  b.str("imatrix.chunk_size").u32(kTypeU32).u32(512);
  uint64_t offset = 0;
  for (const ImatrixTensor& t : tensors) {
    b.str(t.name).u32(static_cast<uint32_t>(t.ne.size()));
    for (const uint64_t d : t.ne) b.u64(d);
    b.u32(0).u64(offset);
    offset += (t.values.size() * 4 + 31) / 32 * 32;
  }
  b.align(32);
  for (const ImatrixTensor& t : tensors) {
    for (const float v : t.values) b.f32(v);
    b.align(32);
  }
  return b;
}

inline std::string sound_imatrix_gguf() {
  return imatrix_gguf({{"blk.0.ffn_down.weight.in_sum2", {3, 1}, {1, 2, 3}},
                       {"blk.0.ffn_down.weight.counts", {1, 1}, {4}},
                       {"blk.0.ffn_up_exps.weight.in_sum2", {2, 2}, {1, 2, 0, 0}},
                       {"blk.0.ffn_up_exps.weight.counts", {1, 2}, {4, 0}}});
}

inline std::string sound_imatrix_dat() {
  return Bytes()
      .u32(2)
      .raw(imatrix_entry("b", 2, {2, 4, 6}))
      .raw(imatrix_entry("a", 3, {3, 0}))
      .u32(3)
      .u32(5)
      .raw("a.txt");
}

inline std::vector<BadFile> bad_imatrix_files() {
  std::vector<BadFile> out;
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto dat = [](uint32_t n, const Bytes& rest) { return Bytes().u32(n).raw(rest); };
  out.push_back({"dat_sound", sound_imatrix_dat(), ""});
  out.push_back({"dat_without_chunks", dat(1, imatrix_entry("a", 1, {1})), ""});
  out.push_back({"dat_without_dataset", dat(1, imatrix_entry("a", 1, {1}).u32(7)), ""});
  out.push_back({"dat_empty", "", "the file ends inside the number of entries"});
  out.push_back({"dat_no_entries", dat(0, Bytes().zeros(40)), "the number of entries is out of"});
  out.push_back({"dat_negative_entries", dat(~0u, Bytes().zeros(40)), "the number of entries"});
  out.push_back({"dat_more_entries_than_bytes", dat(1 << 30, imatrix_entry("a", 1, {1})),
                 "the number of entries is out of range; expected 1 to 1"});
  out.push_back({"dat_entry_missing", dat(2, imatrix_entry("a", 1, {1, 2, 3, 4, 5, 6})),
                 "the file ends inside the length of a name"});
  out.push_back({"dat_name_empty", dat(1, imatrix_entry("", 1, {1, 2})), "the length of a name"});
  out.push_back({"dat_name_huge", dat(1, Bytes().u32(0x7fffffff).zeros(30)),
                 "the length of a name is out of range"});
  out.push_back({"dat_name_negative", dat(1, Bytes().u32(~0u).zeros(30)), "the length of a name"});
  out.push_back({"dat_name_control", dat(1, imatrix_entry("a\n", 1, {1})), "entry \"a\\x0a\""});
  out.push_back({"dat_chunks_negative", dat(1, imatrix_entry("a", ~0u, {1})),
                 "a number of chunks is out of range"});
  out.push_back({"dat_no_values", dat(1, imatrix_entry("a", 1, {}).zeros(8)),
                 "a number of values is out of range"});
  out.push_back({"dat_values_huge",
                 dat(1, Bytes().u32(1).raw("a").u32(1).u32(0x7fffffff).zeros(16)),
                 "the file ends inside the values of an entry"});
  out.push_back({"dat_value_nan", dat(1, imatrix_entry("a", 1, {1, nan})), "at 1"});
  out.push_back({"dat_value_negative", dat(1, imatrix_entry("a", 1, {-1})), "is negative"});
  out.push_back({"dat_twice", dat(2, imatrix_entry("a", 1, {1}).raw(imatrix_entry("a", 1, {1}))),
                 "an entry appears twice"});
  out.push_back({"dat_dataset_cut", dat(1, imatrix_entry("a", 1, {1}).u32(1).u32(9).raw("abc")),
                 "the file ends inside the length of the dataset"});
  out.push_back({"dat_goes_on", sound_imatrix_dat() + "x", "goes on behind its end"});

  out.push_back({"gguf_sound", sound_imatrix_gguf(), ""});
  out.push_back({"gguf_model", imatrix_gguf({}, "model"), "not an importance matrix"});
  out.push_back({"gguf_without_type", gguf_start(0, 0), "not an importance matrix"});
  out.push_back({"gguf_empty", imatrix_gguf({}), "the importance matrix is empty"});
  out.push_back({"gguf_no_counts", imatrix_gguf({{"a.in_sum2", {2}, {1, 2}}}), "\"a.counts\""});
  out.push_back({"gguf_no_sums", imatrix_gguf({{"a.counts", {1}, {1}}}), "\"a.in_sum2\""});
  out.push_back({"gguf_sums_of_other_size",
                 imatrix_gguf({{"a.in_sum2", {3}, {1, 2, 3}}, {"a.counts", {1, 2}, {1, 2}}}),
                 "a multiple of 2 sums"});
  out.push_back({"gguf_more_counts_than_sums",
                 imatrix_gguf({{"a.in_sum2", {1}, {1}}, {"a.counts", {1, 2}, {1, 2}}}),
                 "a multiple of 2 sums"});
  out.push_back({"gguf_sum_infinite",
                 imatrix_gguf({{"a.in_sum2", {1}, {inf}}, {"a.counts", {1}, {1}}}),
                 "a sum is negative or not finite"});
  out.push_back({"gguf_count_negative",
                 imatrix_gguf({{"a.in_sum2", {1}, {1}}, {"a.counts", {1}, {-1}}}),
                 "a count is negative or not finite"});
  out.push_back({"gguf_names_of_suffixes",
                 imatrix_gguf({{".in_sum2", {1}, {1}}, {".counts", {1}, {1}}}), "is empty"});
  out.push_back({"gguf_of_bytes",
                 [] {
                   std::string s = imatrix_gguf({{"a.counts", {1}, {1}}});
                   s.replace(s.rfind("a.counts") + 8 + 4 + 8, 4, std::string("\x1e\0\0\0", 4));
                   return s;
                 }(),
                 "expected F32, got BF16"});
  return out;
}

}  // namespace carat::io::testing
