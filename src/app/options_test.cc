#include "app/options.h"

#include <gtest/gtest.h>

namespace carat::app {
namespace {

// Every kind of target, as a command would hold them.
struct Sample {
  std::string model;
  std::vector<std::string> rest;
  std::vector<std::string> files;
  std::optional<std::string> prompt;
  int64_t count = 8;
  double temperature = 1;
  std::optional<double> top_p;
  std::optional<int64_t> top_k;
  std::vector<int32_t> tokens;
  std::string kv = "f32";
  bool json = false;

  std::vector<Option> options() {
    return {{.names = "MODEL", .target = &model, .required = true, .help = "a model"},
            {.names = "REST", .target = &rest, .help = "more"},
            {.names = "--file", .value = "F", .target = &files, .help = "files"},
            {.names = "-p,--prompt", .value = "TEXT", .target = &prompt, .help = "prompt"},
            {.names = "-n,--count",
             .value = "N",
             .target = &count,
             .help = "count",
             .lowest = 0,
             .highest = 100},
            {.names = "--temp", .value = "T", .target = &temperature, .help = "t", .lowest = 0},
            {.names = "--top-p", .value = "P", .target = &top_p, .help = "p"},
            {.names = "--top-k", .value = "K", .target = &top_k, .help = "k"},
            {.names = "--tokens", .value = "IDS", .target = &tokens, .help = "ids"},
            {.names = "--kv",
             .value = "TYPE",
             .target = &kv,
             .help = "type",
             .choices = {"f32", "f16"}},
            {.names = "--json", .target = &json, .help = "json"}};
  }

  bool parse(const std::vector<std::string>& args) {
    return parse_options("sample", options(), args);
  }

  // What the complaint says.
  std::string complaint(const std::vector<std::string>& args) {
    try {
      if (!parse(args)) return "(help)";
    } catch (const UsageError& error) {
      return error.what();
    }
    return "(none)";
  }
};

TEST(Options, EveryKindOfTarget) {
  Sample s;
  ASSERT_TRUE(s.parse({"m.gguf", "-p", "two words", "-n", "5", "--temp", "0.25", "--top-p=0.5",
                       "--top-k", "40", "--tokens", "2,5,9", "--kv", "f16", "--json"}));
  EXPECT_EQ(s.model, "m.gguf");
  EXPECT_EQ(s.prompt, "two words");
  EXPECT_EQ(s.count, 5);
  EXPECT_EQ(s.temperature, 0.25);
  EXPECT_EQ(s.top_p, 0.5);
  EXPECT_EQ(s.top_k, 40);
  EXPECT_EQ(s.tokens, (std::vector<int32_t>{2, 5, 9}));
  EXPECT_EQ(s.kv, "f16");
  EXPECT_TRUE(s.json);
}

TEST(Options, DefaultsStayAndOptionalsAreEmpty) {
  Sample s;
  ASSERT_TRUE(s.parse({"m"}));
  EXPECT_EQ(s.count, 8);
  EXPECT_FALSE(s.prompt);
  EXPECT_FALSE(s.top_p);
  EXPECT_FALSE(s.json);
}

TEST(Options, AnEmptyPromptIsAPrompt) {
  Sample s;
  ASSERT_TRUE(s.parse({"m", "-p", ""}));
  ASSERT_TRUE(s.prompt);
  EXPECT_EQ(*s.prompt, "");
}

TEST(Options, PositionalsInOrder) {
  Sample s;
  ASSERT_TRUE(s.parse({"a", "b", "c"}));
  EXPECT_EQ(s.model, "a");
  EXPECT_EQ(s.rest, (std::vector<std::string>{"b", "c"}));
}

TEST(Options, ARepeatedOptionTakesOneWordEachTime) {
  Sample s;
  ASSERT_TRUE(s.parse({"--file", "x", "a", "--file=y", "b", "--file", "z", "c"}));
  EXPECT_EQ(s.files, (std::vector<std::string>{"x", "y", "z"}));
  EXPECT_EQ(s.model, "a");
  EXPECT_EQ(s.rest, (std::vector<std::string>{"b", "c"}));
}

TEST(Options, ComplaintsNameTheOption) {
  Sample s;
  EXPECT_EQ(s.complaint({"m", "-n", "x"}), "--count takes a whole number, not 'x'");
  EXPECT_EQ(s.complaint({"m", "-n", "5x"}), "--count takes a whole number, not '5x'");
  EXPECT_EQ(s.complaint({"m", "-n", "101"}), "--count must be 0 to 100, not 101");
  EXPECT_EQ(s.complaint({"m", "-n", "99999999999999999999"}),
            "--count takes a whole number, not '99999999999999999999'");
  EXPECT_EQ(s.complaint({"m", "--temp", "nan"}), "--temp takes a number, not 'nan'");
  EXPECT_EQ(s.complaint({"m", "--temp=-1"}), "--temp must be at least 0, not -1");
  EXPECT_EQ(s.complaint({"m", "--tokens", "1,,2"}), "--tokens takes a whole number, not ''");
  EXPECT_EQ(s.complaint({"m", "--tokens", "1,3000000000"}),
            "--tokens takes a whole number, not '3000000000'");
  EXPECT_EQ(s.complaint({"m", "--kv", "f8"}), "--kv must be one of f32, f16; not 'f8'");
}

TEST(Options, UnknownOptionsSuggestTheNearest) {
  Sample s;
  EXPECT_EQ(s.complaint({"m", "--promt", "x"}),
            "there is no option --promt; did you mean --prompt?");
  EXPECT_EQ(s.complaint({"m", "--zzzzzz"}), "there is no option --zzzzzz");
}

TEST(Options, MissingPiecesAreUsageErrors) {
  Sample s;
  EXPECT_NE(s.complaint({}).find("MODEL"), std::string::npos);
  EXPECT_NE(s.complaint({"m", "-p"}).find("prompt"), std::string::npos);
}

TEST(Options, HelpWins) {
  Sample s;
  EXPECT_EQ(s.complaint({"--help"}), "(help)");
  EXPECT_EQ(s.complaint({"m", "--nonsense", "-h"}), "(help)");
}

TEST(HelpPage, NamesEveryOptionAndDefault) {
  Sample s;
  const std::string page = help_page(
      "sample", {.summary = "shows", .description = "d", .examples = {{"carat sample m", "why"}}},
      s.options());
  for (const char* part : {"Usage: carat sample MODEL [REST...] [options]", "-p, --prompt TEXT",
                           "[default: 8]", "type: f32, f16 [default: f32]",
                           "Examples:\n  carat sample m\n      why\n", "-h, --help"}) {
    EXPECT_NE(page.find(part), std::string::npos) << part << "\n" << page;
  }
}

TEST(Wrap, BreaksAtSpacesAndKeepsLines) {
  EXPECT_EQ(wrap("aaa bbb ccc", 0, 7), "aaa bbb\nccc");
  EXPECT_EQ(wrap("aaa bbb", 2, 7), "aaa\n  bbb");
  EXPECT_EQ(wrap("a\nb", 1, 80), "a\n b");
}

}  // namespace
}  // namespace carat::app
