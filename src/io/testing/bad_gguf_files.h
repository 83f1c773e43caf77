// The table of bad_files.h for GGUF.
#pragma once

#include <utility>

#include "io/testing/bad_files.h"

namespace carat::io::testing {

// Value types of the format.
enum : uint32_t { kTypeU32 = 4, kTypeBool = 7, kTypeString = 8, kTypeArray = 9, kTypeU64 = 10 };

inline Bytes gguf_start(uint64_t tensors, uint64_t keys) {
  return Bytes().raw("GGUF").u32(3).u64(tensors).u64(keys);
}

struct GgufTensorInfo {
  std::string name = "t";
  std::vector<uint64_t> ne = {32};  // fastest first
  uint32_t type = 0;
  uint64_t offset = 0;
};

// A file of these tensors without keys, with `data` bytes in its data section.
inline std::string gguf_with(const std::vector<GgufTensorInfo>& tensors, size_t data) {
  Bytes b = gguf_start(tensors.size(), 0);
  for (const GgufTensorInfo& t : tensors) {
    b.str(t.name).u32(static_cast<uint32_t>(t.ne.size()));
    for (const uint64_t d : t.ne) b.u64(d);
    b.u32(t.type).u64(t.offset);
  }
  return b.align(32).zeros(data);
}

inline std::string gguf_with(const GgufTensorInfo& tensor, size_t data) {
  return gguf_with(std::vector<GgufTensorInfo>{tensor}, data);
}

// A file of one key whose type and value are `rest`.
inline std::string gguf_with_key(const std::string& key, const Bytes& rest) {
  return gguf_start(0, 1).str(key).raw(rest);
}

// Keys of every type and two tensors; the last tensor's data end the file.
inline std::string sound_gguf() {
  Bytes b = gguf_start(2, 14);
  b.str("general.architecture").u32(kTypeString).str("gemma4");
  b.str("general.alignment").u32(kTypeU32).u32(64);
  b.str("a.u8").u32(0).u8(200);
  b.str("a.i8").u32(1).u8(200);
  b.str("a.u16").u32(2).u16(60000);
  b.str("a.i16").u32(3).u16(60000);
  b.str("a.i32").u32(5).u32(0xffffffff);
  b.str("a.f32").u32(6).f32(0.25f);
  b.str("a.bool").u32(kTypeBool).u8(1);
  b.str("a.u64").u32(kTypeU64).u64(1);
  b.str("a.i64").u32(11).u64(~uint64_t{0});
  b.str("a.f64").u32(12).zeros(8);
  b.str("a.strings").u32(kTypeArray).u32(kTypeString).u64(3).str("x").str("").str("yz");
  b.str("a.bools").u32(kTypeArray).u32(kTypeBool).u64(2).u8(0).u8(1);
  b.str("q").u32(2).u64(64).u64(2).u32(2).u64(0);  // Q4_0, 72 bytes
  b.str("f").u32(1).u64(3).u32(0).u64(128);        // F32, 12 bytes
  return b.align(64).zeros(128).zeros(12);
}

inline void add_bad_starts(std::vector<BadFile>& out) {
  const auto start = [](uint32_t version) { return Bytes().raw("GGUF").u32(version).zeros(16); };
  out.push_back({"empty", "", "the file ends inside the magic number"});
  out.push_back({"three_bytes", "GGU", "the file ends inside the magic number"});
  out.push_back({"magic_other", "GGML" + std::string(20, '\0'), "not a GGUF file"});
  out.push_back({"magic_alone", "GGUF", "the file ends inside the version"});
  out.push_back({"version_1", start(1), "unsupported GGUF version"});
  out.push_back({"version_2", start(2), "expected version 3, little-endian, got 2"});
  out.push_back({"version_4", start(4), "unsupported GGUF version"});
  out.push_back({"version_big_endian", start(0x03000000), "big-endian GGUF"});
  out.push_back({"tensor_count_negative", gguf_start(~uint64_t{0}, 0), "expected 0 to"});
  out.push_back({"tensor_count_huge", gguf_start(uint64_t{1} << 40, 0), "number of tensors"});
  out.push_back({"tensor_count_above_file", gguf_start(1000, 0), "too small for its tensors"});
  out.push_back({"key_count_negative", gguf_start(0, uint64_t{1} << 63), "number of keys"});
  out.push_back({"key_count_huge", gguf_start(0, uint64_t{1} << 32), "number of keys"});
  out.push_back({"key_count_above_file", gguf_start(0, 60000), "too small for its keys"});
  out.push_back({"key_count_one_too_many", gguf_start(0, 2).str("a").u32(0).u8(1).zeros(14),
                 "the name is empty"});
  out.push_back({"sound_empty", gguf_start(0, 0), ""});
  out.push_back({"sound_all_types", sound_gguf(), ""});
}

// What one part of a split model may not say; that the parts agree is for those who open them.
inline void add_bad_splits(std::vector<BadFile>& out) {
  const auto split = [](const Bytes& number, const Bytes& count, uint32_t tensors) {
    Bytes b = gguf_start(1, 3);
    b.str("split.no").raw(number).str("split.count").raw(count);
    b.str("split.tensors.count").u32(5).u32(tensors);
    return b.str("t").u32(1).u64(32).u32(0).u64(0).align(32).zeros(128);
  };
  const auto u16 = [](uint16_t v) { return Bytes().u32(2).u16(v); };
  out.push_back({"sound_split_part", split(u16(1), u16(3), 7), ""});
  out.push_back({"sound_split_in_one", split(u16(0), u16(1), 1), ""});
  out.push_back({"split_number_past_count", split(u16(3), u16(3), 7),
                 "key \"split.no\": the value is out of range; expected 0 to 2, got 3"});
  out.push_back({"sound_split_merged", split(u16(0), u16(0), 1), ""});
  out.push_back({"split_count_65535", split(u16(0), u16(65535), 7), "expected 0 to 1000"});
  out.push_back({"split_count_negative", split(u16(0), Bytes().u32(5).u32(~uint32_t{0}), 7),
                 "expected 0 to 1000, got -1"});
  out.push_back({"split_fewer_tensors", split(u16(0), u16(3), 0),
                 "key \"split.tensors.count\": the value is out of range"});
  out.push_back({"split_tensors_negative", split(u16(0), u16(3), ~uint32_t{0}),
                 "key \"split.tensors.count\": the value is out of range"});
  out.push_back({"split_number_missing", gguf_with_key("split.count", u16(3)),
                 "key \"split.no\": the key is missing"});
  out.push_back({"split_count_string",
                 gguf_with_key("split.count", Bytes().u32(kTypeString).str("2")),
                 "expected an integer, got string"});
}

inline void add_bad_keys(std::vector<BadFile>& out) {
  const auto u32 = [](uint32_t v) { return Bytes().u32(kTypeU32).u32(v); };
  const auto with_length = [](uint64_t n) {
    return gguf_start(0, 1).u64(n).raw("general.name").u32(kTypeU32).u32(1);
  };
  out.push_back({"key_length_wraps", with_length(~uint64_t{0}), "the length of a key"});
  out.push_back({"key_length_negative", with_length(uint64_t{1} << 63), "the length of a key"});
  out.push_back({"key_longer_than_file", with_length(5000), "the length of a key is too large"});
  out.push_back({"key_empty", gguf_with_key("", u32(1)), "the name is empty"});
  out.push_back({"key_with_nul", gguf_with_key(std::string("a\0b", 3), u32(1)), "a NUL byte"});
  out.push_back({"key_with_newline", gguf_with_key("a\nb", u32(1)), "a control character"});
  out.push_back({"key_not_utf8", gguf_with_key("a\xc0\x80", u32(1)), "not valid UTF-8"});
  out.push_back({"key_surrogate", gguf_with_key("a\xed\xa0\x80", u32(1)), "not valid UTF-8"});
  out.push_back({"key_twice", gguf_start(0, 2).str("k").raw(u32(1)).str("k").raw(u32(1)),
                 "key \"k\": a key appears twice"});
  out.push_back({"value_type_13", gguf_with_key("k", Bytes().u32(13).zeros(16)),
                 "unknown value type; expected 0 to 12, got 13"});
  out.push_back({"value_cut", gguf_with_key("k", Bytes().u32(kTypeU64).u32(1)),
                 "the file ends inside a value"});
  out.push_back({"bool_is_2", gguf_with_key("k", Bytes().u32(kTypeBool).u8(2)),
                 "a boolean is neither 0 nor 1"});
  out.push_back({"string_length_wraps",
                 gguf_with_key("k", Bytes().u32(kTypeString).u64(~uint64_t{0} - 7)),
                 "the length of a string value"});
  out.push_back({"string_longer_than_file",
                 gguf_with_key("k", Bytes().u32(kTypeString).u64(9).raw("12345678")),
                 "expected at most 8 bytes, got 9 bytes"});
  const auto alignment = [](const Bytes& value) {
    return gguf_with_key("general.alignment", value);
  };
  out.push_back({"alignment_0", alignment(u32(0)), "general.alignment"});
  out.push_back({"alignment_1", alignment(u32(1)), "expected 8 to 1048576, got 1"});
  out.push_back({"alignment_24", alignment(u32(24)), "not a power of two"});
  out.push_back({"alignment_2_mib", alignment(u32(2 << 20)), "out of range"});
  out.push_back({"alignment_2_to_31", alignment(u32(uint32_t{1} << 31)), "out of range"});
  out.push_back({"alignment_u64_wraps", alignment(Bytes().u32(kTypeU64).u64(uint64_t{1} << 63)),
                 "out of range"});
  out.push_back({"alignment_string", alignment(Bytes().u32(kTypeString).str("32")),
                 "expected an integer, got string"});
  out.push_back({"alignment_array", alignment(Bytes().u32(kTypeArray).u32(kTypeU32).u64(1).u32(32)),
                 "expected an integer, got array of 1 u32"});
  add_bad_splits(out);
}

inline void add_bad_arrays(std::vector<BadFile>& out) {
  const auto array = [](uint32_t type, uint64_t count) {
    return Bytes().u32(kTypeArray).u32(type).u64(count);
  };
  const auto add = [&](const char* name, const Bytes& value, const char* error) {
    out.push_back({name, gguf_with_key("tokenizer.ggml.tokens", value), error});
  };
  add("array_nested", array(kTypeArray, 1).u32(kTypeU32).u64(1).u32(7), "an array of arrays");
  add("array_type_13", array(13, 1).zeros(16), "unknown value type");
  add("array_count_wraps", array(kTypeU32, (uint64_t{1} << 62) + 1).zeros(16),
      "longer than the file");
  add("array_count_negative", array(kTypeU32, ~uint64_t{0}).zeros(16), "longer than the file");
  add("array_longer_than_file", array(kTypeU32, 5).zeros(16), "expected at most 4 elements");
  add("array_strings_longer_than_file", array(kTypeString, 3).str("a").u32(0),
      "the array is longer than the file");
  add("array_string_length_wraps", array(kTypeString, 2).str("a").u64(~uint64_t{0}),
      "the length of a string of an array");
  add("array_string_cut", array(kTypeString, 1).u64(9).raw("12345678"),
      "the length of a string of an array");
  add("array_bool_is_3", array(kTypeBool, 3).u8(0).u8(1).u8(3), "a boolean is neither");
  // 160 bytes that ask for 2^31 strings, 16 GiB of views.
  Bytes hostile = gguf_start(0, 1).str("tokenizer.ggml.tokens");
  hostile.raw(array(kTypeString, uint64_t{1} << 31));
  hostile.zeros(160 - hostile.size());
  out.push_back({"hostile_160_strings", hostile, "the array is longer than the file"});
  Bytes floats = gguf_start(0, 1).str("tokenizer.ggml.scores");
  floats.raw(array(6, uint64_t{1} << 30));
  floats.zeros(160 - floats.size());
  out.push_back({"hostile_160_floats", floats, "the array is longer than the file"});
  Bytes tensors = gguf_start(200000, 60000);
  tensors.zeros(160 - tensors.size());
  out.push_back({"hostile_160_counts", tensors, "the file is too small for its keys"});
}

inline void add_bad_tensors(std::vector<BadFile>& out) {
  const uint64_t big = uint64_t{1} << 62;
  const auto add = [&](const char* name, const GgufTensorInfo& t, const char* error) {
    out.push_back({name, gguf_with(t, 256), error});
  };
  add("tensor_name_empty", {.name = ""}, "bad tensor name: the name is empty");
  add("tensor_name_64", {.name = std::string(64, 'n')}, "expected at most 63 bytes, got 64 bytes");
  add("tensor_name_nul", {.name = std::string("a\0b", 3)}, "a NUL byte");
  add("tensor_name_not_utf8", {.name = "a\xff"}, "not valid UTF-8");
  add("dims_0", {.ne = {}}, "bad number of dimensions; expected 1 to 4, got 0");
  add("dims_5", {.ne = {1, 1, 1, 1, 1}}, "expected 1 to 4, got 5");
  add("dim_zero", {.ne = {32, 0}}, "a dimension is not positive");
  add("dim_negative", {.ne = {~uint64_t{0}}}, "a dimension is not positive");
  // Each product is 32 modulo 2^64.
  add("dims_wrap", {.ne = {32, (uint64_t{1} << 42) + 1, uint64_t{1} << 22}}, "does not fit 64");
  add("dims_bytes_wrap", {.ne = {big + 8}}, "the tensor's size does not fit 64 bits");
  add("dims_two_to_42_plus_1", {.ne = {(uint64_t{1} << 42) + 1}}, "past the end of the file");
  add("type_99", {.type = 99}, "expected a ggml type id, got 99");
  add("type_removed_4", {.type = 4}, "unknown tensor type");
  add("type_negative", {.type = ~uint32_t{0}}, "unknown tensor type");
  add("type_iq2_xxs", {.ne = {256}, .type = 16}, "type IQ2_XXS (id 16) is not supported");
  add("type_iq1_m", {.ne = {256}, .type = 29}, "type IQ1_M (id 29) is not supported");
  add("type_iq3_s", {.ne = {256}, .type = 21}, "of about the same size in Q3_K or IQ4_XS");
  add("type_tq2_0", {.ne = {256}, .type = 35}, "for models trained with three values");
  add("type_nvfp4", {.ne = {64}, .type = 40}, "type NVFP4 (id 40) is not supported");
  add("type_q8_1", {.type = 9}, "a type of activations");
  add("row_mxfp4_48", {.ne = {48}, .type = 39}, "expected a multiple of 32 for MXFP4, got 48");
  add("sound_mxfp4", {.ne = {32, 15}, .type = 39}, "");
  add("row_q4_0_33", {.ne = {33, 2}, .type = 2}, "expected a multiple of 32 for Q4_0, got 33");
  add("row_q6_k_64", {.ne = {64}, .type = 14}, "expected a multiple of 256 for Q6_K");
  // A whole number of blocks in total, but not in a row.
  add("row_q4_0_16_by_2", {.ne = {16, 2}, .type = 2}, "expected a multiple of 32 for Q4_0, got 16");
  add("offset_unaligned", {.offset = 8}, "expected a multiple of 32, got 8");
  add("offset_past_end", {.offset = 256}, "past the end of the file");
  add("offset_negative", {.offset = ~uint64_t{31}}, "does not fit 63 bits");
  add("offset_wraps", {.offset = (uint64_t{1} << 63) - 32}, "past the end of the file");
  add("longer_than_file", {.ne = {65}}, "past the end of the file");
  out.push_back({"tensor_twice", gguf_with({{.name = "t"}, {.name = "t", .offset = 128}}, 256),
                 "tensor \"t\": a tensor appears twice"});
  out.push_back({"tensors_overlap", gguf_with({{.name = "a"}, {.name = "b", .offset = 96}}, 256),
                 "tensor \"b\": two tensors overlap; got shares bytes with \"a\""});
  out.push_back({"tensors_in_one_place", gguf_with({{.name = "a"}, {.name = "b"}}, 256),
                 "two tensors overlap"});
  out.push_back({"data_missing", gguf_with({.name = "a"}, 0), "past the end of the file"});
  out.push_back({"data_cut", gguf_with({.name = "a"}, 127), "past the end of the file"});
  out.push_back({"tensor_cut", gguf_start(1, 0).str("name").u32(2).u64(32).u64(1).u32(0).zeros(7),
                 "the file ends inside a tensor's offset"});
  // The order of the list need not be that of the data.
  out.push_back({"sound_reversed",
                 gguf_with({{.name = "b", .offset = 128}, {.name = "a", .offset = 0}}, 256), ""});
  out.push_back(
      {"sound_with_gap", gguf_with({{.name = "a"}, {.name = "b", .offset = 160}}, 288), ""});
}

inline std::vector<BadFile> bad_gguf_files() {
  std::vector<BadFile> out;
  add_bad_starts(out);
  add_bad_keys(out);
  add_bad_arrays(out);
  add_bad_tensors(out);
  return out;
}

}  // namespace carat::io::testing
