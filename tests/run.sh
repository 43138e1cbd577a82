#!/usr/bin/env bash
# Installs what is missing, builds and runs the tests. Arguments go to ctest: tests/run.sh -R comm, tests/run.sh -L mpi.
# Tests of the label soak take long and run only when asked for: tests/run.sh -L soak.
set -euo pipefail
cd "$(dirname "$0")/.."

jobs/setup-debian.sh
export CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
export CTEST_PARALLEL_LEVEL=${CTEST_PARALLEL_LEVEL:-$(nproc)}  # a test of n ranks counts as n
cmake --preset cpu
cmake --build --preset cpu
if [[ " $* " == *" soak "* ]]; then
  ctest --test-dir build/cpu --verbose "$@"  # the preset leaves them out
else
  ctest --preset cpu "$@"
fi
