#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "io/checkpoint.h"
#include "io/gguf_writer.h"
#include "io/safetensors_parse.h"
#include "io/safetensors_reader.h"
#include "io/safetensors_writer.h"
#include "io/testing/temp_dir.h"

namespace carat::io {
namespace {

using testing::TempDir;

std::vector<std::byte> pattern(int64_t n, int seed) {
  std::vector<std::byte> bytes(static_cast<size_t>(n));
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>((i * 137 + static_cast<size_t>(seed) * 29 + 5) % 253);
  }
  return bytes;
}

std::vector<TensorSpec> sample_specs() {
  std::vector<TensorSpec> specs = {{"model.embed.weight", DType::kBF16, {5, 3}},
                                   {"codes", DType::kU8, {3}},
                                   {"scale", DType::kF32, {}},
                                   {"shape \"quoted\"", DType::kI64, {2}},
                                   {"packed", DType::kI32, {4, 2}},
                                   {"mask", DType::kBool, {1}}};
  order_for_safetensors(specs);
  return specs;
}

void fill(TensorWriter& writer) {
  for (size_t i = 0; i < writer.specs().size(); ++i) {
    const TensorSpec& s = writer.specs()[i];
    writer.write(s.name, pattern(*byte_count(s.dtype, s.shape), static_cast<int>(i)));
  }
  writer.finish();
}

void expect_sample(const TensorSource& source) {
  const auto specs = sample_specs();
  ASSERT_EQ(source.entries().size(), specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    const TensorEntry* e = source.find(specs[i].name);
    ASSERT_NE(e, nullptr) << specs[i].name;
    EXPECT_EQ(e->dtype, specs[i].dtype);
    EXPECT_EQ(e->shape, specs[i].shape);
    const TensorView v = source.view(*e);
    const auto want = pattern(e->bytes, static_cast<int>(i));
    EXPECT_EQ(std::vector<std::byte>(v.bytes().begin(), v.bytes().end()), want);
    std::vector<std::byte> read(static_cast<size_t>(e->bytes));
    source.file_of(*e).read(e->offset, read);
    EXPECT_EQ(read, want);
    source.release(*e, 0, e->bytes);
  }
}

void write_text(const std::string& path, const std::string& text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
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

void expect_in(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

TEST(Safetensors, SingleFileReadsBack) {
  TempDir dir;
  const auto writer = write_safetensors(dir.file("a.safetensors"), sample_specs());
  EXPECT_EQ(writer->total_bytes(), 30 + 3 + 4 + 16 + 32 + 1);
  fill(*writer);
  EXPECT_EQ(writer->written_bytes(), writer->total_bytes());
  const auto source = open_safetensors(dir.file("a.safetensors"));
  expect_sample(*source);
  ASSERT_EQ(source->metadata().size(), 1u);
  EXPECT_EQ(source->metadata()[0].second, "pt");
}

TEST(Safetensors, BytesByHand) {
  TempDir dir;
  const auto writer =
      write_safetensors(dir.file("a.safetensors"), {{"t", DType::kF16, {1, 2}}}, {});
  writer->write("t", pattern(4, 0));
  writer->finish();
  const std::string header = R"({"t":{"dtype":"F16","shape":[1,2],"data_offsets":[0,4]}})";
  std::string want =
      std::string(1, static_cast<char>(header.size())) + std::string(7, '\0') + header;
  const auto data = pattern(4, 0);
  want.append(reinterpret_cast<const char*>(data.data()), 4);
  EXPECT_EQ(read_text_file(dir.file("a.safetensors"), 1000), want);
}

TEST(Safetensors, ShardedDirectoryReadsBack) {
  TempDir dir;
  fill(*write_safetensors_directory(dir.path(), sample_specs(), 40));
  EXPECT_TRUE(std::filesystem::exists(dir.file("model-00001-of-00003.safetensors")));
  EXPECT_FALSE(std::filesystem::exists(dir.file("model.safetensors")));
  const auto source = open_safetensors_index(dir.file("model.safetensors.index.json"));
  expect_sample(*source);
  EXPECT_EQ(source->path_of(*source->find("mask")), dir.file("model-00003-of-00003.safetensors"));
  const Json index = read_json_file(dir.file("model.safetensors.index.json"));
  EXPECT_EQ(get_int(get(index, "metadata"), "total_size", 0, 1000), 86);
}

TEST(Safetensors, SmallDirectoryIsOneFile) {
  TempDir dir;
  fill(*write_safetensors_directory(dir.path(), sample_specs(), 1 << 20));
  EXPECT_FALSE(std::filesystem::exists(dir.file("model.safetensors.index.json")));
  expect_sample(*open_safetensors(dir.file("model.safetensors")));
  // The same names may be written again, others may not.
  fill(*write_safetensors_directory(dir.path(), sample_specs(), 1 << 20));
  expect_in(error_of([&] { (void)write_safetensors_directory(dir.path(), sample_specs(), 40); }),
            "already holds weights");
}

TEST(Safetensors, UnfinishedFilesNeverAppear) {
  TempDir dir;
  {
    const auto writer = write_safetensors_directory(dir.path(), sample_specs(), 40);
    writer->begin(writer->specs()[0].name);
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(Safetensors, WriterRefusesWhatTheFormatCannotHold) {
  TempDir dir;
  const auto fail = [&](std::vector<TensorSpec> specs) {
    return error_of([&] { (void)write_safetensors(dir.file("x"), std::move(specs)); });
  };
  expect_in(fail({{"a", DType::kQ4_0, {32}}}), "safetensors has no type Q4_0");
  expect_in(fail({{"a", DType::kU8, {1}}, {"b", DType::kF32, {1}}}), "would not be aligned");
  expect_in(fail({{"a", DType::kU8, {0}}}), "cannot be written");
}

TEST(Safetensors, UnalignedDataAreReadableButNotViewed) {
  TempDir dir;
  const std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})";
  write_text(dir.file("u.safetensors"), std::string(1, static_cast<char>(header.size())) +
                                            std::string(7, '\0') + header + "abcde");
  const auto source = open_safetensors(dir.file("u.safetensors"));
  (void)source->view(*source->find("a"));
  expect_in(error_of([&] { (void)source->view(*source->find("b")); }), "not aligned");
  char text[4];
  source->file_of(*source->find("b"))
      .read(source->find("b")->offset, std::as_writable_bytes(std::span(text)));
  EXPECT_EQ(std::string(text, 4), "bcde");
}

TEST(Safetensors, IndexAndFilesMustAgree) {
  TempDir dir;
  fill(*write_safetensors_directory(dir.path(), sample_specs(), 40));
  const std::string path = dir.file("model.safetensors.index.json");
  const std::string good = read_text_file(path, 10000);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos);
    text.replace(at, from.size(), to);
    write_text(path, text);
    return error_of([&] { (void)open_safetensors_index(path); });
  };
  expect_in(with("\"mask\"", "\"ghost\""), "the index does not name the tensor");
  expect_in(with("\"codes\": \"model-00003", "\"codes\": \"model-00001"),
            "in another file than the index says");
  expect_in(with("\"mask\"", "\"ghost\": \"model-00003-of-00003.safetensors\", \"mask\""),
            "tensor \"ghost\": a tensor that the index names is missing");
  std::filesystem::remove(dir.file("model-00002-of-00003.safetensors"));
  expect_in(with("\"mask\"", "\"mask\""), "model-00002-of-00003.safetensors: cannot open the file");
}

TEST(Checkpoint, OpensEveryKind) {
  TempDir dir;
  fill(*write_safetensors_directory(dir.path(), sample_specs(), 40));
  write_text(dir.file("config.json"), R"({"model_type": "gemma4"})");
  write_text(dir.file("generation_config.json"), R"({"top_k": 64})");
  write_text(dir.file("tokenizer.json"), "{}");
  const Checkpoint hf = open_checkpoint(dir.path());
  EXPECT_EQ(hf.kind, CheckpointKind::kHfDirectory);
  EXPECT_EQ(get_string(hf.config, "model_type"), "gemma4");
  EXPECT_EQ(get_int(hf.generation_config, "top_k", 0, 100), 64);
  EXPECT_EQ(hf.tokenizer_path, dir.file("tokenizer.json"));
  EXPECT_EQ(hf.chat_template_path, "");
  EXPECT_EQ(hf.gguf, nullptr);
  expect_sample(*hf.tensors);

  fill(*write_safetensors(dir.file("alone.safetensors"), sample_specs()));
  const Checkpoint single = open_checkpoint(dir.file("alone.safetensors"));
  EXPECT_EQ(single.kind, CheckpointKind::kSafetensors);
  EXPECT_EQ(get_string(single.config, "model_type"), "gemma4");
  expect_sample(*single.tensors);

  GgufWriter gguf(dir.file("model.bin"), GgufFields(), {{"t", DType::kF32, {1}}});
  gguf.write("t", pattern(4, 0));
  gguf.finish();
  const Checkpoint g = open_checkpoint(dir.file("model.bin"));
  EXPECT_EQ(g.kind, CheckpointKind::kGguf);
  EXPECT_EQ(g.gguf, g.tensors.get());
}

TEST(Checkpoint, SaysWhatIsMissing) {
  TempDir dir;
  expect_in(error_of([&] { (void)open_checkpoint(dir.file("none")); }), "cannot open the file");
  expect_in(error_of([&] { (void)open_checkpoint(dir.path()); }), "a file config.json");
  write_text(dir.file("m.gguf"), "GGUF");
  expect_in(error_of([&] { (void)open_checkpoint(dir.path()); }), "m.gguf");
  write_text(dir.file("config.json"), "{}");
  expect_in(error_of([&] { (void)open_checkpoint(dir.path()); }), "holds no weights");
  write_text(dir.file("config.json"), "[]");
  expect_in(error_of([&] { (void)open_checkpoint(dir.path()); }), "not a JSON object");
  write_text(dir.file("config.json"), "{");
  expect_in(error_of([&] { (void)open_checkpoint(dir.path()); }), "config.json");
  write_text(dir.file("notes.txt"), "hello");
  expect_in(error_of([&] { (void)open_checkpoint(dir.file("notes.txt")); }), "not a model");
}

}  // namespace
}  // namespace carat::io
