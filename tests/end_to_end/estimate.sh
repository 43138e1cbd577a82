#!/usr/bin/env bash
# The command as its users run it: from config.json alone, from headers, on several ranks; and what it says is what run does.
# usage: estimate.sh REAP_DIST
set -euo pipefail
reap_dist=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

expect() {
  grep -Eq "$1" "$2" || { echo "FAILED: $1 is not in $2:"; cat "$2"; exit 1; }
}

mkdir "$work/alone"
cp "$REAP_TEST_DATA/m2-nano-fp8/config.json" "$work/alone"
"$reap_dist" estimate --model "$work/alone" --ranks 8 --machine h200 read-total=40 --tokens 100000 >"$work/alone.txt"
expect "sizes follow from config.json" "$work/alone.txt"
expect "read-total +40 GB/s .*given" "$work/alone.txt"
expect "^Chosen: pp=" "$work/alone.txt"

nano=(--model "$REAP_TEST_DATA/m2-nano-fp8" --calibration "$REAP_TEST_DATA/calib_64x512.h5" --block-tokens 1024)
"$reap_dist" estimate "${nano[@]}" --json >"$work/headers.json"
expect '"format": "reap-estimate-1"' "$work/headers.json"
if command -v python3 >/dev/null; then python3 -m json.tool "$work/headers.json" >"$work/parsed"; fi

# The grid that is named is the grid that is run.
mpirun -n 2 "$reap_dist" estimate "${nano[@]}" </dev/null >"$work/two.txt"
mpirun -n 2 "$reap_dist" observe "${nano[@]}" --saliency "$work/two.h5" </dev/null 2>"$work/two.log"
read -r pp ep dp < <(sed -n 's/^Chosen: pp=\([0-9]*\) ep=\([0-9]*\) dp=\([0-9]*\),.*/\1 \2 \3/p' "$work/two.txt")
expect "grid pp $pp x ep $ep x dp $dp" "$work/two.log"

# Nothing fits: the estimate says what would, run refuses before it reads weights.
"$reap_dist" estimate "${nano[@]}" --memory-budget 100kB >"$work/none.txt" && exit 1
"$reap_dist" estimate "${nano[@]}" --memory-budget 100KB >"$work/none.txt"
expect "^Nothing fits: .*a --memory-budget of" "$work/none.txt"
status=0
"$reap_dist" observe "${nano[@]}" --memory-budget 100KB --saliency "$work/none.h5" 2>"$work/none.log" || status=$?
[ "$status" = 2 ] || { echo "FAILED: exit $status, expected 2"; exit 1; }
expect "a --memory-budget of" "$work/none.log"
[ ! -e "$work/none.h5" ] || { echo "FAILED: a refused pass left a file"; exit 1; }
echo "estimates as documented"
