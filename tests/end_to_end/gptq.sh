#!/usr/bin/env bash
# --method gptq: moments of inputs have the same bytes on any grid, resident or streamed, and weights rounded by them on
# any number of ranks, in the job that prunes or afterwards; and they are better than those of opt-rtn.
# usage: gptq.sh REAP_DIST
set -uo pipefail
reap_dist=$1
source "$(dirname "$0")/w4a16_checks.sh"

pass=(--calibration "$calibration" --block-tokens 1024 --compute fp32 --collect moments)
observe=(observe --model "$model" "${pass[@]}")
on 0 "${observe[@]}" --saliency "$work/one.h5" || failed "observe"
on 3 "${observe[@]}" --pp 3 --saliency "$work/pp.h5" || failed "observe with stages"
on 4 "${observe[@]}" --pp 1 --ep 2 --dp 2 --saliency "$work/ep.h5" || failed "observe with shards and replicas"
on 2 "${observe[@]}" --weights stream --saliency "$work/stream.h5" || failed "observe, streamed"
for file in pp ep stream; do cmp -s "$work/one.h5" "$work/$file.h5" || failed "$file: other bytes"; done
for part in 1 2; do on 0 "${observe[@]}" --part $part/2 --saliency "$work/part-$part.h5" || failed "part $part"; done
on 0 merge "$work/part-2.h5" "$work/part-1.h5" --saliency "$work/sum.h5" || failed "merge"
cmp -s "$work/one.h5" "$work/sum.h5" || failed "the parts do not add up to the whole"

quantize=(quantize --model "$model" --max-shard-size 500KB)
on 0 "${quantize[@]}" --method gptq --saliency "$work/one.h5" --output "$work/gptq" || failed "quantize"
on 3 "${quantize[@]}" --method gptq --saliency "$work/one.h5" --output "$work/gptq-3" || failed "quantize on 3 ranks"
diff -r "$work/gptq" "$work/gptq-3" >/dev/null || failed "other bytes on 3 ranks"
grep -q '"method":"gptq","damping":0.01,' "$work/gptq/reap_manifest.json" || failed "no word of it in the manifest"
on 2 verify --model "$model" --output "$work/gptq" --saliency "$work/one.h5" || failed "not verified"
refused 3 "SHA-256 .*; give it as --saliency" verify --model "$model" --output "$work/gptq"
on 0 "${quantize[@]}" --method opt-rtn --output "$work/opt-rtn" || failed "opt-rtn"
w2() { digests "$1" | grep "\.w2\."; }
[ "$(w2 gptq | wc -l)" = 384 ] && cmp -s <(w2 gptq) <(w2 opt-rtn) || failed "w2, whose inputs have no moments, is not that of opt-rtn"
scales() { digests "$1" | grep "\.scales "; }
cmp -s <(scales gptq) <(scales opt-rtn) || failed "the scales are not those of opt-rtn"

# Predictions are closer to the model's, token by token.
on 0 eval --model "$model" --compare "$work/gptq" "$work/opt-rtn" --heldout "$calibration" --compute fp32 --evaluation "$work/e.json" ||
  failed "eval"
python3 - "$work/e.json" <<'END' || failed "not closer to the model than opt-rtn"
import json, sys
kl = {variant["name"]: variant["all"]["kl"] for variant in json.load(open(sys.argv[1]))["variants"]}
sys.exit(0 if 0 < kl["gptq"] < 0.8 * kl["opt-rtn"] else f"kl {kl}")
END

# In the job that prunes, and afterwards.
run=(run --model "$model" --calibration "$calibration" --block-tokens 1024 --compute fp32 --ratio 0.25 --max-shard-size 1MB)
on 2 "${run[@]}" --collect moments --quantize both --method gptq --output "$work/job" || failed "run"
on 0 quantize --model "$work/job/reap-0.25" --saliency "$work/one.h5" --method gptq --max-shard-size 1MB --output "$work/after" || failed "after"
[ "$(digests after | wc -l)" -gt 900 ] && cmp -s <(digests after) <(digests job/reap-0.25-w4a16) || failed "afterwards they are other weights"
on 0 "${run[@]}" --imatrix-after-prune --quantize w4a16 --method gptq --output "$work/own" || failed "after pruning"
cmp -s <(digests after) <(digests own/reap-0.25-w4a16) && failed "the pruned model's own moments changed nothing"

# What is missing.
out=(--output "$work/refused")
refused 2 "give --saliency, a file of observe --collect moments" "${quantize[@]}" --method gptq "${out[@]}"
refused 2 "give --collect moments" "${run[@]}" --quantize w4a16 --method gptq "${out[@]}"
refused 2 "takes all from a saliency file" "${quantize[@]}" --method gptq --imatrix x.h5 "${out[@]}"
on 0 observe --model "$model" "${pass[@]:0:6}" --collect imatrix --saliency "$work/imatrix.h5" || failed "observe --collect imatrix"
refused 3 "imatrix.h5: holds no moments of inputs; observe with --collect moments" "${quantize[@]}" --method gptq \
  --saliency "$work/imatrix.h5" "${out[@]}"
[ ! -e "$work/refused" ] || failed "something under its final name"

[ "$failures" = 0 ] && echo "gptq: the same bytes on any grid, and closer to the model"
exit "$failures"
