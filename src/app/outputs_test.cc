#include "app/outputs.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "io/testing/temp_dir.h"

namespace carat::app {
namespace {

class Outputs : public testing::Test {
 protected:
  std::string file(const std::string& name, const std::string& text = "text") {
    const std::string path = folder_.file(name);
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path) << text;
    return path;
  }
  std::string absent(const std::string& name) { return folder_.file(name); }

  // What is wrong with the outputs; empty: nothing.
  static std::string wrong(const std::vector<Output>& outputs,
                           const std::vector<std::string>& inputs) {
    try {
      check_outputs(outputs, inputs);
    } catch (const Error& e) {
      return e.info().what;
    }
    return {};
  }

  io::testing::TempDir folder_;
};

TEST_F(Outputs, MayBeNew) {
  EXPECT_EQ(wrong({{.option = "-o", .path = absent("new")}}, {file("a"), absent("b")}), "");
  EXPECT_EQ(wrong({{.option = "-o", .path = absent("no/new")}}, {}), "its folder does not exist");
}

TEST_F(Outputs, AreNeverInputs) {
  const std::string a = file("a");
  const std::string link = absent("link");
  std::filesystem::create_symlink(a, link);
  for (const std::string& path : {a, link, folder_.file("./a")}) {
    EXPECT_EQ(wrong({{.option = "-o", .path = path, .force = true}}, {absent("b"), a}),
              "the output is an input");
  }
}

TEST_F(Outputs, AreNeverFilesOfAnInputDirectory) {
  const std::string weights = file("model/model.safetensors");
  const std::string model = folder_.file("model");
  EXPECT_EQ(wrong({{.option = "-o", .path = weights, .force = true}}, {model}),
            "the output is a file of an input");
  EXPECT_EQ(wrong({{.option = "-o", .path = model + "/page.html"}}, {model}), "");
}

TEST_F(Outputs, AreNeverPartsOfASplitInput) {
  const std::string first = file("m-00001-of-00002.gguf");
  for (const char* name : {"m-00001-of-00002.gguf", "m-00002-of-00002.gguf"}) {
    EXPECT_NE(wrong({{.option = "-o", .path = file(name), .force = true}}, {first}), "") << name;
  }
  for (const char* name : {"m-00002-of-00003.gguf", "n-00002-of-00002.gguf", "m.gguf"}) {
    EXPECT_EQ(wrong({{.option = "-o", .path = file(name), .force = true}}, {first}), "") << name;
  }
}

TEST_F(Outputs, DifferFromEachOther) {
  EXPECT_EQ(wrong({{.option = "DST", .path = absent("a"), .force = true},
                   {.option = "--save-recipe", .path = folder_.file("./a"), .force = true}},
                  {}),
            "two outputs are one file");
}

TEST_F(Outputs, ReplaceOnlyWhatTheyMay) {
  const std::string text = file("a.html", "my notes");
  const std::string page = file("b.html", "<!DOCTYPE html>\n<html>");
  EXPECT_EQ(wrong({{.option = "-o", .path = text}}, {}), "the file exists");
  EXPECT_EQ(wrong({{.option = "-o", .path = text, .force = true}}, {}), "");
  EXPECT_EQ(wrong({{.option = "--html", .path = text, .is_ours = is_page}}, {}), "the file exists");
  EXPECT_EQ(wrong({{.option = "--html", .path = page, .is_ours = is_page}}, {}), "");
}

}  // namespace
}  // namespace carat::app
