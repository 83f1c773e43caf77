#include "audit/teacher_store.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "audit/teacher_store_kinds.h"
#include "base/error.h"
#include "base/file.h"

namespace carat::audit {
namespace {

// The first bytes of a file, zeros behind its end.
std::array<char, kStoreMagicBytes> magic_of(const std::string& path) {
  std::array<char, kStoreMagicBytes> magic{};
  const auto file = open_file(path);
  const auto n = static_cast<size_t>(std::min(file->size(), kStoreMagicBytes));
  file->read(0, std::as_writable_bytes(std::span(magic)).first(n));
  return magic;
}

bool is(const std::array<char, kStoreMagicBytes>& magic, const char* text) {
  return std::memcmp(magic.data(), text, kStoreMagicBytes) == 0;
}

}  // namespace

StoredComparison compare_stored(const StoredTeacher& teacher, const Chunk& chunk, int64_t r,
                                std::span<const float> candidate, std::span<float> scratch) {
  CHECK(0 <= r && static_cast<size_t>(r) < chunk.compared.size());
  const auto position = static_cast<size_t>(chunk.compared[static_cast<size_t>(r)]);
  const StoredRow row = teacher.fill_row(r, candidate, scratch);
  StoredComparison out;
  out.position = compare_position(scratch, candidate, chunk.tokens[position + 1]);
  out.kld_bound = out.position.kld;
  out.position.kld += row.missing_kld;
  if (row.entropy) out.position.entropy = *row.entropy;
  return out;
}

bool is_stored_teacher(const std::string& path) {
  if (std::filesystem::is_directory(path)) return false;
  const auto magic = magic_of(path);
  return is(magic, kKldMagic) || is(magic, kRefMagic);
}

std::unique_ptr<StoredTeacher> open_stored_teacher(const std::string& path, int32_t bos) {
  const auto magic = magic_of(path);
  if (is(magic, kKldMagic)) return open_kld_teacher(path, bos);
  if (is(magic, kRefMagic)) return open_ref_teacher(path);
  throw Error({"not a file of stored predictions",
               path,
               "byte 0",
               "\"_logits_\" (llama.cpp's .kld) or \"CARATREF\" (.carat-ref)",
               {},
               {}});
}

std::unique_ptr<TeacherWriter> make_teacher_writer(const std::string& path,
                                                   const TeacherPlan& plan) {
  CHECK(plan.vocab_size > 0 && !plan.chunks.empty());
  for (const Chunk& chunk : plan.chunks) {
    CHECK(!chunk.compared.empty() && chunk.compared.front() >= 0);
    CHECK(static_cast<size_t>(chunk.compared.back()) + 2 <= chunk.tokens.size());
  }
  if (path.ends_with(".kld")) return make_kld_writer(path, plan);
  if (path.ends_with(".carat-ref")) return make_ref_writer(path, plan);
  throw Error({"the name does not say what to write",
               path,
               {},
               "a name that ends in .kld or .carat-ref",
               {},
               {}});
}

void check_logits(std::span<const float> logits, const std::string& path, int64_t row) {
  bool finite = false;
  for (const float x : logits) {
    if (std::isfinite(x)) {
      finite = true;
    } else if (!(x < 0)) {
      finite = false;
      break;
    }
  }
  if (finite) return;
  throw Error({"the model computes logits that are not finite numbers",
               path,
               "row " + std::to_string(row),
               {},
               {},
               "the weights may be damaged"});
}

}  // namespace carat::audit
