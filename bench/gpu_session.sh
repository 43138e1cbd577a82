#!/usr/bin/env bash
# Everything that has to be seen on a GPU, in few calls on a machine that has one and may lack all else.
#
#   bench/gpu_session.sh bundle     where it is built: packs build/cuda (preset cuda) into build/gpu/bundle.tar.xz
#   bench/gpu_session.sh check      on the machine with the GPU, in a copy of the repository with build/gpu:
#                                   kernel tests, whole passes against the goldens, equal bits of grids and of streaming
#   bench/gpu_session.sh sanitize   likewise: compute-sanitizer's memcheck, racecheck and synccheck on the kernel tests
#   bench/gpu_session.sh bench      likewise: one MiniMax-M2 layer beside PyTorch's; tables as $OUT/results/<device>.md and
#                                   .json, for bench/results
#   bench/gpu_session.sh profile    likewise: the kernels of that layer by the time they take, by ncu where there is one
#
# The bundle holds the program, reap_cuda.so, the tests and every shared library but the C and C++ runtimes and CUDA's.
# From CUDA come libcublasLt.so.13 and libcublas.so.13 (searched below) and the driver's libcuda.so.1; cudart is linked in.
# The peer needs a python3 with torch. Logs go to $OUT (default build/gpu/out); the last lines printed are a table.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
here=$PWD
gpu=build/gpu
out=${OUT:-$here/$gpu/out}
kernels=(rows rope route group accumulate accumulate_outputs accumulate_squares predictions weight matmul attention experts quantize)
passes=(golden_saliency grid resume quantize_golden)

