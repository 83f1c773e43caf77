#include "convert/convert.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <limits>

#include "base/error.h"
#include "convert/inspect.h"
#include "convert/testing/checkpoints.h"
#include "convert/transcode.h"
#include "io/checkpoint.h"
#include "io/gguf_writer.h"
#include "model/load.h"

namespace carat::convert {
namespace {

using model::TensorKind;
using testing::HfCheckpoint;
using testing::TemporaryFolder;
using testing::Training;

constexpr const char* kSizes[] = {"tiny", "tinykv", "tinymoe"};

HfCheckpoint checkpoint(const std::string& folder, const char* size,
                        Training rule = Training::kSigned8) {
  HfCheckpoint c;
  c.folder = folder;
  c.config = model::config_of_size(size);
  c.rule = rule;
  return c;
}

ConvertOptions options(const std::string& source, const std::string& target,
                       Format format = Format::kGgufQ4_0) {
  ConvertOptions o;
  o.source = source;
  o.target = target;
  o.format = format;
  o.threads = 2;
  return o;
}

std::vector<float> values_of(const io::Checkpoint& c, const std::string& name) {
  const io::TensorEntry* entry = c.tensors->find(name);
  EXPECT_NE(entry, nullptr) << name;
  if (entry == nullptr) return {};
  const SourceTensor t = source_tensor(*c.tensors, *entry);
  std::vector<float> values(static_cast<size_t>(t.elements));
  std::vector<std::byte> raw;
  Transcoder::decode(t, 0, t.elements, raw, values.data());
  return values;
}

// Number of values of all required tensors that differ after rounding to bfloat16.
int64_t count_differences(const std::string& a_path, const std::string& b_path) {
  const io::Checkpoint a = io::open_checkpoint(a_path), b = io::open_checkpoint(b_path);
  int64_t n = 0;
  for (const model::TensorRef ref : model::required_tensors(model::config_of(a))) {
    const std::vector<float> x = values_of(a, model::name_of(ref, model::naming_of(a)));
    const std::vector<float> y = values_of(b, model::name_of(ref, model::naming_of(b)));
    EXPECT_EQ(x.size(), y.size());
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      n += to_float(to_bf16(x[i])) != to_float(to_bf16(y[i]));
    }
  }
  return n;
}

std::string error_of(const ConvertOptions& o) {
  try {
    (void)convert(o);
    return "";
  } catch (const Error& e) {
    return e.what();
  }
}

TEST(Convert, EitherRuleBecomesQ4_0WithoutLoss) {
  for (const char* size : kSizes) {
    for (const Training rule : {Training::kSigned8, Training::kAbsmax7}) {
      TemporaryFolder folder("lossless");
      write_hf(checkpoint(folder / "hf", size, rule));
      const ConvertReport r = convert(options(folder / "hf", folder / "out.gguf"));
      EXPECT_EQ(r.lattice.blocks_on_lattice, r.lattice.blocks) << size;
      EXPECT_EQ(r.weights_bit_exact, r.weights) << size;
      EXPECT_EQ(r.lattice.weights, r.weights);
      EXPECT_EQ(r.matrices_kept, 0);
      EXPECT_GT(r.matrices, 30);
      EXPECT_TRUE(r.hint.empty());
      EXPECT_EQ(count_differences(folder / "hf", folder / "out.gguf"), 0) << size;
      for (const TensorReport& t : r.tensors) {
        EXPECT_EQ(t.to, t.is_matrix ? DType::kQ4_0 : DType::kF32) << t.name;
      }
      // The figure that shows what recovery is for.
      if (rule == Training::kAbsmax7) {
        EXPECT_LT(r.lattice.naive_weights_bit_exact, r.lattice.naive_weights * 2 / 3);
      } else {
        EXPECT_LT(r.lattice.naive_weights_bit_exact, r.lattice.naive_weights);
      }
      // All that carat needs is in the file.
      const model::Model m = model::load_model(folder / "out.gguf");
      EXPECT_EQ(m.config(), model::config_of_size(size));
      ASSERT_NE(m.tokenizer, nullptr);
      EXPECT_EQ(m.tokenizer->vocab().size(), 512);  // filled up
      EXPECT_EQ(m.tokenizer->vocab().merges.size(), testing::small_vocab().merges.size());
      EXPECT_FLOAT_EQ(m.generation.temperature, 0.75f);
      EXPECT_EQ(m.generation.top_k, 40);
      EXPECT_FLOAT_EQ(m.generation.top_p, 0.9f);
      EXPECT_EQ(m.generation.stop_ids, (std::vector<int32_t>{1, 6}));
    }
  }
}

TEST(Convert, ChatTemplateIsCarriedBothWays) {
  TemporaryFolder folder("template");
  write_hf(checkpoint(folder / "hf", "tinykv"));
  (void)convert(options(folder / "hf", folder / "out.gguf"));
  const io::Checkpoint gguf = io::open_checkpoint(folder / "out.gguf");
  EXPECT_EQ(gguf.gguf->metadata().get_string("tokenizer.chat_template"), "{{ messages }} template");
  (void)convert(options(folder / "out.gguf", folder / "back", Format::kHfBf16));
  EXPECT_EQ(read_text_file(folder / "back/chat_template.jinja", 100), "{{ messages }} template");
}

TEST(Convert, SpoiledTensorsStayBf16AndAreNamed) {
  TemporaryFolder folder("spoiled");
  HfCheckpoint c = checkpoint(folder / "hf", "tiny");
  // One early block (the sample sees it), and one in the middle of a tensor of many blocks.
  c.change = [](model::TensorRef ref, std::vector<float>& w) {
    if (ref.kind == TensorKind::kDown && ref.layer == 1) w[0] = 0.4375f, w[1] = 0.43359375f;
    if (ref.kind == TensorKind::kPleTable) w[w.size() / 2 + 32 * 70] *= 1.0625f;
  };
  write_hf(c);
  const ConvertReport r = convert(options(folder / "hf", folder / "out.gguf"));
  EXPECT_EQ(r.matrices_kept, 2);
  EXPECT_EQ(r.lattice.blocks - r.lattice.blocks_on_lattice, 2);
  EXPECT_EQ(r.weights_bit_exact, r.weights);
  for (const TensorReport& t : r.tensors) {
    const bool spoiled =
        t.name == "blk.1.ffn_down.weight" || t.name == "per_layer_token_embd.weight";
    if (spoiled) {
      EXPECT_EQ(t.to, DType::kBF16);
      EXPECT_NE(t.note.find("1 of "), std::string::npos) << t.note;
      EXPECT_EQ(t.lattice.blocks * 32, t.weights);
    } else {
      EXPECT_EQ(t.note, "");
    }
  }
  EXPECT_EQ(count_differences(folder / "hf", folder / "out.gguf"), 0);

  // A lower bar takes them too.
  ConvertOptions o = options(folder / "hf", folder / "low.gguf");
  o.min_lattice_share = 0.99;
  const ConvertReport low = convert(o);
  EXPECT_EQ(low.matrices_kept, 0);
  EXPECT_GE(low.weights - low.weights_bit_exact, 1);
  EXPECT_LE(low.weights - low.weights_bit_exact, 64);
  EXPECT_EQ(count_differences(folder / "hf", folder / "low.gguf"),
            low.weights - low.weights_bit_exact);
}

// A tensor so large that the sample must miss its one bad block: the file is begun anew.
TEST(Convert, SurprisesAreFoundWhileWriting) {
  TemporaryFolder folder("surprise");
  HfCheckpoint c = checkpoint(folder / "hf", "tinykv");
  c.config.vocab_size = 16384;
  c.change = [](model::TensorRef ref, std::vector<float>& w) {
    if (ref.kind == TensorKind::kTokenEmbedding) w[w.size() / 2 + 32 * 100] = 0.77f;
  };
  write_hf(c);
  const ConvertReport r = convert(options(folder / "hf", folder / "out.gguf"));
  EXPECT_EQ(r.matrices_kept, 1);
  EXPECT_EQ(r.tensors[0].to, DType::kBF16);
  EXPECT_EQ(r.lattice.blocks - r.lattice.blocks_on_lattice, 1);
  EXPECT_EQ(count_differences(folder / "hf", folder / "out.gguf"), 0);
  EXPECT_EQ(folder.files().size(), 8u);
}

TEST(Convert, UntrainedCheckpointsNeedForce) {
  TemporaryFolder folder("untrained");
  write_hf(checkpoint(folder / "hf", "tinymoe", Training::kNone));
  const ConvertReport r = convert(options(folder / "hf", folder / "out.gguf"));
  EXPECT_EQ(r.matrices_kept, r.matrices);
  EXPECT_NE(r.hint.find("--round"), std::string::npos);
  EXPECT_EQ(count_differences(folder / "hf", folder / "out.gguf"), 0);

  ConvertOptions o = options(folder / "hf", folder / "forced.gguf");
  o.force_q4_0 = true;
  const ConvertReport f = convert(o);
  EXPECT_EQ(f.matrices_kept, 0);
  EXPECT_LT(f.weights_bit_exact, f.weights);
  EXPECT_EQ(f.weights - f.weights_bit_exact,
            count_differences(folder / "hf", folder / "forced.gguf"));
  EXPECT_GT(f.lattice.worst_relative_error, 0.01);
  EXPECT_LT(f.lattice.worst_relative_error, 0.2);
}

TEST(Convert, WeightsThatAreNotFiniteAreKept) {
  TemporaryFolder folder("nan");
  HfCheckpoint c = checkpoint(folder / "hf", "tinykv");
  c.change = [](model::TensorRef ref, std::vector<float>& w) {
    if (ref.kind == TensorKind::kQ && ref.layer == 0) {
      w[40] = std::numeric_limits<float>::infinity();
    }
  };
  write_hf(c);
  for (const bool force : {false, true}) {
    ConvertOptions o = options(folder / "hf", folder / "out.gguf");
    o.force_q4_0 = force;
    o.overwrite = true;
    const ConvertReport r = convert(o);
    EXPECT_EQ(r.matrices_kept, 1);
    for (const TensorReport& t : r.tensors) {
      if (t.name != "blk.0.attn_q.weight") continue;
      EXPECT_EQ(t.to, DType::kBF16);
      EXPECT_NE(t.note.find("not finite"), std::string::npos) << t.note;
    }
    EXPECT_EQ(count_differences(folder / "hf", folder / "out.gguf"), 0);
  }
}

TEST(Convert, GooglesMix) {
  for (const char* size : kSizes) {
    TemporaryFolder folder("google");
    write_hf(checkpoint(folder / "hf", size));
    const ConvertReport r =
        convert(options(folder / "hf", folder / "out.gguf", Format::kGgufGoogle));
    for (const TensorReport& t : r.tensors) {
      DType expected = t.is_matrix ? DType::kQ4_0 : DType::kF32;
      if (t.name == "token_embd.weight" || t.name == "per_layer_token_embd.weight") {
        expected = DType::kQ6_K;
      }
      if (t.name == "per_layer_model_proj.weight") expected = DType::kF16;
      EXPECT_EQ(t.to, expected) << t.name;
    }
    EXPECT_EQ(r.lattice.blocks_on_lattice, r.lattice.blocks);
    // Q6_K does not give lattice weights back.
    EXPECT_LT(r.weights_bit_exact, r.weights);
    EXPECT_EQ(r.weights - r.weights_bit_exact,
              count_differences(folder / "hf", folder / "out.gguf"));
    EXPECT_EQ(model::load_model(folder / "out.gguf").config(), model::config_of_size(size));
  }
}

TEST(Convert, Bf16RoundTrips) {
  for (const char* size : kSizes) {
    TemporaryFolder folder("roundtrip");
    HfCheckpoint c = checkpoint(folder / "hf", size, Training::kNone);
    c.naming = model::Naming::kHfMultimodal;
    c.tower = true;
    write_hf(c);
    const ConvertReport there =
        convert(options(folder / "hf", folder / "a.gguf", Format::kGgufBf16));
    EXPECT_EQ(there.weights_bit_exact, there.weights);
    ASSERT_FALSE(there.notes.empty());  // the tower was named
    EXPECT_NE(there.notes[0].find("skipped"), std::string::npos);
    const ConvertReport back =
        convert(options(folder / "a.gguf", folder / "back", Format::kHfBf16));
    EXPECT_EQ(back.weights_bit_exact, back.weights);
    EXPECT_EQ(count_differences(folder / "hf", folder / "back"), 0);
    (void)convert(options(folder / "back", folder / "b.gguf", Format::kGgufBf16));
    EXPECT_EQ(count_differences(folder / "a.gguf", folder / "b.gguf"), 0);
    const model::Model m = model::load_model(folder / "back");
    EXPECT_EQ(m.config(), c.config);
    ASSERT_NE(m.tokenizer, nullptr);
    EXPECT_EQ(m.generation.stop_ids, (std::vector<int32_t>{1, 6}));
    EXPECT_EQ(m.generation.top_k, 40);
  }
}

TEST(Convert, Q4_0SourcesAreCopied) {
  TemporaryFolder folder("copy");
  write_hf(checkpoint(folder / "hf", "tiny"));
  (void)convert(options(folder / "hf", folder / "a.gguf"));
  const ConvertReport r = convert(options(folder / "a.gguf", folder / "b.gguf"));
  EXPECT_EQ(r.lattice.blocks_on_lattice, r.lattice.blocks);
  EXPECT_EQ(r.weights_bit_exact, r.weights);
  EXPECT_EQ(r.lattice.blocks * 32, r.weights);
  EXPECT_EQ(read_text_file(folder / "a.gguf", 1 << 28), read_text_file(folder / "b.gguf", 1 << 28));
}

TEST(Convert, ThreadsDoNotChangeTheResult) {
  TemporaryFolder folder("threads");
  HfCheckpoint c = checkpoint(folder / "hf", "tiny", Training::kNone);
  c.config.vocab_size = c.config.ple_vocab_size = 1024;
  write_hf(c);
  std::string first;
  Json first_report;
  for (const int threads : {1, 3}) {
    ConvertOptions o = options(folder / "hf", folder / "out.gguf");
    o.force_q4_0 = true;
    o.overwrite = true;
    o.threads = threads;
    Json report = to_json(convert(o));
    report.erase("seconds");
    const std::string bytes = read_text_file(folder / "out.gguf", 1 << 28);
    if (first.empty()) {
      first = bytes;
      first_report = report;
    }
    EXPECT_EQ(bytes, first);
    EXPECT_EQ(report, first_report);
  }
}

TEST(Convert, AnInterruptBeforeTheFirstTensorLeavesNothing) {
  for (const Format format : {Format::kGgufQ4_0, Format::kHfBf16}) {
    TemporaryFolder folder("interrupt");
    write_hf(checkpoint(folder / "hf", "tinykv"));
    const std::vector<std::string> before = folder.files();
    const std::atomic<bool> stop{true};
    ConvertOptions o = options(folder / "hf", folder / "out", format);
    o.stop = &stop;
    EXPECT_THROW((void)convert(o), Interrupted);
    EXPECT_EQ(folder.files(), before);
  }
}

TEST(Convert, RefusesTargets) {
  TemporaryFolder folder("targets");
  write_hf(checkpoint(folder / "hf", "tinykv"));
  (void)convert(options(folder / "hf", folder / "out.gguf"));
  EXPECT_NE(error_of(options(folder / "hf", folder / "out.gguf")).find("--force"),
            std::string::npos);
  EXPECT_NE(error_of(options(folder / "hf", folder / "none/out.gguf")).find("folder"),
            std::string::npos);
  ConvertOptions o = options(folder / "out.gguf", folder / "out.gguf");
  o.overwrite = true;
  EXPECT_NE(error_of(o).find("the target is the source"), std::string::npos);
  // What grows beside the target bears these names.
  for (const char* name : {"new.gguf.part", "new.gguf.part.journal"}) {
    std::filesystem::copy_file(folder / "out.gguf", folder / name);
    EXPECT_NE(error_of(options(folder / name, folder / "new.gguf")).find("is the source"),
              std::string::npos);
    EXPECT_EQ(read_text_file(folder / name, 1 << 30), read_text_file(folder / "out.gguf", 1 << 30));
    std::filesystem::remove(folder / name);
  }
  o = options(folder / "hf", folder / "hf", Format::kHfBf16);
  o.overwrite = true;
  EXPECT_NE(error_of(o).find("the target is the source"), std::string::npos);
  EXPECT_NE(error_of(options(folder / "hf", folder / "out.gguf", Format::kHfBf16))
                .find("of the wrong kind"),
            std::string::npos);
}

// A model in two files of which the first holds metadata only, as llama.cpp's splitter can make it.
void split_off_metadata(const std::string& from, const std::string& stem) {
  const auto file = io::open_gguf(from);
  const size_t n = file->entries().size();
  for (const int part : {0, 1}) {
    io::GgufFields fields;
    fields.add_u16("split.no", static_cast<uint16_t>(part));
    fields.add_u16("split.count", 2);
    fields.add_i32("split.tensors.count", static_cast<int32_t>(n));
    std::vector<io::TensorSpec> specs;
    if (part == 0) {
      for (const auto& [key, value] : file->metadata().entries()) fields.add_value(key, value);
    } else {
      for (const io::TensorEntry& e : file->entries()) specs.push_back({e.name, e.dtype, e.shape});
    }
    io::GgufWriter writer(fmt::format("{}-0000{}-of-00002.gguf", stem, part + 1), fields, specs);
    for (const io::TensorSpec& spec : specs) {
      writer.write(spec.name, file->view(*file->find(spec.name)).bytes());
    }
    writer.finish();
  }
}

TEST(Convert, FilesWithoutTensorsAreHashedToo) {
  TemporaryFolder folder("all_files");
  write_hf(checkpoint(folder / "hf", "tinykv"));
  (void)convert(options(folder / "hf", folder / "whole.gguf", Format::kGgufBf16));
  split_off_metadata(folder / "whole.gguf", folder / "split");
  std::vector<std::string> parts = {folder / "split-00001-of-00002.gguf",
                                    folder / "split-00002-of-00002.gguf"};
  const ConvertReport report = convert(options(parts[1], folder / "again.gguf", Format::kGgufBf16));
  std::vector<std::string> hashed;
  for (const FileDigest& f : report.source_files) hashed.push_back(f.path);
  std::sort(hashed.begin(), hashed.end());
  EXPECT_EQ(hashed, parts);
  EXPECT_EQ(read_text_file(folder / "again.gguf", 1 << 30),
            read_text_file(folder / "whole.gguf", 1 << 30));
}

TEST(Convert, FormatsByName) {
  for (const std::string& name : format_names()) EXPECT_EQ(name_of(format_from_name(name)), name);
  EXPECT_EQ(format_names().size(), 9u);
  EXPECT_THROW((void)format_from_name("q5"), Error);
}

TEST(Convert, ReportHasItsKeysAtTheTop) {
  TemporaryFolder folder("json");
  write_hf(checkpoint(folder / "hf", "tiny"));
  const Json j = to_json(convert(options(folder / "hf", folder / "out.gguf")));
  const int64_t weights = j["weights"].get<int64_t>();
  EXPECT_EQ(j["blocks"].get<int64_t>() * 32, weights);
  EXPECT_EQ(j["blocks_on_lattice"], j["blocks"]);
  EXPECT_EQ(j["weights_bit_exact"].get<int64_t>(), weights);
  EXPECT_EQ(j["tensors"].size(), model::required_tensors(model::config_of_size("tiny")).size());
}

}  // namespace
}  // namespace carat::convert
