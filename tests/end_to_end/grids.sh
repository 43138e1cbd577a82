#!/usr/bin/env bash
# Every file of a run's output, run_log.json aside, is byte for byte the same for every grid of ranks, with weights
# resident or streamed, and in one piece or stopped and continued on other grids.
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
    --output "$work/$name" --ratio 0.25 0.5 --criterion reap frequency --block-tokens 1024 --collect gram outputs imatrix --max-shard-size 1MB \
    --compute "$compute" "$@" </dev/null 2>"$work/$name.log" || { cat "$work/$name.log"; exit 1; }
}

# The reference needs no mpirun at all.
"$reap_dist" run --model "$REAP_TEST_DATA/m2-nano-fp8" --calibration "$REAP_TEST_DATA/calib_64x512.h5" --output "$work/one" \
  --ratio 0.25 0.5 --criterion reap frequency --block-tokens 1024 --collect gram outputs imatrix --max-shard-size 1MB --compute "$compute" 2>"$work/one.log" ||
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
stream       1 --weights stream
stream-wave  1 --weights stream --memory-budget 19MB
stream-pp2   2 --weights stream --pp 2
stream-ep2   2 --weights stream --ep 2 --scratch /tmp
stream-dp2   2 --weights stream --dp 2
stream-pp3   3 --weights stream --pp 3 --scratch /tmp
stream-4     4 --weights stream --pp 2 --ep 2
GRIDS

# The same command, stopped after a while and given again with another grid, until it is through.
ways=("2 --pp 2" "2 --weights stream --ep 2" "1" "3 --dp 3" "2 --weights stream --pp 2 --scratch /tmp" "4 --pp 2 --ep 2")
stops=0
for trial in 1 2 3; do
  code=75
  for ((turn = trial; code == 75; ++turn)); do
    # shellcheck disable=SC2086  # ranks and grid are several words
    set -- ${ways[turn % ${#ways[@]}]}
    ranks=$1
    shift
    mpirun -n "$ranks" "$reap_dist" run --model "$REAP_TEST_DATA/m2-nano-fp8" --calibration "$REAP_TEST_DATA/calib_64x512.h5" \
      --output "$work/again" --state "$work/state" --ratio 0.25 0.5 --criterion reap frequency --block-tokens 1024 --collect gram outputs imatrix \
      --max-shard-size 1MB --compute "$compute" "$@" </dev/null 2>"$work/again.log" &
    job=$!
    for ((wait = 0; wait < 300; ++wait)); do  # until it computes; there is nothing to save before
      grep -q 'observe: [0-9]* samples' "$work/again.log" && break
      kill -0 "$job" 2>/dev/null || break
      sleep 0.05
    done
    sleep "0.$((turn * 37 % 90 + 10))"
    kill -USR1 "$job" 2>/dev/null || true
    code=0
    wait "$job" || code=$?
    [[ $code == 0 || $code == 75 ]] || { cat "$work/again.log"; exit 1; }
    [[ $code == 0 ]] || stops=$((stops + 1))
  done
  diff -r --exclude run_log.json "$work/one" "$work/again" || { echo "trial $trial differs after $stops stops"; exit 1; }
  [[ ! -e $work/state || -z $(ls "$work/state") ]] || { echo "the state of a finished run is still there"; exit 1; }
  rm -rf "$work/again"
done
echo "stopped $stops times and continued: identical"
[[ $stops -gt 0 ]]
