// The two kinds of file behind audit/teacher_store.h.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "audit/teacher_store.h"

namespace carat::audit {

inline constexpr char kRefMagic[] = "CARATREF";
inline constexpr char kKldMagic[] = "_logits_";
inline constexpr int64_t kStoreMagicBytes = 8;
// Written bytes are given to the disk in windows of this size.
inline constexpr int64_t kStoreWindow = int64_t{64} << 20;

[[nodiscard]] std::unique_ptr<StoredTeacher> open_kld_teacher(const std::string& path, int32_t bos);
[[nodiscard]] std::unique_ptr<StoredTeacher> open_ref_teacher(const std::string& path);
// From bytes, which outlive it, as if they were the file `path`.
[[nodiscard]] std::unique_ptr<StoredTeacher> open_ref_teacher(const std::string& path,
                                                              std::span<const std::byte> bytes);

[[nodiscard]] std::unique_ptr<TeacherWriter> make_kld_writer(const std::string& path,
                                                             const TeacherPlan& plan);
[[nodiscard]] std::unique_ptr<TeacherWriter> make_ref_writer(const std::string& path,
                                                             const TeacherPlan& plan);

// Logits that can be compared: throws Error otherwise. `row` is for the message.
void check_logits(std::span<const float> logits, const std::string& path, int64_t row);

}  // namespace carat::audit
