# carat_layer(NAME LINK ...): the static library carat_NAME from src/NAME/**.cc, and the test
# program NAME_test from src/NAME/**_test.cc.
#
# Files under an ISA folder (src/kernels/cpu/avx2) are compiled with that ISA's flags.
function(carat_layer name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${name}/*.cc)
  if(CMAKE_CROSSCOMPILING)  # without OpenSSL; what is built so does not need it
    list(FILTER sources EXCLUDE REGEX "/base/sha256")
  endif()
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")

  if(sources)
    add_library(carat_${name} STATIC ${sources})
    target_include_directories(carat_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(carat_${name} PUBLIC ${ARG_LINK})
    set(avx2 ${sources})
    list(FILTER avx2 INCLUDE REGEX "/avx2/")
    if(avx2 AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
      set_source_files_properties(${avx2} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c;-mbmi2;-O3")
    endif()
    set(avx512 ${sources})
    list(FILTER avx512 INCLUDE REGEX "/avx512/")
    if(avx512 AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
      set_source_files_properties(${avx512} PROPERTIES COMPILE_OPTIONS
        "-mavx512f;-mavx512dq;-mavx512bw;-mavx512vl;-mavx512vnni;-mavx2;-mfma;-mf16c;-mbmi2;-mprefer-vector-width=512;-O3;-Wno-maybe-uninitialized")
    endif()
    set(avxvnni ${sources})
    list(FILTER avxvnni INCLUDE REGEX "/avxvnni/")
    if(avxvnni AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
      set_source_files_properties(${avxvnni} PROPERTIES COMPILE_OPTIONS
        "-mavx2;-mfma;-mf16c;-mbmi2;-mavxvnni;-O3")
    endif()
    set(neon ${sources})
    list(FILTER neon INCLUDE REGEX "/neon/")
    if(neon AND CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
      set_source_files_properties(${neon} PROPERTIES COMPILE_OPTIONS
        "-march=armv8.2-a+dotprod;-O3")
    endif()
    # The matrix kernels fix the order of their vector operations so that registers suffice; these two
    # passes of gcc would move them.
    set(tiles ${sources})
    list(FILTER tiles INCLUDE REGEX "/(avx2|avx512|avxvnni|neon)/(tiles_[a-z]+|linear_float)\\.cc$")
    if(tiles AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      set_property(SOURCE ${tiles} APPEND PROPERTY COMPILE_OPTIONS
        "-fno-tree-ter;-fno-tree-reassoc")
    endif()
    # Everything is inlined there: lines would make the program twice as large and help nobody.
    set_property(SOURCE ${tiles} APPEND PROPERTY COMPILE_OPTIONS "-g0")
    # Checks on every inlined load would take gcc minutes a file. The portable kernels, which do the
    # same work on the same memory, are checked.
    if(CARAT_SANITIZE)
      set_property(SOURCE ${tiles} APPEND PROPERTY COMPILE_OPTIONS "-fno-sanitize=all")
    endif()
  else()
    add_library(carat_${name} INTERFACE)
    target_include_directories(carat_${name} INTERFACE ${PROJECT_SOURCE_DIR}/src)
    target_link_libraries(carat_${name} INTERFACE ${ARG_LINK})
  endif()

  if(CARAT_TESTS AND tests)
    add_executable(${name}_test ${tests})
    target_link_libraries(${name}_test PRIVATE carat_${name} GTest::gtest_main)
    target_compile_definitions(${name}_test PRIVATE CARAT_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
    add_test(NAME ${name} COMMAND ${name}_test)
  endif()
endfunction()
