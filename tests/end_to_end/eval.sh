#!/usr/bin/env bash
# Held-out perplexity against an independent implementation in float64, plans as masks against written checkpoints, the
# same bytes on every grid, and what must be refused.
# usage: eval.sh REAP_DIST
set -uo pipefail
reap_dist=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
nano=$REAP_TEST_DATA/m2-nano-fp8
heldout=$REAP_TEST_DATA/heldout.h5
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
# check PROGRAM ARGS...: a few lines of Python that print what is wrong
check() {
  local wrong
  wrong=$(python3 - "${@:2}" <<<"$1") && [ -z "$wrong" ] && return
  echo "FAILED: $wrong"
  failures=$((failures + 1))
}

# Perplexity of the bundled model: the golden file is of another program, in float64.
quietly eval --model "$nano" --heldout "$heldout" --compute fp32 --evaluation "$work/nano.json"
golden='
import json, sys
got, want, tolerance = json.load(open(sys.argv[1])), json.load(open(sys.argv[2])), float(sys.argv[3])
if "tokens" in want and got["base"]["all"]["predicted"] != want["tokens"]: print("predicted", got["base"]["all"])
for name, m in zip(["all"] + got["domains"], [got["base"]["all"]] + got["base"]["domains"]):
    if not abs(m["perplexity"] / want[name] - 1) < tolerance: print(name, m, "expected", want[name])
'
check "$golden" "$work/nano.json" "$REAP_TEST_DATA/goldens/m2-nano-fp8/ppl.json" 1e-5

