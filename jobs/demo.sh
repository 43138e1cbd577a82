#!/usr/bin/env bash
# From a fresh clone to two pruned checkpoints: installs what is missing, builds, prunes the bundled model on two ranks by
# 25 % and 50 %, and proves both results against their source. Everything it makes is under build/ and demo-output/.
set -euo pipefail
cd "$(dirname "$0")/.."

jobs/setup-debian.sh
export CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
cmake --preset cpu
cmake --build --preset cpu --target reap_dist

# Two ranks on whatever machine this is: a single core will do, and a core may be shared.
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1
if [[ $(id -u) -eq 0 ]]; then  # Open MPI refuses to run as root, as in a container, until told twice
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

model=tests/data/m2-nano-fp8
output=demo-output
mpirun -n 2 build/cpu/reap_dist run --model "$model" --calibration tests/data/calib_64x512.h5 \
  --ratio 0.25 0.5 --output "$output" --overwrite
for ratio in 0.25 0.5; do
  mpirun -n 2 build/cpu/reap_dist verify --model "$model" --output "$output/reap-$ratio"
done

echo
echo "Source and results, all ordinary Hugging Face checkpoints:"
du -sh "$model" "$output"/reap-0.25 "$output"/reap-0.5
echo "Also made: $(find "$output" -maxdepth 1 -type f | sort | tr '\n' ' ')"
