# Benchmarks and kernel labs: plain programs, built with -DCARAT_BENCH=ON, never run by the tests.
if(CARAT_BENCH)
  add_executable(kernel_lab ${PROJECT_SOURCE_DIR}/bench/kernel_lab.cc)
  target_link_libraries(kernel_lab PRIVATE carat_kernels)

  add_executable(attention_lab ${PROJECT_SOURCE_DIR}/bench/attention_lab.cc)
  target_link_libraries(attention_lab PRIVATE carat_kernels)

  add_executable(sgemm_lab ${PROJECT_SOURCE_DIR}/bench/sgemm_lab.cc)
  target_link_libraries(sgemm_lab PRIVATE carat_kernels)

  add_executable(tokenizer_bench ${PROJECT_SOURCE_DIR}/bench/tokenizer_bench.cc
                                 ${PROJECT_SOURCE_DIR}/bench/tokenizer_vocab.cc)
  target_link_libraries(tokenizer_bench PRIVATE carat_model)
  add_executable(lattice_bench ${PROJECT_SOURCE_DIR}/bench/lattice_bench.cc)
  target_link_libraries(lattice_bench PRIVATE carat_convert)
  add_executable(audit_bench ${PROJECT_SOURCE_DIR}/bench/audit_bench.cc)
  target_link_libraries(audit_bench PRIVATE carat_audit)

  add_executable(quant_error ${PROJECT_SOURCE_DIR}/bench/quant_error.cc)
  target_link_libraries(quant_error PRIVATE carat_io)

  add_executable(teacher_error ${PROJECT_SOURCE_DIR}/bench/teacher_error.cc)
  target_link_libraries(teacher_error PRIVATE carat_audit)
endif()
