# The program: src/app as a library without main.cc, so that its tests can link it, and `carat`.
include(${CMAKE_CURRENT_LIST_DIR}/version.cmake)

file(GLOB app_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/app/*.cc)
set(app_tests ${app_sources})
list(FILTER app_tests INCLUDE REGEX "_test\\.cc$")
list(FILTER app_sources EXCLUDE REGEX "(_test|/main)\\.cc$")

add_library(carat_app STATIC ${app_sources})
target_include_directories(carat_app PUBLIC ${PROJECT_SOURCE_DIR}/src)
target_link_libraries(carat_app PUBLIC carat_engine carat_convert carat_audit carat_calibrate
  carat_train carat_quantize carat_version)

# The nano model goes into the program when it is there; a newer one is taken in again.
file(GLOB nano_gguf CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/models/nano/*q4_0*.gguf)
if(nano_gguf)
  list(GET nano_gguf 0 nano_gguf)
  set_source_files_properties(${PROJECT_SOURCE_DIR}/src/app/nano.cc PROPERTIES
    COMPILE_DEFINITIONS "CARAT_NANO_GGUF=\"${nano_gguf}\"" OBJECT_DEPENDS "${nano_gguf}")
endif()

add_executable(carat ${PROJECT_SOURCE_DIR}/src/app/main.cc)
target_link_libraries(carat PRIVATE carat_app)
install(TARGETS carat RUNTIME DESTINATION bin)

if(CARAT_TESTS AND app_tests)
  add_executable(app_test ${app_tests})
  target_link_libraries(app_test PRIVATE carat_app GTest::gtest_main)
  add_test(NAME app COMMAND app_test)
endif()

# End-to-end tests drive the program itself.
find_package(Python3 COMPONENTS Interpreter)
if(CARAT_TESTS AND Python3_FOUND)
  file(GLOB e2e_tests CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/e2e/test_*.py)
  foreach(test ${e2e_tests})
    get_filename_component(name ${test} NAME_WE)
    string(REPLACE "test_" "e2e_" name ${name})
    add_test(NAME ${name} COMMAND ${Python3_EXECUTABLE} ${test})
    set_tests_properties(${name} PROPERTIES
      ENVIRONMENT "CARAT=$<TARGET_FILE:carat>;CARAT_SOURCE_DIR=${PROJECT_SOURCE_DIR};CARAT_SANITIZE=${CARAT_SANITIZE};PYTHONDONTWRITEBYTECODE=1"
      TIMEOUT 300)
  endforeach()
endif()
