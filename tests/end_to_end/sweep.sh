#!/usr/bin/env bash
# A sweep measures its plans before it writes any: the same result on any number of ranks, nothing measured twice, and
# only what was asked for is written.
# usage: sweep.sh REAP_DIST
set -uo pipefail
reap_dist=$1
model=$REAP_TEST_DATA/m2-nano-fp8
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

failed() {
  echo "FAILED: $*"
  tail -n 5 "$work/err"
  failures=$((failures + 1))
}

# sweep NAME RANKS OPTIONS...: must succeed
sweep() {
  local name=$1 ranks=$2
  shift 2
  mpirun -n "$ranks" "$reap_dist" run --model "$model" --calibration "$REAP_TEST_DATA/calib_64x512.h5" \
    --eval "$REAP_TEST_DATA/heldout.h5" --samples-per-domain 1 --compute fp32 --threads 1 --block-tokens 1024 \
    --output "$work/$name" "$@" </dev/null >"$work/out" 2>"$work/err" || failed "$name: exit $?"
}

# refused CODE PATTERN OPTIONS...: of a run that has no --eval
refused() {
  local code=$1 pattern=$2 got
  shift 2
  "$reap_dist" run --model "$model" --calibration "$REAP_TEST_DATA/calib_64x512.h5" --output "$work/refused" "$@" \
    </dev/null >"$work/out" 2>"$work/err"
  got=$?
  [ $got = "$code" ] || failed "$*: exit $got, expected $code"
  grep -q -- "$pattern" "$work/err" || failed "$*: nothing said like $pattern"
  [ ! -e "$work/refused" ] || failed "$*: left an output"
}

# holds NAME FOLDERS...: these pruned models and no other
holds() {
  local name=$1 found
  shift
  found=$(cd "$work/$name" && for d in */; do [ -d "$d" ] && echo "${d%/}"; done)
  [ "$(echo $found)" = "$*" ] || failed "$name holds: $(echo $found), expected: $*"
}

sweep one 1 --ratio 0.25,0.5 --criterion reap,frequency auto --auto-among reap:0 frequency --write best
grep -q '^auto-0.25 is ' "$work/out" || failed "the choice is not shown"
grep -q '^reap-0.5 ' "$work/out" || failed "the table lacks reap-0.5"
[ "$(cd "$work/one" && ls -- *.plan.json | wc -l)" = 8 ] || failed "not eight plans"
[ "$(cd "$work/one" && ls -d -- */ | wc -l)" = 2 ] || failed "best of two sizes is not two models"
for model_card in "$work"/one/*/README.md; do
  grep -q '^| perplexity, all |' "$model_card" || failed "$model_card has no evaluation"
done
"$reap_dist" verify --model "$model" --output "$(echo "$work"/one/*-0.5)" >"$work/out" 2>"$work/err" || failed "verify"

sweep three 3 --ratio 0.25,0.5 --criterion reap,frequency auto --auto-among reap:0 frequency --write none
cmp "$work/one/sweep.json" "$work/three/sweep.json" || failed "another result on three ranks"
compgen -G "$work/three/*/" >/dev/null && failed "--write none has written"

# The same command goes on from what is there; another size is added to it.
sweep one 1 --ratio 0.25,0.5 --criterion reap,frequency auto --auto-among reap:0 frequency --write best
grep -q 'sweep.json already holds this result' "$work/err" || failed "measured again"
cmp "$work/one/sweep.json" "$work/three/sweep.json" || failed "another result the second time"
sweep three 2 --ratio 0.5 0.4 --criterion reap --write none
grep -q 'the model and 1 different plans' "$work/err" || failed "measured what was there"
sweep fresh 1 --ratio 0.5 0.4 --criterion reap
holds fresh reap-0.4 reap-0.5
python3 - "$work" <<'PYTHON' || failed "an added size differs from one measured alone"
import json, sys
added, fresh = (json.load(open(f"{sys.argv[1]}/{name}/sweep.json")) for name in ("three", "fresh"))
assert [v["name"] for v in added["variants"]][:2] == ["reap-0.5", "reap-0.4"], added["variants"]
assert added["variants"][:2] == fresh["variants"] and added["base"] == fresh["base"]
assert len(added["variants"]) == 7 and len(added["choice"]) == 2
PYTHON

# Models of 4 bits are measured as they were written, and once.
for ranks in 1 2; do
  sweep rounded-$ranks $ranks --ratio 0.5 0.25 --criterion reap --write best --quantize w4a16 --method rtn
  holds rounded-$ranks reap-0.25-w4a16 reap-0.5-w4a16
done
cmp "$work/rounded-1/sweep.json" "$work/rounded-2/sweep.json" || failed "--quantize: another result on two ranks"
sweep rounded-1 1 --ratio 0.5 0.25 --criterion reap --write best --quantize w4a16 --method rtn
[ "$(grep -c 'sweep.json already holds this result' "$work/err")" = 2 ] || failed "--quantize: measured again"
cmp "$work/rounded-1/sweep.json" "$work/rounded-2/sweep.json" || failed "--quantize: another result the second time"
python3 - "$work/rounded-1/sweep.json" <<'PYTHON' || failed "models of 4 bits are not beside their masks"
import json, sys
variants = {v["name"]: v for v in json.load(open(sys.argv[1]))["variants"]}
assert list(variants) == ["reap-0.5", "reap-0.25", "reap-0.5-w4a16", "reap-0.25-w4a16"], list(variants)
for size in "0.5", "0.25":
    mask, rounded = variants[f"reap-{size}"], variants[f"reap-{size}-w4a16"]
    assert "model_digest" in rounded and rounded["criterion"] == "reap w4a16 rtn" and rounded["kept"] == mask["kept"]
    assert rounded["ratio"] == mask["ratio"] and rounded["all"]["kl"] > mask["all"]["kl"] > 0
PYTHON

sweep automatic 1 --ratio 0.5 --criterion auto --auto-among reap:0 --write none
grep -q '"calibration": "' "$work/automatic/sweep.json" || failed "a sweep of auto alone does not say its calibration"
sweep automatic 1 --ratio 0.4 --criterion auto --auto-among reap:0 --write none
[ "$(grep -o '"chosen"' "$work/automatic/sweep.json" | wc -l)" = 2 ] || failed "an added size has lost the choice before"

# Memory in which the calibration samples go through the model, but not the held-out ones: known at once.
"$reap_dist" observe --model "$model" --calibration "$REAP_TEST_DATA/calib_64x512.h5" --block-tokens 512 --threads 1 \
  --memory-budget 12MB --saliency "$work/small.h5" >"$work/out" 2>"$work/err" || failed "observe in 12 MB"
refused 2 'do not fit' --ratio 0.25 --eval "$REAP_TEST_DATA/heldout.h5" --block-tokens 512 --threads 1 --memory-budget 12MB
refused 2 '--eval is missing' --ratio 0.25 --criterion auto
refused 2 '--eval is missing' --ratio 0.25 --write best
refused 2 '0.2x: not a number' --ratio 0.25,0.2x
refused 2 'asked for twice' --ratio 0.25,0.25
[ $failures = 0 ] && echo "sweeps: as they should be"
exit $((failures > 0))
