# reap_test(file [RANKS n...] [LINK lib...] [LABELS label...] [TIMEOUT seconds])
#
# Builds tests/<file> into one program and registers it with ctest: as "level/name" with GoogleTest's own main, or, with
# RANKS, once per rank count as "level/name.npN" under mpirun with tests/mpi_main.cpp, where one rank's failure fails the run.
# Every test finds its data by the environment: REAP_TEST_DATA (tests/data) and REAP_SHARED (larger files; may be absent).
set(REAP_SHARED "$ENV{REAP_SHARED}" CACHE PATH "Larger test files that are not in the repository")
if(NOT REAP_SHARED)
  cmake_path(SET REAP_SHARED NORMALIZE "${PROJECT_SOURCE_DIR}/../shared")
endif()

set(REAP_TEST_ENVIRONMENT
  REAP_TEST_DATA=${PROJECT_SOURCE_DIR}/tests/data
  REAP_SHARED=${REAP_SHARED}
  OMP_NUM_THREADS=1
  GTEST_COLOR=no
  # Open MPI on a small machine or in a container: root, more ranks than cores, no pinning, shared memory only.
  OMPI_ALLOW_RUN_AS_ROOT=1
  OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  OMPI_MCA_rmaps_base_oversubscribe=1
  OMPI_MCA_hwloc_base_binding_policy=none
  OMPI_MCA_mpi_yield_when_idle=1
  OMPI_MCA_btl=self,vader
  OMPI_MCA_pml=ob1
  OMPI_MCA_btl_base_warn_component_unused=0)

function(reap_test file)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT" "RANKS;LINK;LABELS")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "reap_test(${file}): unknown arguments ${arg_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  if(REAP_SANITIZE)
    math(EXPR arg_TIMEOUT "${arg_TIMEOUT} * 5")
  endif()

  cmake_path(REMOVE_EXTENSION file OUTPUT_VARIABLE name)
  string(REPLACE "/" "." target ${name})
  add_executable(${target} ${file})
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_compile_definitions(${target} PRIVATE REAP_TEST_DATA="${PROJECT_SOURCE_DIR}/tests/data")
  target_link_libraries(${target} PRIVATE reap_flags ${arg_LINK})
  set_target_properties(${target} PROPERTIES BUILD_RPATH "$ORIGIN/..")  # where reap_cuda.so is

  if(NOT arg_RANKS)
    target_link_libraries(${target} PRIVATE GTest::gtest GTest::gtest_main)
    add_test(NAME ${name} COMMAND ${target})
    set_tests_properties(${name} PROPERTIES
      ENVIRONMENT "${REAP_TEST_ENVIRONMENT}" LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT})
    return()
  endif()

  target_link_libraries(${target} PRIVATE reap_mpi_main)
  # mpirun's own limit comes first: it ends the job with code 110 and leaves nothing behind in /dev/shm, which a kill by ctest does.
  math(EXPR ctest_timeout "${arg_TIMEOUT} + 15")
  foreach(ranks IN LISTS arg_RANKS)
    add_test(NAME ${name}.np${ranks}
      COMMAND ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${ranks} --timeout ${arg_TIMEOUT} $<TARGET_FILE:${target}>)
    set_tests_properties(${name}.np${ranks} PROPERTIES
      ENVIRONMENT "${REAP_TEST_ENVIRONMENT}" LABELS "mpi;${arg_LABELS}" PROCESSORS ${ranks} TIMEOUT ${ctest_timeout})
  endforeach()
endfunction()
