// Short aligned tables for people.
#pragma once

#include <string>
#include <vector>

namespace carat::app {

// Columns are as wide as their widest cell, two spaces apart; a column whose cells (heading aside)
// all begin with a digit, sign or dash is right-aligned.
class Table {
 public:
  explicit Table(std::vector<std::string> headings) : rows_{std::move(headings)} {}
  // REQUIRES: as many cells as headings.
  void add(std::vector<std::string> cells);
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace carat::app
