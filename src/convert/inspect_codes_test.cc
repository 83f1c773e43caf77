#include "convert/inspect_codes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "base/file.h"
#include "convert/inspect.h"
#include "convert/testing/checkpoints.h"
#include "io/safetensors_writer.h"
#include "model/testing/coded_checkpoint.h"

namespace carat::convert {
namespace {

using model::testing::CodedForm;
using model::testing::CodedSource;
using model::testing::MemorySource;
using testing::TemporaryFolder;

void put(const std::string& path, const std::string& text) {
  AtomicFile f(path);
  f.write(text);
  f.commit();
}

void save(const std::string& folder, const MemorySource& source, const Json& config) {
  std::filesystem::create_directories(folder);
  std::vector<io::TensorEntry> entries = source.entries();
  std::stable_sort(entries.begin(), entries.end(),
                   [](const io::TensorEntry& a, const io::TensorEntry& b) {
                     return info(a.dtype).block_bytes > info(b.dtype).block_bytes;
                   });
  std::vector<io::TensorSpec> specs;
  for (const io::TensorEntry& e : entries) specs.push_back({e.name, e.dtype, e.shape});
  const auto writer = io::write_safetensors_directory(folder, specs, int64_t{1} << 30);
  for (const io::TensorEntry& e : entries) {
    writer->write(e.name, {source.view(e).data, static_cast<size_t>(e.bytes)});
  }
  writer->finish();
  put(folder + "/config.json", to_json_text(config));
}

// The same parameters as floats.
void save_floats(const std::string& folder, const CodedSource& s) {
  MemorySource floats;
  for (const model::TensorRef ref : model::required_tensors(s.config)) {
    const std::string name = model::name_of(ref, s.naming);
    floats.add_f32(name, model::shape_of(s.config, ref), s.values.at(name));
  }
  Json config = s.json;
  config.erase("quantization_config");
  save(folder, floats, config);
}

InspectReport inspect_path(const std::string& path, const std::string& against = "") {
  InspectOptions o;
  o.path = path;
  o.against = against;
  o.threads = 2;
  return inspect(o);
}

const CodedReport::Class& class_named(const CodedReport& r, const std::string& name) {
  const auto it = std::find_if(r.classes.begin(), r.classes.end(),
                               [&](const CodedReport::Class& c) { return c.name == name; });
  EXPECT_NE(it, r.classes.end()) << name;
  return *it;
}

TEST(InspectCodes, TellsTheKindAndListsParametersOnce) {
  TemporaryFolder folder("inspect_codes");
  const char* kinds[] = {"mobile-transformers", "mobile-ct", "w4a16-ct"};
  for (const CodedForm form : model::testing::kCodedForms) {
    CodedSource s(form == CodedForm::kW4A16 ? "tinymoe" : "tiny", form);
    s.fill();
    const std::string path = folder / model::testing::name_of(form);
    save(path, *s.source, s.json);
    const InspectReport r = inspect_path(path);
    EXPECT_EQ(r.codes.kind, kinds[static_cast<int>(form)]);
    int64_t used = 0, bytes = 0;
    for (const InspectedTensor& t : r.tensors) {
      used += t.skipped.empty();
      bytes += t.bytes;
    }
    EXPECT_EQ(used, static_cast<int64_t>(model::required_tensors(s.config).size()));
    EXPECT_EQ(bytes, r.bytes);
    for (const std::string& note : r.notes) EXPECT_EQ(note, "the checkpoint has no tokenizer");
    const bool mobile = form != CodedForm::kW4A16;
    const CodedReport::Class& attention = class_named(r.codes, "attention");
    EXPECT_EQ(attention.bits, 4);
    EXPECT_EQ(attention.scale_columns, mobile ? 0 : 32);
    EXPECT_EQ(attention.static_inputs, mobile ? attention.parameters : 0);
    EXPECT_EQ(r.codes.static_kv_layers, form == CodedForm::kMobile ? s.config.n_owners() : 0);
    if (!mobile) continue;
    EXPECT_EQ(class_named(r.codes, "output matrix").static_inputs, 0);
    EXPECT_EQ(class_named(r.codes, "per-layer embeddings").scale_columns, s.config.ple_dim);
    EXPECT_EQ(class_named(r.codes, "per-layer gate and projection").bits, 8);
  }
}

TEST(InspectCodes, ComparesValuesAndScales) {
  TemporaryFolder folder("inspect_codes_against");
  for (const CodedForm form : model::testing::kCodedForms) {
    CodedSource s(form == CodedForm::kW4A16 ? "tinykv" : "tiny", form);
    s.fill();
    const std::string codes = folder / model::testing::name_of(form);
    const std::string floats = codes + "_floats";
    save(codes, *s.source, s.json);
    save_floats(floats, s);
    const InspectReport r = inspect_path(codes, floats);
    EXPECT_EQ(r.comparison.weights, model::parameter_count(s.config));
    EXPECT_TRUE(r.comparison.all_equal());
    EXPECT_TRUE(r.different.empty());
    EXPECT_EQ(r.comparison.relative_rms, 0);
    EXPECT_EQ(r.codes.shift.has_value(), form == CodedForm::kW4A16);
    if (form != CodedForm::kW4A16) continue;
    // Random codes: half of the scales are negative, and they are right.
    EXPECT_FALSE(r.codes.shift->follows_min_max());
    ASSERT_TRUE(r.codes.pairs.has_value());
    EXPECT_GT(r.codes.pairs->groups, 0);
    EXPECT_EQ(r.codes.pairs->as_stored, r.codes.pairs->groups);
    // And back: floats beside codes.
    EXPECT_TRUE(inspect_path(floats, codes).comparison.all_equal());
  }
}

}  // namespace
}  // namespace carat::convert
