# Checks of the source tree and of object files, as tests.
find_package(Python3 COMPONENTS Interpreter)
if(NOT Python3_FOUND)
  message(WARNING "python3 is missing: the checks of layers and symbols are left out")
  return()
endif()

add_test(NAME check_layers
  COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/tools/check_layers.py ${PROJECT_SOURCE_DIR})
add_test(NAME check_layers_test
  COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/tools/check_layers_test.py)

add_test(NAME compare_test COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/bench/compare_test.py)
add_test(NAME fidelity_table_test
  COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/bench/fidelity_table_test.py)
set_tests_properties(compare_test fidelity_table_test PROPERTIES ENVIRONMENT PYTHONDONTWRITEBYTECODE=1)

# Without optimization or with a sanitizer, inline functions stay behind as weak symbols.
get_target_property(kernels_type carat_kernels TYPE)
if(CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT CARAT_SANITIZE
   AND kernels_type STREQUAL "STATIC_LIBRARY")
  set(checked $<TARGET_OBJECTS:carat_kernels> $<TARGET_OBJECTS:carat_quant>)
  if(NOT CMAKE_CROSSCOMPILING)  # where only these are built
    list(APPEND checked $<TARGET_OBJECTS:carat_convert> $<TARGET_OBJECTS:carat_train>)
  endif()
  add_test(NAME check_symbols COMMAND_EXPAND_LISTS
    COMMAND ${Python3_EXECUTABLE} ${PROJECT_SOURCE_DIR}/tools/check_symbols.py ${checked})
endif()
