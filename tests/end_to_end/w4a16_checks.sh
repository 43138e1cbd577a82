# shellcheck shell=bash
# Sourced by the tests of 4-bit weights, with $reap_dist set: a folder $work that goes when the test ends, and checks
# that count in $failures.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
model=$REAP_TEST_DATA/m2-nano-fp8 calibration=$REAP_TEST_DATA/calib_64x512.h5
failures=0

failed() {
  echo "FAILED: $*"
  tail -n 5 "$work/log"
  failures=$((failures + 1))
}

# on RANKS ARGS...: the program, its last words in the log; 0 ranks: without mpirun
on() {
  local ranks=$1
  shift
  if [ "$ranks" = 0 ]; then "$reap_dist" "$@" >"$work/log" 2>&1; else mpirun -n "$ranks" "$reap_dist" "$@" </dev/null >"$work/log" 2>&1; fi
}

# refused CODE PATTERN ARGS...: and nothing is at $work/refused, the --output of such tests
refused() {
  local code=$1 pattern=$2
  shift 2
  on 0 "$@"
  local got=$?
  [ $got = "$code" ] && grep -Eq "^reap_dist: error: .*$pattern" "$work/log" || failed "exit $got (expected $code: $pattern): $*"
  [ ! -e "$work/refused" ] || failed "something under its final name: $*"
}

# digests OUTPUT: of its tensors, by name, whatever files they are in
digests() { sed -nE 's/.*"name": "([^"]*)", "dtype".*"xxh3": "([^"]*)".*/\1 \2/p' "$work/$1/reap_manifest.json" | sort; }
