#!/usr/bin/env bash
# Importance of inputs from calibration passes: the same bytes whether a model is rounded in the job that prunes it or
# afterwards, on any number of ranks, with the sums of the whole model or of what a plan leaves of it.
# usage: importance.sh REAP_DIST
set -uo pipefail
reap_dist=$1
source "$(dirname "$0")/w4a16_checks.sh"

# same_weights A B: the same tensors, in whatever files; both are verified
same_weights() {
  [ "$(digests "$1" | wc -l)" -gt 900 ] && cmp -s <(digests "$1") <(digests "$2") || failed "$2 has other weights than $1"
}

run=(run --model "$model" --calibration "$calibration" --block-tokens 1024 --compute fp32 --ratio 0.25 --max-shard-size 1MB)
four_bits=(--method opt-rtn --max-shard-size 1MB)

# In the job that prunes, and afterwards from the pruned model and the same sums.
on 0 "${run[@]}" --collect imatrix --quantize both --method opt-rtn --imatrix-tokens 700 --output "$work/one" || failed "run"
grep -Eq '[0-9]+ of 96 experts saw fewer than 700 tokens' "$work/log" || failed "no word of experts of few tokens"
grep -q '"imatrix_tokens":700,"starved_experts":[1-9]' "$work/one/reap-0.25-w4a16/reap_manifest.json" || failed "nor in the manifest"
on 2 quantize --model "$work/one/reap-0.25" --saliency "$work/one/saliency.h5" "${four_bits[@]}" --imatrix-tokens 700 \
  --output "$work/after" || failed "quantize --saliency of a pruned model"
same_weights one/reap-0.25-w4a16 after
on 2 verify --model "$work/one/reap-0.25" --output "$work/after" --saliency "$work/one/saliency.h5" || failed "not verified"
on 0 verify --model "$model" --output "$work/one/reap-0.25-w4a16" --saliency "$work/one/saliency.h5" || failed "nor in one job"
refused 3 "SHA-256 .*; give it as --saliency" verify --model "$work/one/reap-0.25" --output "$work/after"
on 0 "${run[@]}" --collect imatrix --quantize both --method opt-rtn --imatrix-tokens 700 --output "$work/one" || failed "run again"
[ "$(grep -c 'finished by an earlier run' "$work/log")" = 2 ] || failed "finished models are made again"
refused 3 "quantised in another way" quantize --model "$work/one/reap-0.25" --saliency "$work/one/saliency.h5" \
  "${four_bits[@]}" --imatrix-tokens 10 --output "$work/after"
on 0 quantize --model "$work/one/reap-0.25" "${four_bits[@]}" --output "$work/plain" || failed "without importance"
cmp -s <(digests plain) <(digests after) && failed "importance changed nothing"

# Of what is left, with the pruned model's routing: what the pruned model itself gives.
survivors=("${run[@]}" --quantize w4a16 --method opt-rtn --imatrix-after-prune --state "$work/state")
on 0 "${survivors[@]}" --output "$work/two" || failed "--imatrix-after-prune"
on 3 "${survivors[@]}" --output "$work/two-3" || failed "--imatrix-after-prune on 3 ranks"
diff -r --exclude run_log.json "$work/two" "$work/two-3" >/dev/null || failed "other bytes on 3 ranks"
[ -z "$(ls "$work/state")" ] || failed "the state of a finished run is still there"
on 2 observe --model "$work/one/reap-0.25" --calibration "$calibration" --block-tokens 1024 --compute fp32 --collect imatrix \
  --saliency "$work/pruned.h5" || failed "observe of the pruned model"
on 0 quantize --model "$work/one/reap-0.25" --saliency "$work/pruned.h5" "${four_bits[@]}" --output "$work/own" || failed "by its own sums"
same_weights own two/reap-0.25-w4a16
cmp -s <(digests own) <(digests after) && failed "the pruned model's routing changed nothing"
on 0 quantize --model "$work/one/reap-0.25" --saliency "$work/two/reap-0.25.saliency.h5" "${four_bits[@]}" --output "$work/theirs" ||
  failed "by the file of a run"
same_weights own theirs
on 0 verify --model "$model" --output "$work/two/reap-0.25-w4a16" --saliency "$work/two/reap-0.25.saliency.h5" || failed "survivors not verified"
on 0 inspect "$work/two/reap-0.25.saliency.h5" || failed "not inspected"
grep -q "routing.*of plan" "$work/log" || failed "no word of the routing"

# What does not belong together.
out=(--output "$work/refused" --method opt-rtn)
refused 3 "cannot decide for the whole model" plan --saliency "$work/two/reap-0.25.saliency.h5" --ratio 0.25
refused 3 "of what another plan left" quantize --model "$model" --saliency "$work/two/reap-0.25.saliency.h5" "${out[@]}"
refused 3 "is of another model" quantize --model "$model" --saliency "$work/pruned.h5" "${out[@]}"
on 0 observe --model "$REAP_TEST_DATA/m2-mini-fp8" --calibration "$REAP_TEST_DATA/random_v211.h5" --collect imatrix --saliency "$work/mini.h5" ||
  failed "observe of another model"
refused 3 "is of another model .*and than what that was made from" quantize --model "$work/one/reap-0.25" --saliency "$work/mini.h5" "${out[@]}"
refused 2 "taken from one of them" quantize --model "$model" --saliency "$work/pruned.h5" --imatrix x.h5 "${out[@]}"
refused 2 "give --calibration" run --model "$model" --saliency "$work/one/saliency.h5" --ratio 0.25 --quantize w4a16 \
  --imatrix-after-prune --output "$work/refused"
refused 2 "is of 4-bit models" "${run[@]}" --imatrix-after-prune --output "$work/refused"
# What weighs no errors depends on no sums of inputs.
on 0 run --model "$model" --calibration "$calibration" --block-tokens 1024 --ratio 0.5 --quantize w4a16 --method rtn \
  --collect imatrix --output "$work/plain" || failed "run --method rtn --collect imatrix"
grep -q '"importance"' "$work/plain/reap-0.5-w4a16/reap_manifest.json" && failed "rtn names an importance"

[ "$failures" = 0 ] && echo "importance: in one job or two, the same bytes"
exit "$failures"
