// What a search has measured, kept in a file, so that one that was ended goes on and another one of
// the same model and text begins with what this one knows.
//
// A text file: a line that names all that figures depend on, then a line for each matrix with the
// types that it may have and their errors, and one for each mix that was measured: its types and
// the sums of KLD chunk by chunk. A last line without an end was cut, and is made anew.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quantize/choices.h"
#include "quantize/kld_meter.h"
#include "quantize/mix.h"

namespace carat::quantize {

// One of the things that figures depend on, and its digest: no blanks in `what` and `digest`.
struct LogKey {
  std::string what;         // "model"
  std::string digest;       // "5e0a..."
  std::string description;  // of another one: "another model"
};

class MeasureLog {
 public:
  enum class Chunks : uint8_t { kSearch, kCheck };

  // `counts`: positions of each of the chunks that decide, and of those that check. Nothing is kept
  // with an empty path. Throws Error: the file cannot be written, another run uses it, it is of
  // something else (says of what), or it holds what is no measurement.
  MeasureLog(const std::string& path, std::span<const LogKey> key,
             const std::array<std::vector<int64_t>, 2>& counts);
  ~MeasureLog();
  MeasureLog(const MeasureLog&) = delete;
  MeasureLog& operator=(const MeasureLog&) = delete;

  // Null if the mix was not measured there.
  const Klds* find(Chunks chunks, std::span<const Pick> picks) const;
  // Throws Error if it cannot be written.
  void add(Chunks chunks, std::span<const Pick> picks, const Klds& klds);

  // Of a matrix, by its name; null if they were not tried. `bytes` are not kept.
  const std::vector<TypeChoice>* find_types(const std::string& matrix) const;
  void add_types(const std::string& matrix, std::span<const TypeChoice> types);

 private:
  void open(std::span<const LogKey> key);
  void read(std::string_view text, std::span<const LogKey> key);
  void read_line(std::string_view line, int64_t number);
  void check_head(std::string_view head, std::span<const LogKey> key) const;
  void write(const std::string& line);

  std::string path_;
  std::array<std::vector<int64_t>, 2> counts_;
  std::array<std::map<std::string, Klds, std::less<>>, 2> known_;
  std::map<std::string, std::vector<TypeChoice>, std::less<>> types_;
  int64_t sound_ = 0;  // bytes of the file up to the last whole line
  int fd_ = -1;
};

}  // namespace carat::quantize
