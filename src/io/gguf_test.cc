#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "io/gguf_reader.h"
#include "io/gguf_writer.h"
#include "io/testing/temp_dir.h"

namespace carat::io {
namespace {

using testing::TempDir;

std::vector<std::byte> pattern(int64_t n, int seed) {
  std::vector<std::byte> bytes(static_cast<size_t>(n));
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>((i * 131 + static_cast<size_t>(seed) * 17 + 3) % 251);
  }
  return bytes;
}

std::vector<std::byte> bytes_of(TensorView v) { return {v.bytes().begin(), v.bytes().end()}; }

GgufFields sample_fields() {
  GgufFields f;
  f.add_string("general.architecture", "gemma4");
  f.add_u32("gemma4.block_count", 35);
  f.add_i32("test.i32", -7);
  f.add_u64("test.u64", UINT64_MAX);
  f.add_f32("test.f32", 0.5f);
  f.add_bool("test.yes", true);
  f.add_bool("test.no", false);
  f.add_i32s("gemma4.feed_forward_length", std::vector<int32_t>{6144, 12288});
  f.add_f32s("tokenizer.ggml.scores", std::vector<float>{-1000.0f, 0.0f, 1.5f});
  f.add_bools("gemma4.attention.sliding_window_pattern", {true, false, true});
  f.add_strings("tokenizer.ggml.tokens",
                std::vector<std::string>{"<pad>", "", "\xe2\x96\x81the", "a\nb"});
  f.add_u32s("test.empty", {});
  return f;
}

std::vector<TensorSpec> sample_specs() {
  return {{"token_embd.weight", DType::kQ6_K, {3, 256}},
          {"blk.0.attn_q.weight", DType::kQ4_0, {2, 64}},
          {"blk.0.attn_norm.weight", DType::kF32, {7}},
          {"blk.0.ffn_down_exps.weight", DType::kBF16, {2, 3, 5}},
          {"blk.0.layer_output_scale.weight", DType::kF32, {}}};
}

void write_sample(const std::string& path) {
  GgufWriter writer(path, sample_fields(), sample_specs());
  for (size_t i = 0; i < writer.specs().size(); ++i) {
    const TensorSpec& s = writer.specs()[i];
    const auto bytes = pattern(*byte_count(s.dtype, s.shape), static_cast<int>(i));
    writer.begin(s.name);
    writer.append(std::span(bytes).first(bytes.size() / 2));  // in two parts
    writer.append(std::span(bytes).subspan(bytes.size() / 2));
  }
  writer.finish();
}

TEST(Gguf, WrittenFileReadsBack) {
  TempDir dir;
  const std::string path = dir.file("a.gguf");
  write_sample(path);
  const auto file = open_gguf(path);
  const auto specs = sample_specs();
  ASSERT_EQ(file->entries().size(), specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    const TensorEntry* e = file->find(specs[i].name);
    ASSERT_NE(e, nullptr) << specs[i].name;
    EXPECT_EQ(e->dtype, specs[i].dtype);
    EXPECT_EQ(e->shape, specs[i].shape.empty() ? Shape{1} : specs[i].shape);
    EXPECT_EQ(e->offset % 32, 0);
    EXPECT_EQ(file->path_of(*e), path);
    const auto want = pattern(e->bytes, static_cast<int>(i));
    EXPECT_EQ(bytes_of(file->view(*e)), want);
    std::vector<std::byte> row(static_cast<size_t>(e->bytes));
    file->file_of(*e).read(e->offset, row);
    EXPECT_EQ(row, want);
    file->release(*e, 0, e->bytes);
    EXPECT_EQ(bytes_of(file->view(*e)), want);
  }
  EXPECT_EQ(file->find("blk.0"), nullptr);
  EXPECT_EQ(std::filesystem::file_size(path) % 32, 0u);
}

TEST(Gguf, MetadataReadsBack) {
  TempDir dir;
  write_sample(dir.file("a.gguf"));
  const auto file = open_gguf(dir.file("a.gguf"));
  const GgufMetadata& m = file->metadata();
  EXPECT_EQ(m.get_string("general.architecture"), "gemma4");
  EXPECT_EQ(m.get_int("gemma4.block_count", 1, 512), 35);
  EXPECT_EQ(m.get_int("test.i32", -10, 10), -7);
  EXPECT_EQ(m.get_int("test.absent", 0, 10, 4), 4);
  EXPECT_EQ(m.get_number("test.f32", 0, 1), 0.5);
  EXPECT_EQ(m.get_number("gemma4.block_count", 0, 100), 35.0);
  EXPECT_TRUE(m.get_bool("test.yes"));
  EXPECT_FALSE(m.get_bool("test.no", true));
  EXPECT_TRUE(m.get_bool("test.absent", true));
  EXPECT_EQ(m.get_string("test.absent", "x"), "x");
  EXPECT_EQ(m.get_ints("gemma4.feed_forward_length", 1, 1 << 20, 2),
            (std::vector<int32_t>{6144, 12288}));
  EXPECT_EQ(m.get_floats("tokenizer.ggml.scores"), (std::vector<float>{-1000.0f, 0.0f, 1.5f}));
  EXPECT_EQ(m.get_bools("gemma4.attention.sliding_window_pattern", 3),
            (std::vector<bool>{true, false, true}));
  const GgufStrings tokens = m.get_strings("tokenizer.ggml.tokens");
  EXPECT_EQ(tokens.size(), 4);
  EXPECT_EQ(std::vector<std::string>(tokens.begin(), tokens.end()),
            (std::vector<std::string>{"<pad>", "", "\xe2\x96\x81the", "a\nb"}));
  EXPECT_TRUE(m.get_ints("test.empty", 0, 0).empty());
  EXPECT_EQ(m.get_int_per_layer("gemma4.block_count", 3, 0, 100),
            (std::vector<int64_t>{35, 35, 35}));
  EXPECT_EQ(m.get_int_per_layer("gemma4.feed_forward_length", 2, 0, 20000),
            (std::vector<int64_t>{6144, 12288}));
  EXPECT_EQ(m.entries().front().key, "general.architecture");
  EXPECT_EQ(m.entries().back().key, "test.empty");
  file->release_metadata();
  EXPECT_EQ(m.get_string("general.architecture"), "gemma4");
}

template <class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(Gguf, GettersCheckPresenceTypeAndRange) {
  TempDir dir;
  write_sample(dir.file("a.gguf"));
  const auto file = open_gguf(dir.file("a.gguf"));
  const GgufMetadata& m = file->metadata();
  const auto expect = [](const std::string& text, const char* part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
    EXPECT_NE(text.find("a.gguf"), std::string::npos) << text;
  };
  expect(error_of([&] { (void)m.get_int("no.key", 0, 1); }), "\"no.key\": the key is missing");
  expect(error_of([&] { (void)m.get_int("test.f32", 0, 1); }), "expected an integer, got f32");
  expect(error_of([&] { (void)m.get_int("test.yes", 0, 1); }), "expected an integer, got bool");
  expect(error_of([&] { (void)m.get_int("test.u64", 0, 9); }), "got u64 18446744073709551615");
  expect(error_of([&] { (void)m.get_int("test.i32", 0, 9); }), "expected 0 to 9, got -7");
  expect(error_of([&] { (void)m.get_int("test.empty", 0, 9); }), "got array of 0 u32");
  expect(error_of([&] { (void)m.get_number("general.architecture", 0, 1); }), "got string");
  expect(error_of([&] { (void)m.get_string("test.f32"); }), "expected string, got f32");
  expect(error_of([&] { (void)m.get_strings("tokenizer.ggml.scores"); }), "got array of 3 f32");
  expect(error_of([&] { (void)m.get_strings("tokenizer.ggml.tokens", 5); }), "5 elements, got 4");
  expect(error_of([&] { (void)m.get_floats("test.f32"); }), "expected array of f32, got f32");
  expect(error_of([&] { (void)m.get_ints("gemma4.feed_forward_length", 0, 7000); }),
         "got 12288 at element 1");
  expect(error_of([&] { (void)m.get_int_per_layer("gemma4.feed_forward_length", 3, 0, 9); }),
         "3 elements, got 2");
}

TEST(Gguf, CopiedValuesGiveTheSameBytes) {
  TempDir dir;
  write_sample(dir.file("a.gguf"));
  const auto file = open_gguf(dir.file("a.gguf"));
  GgufFields copy;
  for (const auto& [key, value] : file->metadata().entries()) copy.add_value(key, value);
  EXPECT_EQ(copy.bytes(), sample_fields().bytes());
  EXPECT_EQ(copy.count(), sample_fields().count());

  GgufFields strings;
  strings.add_strings("tokens", file->metadata().get_strings("tokenizer.ggml.tokens"));
  EXPECT_TRUE(strings.has("tokens"));
}

// The layout of a small file, byte for byte, as the format page words it.
TEST(Gguf, BytesByHand) {
  TempDir dir;
  const std::string path = dir.file("b.gguf");
  GgufFields fields;
  fields.add_u32("k", 258);
  GgufWriter writer(path, fields, {{"t", DType::kF16, {2, 3}}});
  writer.write("t", pattern(12, 1));
  writer.finish();
  const std::string got = read_text_file(path, 1 << 20);
  std::string want("GGUF\3\0\0\0\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0", 24);
  want += std::string("\1\0\0\0\0\0\0\0k\4\0\0\0\2\1\0\0", 17);
  want += std::string("\1\0\0\0\0\0\0\0t\2\0\0\0", 13);                 // name, dimensions
  want += std::string("\3\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\1\0\0\0", 20);  // fastest first, F16
  want += std::string(8, '\0');                                         // offset
  want.resize(96, '\0');                                                // data begin
  const auto data = pattern(12, 1);
  want.append(reinterpret_cast<const char*>(data.data()), 12);
  want.resize(128, '\0');
  EXPECT_EQ(got, want);
}

TEST(Gguf, UnfinishedFileNeverAppears) {
  TempDir dir;
  {
    GgufWriter writer(dir.file("c.gguf"), sample_fields(), sample_specs());
    writer.begin("token_embd.weight");
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(Gguf, WriterRefusesWhatTheFormatCannotHold) {
  TempDir dir;
  const auto fail = [&](std::vector<TensorSpec> specs) {
    return error_of([&] { GgufWriter w(dir.file("d.gguf"), GgufFields(), std::move(specs)); });
  };
  EXPECT_NE(fail({{std::string(64, 'n'), DType::kF32, {1}}}).find("too long"), std::string::npos);
  EXPECT_NE(fail({{"a", DType::kF32, {1}}, {"a", DType::kF32, {1}}}).find("twice"),
            std::string::npos);
  EXPECT_NE(fail({{"a", DType::kQ4_0, {33}}}).find("Q4_0"), std::string::npos);
  EXPECT_NE(fail({{"a", DType::kF32, {1, 1, 1, 1, 1}}}).find("[1, 1, 1, 1, 1]"), std::string::npos);
  EXPECT_NE(fail({{"a", DType::kU8, {4}}}).find("GGUF has no type U8"), std::string::npos);
  EXPECT_NE(fail({{"a\xff", DType::kF32, {4}}}).find("UTF-8"), std::string::npos);
  EXPECT_NE(fail({{"", DType::kF32, {4}}}).find("empty"), std::string::npos);
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

// A vocabulary of the real size: every string and its place survive.
TEST(Gguf, LargeStringArrays) {
  TempDir dir;
  std::vector<std::string> tokens, merges;
  for (int i = 0; i < 262144; ++i) tokens.push_back("tok" + std::to_string(i));
  for (int i = 0; i < 514906; ++i) merges.push_back("a" + std::to_string(i) + " b");
  GgufFields fields;
  fields.add_strings("tokens", tokens);
  fields.add_strings("merges", merges);
  GgufWriter writer(dir.file("v.gguf"), fields, {});
  writer.finish();
  const auto file = open_gguf(dir.file("v.gguf"));
  const GgufStrings t = file->metadata().get_strings("tokens", 262144);
  const GgufStrings m = file->metadata().get_strings("merges", 514906);
  EXPECT_TRUE(std::equal(t.begin(), t.end(), tokens.begin(), tokens.end()));
  EXPECT_TRUE(std::equal(m.begin(), m.end(), merges.begin(), merges.end()));
}

// -- models in several files ----------------------------------------------------------------------

struct PartOptions {
  std::string stem = "m";
  int64_t parts = 3;
  int64_t claimed_tensors = 5;
  uint32_t number_shift = 0;  // added to split.no
};

std::string part_path(TempDir& dir, const PartOptions& o, int64_t i) {
  return dir.file(fmt::format("{}-{:05}-of-{:05}.gguf", o.stem, i + 1, o.parts));
}

// Part i of a model of five tensors t0..t4: one, two and two; metadata in the first.
void write_part(TempDir& dir, const PartOptions& o, int64_t i) {
  GgufFields fields;
  if (i == 0) fields.add_string("general.architecture", "gemma4");
  fields.add_u32("split.no", static_cast<uint32_t>(i) + o.number_shift);
  fields.add_u32("split.count", static_cast<uint32_t>(o.parts));
  fields.add_i32("split.tensors.count", static_cast<int32_t>(o.claimed_tensors));
  std::vector<TensorSpec> specs;
  for (int64_t t = i == 0 ? 0 : 2 * i - 1; t <= 2 * i; ++t) {
    specs.push_back({fmt::format("t{}", t), DType::kF32, {3 + t}});
  }
  GgufWriter writer(part_path(dir, o, i), fields, specs);
  for (const TensorSpec& spec : specs) {
    writer.write(spec.name, pattern(4 * spec.shape[0], spec.name[1]));
  }
  writer.finish();
}

TEST(SplitGguf, AnyPartOpensAll) {
  TempDir dir;
  const PartOptions o;
  for (int64_t i = 0; i < 3; ++i) write_part(dir, o, i);
  for (int64_t opened = 0; opened < 3; ++opened) {
    const auto file = open_gguf(part_path(dir, o, opened));
    EXPECT_EQ(file->n_parts(), 3);
    EXPECT_EQ(file->metadata().get_string("general.architecture"), "gemma4");
    ASSERT_EQ(file->entries().size(), 5u);
    for (int t = 0; t < 5; ++t) {
      const TensorEntry& e = file->entries()[static_cast<size_t>(t)];
      EXPECT_EQ(e.name, fmt::format("t{}", t));
      EXPECT_EQ(file->path_of(e), part_path(dir, o, (t + 1) / 2));
      EXPECT_EQ(bytes_of(file->view(e)), pattern(4 * (3 + t), e.name[1]));
      std::vector<std::byte> read(static_cast<size_t>(e.bytes));
      file->file_of(e).read(e.offset, read);
      EXPECT_EQ(read, bytes_of(file->view(e)));
    }
    std::vector<std::string> paths = file->paths();
    std::sort(paths.begin(), paths.end());
    EXPECT_EQ(paths, (std::vector<std::string>{part_path(dir, o, 0), part_path(dir, o, 1),
                                               part_path(dir, o, 2)}));
    file->release_metadata();
    EXPECT_EQ(bytes_of(file->view(file->entries()[4])), pattern(28, '4'));
  }
}

TEST(SplitGguf, PartsThatDoNotFitAreRefused) {
  const auto expect = [](const std::string& error, const std::string& part) {
    EXPECT_NE(error.find(part), std::string::npos) << error;
  };
  const PartOptions o;
  {
    TempDir dir;
    write_part(dir, o, 0);
    write_part(dir, o, 2);
    expect(error_of([&] { open_gguf(part_path(dir, o, 2)); }),
           "a part of a split model is missing");
    expect(error_of([&] { open_gguf(part_path(dir, o, 0)); }), "m-00002-of-00003.gguf");
  }
  {
    TempDir dir;  // a part under another's name
    for (int64_t i = 0; i < 3; ++i) write_part(dir, o, i);
    std::filesystem::copy_file(part_path(dir, o, 2), part_path(dir, o, 1),
                               std::filesystem::copy_options::overwrite_existing);
    expect(error_of([&] { open_gguf(part_path(dir, o, 0)); }), "together; expected 1, got 2");
    expect(error_of([&] { open_gguf(part_path(dir, o, 1)); }),
           "expected a name that ends in -00003-of-00003.gguf");
  }
  {
    TempDir dir;  // renamed
    for (int64_t i = 0; i < 3; ++i) write_part(dir, o, i);
    std::filesystem::rename(part_path(dir, o, 0), dir.file("model.gguf"));
    expect(error_of([&] { open_gguf(dir.file("model.gguf")); }), "does not end in its number");
  }
  {
    TempDir dir;  // parts of two downloads
    PartOptions other = o;
    other.claimed_tensors = 6;
    write_part(dir, o, 0);
    write_part(dir, other, 1);
    write_part(dir, o, 2);
    expect(error_of([&] { open_gguf(part_path(dir, o, 0)); }), "together; expected 5, got 6");
  }
  {
    TempDir dir;
    PartOptions lying = o;
    lying.claimed_tensors = 6;
    for (int64_t i = 0; i < 3; ++i) write_part(dir, lying, i);
    expect(error_of([&] { open_gguf(part_path(dir, o, 0)); }), "expected 6 tensors, got 5");
  }
  {
    TempDir dir;  // the same tensor twice: part 1 says it is part 2
    PartOptions shifted = o;
    shifted.number_shift = 1;
    for (int64_t i = 0; i < 2; ++i) write_part(dir, o, i);
    write_part(dir, shifted, 1);
    std::filesystem::rename(part_path(dir, o, 1), part_path(dir, o, 2));
    write_part(dir, o, 1);
    expect(error_of([&] { open_gguf(part_path(dir, o, 0)); }),
           "tensor \"t1\": a tensor is in two parts");
  }
}

}  // namespace
}  // namespace carat::io
