#include "convert/journal.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>

#include "base/error.h"
#include "convert/lattice_json.h"
#include "convert/testing/checkpoints.h"
#include "io/checkpoint.h"

namespace carat::convert {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;

std::string bytes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// A conversion that can be stopped in the middle, with what it said.
struct Stage {
  ConvertOptions options;
  std::string told;
  int64_t first_done = 0;  // of the progress

  Stage(const TemporaryFolder& folder, Format format) {
    options.source = folder / "hf";
    options.target = folder / (format == Format::kHfBf16 ? "out" : "out.gguf");
    options.format = format;
    options.max_shard_bytes = 1 << 19;
  }

  ConvertReport go(int stop_after = 0) {
    std::atomic<bool> stop{false};
    int calls = 0;
    told.clear();
    options.stop = &stop;
    options.note = [&](const std::string& text) { told += text + "\n"; };
    options.progress = [&](int64_t, int64_t, const std::string&) {
      if (++calls == stop_after) stop = true;
    };
    return convert(options);
  }
  void interrupt(int after) { EXPECT_THROW((void)go(after), Interrupted); }
};

void write_source(const TemporaryFolder& folder, uint64_t seed = 1) {
  testing::HfCheckpoint c;
  c.folder = folder / "hf";
  c.config = model::config_of_size("tinykv");
  c.seed = seed;
  write_hf(c);
}

std::string everything_in(const std::string& path) {
  if (!fs::is_directory(path)) return bytes_of(path);
  std::vector<fs::path> files;
  for (const auto& e : fs::recursive_directory_iterator(path)) files.push_back(e.path());
  std::sort(files.begin(), files.end());
  std::string all;
  for (const fs::path& f : files) all += f.filename().string() + "\n" + bytes_of(f.string());
  return all;
}

Json without_time(const ConvertReport& report) {
  Json j = to_json(report);
  j.erase("seconds");
  return j;
}

TEST(Journal, AnInterruptedConversionGoesOnToTheSameResult) {
  for (const Format format : {Format::kGgufQ4_0, Format::kGgufGoogle, Format::kHfBf16}) {
    TemporaryFolder folder("goes_on");
    write_source(folder);
    Stage run(folder, format);
    const Json expected = without_time(run.go());
    const std::string whole = everything_in(run.options.target);
    fs::remove_all(run.options.target);

    run.interrupt(20);
    EXPECT_NE(run.told.find("are kept in"), std::string::npos) << run.told;
    for (const std::string& name : folder.files()) {
      if (name.starts_with("hf")) continue;
      EXPECT_TRUE(name == "out" || name.ends_with(".part") || name.ends_with(".journal")) << name;
    }
    run.interrupt(45);  // twice
    EXPECT_NE(run.told.find("going on behind"), std::string::npos) << run.told;
    const Json resumed = without_time(run.go());
    EXPECT_NE(run.told.find("going on behind"), std::string::npos) << run.told;
    EXPECT_EQ(everything_in(run.options.target), whole) << name_of(format);
    EXPECT_EQ(to_json_text(resumed), to_json_text(expected));
  }
}

TEST(Journal, LossesOfAnEarlierRunAreReportedToo) {
  TemporaryFolder folder("losses");
  testing::HfCheckpoint c;
  c.folder = folder / "hf";
  c.config = model::config_of_size("tinykv");
  c.rule = testing::Training::kNone;
  write_hf(c);
  Stage run(folder, Format::kW4A16);
  run.options.target = folder / "out";
  run.options.accepted = Losses::from_text("rounded-weights,rounded-scales");
  const ConvertReport whole = run.go();
  ASSERT_FALSE(whole.losses.empty());
  std::filesystem::remove_all(run.options.target);

  // Stopped as late as possible, so that the last run makes no loss of its own.
  int calls = 0;
  ConvertOptions count = run.options;
  count.progress = [&](int64_t, int64_t, const std::string& note) {
    calls += note != "checksum of the source";
  };
  std::atomic<bool> never{false};
  count.stop = &never;
  (void)convert(count);
  std::filesystem::remove_all(run.options.target);
  run.interrupt(calls);
  const ConvertReport resumed = run.go();
  EXPECT_NE(run.told.find("going on behind"), std::string::npos) << run.told;
  EXPECT_EQ(resumed.losses.text(), whole.losses.text());
  EXPECT_EQ(to_json_text(without_time(resumed)), to_json_text(without_time(whole)));
}

TEST(Journal, BeginsAnewWhereSomethingElseWasAskedFor) {
  TemporaryFolder folder("anew");
  write_source(folder);
  Stage run(folder, Format::kGgufQ4_0);
  (void)run.go();
  const std::string whole = everything_in(run.options.target);
  fs::remove_all(run.options.target);

  const auto check_anew = [&](const char* why) {
    (void)run.go();
    EXPECT_NE(run.told.find("begun anew"), std::string::npos) << why << run.told;
    EXPECT_FALSE(fs::exists(run.options.target + ".part")) << why;
    EXPECT_FALSE(fs::exists(run.options.target + ".part.journal")) << why;
  };
  run.interrupt(20);
  run.options.overwrite = true;
  check_anew("--force");
  EXPECT_EQ(everything_in(run.options.target), whole);
  run.options.overwrite = false;
  fs::remove_all(run.options.target);

  run.interrupt(20);
  run.options.format = Format::kGgufBf16;
  check_anew("another format");
  run.options.format = Format::kGgufQ4_0;
  fs::remove_all(run.options.target);

  run.interrupt(20);
  write_source(folder, 2);
  check_anew("another source");
  EXPECT_NE(everything_in(run.options.target), whole);
}

TEST(Journal, DamageCostsOnlyWhatIsBehindIt) {
  TemporaryFolder folder("damage");
  write_source(folder);
  Stage run(folder, Format::kGgufQ4_0);
  (void)run.go();
  const std::string whole = everything_in(run.options.target);
  const std::string part = run.options.target + ".part", journal = part + ".journal";
  for (const char* damage : {"cut journal", "garbage in journal", "no part", "flipped byte"}) {
    fs::remove_all(run.options.target);
    run.interrupt(30);
    const std::string d = damage;
    if (d == "cut journal") fs::resize_file(journal, fs::file_size(journal) - 7);
    if (d == "garbage in journal") {
      std::ofstream out(journal, std::ios::app);
      out << "{\"bytes\": -1}\n\n{";
    }
    if (d == "no part") fs::remove(part);
    if (d == "flipped byte") {
      std::fstream file(part, std::ios::binary | std::ios::in | std::ios::out);
      file.seekp(static_cast<std::streamoff>(fs::file_size(part)) * 2 / 3);
      file.put('\x77');
    }
    (void)run.go();
    const bool anew = run.told.find("begun anew") != std::string::npos;
    EXPECT_EQ(anew, d == "no part") << d << run.told;
    EXPECT_EQ(everything_in(run.options.target), whole) << d;
  }
}

// Old and new shards never look like one checkpoint, and what has its name is not made again.
TEST(Journal, AFailureBetweenTheNamesIsRecognisedAndGoneOnFrom) {
  TemporaryFolder folder("names");
  write_source(folder);
  Stage run(folder, Format::kHfBf16);
  (void)run.go();
  const std::string whole = everything_in(run.options.target);
  const std::string out = run.options.target;
  std::string first;
  for (const auto& e : fs::directory_iterator(out)) {
    const std::string name = e.path().filename().string();
    if (name.starts_with("model-00001-of")) first = e.path().string();
  }
  ASSERT_FALSE(first.empty());
  write_source(folder, 2);
  run.options.overwrite = true;
  run.options.progress = [&](int64_t, int64_t, const std::string&) {
    if (fs::is_directory(first)) return;
    fs::remove(first);
    fs::create_directories(first + "/in the way");  // the name that is given last
  };
  run.options.stop = nullptr;
  EXPECT_THROW((void)convert(run.options), Error);
  EXPECT_FALSE(fs::exists(out + "/config.json"));
  EXPECT_FALSE(fs::exists(out + "/model.safetensors.index.json"));
  EXPECT_TRUE(fs::exists(first + ".part"));
  try {
    (void)io::open_checkpoint(out);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("interrupted conversion"), std::string::npos) << e.what();
  }
  fs::remove_all(first);
  run.options.overwrite = false;
  (void)run.go();
  EXPECT_NE(run.told.find("going on behind"), std::string::npos) << run.told;
  const std::string second = everything_in(out);
  EXPECT_NE(second, whole);
  fs::remove_all(out);
  (void)run.go();
  EXPECT_EQ(second, everything_in(out));
}

