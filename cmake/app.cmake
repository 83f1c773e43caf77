# The program, and what is installed.
include(GNUInstallDirs)
include(cmake/version.cmake)

file(GLOB app_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/app/*.cc)
list(FILTER app_sources EXCLUDE REGEX "_test\\.cc$")
if(app_sources)
  add_executable(carat ${app_sources})
  target_link_libraries(carat PRIVATE carat_engine carat_convert carat_audit carat_train
                                      carat_version)
  install(TARGETS carat RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(FILES LICENSE README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.md")
