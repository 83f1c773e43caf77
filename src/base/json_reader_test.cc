#include "base/json_reader.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/json.h"
#include "base/utf8.h"

namespace carat {
namespace {

std::string first_string(std::string_view text) {
  JsonReader in(text);
  std::string s(in.string());
  in.end();
  return s;
}

std::string failure(std::string_view text) {
  try {
    JsonReader in(text, 4);
    in.skip();
    in.end();
    return "";
  } catch (const Error& e) {
    return e.what();
  }
}

TEST(JsonReader, WalksADocument) {
  JsonReader in(R"( {"a" : [1, -2,[] , {}], "b\n": "x", "c":{"d":true,"e":null,"f":1.5e-3}} )");
  std::string seen;
  in.begin_object();
  for (std::string_view key; in.next_key(&key);) {
    seen += std::string(key) + ";";
    if (key == "a") {
      in.begin_array();
      while (in.next_element()) {
        if (in.peek() == JsonReader::Kind::kNumber) {
          seen += std::to_string(in.integer(-5, 5)) + ",";
        } else {
          in.skip();
        }
      }
    } else if (in.peek() == JsonReader::Kind::kString) {
      seen += in.string();
    } else {
      in.skip();
    }
  }
  in.end();
  EXPECT_EQ(seen, "a;1,-2,b\n;xc;");
}

TEST(JsonReader, StringsAgreeWithTheDocumentParser) {
  for (const char* text :
       {R"("")", R"("plain text that is longer than eight bytes")", R"("a\"b\\c\/d\b\f\n\r\t")",
        R"("\u0041\u00e9\u2581\ud83d\ude00")", "\"\xe2\x96\x81\xf0\x9f\x98\x80 end\"",
        R"("before \" after, twelve or more")"}) {
    EXPECT_EQ(first_string(text), parse_json(text).get<std::string>()) << text;
  }
}

TEST(JsonReader, RefusesWhatIsNotJson) {
  for (const char* text : {"",
                           " ",
                           "{",
                           "[",
                           "[1,]",
                           "{\"a\"}",
                           "{\"a\":}",
                           "{\"a\":1,}",
                           "[1 2]",
                           "\"abc",
                           "\"\\x\"",
                           "\"\\u12g4\"",
                           "\"\\ud800\"",
                           "\"\\ud800\\u0041\"",
                           "\"\\udc00\"",
                           "\"\n\"",
                           "\"\xff\"",
                           "\"\xed\xa0\x80\"",
                           "\"\xc0\x80\"",
                           "01",
                           "-",
                           "1.",
                           "1e",
                           "tru",
                           "nul",
                           "[1] 2",
                           "{1:2}",
                           "'a'",
                           "\"\\"}) {
    EXPECT_NE(failure(text), "") << text;
  }
  EXPECT_EQ(failure("[[[[1]]]]"), "");
  EXPECT_NE(failure("[[[[[1]]]]]").find("nested too deeply"), std::string::npos);
  EXPECT_NE(failure("{\n  \"a\": x}").find("line 2, column 8"), std::string::npos);
}

TEST(JsonReader, RawIsTheTextOfAValue) {
  JsonReader in(R"([ {"a": [1, "]"]} , 2])");
  in.begin_array();
  ASSERT_TRUE(in.next_element());
  EXPECT_EQ(in.raw(), R"({"a": [1, "]"]})");
  JsonReader mark = in;
  ASSERT_TRUE(in.next_element());
  EXPECT_EQ(in.raw(), "2");
  EXPECT_FALSE(in.next_element());
  ASSERT_TRUE(mark.next_element());
  EXPECT_EQ(mark.integer(0, 9), 2);
}

TEST(JsonReader, IntegersKeepTheirRange) {
  EXPECT_EQ(JsonReader("9223372036854775807").integer(0, INT64_MAX), INT64_MAX);
  EXPECT_THROW(JsonReader("9223372036854775808").integer(0, INT64_MAX), Error);
  EXPECT_THROW(JsonReader("-1").integer(0, 5), Error);
  EXPECT_THROW(JsonReader("1.5").integer(0, 5), Error);
  EXPECT_THROW(JsonReader("\"1\"").integer(0, 5), Error);
}

TEST(Utf8, FrontKnowsValidCutAndMalformed) {
  EXPECT_EQ(utf8_front("a").length, 1);
  EXPECT_EQ(utf8_front("\xc3\xa9").length, 2);
  EXPECT_EQ(utf8_front("\xe2\x96\x81").length, 3);
  EXPECT_EQ(utf8_front("\xf4\x8f\xbf\xbf").length, 4);
  for (const char* cut : {"\xc3", "\xe2", "\xe2\x96", "\xf0\x9f", "\xf0\x9f\x98"}) {
    EXPECT_EQ(utf8_front(cut).length, 0);
    EXPECT_TRUE(utf8_front(cut).incomplete);
  }
  for (const char* bad :
       {"\x80", "\xc0\x80", "\xc1", "\xe0\x80", "\xed\xa0", "\xf0\x80", "\xf4\x90", "\xf5", "\xff",
        "\xe2"
        "a"}) {
    EXPECT_EQ(utf8_front(bad).length, 0);
    EXPECT_FALSE(utf8_front(bad).incomplete);
  }
}

}  // namespace
}  // namespace carat