bundle() {
  local root=$gpu/bundle
  rm -rf $gpu && mkdir -p $root/{tests,lib,openmpi} || exit
  strip -o $root/reap_dist build/cuda/reap_dist && strip -o $root/reap_cuda.so build/cuda/reap_cuda.so || exit
  cmake --build build/cuda --target cuda_bench && strip -o $root/cuda_bench build/cuda/cuda_bench || exit
  for test in "${kernels[@]}" cuda_module; do strip -o "$root/tests/$test" "build/cuda/tests/kernels.${test}_test" || exit; done
  for test in "${passes[@]}"; do strip -o "$root/tests/$test" "build/cuda/tests/shard.${test}_test" || exit; done
  cp -L "$(command -v mpirun)" "$(command -v orted)" $root/openmpi/ || exit
  cp -rL "$(ompi_info --path pkglibdir --parsable | cut -d: -f3)" $root/openmpi/plugins || exit
  # shellcheck disable=SC2046
  ldd $root/reap_dist $root/cuda_bench $root/tests/* $root/openmpi/mpirun $root/openmpi/plugins/*.so | awk '$3 ~ /^\// {print $3}' | sort -u |
    grep -vE '/(libc|libm|libdl|librt|libpthread|libresolv|libstdc\+\+|libgcc_s|libcublasLt|libcublas|libcuda|libibverbs|librdmacm|libucp|libucs|libuct|libfabric|libpsm.*)\.so' |
    xargs -I{} cp -L {} $root/lib/
  tar -C $gpu -cJf $gpu/bundle.tar.xz bundle && rm -rf $root
  ls -l $gpu/bundle.tar.xz
}

# A row of the table: name, then the last word on it.
results=()
note() { results+=("$(printf '%-34s %s' "$1" "$2")"); }

# run NAME SECONDS COMMAND...: its output to $out/NAME.log
run() {
  local name=$1 limit=$2 log=$out/$1.log begin=$SECONDS code
  shift 2
  timeout "$limit" "$@" >"$log" 2>&1 </dev/null
  code=$?
  grep -q '^\[  PASSED  \] 0 tests' "$log" && code="no test ran"
  local tests
  tests=$(grep -hE '^\[  (PASSED|FAILED)|tests?, listed below|FAILED TEST' "$log" | tr -s ' \n' ' ' | cut -c1-90)
  note "$name" "$([[ $code == 0 ]] && echo ok || echo "FAILED ($code)") $((SECONDS - begin)) s $tests"
  [[ $code == 0 ]]
}

unpack() {
  tar -C $gpu -xJf $gpu/bundle.tar.xz || exit
  root=$here/$gpu/bundle
  local blas
  blas=$(find -L /usr/local/cuda* /opt /usr/lib /usr/local/lib -name 'libcublasLt.so.13' 2>/dev/null | head -n 1)
  [[ -n $blas ]] || echo "no libcublasLt.so.13 found"
  blas=$(dirname "${blas:-/}")
  machines_path=${LD_LIBRARY_PATH:-}  # for programs of the machine's own
  export LD_LIBRARY_PATH=$root/lib:$blas${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  export OMPI_MCA_mca_base_component_path=$root/openmpi/plugins OMPI_MCA_ess_singleton_isolated=1
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
  export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader
  export OMPI_MCA_btl_base_warn_component_unused=0 OMP_NUM_THREADS=2 GTEST_COLOR=no
  # All kernels at start (the program's own setting) cost each of many short processes seconds; needed beside NCCL only.
  export CUDA_MODULE_LOADING=${CUDA_MODULE_LOADING:-LAZY}
  export REAP_TEST_DATA=$here/tests/data PATH=$root/openmpi:$PATH
  mkdir -p "$out"
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  "$root/reap_dist" --version
}

check() {
  unpack
  run cuda_module 60 "$root/tests/cuda_module" --gtest_brief=1
  for test in "${kernels[@]}"; do run "$test" 120 "$root/tests/$test" --gtest_brief=1 --gtest_filter='*cuda*:*OnCuda*'; done
  export REAP_TEST_DEVICE=cuda
  for test in "${passes[@]}"; do run "$test" 120 "$root/tests/$test" --gtest_brief=1; done
  run grid.np4 150 mpirun -n 4 "$root/tests/grid" --gtest_brief=1

  # The same bytes from every grid, resident and streamed; and how far the CPU's are from them.
  local model=$REAP_TEST_DATA/m2-nano-fp8 calibration=$REAP_TEST_DATA/calib_64x512.h5 first=
  observe() {  # observe NAME RANKS OPTIONS...
    local name=$1 ranks=$2
    shift 2
    run "observe.$name" 120 mpirun -n "$ranks" "$root/reap_dist" observe --model "$model" --calibration "$calibration" \
      --saliency "$out/$name.h5" --overwrite --device cuda "$@" || return
    first=${first:-$name}
    note "bits.$name" "$(cmp -s "$out/$first.h5" "$out/$name.h5" && echo "as $first" || echo "DIFFER from $first")"
  }
  observe resident 1 --weights resident
  observe again 1 --weights resident
  CUDA_MODULE_LOADING=EAGER observe eager 1 --weights resident
  observe streamed 1 --weights stream
  observe pp2 2 --pp 2 --ep 1 --dp 1
  observe ep2 2 --pp 1 --ep 2 --dp 1
  observe dp2 2 --pp 1 --ep 1 --dp 2
  run observe.cpu 200 "$root/reap_dist" observe --model "$model" --calibration "$calibration" \
    --saliency "$out/cpu.h5" --overwrite --device cpu
  for device in resident cpu; do
    run "plan.$device" 20 "$root/reap_dist" plan --saliency "$out/$device.h5" --ratio 0.25 --plan "$out/$device.json"
  done
  note kept "$(python3 - "$out/cpu.json" "$out/resident.json" <<'PYTHON'
import json, sys
a, b = ([set(layer["keep"]) for layer in json.load(open(path))["layers"]] for path in sys.argv[1:])
print(sum(len(x - y) for x, y in zip(a, b)), "of", sum(map(len, a)), "experts that the CPU keeps are not kept by the GPU")
PYTHON
)"
  rm -f "$out"/*.h5
}

sanitize() {
  unpack
  command -v compute-sanitizer >/dev/null || { note compute-sanitizer "not on this machine"; return; }
  local tool
  for tool in memcheck racecheck synccheck; do
    for test in rows rope route group accumulate accumulate_outputs predictions weight attention experts; do
      run "$tool.$test" 60 compute-sanitizer --tool $tool --error-exitcode 99 "$root/tests/$test" --gtest_brief=1 \
        --gtest_filter='*cuda*'
    done
  done
}

bench() {
  unpack
  run cuda_bench 240 "$root/cuda_bench" 0.5
  tail -n 1 "$out/cuda_bench.log" | grep -q '^{' || return
  # Do the methods agree, on this device and build of torch? Only then are their times worth anything.
  run peer.check 60 env LD_LIBRARY_PATH="$machines_path" python3 bench/layer_peer.py --tiny --check --device cuda
  run peer 200 env LD_LIBRARY_PATH="$machines_path" python3 bench/layer_peer.py --seconds 0.5 --json "$out/layer_peer.json"
  local peer=()
  [[ -s $out/layer_peer.json ]] && peer=(--peer "$out/layer_peer.json")
  run tables 20 python3 bench/device_results.py --ours "$out/cuda_bench.log" "${peer[@]}" --out "$out/results"
  cat "$out"/results/*.md
}

profile() {
  unpack
  command -v ncu >/dev/null || { note ncu "not on this machine"; return; }
  local share=avg.pct_of_peak_sustained_elapsed
  run profile 400 ncu --clock-control none --csv --metrics "gpu__time_duration.sum,sm__throughput.$share,dram__throughput.$share" \
    "$root/cuda_bench" 0
  python3 bench/profile_table.py "$out/profile.log" | tee "$out/profile.md"
}

case ${1:-} in
  bundle) bundle ;;
  check | sanitize | bench | profile)
    "$1"
    printf '\n%s\n' "== $1"
    printf '%s\n' "${results[@]}"
    for log in "$out"/*.log; do  # what went wrong first, of each that failed
      grep -hE -m 3 'Failure|error:|ERROR SUMMARY: [1-9]|========= (Invalid|Race|Barrier)' "$log" | sed "s|^|$(basename "$log" .log): |" | cut -c1-160
    done
    ;;
  *) sed -n '2,14p' "$0"; exit 2 ;;
esac
