#!/usr/bin/env bash
# Bad input ends with the documented exit code, one line that names the culprit, and nothing under a final name.
# usage: errors.sh REAP_DIST
set -uo pipefail
reap_dist=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
model=$REAP_TEST_DATA/m2-mini-bf16
calibration=$REAP_TEST_DATA/random_v211.h5
failures=0

# expect CODE PATTERN RANKS ARGS...: exit code, and exactly one error line, which matches
expect() {
  local code=$1 pattern=$2 ranks=$3 got
  shift 3
  if [ "$ranks" = 0 ]; then "$reap_dist" "$@" >"$work/out" 2>"$work/err"; else mpirun -n "$ranks" "$reap_dist" "$@" </dev/null >"$work/out" 2>"$work/err"; fi
  got=$?
  local lines
  lines=$(grep -c '^reap_dist: error: ' "$work/err")
  if [ "$got" != "$code" ] || [ "$lines" != 1 ] || ! grep -Eq "^reap_dist: error: .*$pattern" "$work/err"; then
    echo "FAILED: reap_dist $* on $ranks ranks: exit $got (expected $code), $lines error lines (expected 1: $pattern)"
    cat "$work/err"
    failures=$((failures + 1))
  fi
}

run=(run --model "$model" --calibration "$calibration" --output "$work/out-dir" --ratio 0.3)
for ranks in 0 2; do
  expect 2 "unknown command 'prnue'" $ranks prnue
  expect 2 "modle" $ranks run --modle x
  expect 2 "ratio" $ranks run --model "$model" --calibration "$calibration" --output "$work/out-dir"
  expect 2 "model is missing" $ranks run --calibration "$calibration" --output "$work/out-dir" --ratio 0.3
  expect 2 "output is missing" $ranks run --model "$model" --calibration "$calibration" --ratio 0.3
  expect 3 "/nonexistent" $ranks run --model /nonexistent --calibration "$calibration" --output "$work/out-dir" --ratio 0.3
  expect 3 "no-such.h5" $ranks run --model "$model" --calibration "$work/no-such.h5" --output "$work/out-dir" --ratio 0.3
  expect 2 "top.?k|experts" $ranks "${run[@]}" --ratio 0.9
done
expect 2 "device" 2 "${run[@]}" --device tpu
if "$reap_dist" --version | grep -q "cuda: no device"; then
  expect 2 "no GPU: " 2 "${run[@]}" --device cuda
fi
expect 2 "grid|ranks" 2 "${run[@]}" --pp 2 --ep 2
expect 2 "grid|ranks" 3 "${run[@]}" --pp 3
expect 3 "vocab|token" 2 run --model "$model" --calibration "$REAP_TEST_DATA/calib_64x512.h5" --output "$work/out-dir" --ratio 0.3

"$reap_dist" "${run[@]}" 2>"$work/log" || { cat "$work/log"; exit 1; }
expect 2 "asked for twice" 2 "${run[@]}" --ratio 0.3 0.30 --overwrite
expect 3 "is the source" 2 run --model "$model" --calibration "$calibration" --output "$model/out" --ratio 0.3
expect 4 "no-such" 2 observe --model "$model" --calibration "$calibration" --saliency "$work/no-such/s.h5"
expect 4 "name too long" 0 inspect "$(printf 'x%.0s' {1..300})"
# All but the log of the run, which tells of times.
digest() { (cd "$work/out-dir" && find . -type f ! -name run_log.json | sort | xargs sha256sum | sha256sum); }
before=$(digest)
for more in "" --overwrite; do
  mpirun -n 2 "$reap_dist" "${run[@]}" $more </dev/null 2>"$work/log" && grep -q "reap-0.3: finished by an earlier run; kept" "$work/log" ||
    { echo "FAILED: the same command again $more"; cat "$work/log"; failures=$((failures + 1)); }
done
expect 3 "reap-0.3: exists and was made with --max-shard-size 5000000000; move it away or give --overwrite" 2 "${run[@]}" --max-shard-size 1MB
expect 3 "reap-0.3: exists and was made with --keep-multiple 1" 2 "${run[@]}" --keep-multiple 3
expect 3 "reap-0.3: exists and was made by another plan" 2 "${run[@]}" --block-tokens 100 --saliency "$work/other.h5"
sed 's/"block_tokens": 4096/"block_tokens": 4095/' "$work/out-dir/reap-0.3.plan.json" >"$work/edited.json"
expect 3 "reap-0.3: exists and was made by another plan" 2 prune --model "$model" --plan "$work/edited.json" --output "$work/out-dir/reap-0.3"
expect 3 "exists and was made with --block-tokens 4096" 2 observe --model "$model" --calibration "$calibration" \
  --saliency "$work/out-dir/saliency.h5" --block-tokens 100
plan=(plan --saliency "$work/out-dir/saliency.h5" --plan "$work/out-dir/reap-0.3.plan.json")
expect 3 "exists and is not this plan" 0 "${plan[@]}" --ratio 0.2
"$reap_dist" "${plan[@]}" --ratio 0.3 >/dev/null 2>"$work/log" || { echo "FAILED: the same plan again"; failures=$((failures + 1)); }
[ "$before" = "$(digest)" ] || { echo "a refused or repeated run changed the output"; failures=$((failures + 1)); }

mv "$work/out-dir/reap-0.3/generation_config.json" "$work/"
expect 3 "reap-0.3: exists and lacks its file .generation_config.json" 2 "${run[@]}"
mv "$work/generation_config.json" "$work/out-dir/reap-0.3/"
printf '\xff' | dd of="$work/out-dir/reap-0.3/model-00001-of-00001.safetensors" bs=1 seek=200000 conv=notrunc status=none
expect 3 "model-00001-of-00001.safetensors" 2 verify --model "$model" --output "$work/out-dir/reap-0.3"

if [ "$(id -u)" = 0 ] && mkdir "$work/small" && mount -t tmpfs -o size=1m tmpfs "$work/small" 2>/dev/null; then
  expect 4 "small" 2 prune --model "$model" --plan "$work/out-dir/reap-0.3.plan.json" --output "$work/small/pruned"
  left=$(ls -A "$work/small")
  umount "$work/small"
  [ -z "$left" ] || { echo "left on the full disk: $left"; failures=$((failures + 1)); }
else
  echo "disk full: skipped, mounting a small file system needs root"
fi
[ "$failures" = 0 ] && echo "all errors as documented"
exit "$failures"
