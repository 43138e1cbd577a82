#!/usr/bin/env bash
# Weights of 4 bits: the same bytes on any number of ranks and after a kill, proved, refused where they would not serve,
# and read back: all formats hold the same integers and scales, so they give the same logits.
# usage: quantize.sh REAP_DIST DUMP_LOGITS
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
reap_dist=$1 dump_logits=$2
source "$here/w4a16_checks.sh"

quantize=(quantize --model "$model" --max-shard-size 500KB)
for format in auto-round gptq compressed-tensors; do
  one=$work/$format
  on 0 "${quantize[@]}" --format $format --method rtn --output "$one" || failed "$format"
  grep -q "groups of 64: those of 128 do not fit" "$work/log" || failed "$format: no word of the group that was chosen"
  for ranks in 2 3; do
    on $ranks "${quantize[@]}" --format $format --method rtn --output "$work/ranks" || failed "$format on $ranks ranks"
    diff -r "$one" "$work/ranks" >/dev/null || failed "$format: other bytes on $ranks ranks"
    rm -rf "$work/ranks"
  done
  on 2 verify --model "$model" --output "$one" || failed "$format: not verified"
  on 0 "${quantize[@]}" --format $format --method rtn --output "$one" || failed "$format: not kept"
  grep -q "finished by an earlier run" "$work/log" || failed "$format: done again"
  echo "1 2 3 5 8 13 21 34" | "$dump_logits" "$one" "$work/$format.npy" 2>"$work/log" || failed "$format: not read back"
  cmp -s "$work/auto-round.npy" "$work/$format.npy" || failed "$format: other logits than auto-round"
done
echo "1 2 3 5 8 13 21 34" | "$dump_logits" "$model" "$work/source.npy" 2>"$work/log" || failed "the source was not read"
cmp -s "$work/source.npy" "$work/gptq.npy" && failed "the logits are those of the source"

# One bit of one weight, then one of a scale.
file=$(basename "$(ls "$work/gptq"/*.safetensors | head -n 1)")
for offset in 100000 300; do
  cp -r "$work/gptq" "$work/damaged"
  at=$(($(stat -c %s "$work/damaged/$file") - offset))
  byte=$(od -An -tu1 -j $at -N 1 "$work/damaged/$file")
  printf "\\$(printf '%03o' $((byte ^ 16)))" | dd of="$work/damaged/$file" bs=1 seek=$at conv=notrunc status=none
  on 0 verify --model "$model" --output "$work/damaged"
  [ $? = 3 ] && grep -q "differs from its source" "$work/log" || failed "damage at $offset went unnoticed"
  rm -rf "$work/damaged"
done

# Not all weights: those that stay are bf16, because no engine takes FP8 beside 4 bits.
on 2 "${quantize[@]}" --quantize-attention off --exclude '*.layers.1.block_sparse_moe.*' --output "$work/mixed" || failed "mixed"
on 0 inspect "$work/mixed" || failed "a mixed model is not understood"
grep -E "^  attention" "$work/log" | grep -q "BF16$" || failed "attention is not bf16"
on 0 verify --model "$model" --output "$work/mixed" || failed "a mixed model is not verified"

# In the job that prunes: both ways, on two ranks, as quantize makes it of the pruned model.
run=(run --model "$model" --calibration "$REAP_TEST_DATA/calib_64x512.h5" --ratio 0.25 0.5 --max-shard-size 500KB)
on 2 "${run[@]}" --quantize both --method opt-rtn --output "$work/job" || failed "run --quantize both"
for name in reap-0.25 reap-0.5; do
  on 0 quantize --model "$work/job/$name" --method opt-rtn --max-shard-size 500KB --output "$work/of-$name" || failed "of $name"
  diff <(digests "of-$name") <(digests "job/$name-w4a16") || failed "$name: other tensors than quantize writes"
  diff "$work/of-$name/config.json" "$work/job/$name-w4a16/config.json" || failed "$name: another config.json"
  on 0 verify --model "$model" --output "$work/job/$name-w4a16" || failed "$name-w4a16 not verified"
done
on 0 "${run[@]}" --quantize w4a16 --method opt-rtn --output "$work/job" || failed "run --quantize again"
[ "$(grep -c "finished by an earlier run" "$work/log")" = 2 ] || failed "run --quantize: done again"
on 0 "${run[@]}" --quantize w4a16 --method opt-rtn --saliency "$work/job/saliency.h5" --output "$work/only" || failed "run --quantize w4a16"
{ [ -d "$work/only/reap-0.5-w4a16" ] && [ ! -e "$work/only/reap-0.5" ]; } || failed "run --quantize w4a16: other models"

# Killed while it writes; the same command goes on.
if strace -f -qq -o /dev/null -e trace=fsync -e inject=fsync:error=EIO:when=9999 true 2>/dev/null; then
  kept=0
  for when in 1 2 3 4; do # calls of one thread, which writes one file
    RANK=1 CALLS=fsync FAULT=signal=KILL:when=$when mpirun -n 2 "$here/injected.sh" "$reap_dist" "${quantize[@]}" \
      --method rtn --output "$work/killed" </dev/null >"$work/log" 2>&1 && break
    on 3 "${quantize[@]}" --method rtn --output "$work/killed" || failed "not finished after fsync $when"
    grep -q "are finished already" "$work/log" && kept=$((kept + 1))
    diff -r "$work/auto-round" "$work/killed" >/dev/null || failed "other bytes after fsync $when"
    rm -rf "$work/killed"
  done
  [ $kept -gt 0 ] || failed "no killed job's files were kept"
fi

out=(--output "$work/refused")
refused 3 "groups of 128 do not suit this model: w2 has 64 inputs; give --group-size 64" "${quantize[@]}" "${out[@]}" --group-size 128
refused 3 "w2 has 64 inputs, 32 on each rank of tensor parallelism 2; give --group-size 32" "${quantize[@]}" "${out[@]}" --group-size 64 --serve-tp 2
refused 3 "no group of 128, 64 or 32 does" "${quantize[@]}" "${out[@]}" --serve-tp 8
refused 3 "--serve-ep 5: the 32 experts" "${quantize[@]}" "${out[@]}" --serve-ep 5
refused 2 "engines take them together" "${quantize[@]}" "${out[@]}" --exclude '*.experts.3.*'
refused 2 "matches no layer" "${quantize[@]}" "${out[@]}" --exclude 'nothing*'
refused 3 "groups of 128 do not suit" "${run[@]}" "${out[@]}" --quantize w4a16 --group-size 128
refused 3 "--serve-ep 5: the 24 experts" "${run[@]}" "${out[@]}" --quantize w4a16 --serve-ep 5
refused 2 "--method is of 4-bit models, and none is asked for" "${run[@]}" "${out[@]}" --method rtn
refused 2 "group-size 48" "${quantize[@]}" "${out[@]}" --group-size 48
refused 2 "must be one of" "${quantize[@]}" "${out[@]}" --format awq
refused 3 "in 4 bits already" quantize --model "$work/gptq" "${out[@]}"
refused 3 "was quantised in another way" "${quantize[@]}" --method opt-rtn --output "$work/gptq"
on 0 "${quantize[@]}" --serve-tp 2 --output "$work/tp" || failed "--serve-tp 2"
grep -q "groups of 32" "$work/log" || failed "--serve-tp 2 did not choose groups of 32"

[ "$failures" = 0 ] && echo "three formats, the same bytes on 1, 2 and 3 ranks"
exit "$failures"
