// Every file that lies gives one clear error, in proportion to its size.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <new>
#include <set>
#include <span>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "io/gguf_parse.h"
#include "io/safetensors_parse.h"
#include "io/testing/bad_gguf_files.h"
#include "io/testing/bad_safetensors_files.h"

namespace {
thread_local size_t t_allocated = 0;  // bytes asked of operator new by this thread
}

// Sanitizers bring their own allocation functions, beside which these would not fit; there nothing
// is counted.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// Not inlined: compilers warn about malloc meeting delete where they see through both.
[[gnu::noinline]] void* operator new(size_t n) {
  t_allocated += n;
  if (void* p = std::malloc(n ? n : 1)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }
#endif

namespace carat::io {
namespace {

using testing::BadFile;

std::span<const std::byte> bytes_of(const std::string& s) { return std::as_bytes(std::span(s)); }

void read_gguf(const std::string& s) { (void)parse_gguf(bytes_of(s), "x.gguf"); }
void read_safetensors(const std::string& s) {
  (void)parse_safetensors(*memory_file("x.safetensors", bytes_of(s)));
}
void read_index(const std::string& s) { (void)parse_safetensors_index(s); }

// The message, "" if the file was accepted.
template <class Read>
std::string error_of(Read read, const std::string& bytes) {
  try {
    read(bytes);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

template <class Read>
void expect_table(const std::vector<BadFile>& files, Read read, const std::string& corpus) {
  std::set<std::string> names;
  for (const BadFile& f : files) {
    SCOPED_TRACE(f.name);
    EXPECT_TRUE(names.insert(f.name).second);
    const size_t before = t_allocated;
    const std::string error = error_of(read, f.bytes);
    const size_t allocated = t_allocated - before;
    if (f.error.empty()) {
      EXPECT_EQ(error, "");
    } else {
      EXPECT_NE(error.find(f.error), std::string::npos) << "message: " << error;
      // Messages are made of a few short strings; nothing grows with what a file claims.
      EXPECT_LT(allocated, 8192 + 10 * f.bytes.size());
    }
    // The seeds of the fuzz targets are these very files.
    const std::string path =
        std::string(CARAT_SOURCE_DIR) + "/fuzz/corpus/" + corpus + "/" + f.name;
    ASSERT_TRUE(std::filesystem::exists(path)) << "run the target write_corpus";
    EXPECT_EQ(read_text_file(path, 1 << 20), f.bytes);
  }
}

TEST(BadFiles, Gguf) { expect_table(testing::bad_gguf_files(), read_gguf, "gguf"); }
TEST(BadFiles, Safetensors) {
  expect_table(testing::bad_safetensors_files(), read_safetensors, "safetensors");
}
TEST(BadFiles, Index) { expect_table(testing::bad_index_files(), read_index, "safetensors_index"); }

TEST(BadFiles, Hostile160BytesAllocateNothing) {
  int found = 0;
  for (const BadFile& f : testing::bad_gguf_files()) {
    if (f.name.find("hostile_160") == std::string::npos) continue;
    ++found;
    ASSERT_EQ(f.bytes.size(), 160u);
    const size_t before = t_allocated;
    EXPECT_NE(error_of(read_gguf, f.bytes), "");
    EXPECT_LT(t_allocated - before, 4096u) << f.name;
  }
  EXPECT_EQ(found, 3);
}

TEST(BadFiles, EveryPrefixIsRefused) {
  const std::string gguf = testing::sound_gguf();
  for (size_t n = 0; n < gguf.size(); ++n) {
    EXPECT_NE(error_of(read_gguf, gguf.substr(0, n)), "") << n;
  }
  const std::string safetensors =
      testing::safetensors_with("{" + testing::tensor_json("a", "F32", "[2,1]", "[0,8]") + "," +
                                    testing::tensor_json("b", "U8", "[3]", "[8,11]") + "}",
                                11);
  ASSERT_EQ(error_of(read_safetensors, safetensors), "");
  for (size_t n = 0; n < safetensors.size(); ++n) {
    EXPECT_NE(error_of(read_safetensors, safetensors.substr(0, n)), "") << n;
  }
}

// Any single byte may be anything: read or refuse, never more memory than the file warrants.
TEST(BadFiles, EveryByteMayBeWrong) {
  const std::string good = testing::sound_gguf();
  for (size_t i = 0; i < good.size(); ++i) {
    for (const int value : {0x00, 0x01, 0x7f, 0x80, 0xff, good[i] + 1, good[i] - 1}) {
      std::string bad = good;
      bad[i] = static_cast<char>(value);
      const size_t before = t_allocated;
      (void)error_of(read_gguf, bad);
      EXPECT_LT(t_allocated - before, 8192 + 20 * bad.size()) << i;
    }
  }
}

TEST(BadFiles, MessagesNameTheFileAndQuoteSafely) {
  const std::string error =
      error_of(read_gguf, testing::gguf_with_key("\x1b[31m", testing::Bytes().u32(4).u32(1)));
  EXPECT_EQ(error.find('\x1b'), std::string::npos);
  EXPECT_NE(error.find("x.gguf"), std::string::npos) << error;
  EXPECT_NE(error.find("\\x1b[31m"), std::string::npos) << error;
}

}  // namespace
}  // namespace carat::io
