# The commit that a build is made of, as src/app/version.h tells it.
#
# Included by CMakeLists.txt it defines the library carat_version; run as a script (cmake -P) it
# writes OUT, a source file, and leaves it alone when nothing changed: a new commit recompiles one
# small file. In a tarball made by `git archive` the commit stands in cmake/commit.txt.
if(CMAKE_SCRIPT_MODE_FILE)
  set(commit "unknown")
  if(EXISTS ${SOURCE_DIR}/.git)
    # As root through sudo the clone belongs to somebody else; reading its commit is harmless.
    set(git git -c safe.directory=* -C ${SOURCE_DIR})
    execute_process(COMMAND ${git} rev-parse --short=12 HEAD OUTPUT_VARIABLE commit
      OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
    execute_process(COMMAND ${git} diff-index --quiet HEAD -- RESULT_VARIABLE modified ERROR_QUIET)
    if(failed)
      set(commit "unknown")
    elseif(modified EQUAL 1)
      string(APPEND commit "-modified")
    endif()
  else()
    file(READ ${SOURCE_DIR}/cmake/commit.txt archived)
    string(REGEX MATCH "^[0-9a-f]+" archived "${archived}")
    if(archived)
      string(SUBSTRING ${archived} 0 12 commit)
    endif()
  endif()
  file(CONFIGURE OUTPUT ${OUT} CONTENT [[
#include "app/version.h"

namespace carat::app {
std::string_view version() { return "@VERSION@"; }
std::string_view commit() { return "@commit@"; }
}  // namespace carat::app
]] @ONLY)
  return()
endif()

set(version_source ${PROJECT_BINARY_DIR}/generated/version.cc)
add_custom_target(carat_commit BYPRODUCTS ${version_source} VERBATIM
  COMMAND ${CMAKE_COMMAND} -DSOURCE_DIR=${PROJECT_SOURCE_DIR} -DOUT=${version_source}
          -DVERSION=${PROJECT_VERSION} -P ${PROJECT_SOURCE_DIR}/cmake/version.cmake)
add_library(carat_version STATIC ${version_source})
target_include_directories(carat_version PUBLIC ${PROJECT_SOURCE_DIR}/src)
add_dependencies(carat_version carat_commit)
