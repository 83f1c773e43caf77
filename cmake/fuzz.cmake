# One fuzz target per reader: fuzz/NAME_fuzz.cc, its corpus in fuzz/corpus/NAME.
#
# With CARAT_FUZZ (the fuzz preset) NAME_fuzz is a libFuzzer program; otherwise it is a test that
# replays the corpus.
file(GLOB fuzz_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/fuzz/*_fuzz.cc)
foreach(source ${fuzz_sources})
  get_filename_component(target ${source} NAME_WE)
  string(REGEX REPLACE "_fuzz$" "" name ${target})
  if(CARAT_FUZZ)
    add_executable(${target} ${source})
    target_link_libraries(${target} PRIVATE carat_engine carat_convert carat_audit carat_train)
    target_link_options(${target} PRIVATE -fsanitize=fuzzer)
  elseif(CARAT_TESTS)
    add_executable(${target} ${source} ${PROJECT_SOURCE_DIR}/fuzz/replay.cc)
    target_link_libraries(${target} PRIVATE carat_engine carat_convert carat_audit carat_train)
    add_test(NAME fuzz_${name} COMMAND ${target} ${PROJECT_SOURCE_DIR}/fuzz/corpus/${name})
  endif()
endforeach()

# Writes the seeds that are made in code; run by hand after changing src/*/testing/bad_*_files.h.
if(CARAT_TESTS)
  add_executable(write_corpus_program EXCLUDE_FROM_ALL ${PROJECT_SOURCE_DIR}/fuzz/write_corpus.cc)
  target_link_libraries(write_corpus_program PRIVATE carat_base)
  add_custom_target(write_corpus
    COMMAND write_corpus_program ${PROJECT_SOURCE_DIR}/fuzz/corpus)
endif()
