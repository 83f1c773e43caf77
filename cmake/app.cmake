# The program.
file(GLOB app_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/app/*.cc)
if(app_sources)
  add_executable(carat ${app_sources})
  target_link_libraries(carat PRIVATE carat_engine carat_convert carat_audit carat_train)
endif()