TEST(Journal, PartsOfOtherSizesAreClearedAway) {
  for (const Format format : {Format::kHfBf16, Format::kGgufQ4_0}) {
    TemporaryFolder folder("sizes");
    write_source(folder);
    Stage run(folder, format);
    run.options.max_file_bytes = run.options.max_shard_bytes = 1 << 17;
    run.interrupt(20);
    const std::string own =
        format == Format::kHfBf16 ? folder / "out/mine.part" : folder / "x.part";
    testing::write_text(own, "not the journal's");
    run.options.max_file_bytes = run.options.max_shard_bytes = 1 << 20;
    (void)run.go();
    for (const std::string& name : folder.files()) {
      EXPECT_TRUE(name.ends_with("mine.part") || name == "x.part" ||
                  name.find(".part") == std::string::npos)
          << name;
    }
    EXPECT_TRUE(fs::exists(own));
  }
}

// Bytes of every tensor, by name.
std::map<std::string, std::vector<std::byte>> tensors_of(const std::string& path, size_t* files) {
  const io::Checkpoint c = io::open_checkpoint(path);
  std::map<std::string, std::vector<std::byte>> all;
  for (const io::TensorEntry& e : c.tensors->entries()) {
    std::vector<std::byte> bytes(static_cast<size_t>(e.bytes));
    c.tensors->file_of(e).read(e.offset, bytes);
    all[e.name] = std::move(bytes);
  }
  *files = c.tensors->paths().size();
  return all;
}

