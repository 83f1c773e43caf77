// The tables of bad_files.h for safetensors files and the index of a sharded checkpoint.
#pragma once

#include "io/testing/bad_files.h"

namespace carat::io::testing {

// A file of this header and `data` bytes of data.
inline std::string safetensors_with(const std::string& header, size_t data) {
  return Bytes().u64(header.size()).raw(header).zeros(data);
}

inline std::string tensor_json(const std::string& name, const std::string& dtype,
                               const std::string& shape, const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}

inline void add_bad_headers(std::vector<BadFile>& out) {
  const auto length = [](uint64_t n) -> std::string { return Bytes().u64(n).raw("{}      "); };
  out.push_back({"empty", "", "too small for a safetensors file"});
  out.push_back({"seven_bytes", std::string(7, '\0'), "expected at least 8 bytes, got 7 bytes"});
  out.push_back({"header_length_0", length(0), "the header's length is out of range"});
  out.push_back({"header_length_1", length(1), "the header's length is out of range"});
  out.push_back({"header_past_end", length(9), "expected 2 to 8 bytes, got 9"});
  out.push_back({"header_above_limit", length(100'000'001), "the header's length is out of range"});
  out.push_back({"header_length_wraps", length(~uint64_t{0}), "the header's length"});
  out.push_back({"header_length_negative", length(uint64_t{1} << 63), "the header's length"});
  const auto add = [&](const char* name, const std::string& header, const char* error) {
    out.push_back({name, safetensors_with(header, 4), error});
  };
  const std::string good = tensor_json("t", "F32", "[1]", "[0,4]");
  add("header_list", "[" + good + "]", "the header is not a JSON object");
  add("header_space_first", " {" + good + "}", "the header is not a JSON object");
  add("header_cut", "{" + good, "header, ");
  add("header_text_after", "{" + good + "}x", "text after the end");
  add("header_two_documents", "{" + good + "}{}", "text after the end");
  add("header_not_utf8", "{" + tensor_json("t\xff", "F32", "[1]", "[0,4]") + "}", "invalid UTF-8");
  add("header_half_surrogate", "{" + tensor_json("t\\ud800", "F32", "[1]", "[0,4]") + "}",
      "surrogate");
  add("header_comment", "{/**/" + good + "}", "header, ");
  add("name_empty", "{" + tensor_json("", "F32", "[1]", "[0,4]") + "}", "the name is empty");
  add("name_with_nul", "{" + tensor_json("a\\u0000b", "F32", "[1]", "[0,4]") + "}", "a NUL byte");
  add("name_with_newline", "{" + tensor_json("a\\nb", "F32", "[1]", "[0,4]") + "}",
      "a control character");
  add("name_too_long", "{" + tensor_json(std::string(1025, 'n'), "F32", "[1]", "[0,4]") + "}",
      "longer than 1024 bytes");
  add("name_twice", "{" + good + "," + good + "}", "tensor \"t\": a tensor appears twice");
  add("metadata_list", "{\"__metadata__\":[]," + good + "}", "key \"__metadata__\"");
  add("metadata_number", "{\"__metadata__\":{\"a\":1}," + good + "}", "a string should stand here");
  add("metadata_twice", "{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}," + good + "}", "twice");
  add("nested_deeply", "{\"t\":{\"shape\":" + std::string(1000, '[') + "}}",
      "a number should stand here");
  add("sound", "{" + good + "}   ", "");
  add("sound_metadata", "{\"__metadata__\":{\"format\":\"pt\"}," + good + "}", "");
  out.push_back({"sound_no_tensors", safetensors_with("{}", 0), ""});
  out.push_back({"sound_scalar",
                 safetensors_with("{" + tensor_json("s", "BF16", "[]", "[0,2]") + "}", 2), ""});
}

inline void add_bad_entries(std::vector<BadFile>& out) {
  const auto add = [&](const char* name, const std::string& members, const char* error) {
    out.push_back({name, safetensors_with("{" + members + "}", 4), error});
  };
  add("tensor_number", "\"t\":1", "an object should stand here");
  add("dtype_missing", R"("t":{"shape":[1],"data_offsets":[0,4]})", "a key is missing");
  add("shape_missing", R"("t":{"dtype":"F32","data_offsets":[0,4]})", "a key is missing");
  add("offsets_missing", R"("t":{"dtype":"F32","shape":[1]})", "a key is missing");
  add("key_unknown", R"("t":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1})",
      "unknown key");
  add("key_twice", R"("t":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]})",
      "a key appears twice in one object; got dtype");
  add("dtype_f8", tensor_json("t", "F8_E4M3", "[4]", "[0,4]"), "got \"F8_E4M3\"");
  add("dtype_q4_0", tensor_json("t", "Q4_0", "[32]", "[0,4]"), "unsupported tensor type");
  add("dtype_number", R"("t":{"dtype":7,"shape":[1],"data_offsets":[0,4]})",
      "a string should stand here");
  add("shape_number", tensor_json("t", "F32", "1", "[0,4]"), "an array should stand here");
  add("shape_negative", tensor_json("t", "F32", "[-1]", "[0,4]"), "number out of range");
  add("shape_zero", tensor_json("t", "F32", "[0]", "[0,0]"), "number out of range");
  add("shape_fraction", tensor_json("t", "F32", "[1.0]", "[0,4]"), "number out of range");
  add("shape_string", tensor_json("t", "F32", "[\"1\"]", "[0,4]"), "a number should stand here");
  add("shape_5_dims", tensor_json("t", "F32", "[1,1,1,1,1]", "[0,4]"), "too many dimensions");
  add("shape_above_64_bits", tensor_json("t", "F32", "[18446744073709551617]", "[0,4]"),
      "number out of range");
  // 4 elements modulo 2^64.
  add("shape_wraps", tensor_json("t", "U8", "[4611686018427387905,4]", "[0,4]"), "does not fit 64");
  add("shape_bytes_wrap", tensor_json("t", "F32", "[4611686018427387905]", "[0,4]"),
      "the tensor's size does not fit 64 bits");
  add("offsets_one", tensor_json("t", "F32", "[1]", "[4]"), "data_offsets are not a pair");
  add("offsets_three", tensor_json("t", "F32", "[1]", "[0,4,4]"), "data_offsets are not a pair");
  add("offsets_reversed", tensor_json("t", "F32", "[1]", "[4,0]"), "end before they begin");
  add("offsets_negative", tensor_json("t", "F32", "[1]", "[-4,0]"), "number out of range");
  add("offsets_past_end", tensor_json("t", "F32", "[2]", "[0,8]"), "past the end of the file");
  add("offsets_above_63_bits", tensor_json("t", "F32", "[1]", "[0,9223372036854775808]"),
      "number out of range");
  add("offsets_too_short", tensor_json("t", "F32", "[1]", "[0,2]"),
      "disagree with type and shape; expected 4 bytes, got 2 bytes");
  add("gap_at_start", tensor_json("t", "U8", "[2]", "[2,4]"), "there is a gap");
  add("gap_between",
      tensor_json("a", "U8", "[1]", "[0,1]") + "," + tensor_json("b", "U8", "[1]", "[3,4]"),
      "tensor \"b\": there is a gap");
  add("gap_at_end", tensor_json("t", "U8", "[2]", "[0,2]"), "bytes that belong to no tensor");
  add("overlap",
      tensor_json("a", "U8", "[3]", "[0,3]") + "," + tensor_json("b", "U8", "[2]", "[2,4]"),
      "tensor \"b\": two tensors overlap");
  add("same_place",
      tensor_json("a", "U8", "[4]", "[0,4]") + "," + tensor_json("b", "U8", "[4]", "[0,4]"),
      "two tensors overlap");
  add("sound_reversed",
      tensor_json("b", "U8", "[2]", "[2,4]") + "," + tensor_json("a", "U8", "[2]", "[0,2]"), "");
}

inline std::vector<BadFile> bad_safetensors_files() {
  std::vector<BadFile> out;
  add_bad_headers(out);
  add_bad_entries(out);
  return out;
}

inline std::vector<BadFile> bad_index_files() {
  std::vector<BadFile> out;
  const auto add = [&](const char* name, const std::string& text, const char* error) {
    out.push_back({name, text, error});
  };
  const auto file = [&](const char* name, const std::string& file_name, const char* error) {
    add(name, "{\"weight_map\":{\"t\":\"" + file_name + "\"}}", error);
  };
  add("empty", "", "an object should stand here");
  add("list", "[]", "an object should stand here");
  add("cut", "{\"weight_map\":{\"t\":\"a.safetensors\"", "not valid JSON");
  add("text_after", "{\"weight_map\":{\"t\":\"a.safetensors\"}} 1", "text after the end");
  add("map_missing", "{\"metadata\":{}}", "the index names no tensors");
  add("map_list", "{\"weight_map\":[]}", "an object should stand here");
  add("map_empty", "{\"weight_map\":{}}", "the index names no tensors");
  add("map_twice", R"({"weight_map":{"t":"a.safetensors"},"weight_map":{"u":"a.safetensors"}})",
      "a key appears twice");
  add("tensor_twice", R"({"weight_map":{"t":"a.safetensors","t":"b.safetensors"}})",
      "tensor \"t\": a tensor appears twice");
  add("tensor_empty", R"({"weight_map":{"":"a.safetensors"}})", "the name is empty");
  add("tensor_with_nul", R"({"weight_map":{"a\u0000":"a.safetensors"}})", "a NUL byte");
  add("file_number", R"({"weight_map":{"t":1}})", "a string should stand here");
  file("file_empty", "", "the name is empty");
  file("file_parent", "../a.safetensors", "a path separator");
  file("file_below", "sub/a.safetensors", "a path separator");
  file("file_absolute", "/etc/a.safetensors", "a path separator");
  file("file_backslash", "..\\\\a.safetensors", "a path separator");
  file("file_drive", "c:a.safetensors", "a path separator");
  file("file_hidden", ".safetensors", "not that of a .safetensors file");
  file("file_pickle", "model.bin", "not that of a .safetensors file");
  file("file_with_nul", "a\\u0000.safetensors", "a NUL byte");
  file("file_too_long", std::string(300, 'a') + ".safetensors", "not that of a .safetensors file");
  add("nested_deeply", "{\"metadata\":" + std::string(1000, '[') + "}", "nested too deeply");
  add("sound",
      R"({"metadata":{"total_size":8},"weight_map":{"b":"2.safetensors","a":"1.safetensors"}})",
      "");
  return out;
}

}  // namespace carat::io::testing
