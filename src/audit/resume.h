// What an audit has finished, in a file, so that a later run can go on after the first was killed.
//
// The file begins with one line of JSON, the key: everything that decides the figures (models,
// tokens, options, program). Records follow: what (16 letters, padded with zeros), index, length,
// the first 8 bytes of the SHA-256 of all that, and the bytes. A record that is cut off or damaged
// ends the file: it and what follows are dropped. Numbers are the machine's own, as positions are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"

namespace carat::audit {

class AuditState {
 public:
  // Opens or creates the file and locks it. Throws Error if it is no such file, if another process
  // has it, or if its key differs: the error names the first thing that does, with both values.
  AuditState(std::string path, const Json& key);
  ~AuditState();
  AuditState(const AuditState&) = delete;
  AuditState& operator=(const AuditState&) = delete;

  const std::string& path() const { return path_; }
  // Null if there is no such record.
  const std::vector<std::byte>* find(const std::string& what, int64_t index) const;
  // Appends a record and gives it to the disk. A record of the same name and index replaces an
  // earlier one. REQUIRES: `what` has at most 16 letters.
  void add(const std::string& what, int64_t index, std::span<const std::byte> bytes);
  int64_t records() const { return static_cast<int64_t>(records_.size()); }

 private:
  void read_records(std::span<const std::byte> bytes, size_t head);

  std::string path_;
  int fd_ = -1;
  std::map<std::pair<std::string, int64_t>, std::vector<std::byte>> records_;
};

}  // namespace carat::audit
