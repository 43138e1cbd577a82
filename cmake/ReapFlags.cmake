# Flags that every target shares, carried by the interface target reap_flags.
set(REAP_SANITIZE "" CACHE STRING "Sanitizers, as -fsanitize takes them: address,undefined or thread")

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1")

find_program(REAP_CCACHE ccache)
if(REAP_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${REAP_CCACHE})
endif()

add_library(reap_flags INTERFACE)
target_compile_features(reap_flags INTERFACE cxx_std_20)
target_include_directories(reap_flags INTERFACE ${PROJECT_SOURCE_DIR}/src)
target_compile_options(reap_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Werror)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

if(REAP_SANITIZE)
  target_compile_options(reap_flags INTERFACE -fsanitize=${REAP_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(reap_flags INTERFACE -fsanitize=${REAP_SANITIZE})
endif()