# Plans as masks are the written checkpoints, bit for bit: a row of a product does not depend on the rows that are gone.
masks='
import json, sys
masked, written, name = json.load(open(sys.argv[1])), json.load(open(sys.argv[2])), sys.argv[3]
variant = [v for v in masked["variants"] if v["name"] == name][0]
plain = lambda m: [m["predicted"], m["nll"], m["perplexity"]]
every = lambda v: [plain(m) for m in [v["all"]] + v["domains"] + v["halves"]]
if every(variant) != every(written["base"]): print(name, sys.argv[4], "masked", every(variant), "written", every(written["base"]))
if not variant["all"]["kl"] > 1e-3: print(name, "does not depart from the base")
'
for compute in fp32 bf16; do
  quietly run --model "$nano" --calibration "$REAP_TEST_DATA/calib_64x512.h5" --output "$work/$compute" --compute $compute \
    --ratio 0.25 0.5 --criterion reap frequency --verify 0
  quietly eval --model "$nano" --heldout "$heldout" --samples-per-domain 2 --compute $compute \
    --plan "$work/$compute"/*.plan.json --evaluation "$work/masks-$compute.json"
  for name in reap-0.25 reap-0.5 frequency-0.25 frequency-0.5; do
    quietly eval --model "$work/$compute/$name" --heldout "$heldout" --samples-per-domain 2 --compute $compute \
      --evaluation "$work/written.json" --overwrite
    check "$masks" "$work/masks-$compute.json" "$work/written.json" $name $compute
  done
done

# Models compared with the one they were made from: a pruned one as its mask, itself as no change.
cp -r "$work/fp32/reap-0.5" "$work/written"
quietly eval --model "$nano" --heldout "$heldout" --samples-per-domain 2 --compute fp32 \
  --plan "$work/fp32/reap-0.5.plan.json" --compare "$work/written/" "$nano" --evaluation "$work/compared.json"
check '
import json, sys
mask, written, own = json.load(open(sys.argv[1]))["variants"]
measures = lambda v: [v["ratio"], v["kept"], v["all"], v["domains"], v["halves"]]
if measures(mask) != measures(written): print("written", measures(written), "masked", measures(mask))
if written["name"] != "written" or "plan_digest" in written: print(written)
if (own["all"]["kl"], own["all"]["top1"]) != (0, 1): print("itself", own)
' "$work/compared.json"
expect 2 "two plans or models are named reap-0.5" eval --model "$nano" --heldout "$heldout" \
  --plan "$work/fp32/reap-0.5.plan.json" --compare "$work/fp32/reap-0.5"
expect 3 "cannot be compared" eval --model "$nano" --heldout "$heldout" --compare "$REAP_TEST_DATA/m2-mini-bf16"

# The same bytes on every grid, resident and streamed.
evaluation() {
  mpirun -n "$2" "$reap_dist" eval --model "$nano" --heldout "$heldout" --samples-per-domain 2 --compute fp32 \
    --block-tokens 512 --plan "$work"/fp32/reap-*.plan.json --compare "$work/written" --evaluation "$work/$1.json" "${@:3}" </dev/null \
    >"$work/$1.out" 2>"$work/$1.log" || { cat "$work/$1.log"; exit 1; }
}
evaluation one 1
while read -r name ranks grid; do
  # shellcheck disable=SC2086  # a grid is several words
  evaluation "$name" "$ranks" $grid
  same one.json "$name.json"
  same one.out "$name.out"
done <<'GRIDS'
pp2         2 --pp 2
ep2         2 --ep 2
dp2         2 --dp 2
pp3         3 --pp 3
pp2-ep2     4 --pp 2 --ep 2
ep2-dp2     4 --ep 2 --dp 2
threads-2   1 --threads 2
stream      1 --weights stream
stream-pp2  2 --weights stream --pp 2 --scratch /tmp
stream-ep2  2 --weights stream --ep 2
GRIDS

# A file that holds the result is used; one of something else is kept.
first=(eval --model "$nano" --heldout "$heldout" --samples-per-domain 1 --compute fp32)
plan=$work/fp32/reap-0.25.plan.json
quietly "${first[@]}" --plan "$plan" --evaluation "$work/kept.json"
cp "$work/kept.json" "$work/copy.json"
quietly "${first[@]}" --plan "$plan" --evaluation "$work/kept.json"
grep -q "already holds this result" "$work/err" || { echo "FAILED: computed again"; failures=$((failures + 1)); }
expect 3 "kept.json: exists and was made with other plans" "${first[@]}" --evaluation "$work/kept.json"
expect 3 "exists and was made with 5 held-out samples, not 135" \
  eval --model "$nano" --heldout "$heldout" --compute fp32 --plan "$plan" --evaluation "$work/kept.json"
same kept.json copy.json
quietly "${first[@]}" --evaluation "$work/kept.json" --overwrite
echo junk >"$work/junk.json"
expect 3 "junk.json" "${first[@]}" --evaluation "$work/junk.json"
quietly "${first[@]}" --evaluation "$work/junk.json" --overwrite
same junk.json kept.json

expect 2 "--heldout is missing" eval --model "$nano"
expect 2 "--model is missing" eval --heldout "$heldout"
expect 2 "two plans or models are named reap-0.25" "${first[@]}" --plan "$plan" "$work/bf16/reap-0.25.plan.json"
expect 2 "--plan names 2 files; prune takes one" prune --model "$nano" --output "$work/x" --plan "$plan" "$plan"
expect 2 "samples-per-domain" eval --model "$nano" --heldout "$heldout" --samples-per-domain -1
expect 3 "plan reap-0.25: it is for another model" eval --model "$work/fp32/reap-0.5" --heldout "$heldout" --plan "$plan"
expect 4 "no/such" "${first[@]}" --evaluation "$work/no/such/file.json"
sed 's/"kept": 24/"kept": 3/' "$plan" >"$work/few.plan.json"
expect 3 "keeps 3 of 32 experts with top-4" "${first[@]}" --plan "$work/few.plan.json"

# Asked to stop, it ends with 75 and leaves nothing.
mpirun -n 2 "$reap_dist" eval --model "$nano" --heldout "$heldout" --compute fp32 --plan "$work"/fp32/*.plan.json \
  --evaluation "$work/stopped.json" </dev/null >"$work/out" 2>"$work/err" &
job=$!
for ((wait = 0; wait < 300; ++wait)); do
  grep -q 'eval: [0-9]* samples' "$work/err" && break
  kill -0 "$job" 2>/dev/null || break
  sleep 0.05
done
sleep 0.5
kill -USR1 "$job"
wait "$job"
code=$?
if [ "$code" != 75 ] || [ -e "$work/stopped.json" ] || ! grep -q "saves nothing on its way" "$work/err"; then
  echo "FAILED: SIGUSR1: exit $code"
  cat "$work/err"
  failures=$((failures + 1))
fi

# The pruning study: the unpruned model, and the plans that another implementation chose.
tiny=$REAP_SHARED/checkpoints/m2-tiny-bf16
if [ -d "$tiny" ]; then
  quietly observe --model "$tiny" --calibration "$REAP_SHARED/calibration/calib_mixed.h5" --compute fp32 --saliency "$work/tiny.h5"
  for criterion in reap frequency; do
    for ratio in 0.25 0.5; do
      quietly plan --saliency "$work/tiny.h5" --criterion $criterion --ratio $ratio --plan "$work/tiny-$criterion-$ratio.plan.json"
    done
  done
  quietly eval --model "$tiny" --heldout "$heldout" --samples-per-domain 9 --compute fp32 \
    --plan "$work"/tiny-*.plan.json --evaluation "$work/tiny.json"
  check '
import json, sys
got = json.load(open(sys.argv[1]))
rows = [json.loads(line) for line in open(sys.argv[2])]
def compare(name, m, want):
    if not abs(m / want - 1) < 0.005: print(name, m, "expected", want)
for v in [dict(got["base"], criterion="base", ratio=0)] + got["variants"]:
    found = [r for r in rows if r["metric"] == v["criterion"] and r["ratio"] == v["ratio"] and r["calib"] in ("-", "mixed") and r.get("mode", "model") == "model"]
    if len(found) != 1: print(v["criterion"], v["ratio"], len(found), "rows")
    for name, m in zip(["all"] + got["domains"], [v["all"]] + v["domains"]): compare((v["criterion"], v["ratio"], name), m["perplexity"], found[0][name])
' "$work/tiny.json" "$REAP_SHARED/goldens/pruning-study.jsonl"
else
  echo "the pruning study is skipped: $tiny is not there"
fi
[ "$failures" = 0 ]