TEST(Journal, ASplitFileHoldsWhatAWholeOneDoes) {
  TemporaryFolder folder("split");
  write_source(folder);
  Stage run(folder, Format::kGgufQ4_0);
  (void)run.go();
  size_t n = 0;
  const auto whole = tensors_of(run.options.target, &n);
  EXPECT_EQ(n, 1u);
  run.options.target = folder / "parts.gguf";
  run.options.max_file_bytes = 1 << 17;
  run.interrupt(20);
  const ConvertReport report = run.go();
  EXPECT_NE(run.told.find("going on behind"), std::string::npos) << run.told;
  ASSERT_GT(report.target_files.size(), 2u);
  EXPECT_EQ(tensors_of(report.target_files.back().path, &n), whole);
  EXPECT_EQ(n, report.target_files.size());
  EXPECT_FALSE(fs::exists(run.options.target));
  for (const std::string& name : folder.files()) {
    EXPECT_EQ(name.find(".part"), std::string::npos) << name;
  }
  EXPECT_THROW((void)run.go(), Error);  // exists
  // Made of its own parts it would write over them.
  run.options.source = report.target_files[0].path;
  run.options.overwrite = true;
  EXPECT_THROW((void)run.go(), Error);
}

TEST(Journal, FindingsComeBackBitForBit) {
  LatticeStats s;
  s.blocks = 5;
  s.worst_relative_error = 0.1;
  s.squared_error = 1e-310;
  s.codes[15] = INT64_MAX;
  const LatticeStats back = lattice_from_full_json(parse_json(to_json_text(full_json(s))));
  EXPECT_EQ(to_json_text(full_json(back)), to_json_text(full_json(s)));
  EXPECT_EQ(back.worst_relative_error, 0.1);
  EXPECT_EQ(back.squared_error, 1e-310);
  EXPECT_THROW((void)lattice_from_full_json(parse_json("[1,2]")), Error);
}

}  // namespace
}  // namespace carat::convert
