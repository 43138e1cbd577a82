# The rules of the source tree, checked on its include lines: cmake -DSRC=src -P tests/layering.cmake
#   1. One direction: driver -> shard -> kernels; our own headers are named from src ("shard/comm.hpp").
#   2. One door per library: a third-party header is included only by the files that its line below names.
#   3. A backend is chosen by file: no conditional compilation.
#   4. No file is longer than 500 lines.
cmake_minimum_required(VERSION 3.25)
cmake_path(ABSOLUTE_PATH SRC BASE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})

# header (regex) -> files that may include it (regex, from src). A header that no line knows needs one: that is a new library.
set(doors
  "mpi\\.h"                                  "shard/(comm|transfer|link_mpi|pulse(_mail)?)\\.|driver/main\\.cpp"
  "nccl\\.h"                                 "kernels/cuda/nccl\\."
  "(oneapi/dnnl/)?dnnl.*"                    "kernels/cpu/"
  "(cuda|cublas|cudnn|cub/|cooperative_groups|mma|nvtx3/).*" "kernels/cuda/"
  "hdf5.*|H5.*"                              "driver/hdf5[._]"
  "boost/.*"                                 "driver/options\\."
  "spdlog/.*"                                "driver/log\\."
  "(openssl/.*|xxhash\\.h)"                  "driver/digest\\."
  "nlohmann/.*"                              "shard/json\\.hpp"
  "omp\\.h"                                  "kernels/cpu/|shard/|driver/resources\\."
  "immintrin\\.h|cpuid\\.h"                  "kernels/cpu/"
  "fmt/.*"                                   ".*"
  "[a-z_]+"                                  ".*"  # the standard library
  "(dlfcn|fcntl|sched|signal|unistd|sys/[a-z]+)\\.h" ".*")  # POSIX

set(offences "")
macro(offence text)
  list(APPEND offences "  ${file}: ${text}")
endmacro()

function(check_third_party file header)
  set(rest ${doors})
  while(rest)
    list(POP_FRONT rest pattern door)
    if(header MATCHES "^(${pattern})$")
      if(NOT file MATCHES "^(${door})")
        offence("<${header}> belongs behind its one door, ${door}")
      endif()
      set(offences "${offences}" PARENT_SCOPE)
      return()
    endif()
  endwhile()
  offence("<${header}> is of a library that tests/layering.cmake does not know")
  set(offences "${offences}" PARENT_SCOPE)
endfunction()

function(check_own file header)
  if(NOT header MATCHES "^(kernels|shard|driver)/")
    offence("\"${header}\" is not named from src")
  elseif((file MATCHES "^kernels/" AND NOT header MATCHES "^kernels/") OR (file MATCHES "^shard/" AND header MATCHES "^driver/"))
    offence("\"${header}\" is an upward include")
  elseif((header MATCHES "^kernels/cpu/" AND NOT file MATCHES "^kernels/cpu/")
      OR (header MATCHES "^kernels/cuda/" AND NOT file MATCHES "^kernels/cuda/"))
    offence("\"${header}\" is private to its backend")
  endif()
  set(offences "${offences}" PARENT_SCOPE)
endfunction()

file(GLOB_RECURSE files RELATIVE ${SRC} ${SRC}/*.cpp ${SRC}/*.hpp ${SRC}/*.in ${SRC}/*.cu ${SRC}/*.cuh)
list(LENGTH files count)
if(count EQUAL 0)
  message(FATAL_ERROR "no sources under ${SRC}")
endif()
foreach(file IN LISTS files)
  file(STRINGS ${SRC}/${file} directives REGEX "^[ \t]*#[ \t]*(include|if|ifdef|ifndef|elif|else)")
  foreach(line IN LISTS directives)
    if(line MATCHES "include[ \t]*<([^>]+)>")
      check_third_party(${file} ${CMAKE_MATCH_1})
    elseif(line MATCHES "include[ \t]*\"([^\"]+)\"")
      check_own(${file} ${CMAKE_MATCH_1})
    else()
      offence("conditional compilation: ${line}")
    endif()
  endforeach()

  # Calls reach a library through our own headers too, and main owns nothing of MPI but its beginning and end.
  file(STRINGS ${SRC}/${file} calls REGEX "MPI_[A-Z][a-z_]*[(]")
  foreach(line IN LISTS calls)
    string(REGEX MATCH "MPI_[A-Z][a-z_]*" call "${line}")
    if(NOT (file MATCHES "^shard/(comm|transfer|link_mpi|pulse(_mail)?)\\." OR (file STREQUAL "driver/main.cpp" AND call MATCHES "Init|Finalize|Abort")))
      offence("calls ${call}")
    endif()
  endforeach()

  file(READ ${SRC}/${file} text)
  string(REGEX REPLACE "[^\n]" "" newlines "${text}")
  string(LENGTH "${newlines}" lines)
  if(lines GREATER 500)
    offence("${lines} lines")
  endif()
endforeach()

if(offences)
  list(JOIN offences "\n" text)
  message(FATAL_ERROR "rules of the source tree broken:\n${text}")
endif()
message(STATUS "${count} files keep the rules")
