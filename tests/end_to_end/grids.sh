#!/usr/bin/env bash
# Every file of a run's output, run_log.json aside, is byte for byte the same for every grid of ranks.
# usage: grids.sh REAP_DIST fp32|bf16
set -euo pipefail
reap_dist=$1 compute=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# run NAME RANKS GRID...: the whole job on a grid
run() {
  local name=$1 ranks=$2
  shift 2
  mpirun -n "$ranks" "$reap_dist" run --model "$REAP_TEST_DATA/m2-nano-fp8" --calibration "$REAP_TEST_DATA/calib_64x512.h5" \
    --output "$work/$name" --ratio 0.25 0.5 --criterion reap frequency --block-tokens 1024 --max-shard-size 1MB \
    --compute "$compute" "$@" </dev/null 2>"$work/$name.log" || { cat "$work/$name.log"; exit 1; }
}

# The reference needs no mpirun at all.
"$reap_dist" run --model "$REAP_TEST_DATA/m2-nano-fp8" --calibration "$REAP_TEST_DATA/calib_64x512.h5" --output "$work/one" \
  --ratio 0.25 0.5 --criterion reap frequency --block-tokens 1024 --max-shard-size 1MB --compute "$compute" 2>"$work/one.log" ||
  { cat "$work/one.log"; exit 1; }

while read -r name ranks grid; do
  # shellcheck disable=SC2086  # a grid is several words
  run "$name" "$ranks" $grid
  diff -r --exclude run_log.json "$work/one" "$work/$name" || { echo "$name differs"; exit 1; }
  rm -rf "${work:?}/$name"
  echo "$name: identical"
done <<'GRIDS'
mpirun-one 1
chosen-2   2
pp2        2 --pp 2
ep2        2 --ep 2
dp2        2 --dp 2
pp2-ep2    4 --pp 2 --ep 2
pp2-dp2    4 --pp 2 --dp 2
ep2-dp2    4 --ep 2 --dp 2
pp3        3 --pp 3
dp3        3 --dp 3
ep3        3 --ep 3
threads-2  1 --threads 2
GRIDS
