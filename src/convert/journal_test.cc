#include "convert/journal.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/error.h"
#include "convert/lattice_json.h"
#include "convert/testing/checkpoints.h"

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
