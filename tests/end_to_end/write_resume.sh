#!/usr/bin/env bash
# A rank is killed, or its disk fails, at any point of writing; then the same command, on another number of ranks, ends
# with the bytes of an undisturbed run, and what has a final name is whole at every moment.
# usage: write_resume.sh REAP_DIST
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
reap_dist=$1
strace -f -qq -o /dev/null -e trace=fsync -e inject=fsync:error=EIO:when=9999 true 2>/dev/null ||
  { echo "skipped: strace is not here, or may not trace"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
model=$REAP_TEST_DATA/m2-mini-bf16
failures=0 points=0 resumed=0

failed() {
  echo "FAILED: $*"
  tail -n 5 "$work/log"
  failures=$((failures + 1))
}

mkdir "$work/plans" "$work/whole"
observe_and_prune=(run --model "$model" --calibration "$REAP_TEST_DATA/random_v211.h5" --ratio 0.3 0.5 --max-shard-size 300KB)
"$reap_dist" "${observe_and_prune[@]}" --output "$work/plans" 2>"$work/log" ||
  { cat "$work/log"; exit 1; }
prune() { # RATIO OUTPUT MORE...: arguments of the program
  echo "prune --model $model --plan $work/plans/reap-$1.plan.json --max-shard-size 300KB --output $2 ${*:3}"
}
for ratio in 0.3 0.5; do
  "$reap_dist" $(prune $ratio "$work/whole/$ratio") 2>"$work/log" || { cat "$work/log"; exit 1; }
done

# expect_whole OUTPUT WHERE: it is one of the two, or not there
expect_whole() {
  [ ! -e "$1" ] || diff -rq "$work/whole/0.3" "$1" >/dev/null || diff -rq "$work/whole/0.5" "$1" >/dev/null ||
    failed "$2: half an output under its final name"
}

# disturb RANK CALLS FAULT CODE MORE...: two ranks write over an older output, if there is one, one of them is hit; then
# 1 to 3 ranks finish it. Returns 1 when the fault came too late to hit anything.
disturb() {
  local rank=$1 calls=$2 fault=$3 code=$4 where="rank $1, $2 $3 ${*:5}" got ranks
  RANK=$rank CALLS=$calls FAULT=$fault mpirun -n 2 "$here/injected.sh" "$reap_dist" $(prune 0.3 "$work/out/model" "${@:5}") \
    </dev/null >"$work/log" 2>&1
  got=$?
  expect_whole "$work/out/model" "$where"
  [ $got = 0 ] && return 1
  points=$((points + 1))
  [ "$got" = "$code" ] || failed "$where: exit code $got, expected $code"
  if [ "$code" != 137 ] && [ -n "$(find "$work/out" -mindepth 1 -maxdepth 1 ! -name model)" ]; then failed "$where: something is left"; fi
  ranks=$((points % 3 + 1))
  mpirun -n $ranks "$reap_dist" $(prune 0.3 "$work/out/model" "${@:5}") </dev/null >"$work/log" 2>&1 ||
    failed "$where: $ranks ranks could not finish it"
  grep -q "are finished already" "$work/log" && resumed=$((resumed + 1))
  diff -r "$work/whole/0.3" "$work/out/model" >/dev/null || failed "$where: other bytes, finished by $ranks ranks"
  [ "$(ls -A "$work/out")" = model ] || failed "$where: left: $(ls -A "$work/out")"
}

fresh() { rm -rf "$work/out" && mkdir "$work/out"; }
aged() { fresh && cp -r "$work/whole/0.5" "$work/out/model"; }

for calls in pwrite64 fsync /^rename; do
  for rank in 0 1; do
    for ((when = 1; ; when += 1 + when / 4)); do  # until a run ends before it
      fresh
      disturb $rank $calls signal=KILL:when=$when 137 || break
    done
  done
done
[ "$resumed" -ge 3 ] || failed "only $resumed of $points jobs found finished files"

# The renames that replace an older output, and what comes around them.
for ((when = 1; ; ++when)); do
  aged
  disturb 0 /^rename signal=KILL:when=$when 137 --overwrite || break
done

# Without verification nobody would notice a file that is not what it should be.
for when in 2 4; do
  fresh
  disturb 1 fsync signal=KILL:when=$when 137 --verify 0
done

# A disk that fails or is full leaves the older output and nothing else.
for fault in pwrite64:error=ENOSPC:when=1 pwrite64:error=EIO:when=1 fsync:error=EIO:when=1 fsync:error=EIO:when=3 /^rename:error=EIO:when=1; do
  for rank in 0 1; do
    aged
    disturb $rank "${fault%%:*}" "${fault#*:}" 4 --overwrite || failed "$fault on rank $rank hit nothing"
  done
done
# A disk that says it has written what it has not.
aged
disturb 1 pwrite64 retval=1000:when=1 3 --overwrite || failed "a lying disk went unnoticed"

# A whole run, killed in its second output, goes on by the same command: it uses the saliency, keeps the first output.
run=("${observe_and_prune[@]}" --output "$work/out")
for when in {6..30}; do
  fresh
  RANK=0 CALLS=/^rename FAULT=signal=KILL:when=$when mpirun -n 2 "$here/injected.sh" "$reap_dist" "${run[@]}" </dev/null >"$work/log" 2>&1
  [ ! -e "$work/out/reap-0.3" ] || break
done
[ -e "$work/out/reap-0.3" ] && [ ! -e "$work/out/reap-0.5" ] || failed "a run was to be killed in its second output: $(ls -A "$work/out")"
"$reap_dist" "${run[@]}" </dev/null >"$work/log" 2>&1 || failed "the run could not be finished"
grep -q "saliency.h5 already holds this result" "$work/log" && grep -q "reap-0.3: finished by an earlier run" "$work/log" ||
  failed "the run did not go on from what was there"
diff -r --exclude run_log.json "$work/plans" "$work/out" >/dev/null || failed "the run that went on left: $(ls -A "$work/out")"

# One that is asked to stop while it writes says so, and goes on by the same command as well.
fresh
run+=(--state "$work/state")
RANK=1 CALLS=fsync FAULT=signal=USR1:when=1 mpirun -n 2 "$here/injected.sh" "$reap_dist" "${run[@]}" </dev/null >"$work/log" 2>&1
got=$?
[ $got = 75 ] && grep -q "stopped on request" "$work/log" || failed "asked to stop: exit code $got, expected 75"
[ -e "$work/out/reap-0.3.reap-partial" ] && [ ! -e "$work/out/reap-0.3" ] || failed "asked to stop: $(ls -A "$work/out")"
"$reap_dist" "${run[@]}" </dev/null >"$work/log" 2>&1 || failed "the run that was stopped could not be finished"
grep -q "are finished already" "$work/log" || failed "nothing was kept of the run that was stopped"
diff -r --exclude run_log.json "$work/plans" "$work/out" >/dev/null || failed "the run that was stopped left: $(ls -A "$work/out")"

echo "$points faults, $resumed jobs went on from finished files"
[ "$failures" = 0 ] && echo "every one ended with the same bytes"
exit "$failures"
