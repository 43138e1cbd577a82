#!/usr/bin/env bash
# Saliency files of real passes, added and taken out again: the same bytes in any order; and what must be refused.
# usage: merge.sh REAP_DIST
set -uo pipefail
reap_dist=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
nano=$REAP_TEST_DATA/m2-nano-fp8
failures=0

# expect CODE PATTERN ARGS...: exit code, and an error line that matches
expect() {
  local code=$1 pattern=$2 got
  shift 2
  "$reap_dist" "$@" >"$work/out" 2>"$work/err"
  got=$?
  if [ "$got" != "$code" ] || ! grep -Eq "^reap_dist: error: .*$pattern" "$work/err"; then
    echo "FAILED: reap_dist $*: exit $got (expected $code: $pattern)"
    cat "$work/err"
    failures=$((failures + 1))
  fi
}
# quietly ARGS...: must succeed
quietly() { "$reap_dist" "$@" >"$work/out" 2>"$work/err" || { echo "FAILED: reap_dist $*"; cat "$work/err"; exit 1; }; }
same() { cmp "$work/$1" "$work/$2" || failures=$((failures + 1)); }
observe() { quietly observe --model "$nano" --calibration "$REAP_TEST_DATA/$1" --saliency "$work/$2" --compute fp32 --block-tokens 1024 --collect gram outputs imatrix "${@:3}"; }
merge() { quietly merge --saliency "$work/$1" "${@:2}"; }

observe calib_64x512.h5 a.h5
observe heldout.h5 b.h5
cd "$work" || exit 1
merge ab.h5 a.h5 b.h5
merge ba.h5 b.h5 a.h5
same ab.h5 ba.h5
merge only-a.h5 ab.h5 --subtract b.h5
same only-a.h5 a.h5
merge only-b.h5 ba.h5 --subtract a.h5
same only-b.h5 b.h5

# The sum of all shares of a calibration file is the file of one pass, whatever grid each was observed on.
observe calib_64x512.h5 part-1.h5 --part 1/3
observe calib_64x512.h5 part-2.h5 --part 2/3 --threads 2
mpirun -n 2 "$reap_dist" observe --model "$nano" --calibration "$REAP_TEST_DATA/calib_64x512.h5" --saliency part-3.h5 \
  --compute fp32 --block-tokens 1024 --collect gram outputs imatrix --part 3/3 --pp 2 </dev/null 2>err || { cat err; exit 1; }
merge parts.h5 part-3.h5 part-1.h5 part-2.h5
same parts.h5 a.h5
merge two.h5 part-3.h5 part-1.h5
merge one.h5 two.h5 b.h5 --subtract part-3.h5 b.h5
same one.h5 part-1.h5
expect 3 "adding part-2.h5: samples" merge --saliency x.h5 two.h5 part-2.h5 part-2.h5
expect 3 "from which no part can be taken" merge --saliency x.h5 a.h5 --subtract part-2.h5
expect 2 "only 32 blocks" observe --model "$nano" --calibration "$REAP_TEST_DATA/calib_64x512.h5" --saliency x.h5 --block-tokens 1024 --part 1/33
quietly plan --saliency two.h5 --ratio 0.5

quietly inspect ab.h5
for file in a.h5 b.h5; do
  cp out listing
  digest=$("$reap_dist" inspect $file | awk '$1 == "calibration" { print $2 }')
  grep -q "$digest  all " listing || { echo "inspect of the sum does not name $digest"; cat listing; failures=$((failures + 1)); }
done
quietly plan --saliency ab.h5 --ratio 0.5 --criterion max_activation --plan plan.json
quietly run --model "$nano" --saliency ab.h5 --ratio 0.5 --criterion max_activation --output results
same plan.json results/max_activation-0.5.plan.json

expect 3 "adding a.h5: all 64 samples" merge --saliency x.h5 a.h5 b.h5 a.h5
expect 3 "adding a.h5" merge --saliency x.h5 ab.h5 a.h5
expect 3 "subtracting b.h5: .* no part" merge --saliency x.h5 a.h5 --subtract b.h5
expect 3 "nothing would be left" merge --saliency x.h5 a.h5 b.h5 --subtract ab.h5
expect 3 "exists" merge --saliency ab.h5 a.h5 b.h5
expect 2 "saliency is missing" merge a.h5 b.h5
expect 2 "name the saliency files" merge --saliency x.h5
expect 3 "reap-calibration-1" merge --saliency x.h5 a.h5 "$REAP_TEST_DATA/heldout.h5"
expect 2 "calibration is missing" run --model "$nano" --ratio 0.5 --output other
expect 3 "another model" run --model "$REAP_TEST_DATA/m2-mini-bf16" --saliency ab.h5 --ratio 0.5 --output other
quietly observe --model "$nano" --calibration "$REAP_TEST_DATA/heldout.h5" --saliency other.h5 --compute fp32 --block-tokens 512
expect 3 "adding other.h5: its block size is 512" merge --saliency x.h5 a.h5 other.h5
[ ! -e x.h5 ] || { echo "a refused merge left a file"; failures=$((failures + 1)); }
quietly merge --saliency ab.h5 a.h5 --overwrite
same ab.h5 a.h5
[ "$failures" = 0 ] && echo "sums of saliency files as documented"
exit "$failures"
