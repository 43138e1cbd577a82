#!/usr/bin/env bash
# A model four times as large as the memory of a rank: the pass stays within its budget, and gives the bits of a pass with
# all weights in memory.
# usage: budget.sh REAP_DIST
set -euo pipefail
reap_dist=$1
model=${REAP_SHARED:-}/checkpoints/m2-tiny-bf16
[[ -d $model ]] || { echo "skipped: $model is not there"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
budget=$(($(cat "$model"/*.safetensors | wc -c) / 4))

# observe NAME RANKS OPTIONS...
observe() {
  local name=$1 ranks=$2
  shift 2
  mpirun -n "$ranks" "$reap_dist" observe --model "$model" --calibration "$REAP_TEST_DATA/random_v211.h5" \
    --saliency "$work/$name.h5" --threads 1 --block-tokens 64 "$@" </dev/null 2>"$work/$name.log" ||
    { cat "$work/$name.log"; exit 1; }
}

observe resident 1 --weights resident
observe quarter 4 --memory-budget "$budget"
grep -q 'weights streamed' "$work/quarter.log" || { cat "$work/quarter.log"; exit 1; }
cmp "$work/resident.h5" "$work/quarter.h5"
grown=$(sed -n 's/.*memory of the fullest rank grew by \([0-9.]*\) MB.*/\1/p' "$work/quarter.log")
echo "budget $budget bytes, the fullest rank grew by $grown MB"
awk -v grown="$grown" -v budget="$budget" 'BEGIN { exit !(grown > 0 && grown * 1e6 <= budget) }'
