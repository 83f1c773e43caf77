// What a search has measured, kept in a file, so that one that was ended goes on and another one of
// the same model and text begins with what this one knows.
//
// A text file: a digest of all that figures depend on, then a line for each mix, its types and the
// sums of KLD chunk by chunk. A line that was cut ends what is read of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "quantize/kld_meter.h"
#include "quantize/mix.h"

namespace carat::quantize {

class MeasureLog {
 public:
  // Nothing is kept with an empty path. A file of another digest, or of something else that is no
  // such file, is an Error; `counts` are those of every measurement.
  MeasureLog(const std::string& path, const std::string& digest, std::vector<int64_t> counts);
  ~MeasureLog();

  // Null if the mix was not measured.
  const Klds* find(std::span<const Pick> picks) const;
  // Throws Error if it cannot be written.
  void add(std::span<const Pick> picks, const Klds& klds);

 private:
  void read(const std::string& text, const std::string& digest);
  static std::string key_of(std::span<const Pick> picks);

  std::string path_;
  std::vector<int64_t> counts_;
  std::map<std::string, Klds> known_;
  int64_t sound_ = 0;  // bytes of the file up to the last whole line
  struct Close {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace carat::quantize
