#include "base/json.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace carat {
namespace {

std::string error_of(const std::string& text) {
  try {
    parse_json(text);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(Json, RefusesWhatItMust) {
  EXPECT_NE(error_of("{\"a\":1,\"a\":2}").find("twice"), std::string::npos);
  EXPECT_NE(error_of(std::string(500000, '[')).find("nested too deeply"), std::string::npos);
  EXPECT_NE(error_of("{\"a\":").find("not valid JSON"), std::string::npos);
  EXPECT_NE(error_of("{\n\"a\":x}").find("line 2"), std::string::npos);
  EXPECT_NE(error_of("1 2").find("not valid JSON"), std::string::npos);
  EXPECT_NE(error_of("\"\xff\"").find("not valid JSON"), std::string::npos);
  EXPECT_NE(error_of(std::string("1\0 2", 4)).find("NUL"), std::string::npos);
  EXPECT_EQ(error_of("{\"a\":{\"x\":1},\"b\":{\"x\":1}}"), "");
}

TEST(Json, GettersCheckRanges) {
  const Json j = parse_json("{\"big\":4294967297,\"neg\":-1,\"frac\":1.9,\"s\":\"t\",\"u\":18446744073709551615}");
  EXPECT_EQ(get_int(j, "big", 0, int64_t{1} << 40), 4294967297);
  EXPECT_THROW(get_int(j, "big", 0, 100), Error);
  EXPECT_THROW(get_int(j, "neg", 0, 100), Error);
  EXPECT_THROW(get_int(j, "frac", 0, 100), Error);
  EXPECT_THROW(get_int(j, "u", 0, INT64_MAX), Error);
  EXPECT_THROW(get_int(j, "absent", 0, 100), Error);
  EXPECT_EQ(get_int(j, "absent", 0, 100, 5), 5);
  EXPECT_THROW(get_string(j, "big"), Error);
  EXPECT_EQ(get_string(j, "s"), "t");
}

}  // namespace
}  // namespace carat
