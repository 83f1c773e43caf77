#include "app/table.h"

#include <gtest/gtest.h>

#include "app/progress.h"

namespace carat::app {
namespace {

TEST(Table, NumbersToTheRightTextToTheLeft) {
  Table table({"name", "bytes"});
  table.add({"a", "5"});
  table.add({"longer", "1234567"});
  EXPECT_EQ(table.text(),
            "name      bytes\n"
            "a             5\n"
            "longer  1234567\n");
}

TEST(Table, CountsCharactersNotBytes) {
  Table table({"n", "x"});
  table.add({"\xc3\xa9", "b"});
  table.add({"ab", "c"});
  EXPECT_EQ(table.text(), "n   x\n\xc3\xa9   b\nab  c\n");
}

TEST(Progress, LineTellsShareAndTimeLeft) {
  EXPECT_EQ(Progress::line("tensors", 25, 100, 10, "blk.3"),
            "25/100 tensors  25 %  eta 0:30  blk.3");
  EXPECT_EQ(Progress::line("tokens", 7, 0, 65, ""), "7 tokens  1:05");
  EXPECT_EQ(Progress::line("tensors", 100, 100, 10, ""), "100/100 tensors  100 %");
}

TEST(Format, DurationsAndBytes) {
  EXPECT_EQ(format_duration(41.2), "0:41");
  EXPECT_EQ(format_duration(3 * 3600 + 7 * 60 + 12), "3:07:12");
  EXPECT_EQ(format_bytes(999), "999 B");
  EXPECT_EQ(format_bytes(1500), "1.5 kB");
  EXPECT_EQ(format_bytes(2'620'000'000), "2.62 GB");
}

}  // namespace
}  // namespace carat::app
