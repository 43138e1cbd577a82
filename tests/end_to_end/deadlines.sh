#!/usr/bin/env bash
# A rank that is killed, stopped or fails ends the whole job: with the documented exit code and a line that says which rank
# it was and where it was at work. No process and no shared memory is left, and every rank's last operations are on record.
# usage: deadlines.sh REAP_DIST LONG_CALIBRATION
set -uo pipefail
reap_dist=$1 long_calibration=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
model=$REAP_TEST_DATA/m2-nano-fp8
ranks=3
failures=0
place='observe, layer [0-9]+, block [0-9]+: '
"$long_calibration" "$work/long.h5" 4000 || exit 1

failed() {
  echo "FAILED: $*"
  cat "$work/err"
  failures=$((failures + 1))
}

# start ARGS...: a job that would take long, up to its ranks being at work
start() {
  rm -rf "$work/log"
  timeout -k 5 120 mpirun -n $ranks "$reap_dist" observe --model "$model" --calibration "$work/long.h5" --saliency "$work/s.h5" \
    --compute fp32 --block-tokens 512 --threads 1 --timeout 5 --log-dir "$work/log" "$@" </dev/null >"$work/out" 2>"$work/err" &
  job=$!
  until [ "$(grep -l 'observe .* block .* ' "$work"/log/rank-*.operations 2>/dev/null | wc -l)" = $ranks ]; do
    kill -0 $job 2>/dev/null || { failed "the job did not begin"; return; }
    sleep 0.1
  done
  sleep 1  # and up to the ranks having told each other where they are
  processes=$(sed -n '1s/.*process \([0-9]*\).*/\1/p' "$work"/log/rank-*.operations)
  shared=$(for process in $processes; do grep -o '/dev/shm/.*' "/proc/$process/maps"; done | sort -u)
  [ "$(echo "$shared" | wc -l)" = $ranks ] || failed "$ranks ranks share $shared"
}

process_of() { sed -n '1s/.*process \([0-9]*\).*/\1/p' "$work/log/rank-000$1.operations"; }
is_alive() { [ -e "/proc/$1" ] && ! grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; }

# ends WHAT CODE PATTERN: the job is over soon, so, and leaves nothing
ends() {
  local what=$1 code=$2 pattern=$3 got rank process name
  wait $job
  got=$?
  [ $got = "$code" ] || failed "$what: exit $got (expected $code)"
  grep -Eq "$pattern" "$work/err" || failed "$what: nothing said like: $pattern"
  sleep 1
  for process in $processes; do is_alive "$process" && failed "$what: process $process is left"; done
  for name in $shared; do [ ! -e "$name" ] || failed "$what: $name is left"; done
  for ((rank = 0; rank < ranks; ++rank)); do
    grep -Eq '^[0-9]{12} .* observe ' "$work/log/rank-000$rank.operations" || failed "$what: no operations of rank $rank"
    [ "$(wc -l <"$work/log/rank-000$rank.operations")" = 1001 ] || failed "$what: the record of rank $rank is not whole"
  done
  echo "$what: exit $got"
}

start
kill -KILL "$(process_of 1)"
ends "rank 1 killed" 137 "^reap_dist: rank 1 \(host .*, process $(process_of 1)\) died in $place"

start --state "$work/state"
kill -KILL "$(process_of 2)"
ends "rank 2 killed, with a state" 137 "^reap_dist: rank 2 \(host .*, process $(process_of 2)\) died in $place"

start
kill -STOP "$(process_of 2)"
ends "rank 2 stopped" 6 "^reap_dist: error: rank 0: rank 2 \(host .*\) has not answered for [0-9]+ s, last heard of in $place"

start --pp 3
kill -STOP "$(process_of 0)"
ends "rank 0 stopped" 6 "^reap_dist: error: rank [12]: rank 0 \(host .*\) has not answered for [0-9]+ s, last heard of in $place"

start
kill -TERM "$(process_of 0)"
ends "rank 0 terminated" 143 "terminated|signal 15"

# A weight that is not a number: the rank that holds it fails by itself.
cp -r "$REAP_TEST_DATA/m2-mini-bf16" "$work/broken" && chmod -R u+w "$work/broken"
shard=$work/broken/model-00004-of-00011.safetensors
head -c 20000 /dev/zero | tr '\0' '\377' | dd of="$shard" bs=1 seek=$(($(stat -c %s "$shard") / 2)) conv=notrunc status=none
rm -rf "$work/log"
timeout -k 5 120 mpirun -n 2 "$reap_dist" observe --model "$work/broken" --calibration "$REAP_TEST_DATA/random_v211.h5" \
  --saliency "$work/s.h5" --pp 2 --timeout 5 --log-dir "$work/log" </dev/null >"$work/out" 2>"$work/err"
got=$?
[ $got = 5 ] || failed "a weight that is not a number: exit $got (expected 5)"
grep -q '^reap_dist: error: rank [01]: layer' "$work/err" || failed "a weight that is not a number: the place is not named"
grep -q 'died' "$work/err" && failed "a rank that failed is said to have died"

[ -e "$work/s.h5" ] && failed "a job that did not end well left a result"
[ "$failures" = 0 ] && echo "all as documented"
exit "$failures"
