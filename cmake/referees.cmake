# Tests that hold carat's results against other programs (tests/referee, docs/referees.md).
foreach(name tokens logits parts)
  add_test(NAME referee_${name}
    COMMAND ${PROJECT_SOURCE_DIR}/tests/referee/run.sh referee_${name}.mjs $<TARGET_FILE:carat>
            ${PROJECT_BINARY_DIR}/referee_${name})
  set_tests_properties(referee_${name} PROPERTIES SKIP_RETURN_CODE 77 LABELS referee TIMEOUT 900)
endforeach()
