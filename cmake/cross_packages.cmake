# The packages of a cross compilation, without any of the foreign architecture: header-only
# libraries are the host's, GoogleTest is built from its Debian sources.
find_package(nlohmann_json REQUIRED)
add_library(OpenSSL::Crypto INTERFACE IMPORTED)  # checksums are left out
add_library(carat_fmt INTERFACE)
target_compile_definitions(carat_fmt INTERFACE FMT_HEADER_ONLY)
add_library(fmt::fmt ALIAS carat_fmt)

if(CARAT_TESTS)
  set(INSTALL_GTEST OFF CACHE BOOL "" FORCE)
  set(BUILD_GMOCK OFF CACHE BOOL "" FORCE)
  add_subdirectory(/usr/src/googletest ${PROJECT_BINARY_DIR}/googletest EXCLUDE_FROM_ALL)
  if(NOT TARGET GTest::gtest_main)
    add_library(GTest::gtest_main ALIAS gtest_main)
  endif()
  enable_testing()
endif()
