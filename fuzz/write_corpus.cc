// Writes the files of src/*/testing/bad_*_files.h as seeds below fuzz/corpus. Run after changing
// those tables; a test holds the two together.
//
// usage: write_corpus CORPUS_FOLDER
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "audit/testing/bad_kld_files.h"
#include "audit/testing/bad_ref_files.h"
#include "io/testing/bad_gguf_files.h"
#include "io/testing/bad_imatrix_files.h"
#include "io/testing/bad_safetensors_files.h"

namespace {

void write_all(const std::string& folder, const std::vector<carat::io::testing::BadFile>& files) {
  std::filesystem::create_directories(folder);
  for (const auto& f : files) {
    std::ofstream(folder + "/" + f.name, std::ios::binary) << f.bytes;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: write_corpus CORPUS_FOLDER\n", stderr);
    return 2;
  }
  const std::string root = argv[1];
  write_all(root + "/gguf", carat::io::testing::bad_gguf_files());
  write_all(root + "/imatrix", carat::io::testing::bad_imatrix_files());
  write_all(root + "/safetensors", carat::io::testing::bad_safetensors_files());
  write_all(root + "/safetensors_index", carat::io::testing::bad_index_files());
  write_all(root + "/kld", carat::audit::testing::bad_kld_files());
  write_all(root + "/teacher_ref", carat::audit::testing::bad_ref_files());
}
