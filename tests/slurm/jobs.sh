# jobs/run.sbatch and jobs/sweep.sbatch on two nodes: the results are the bits of a run without Slurm. Sourced by isolated.sh.
# shellcheck shell=bash disable=SC1091,SC2154
. "$here/checks.sh"
reference

for launcher in mpirun srun; do
  OUTPUT=$base/$launcher REAP_LAUNCHER=$launcher submit run --nodes=2 --ntasks-per-node=2 --cpus-per-task=1
  ended_well
  same_as_reference "$base/$launcher"
  for node in "${nodes[@]}"; do
    [[ $(grep -o "\"$node\"" "$base/$launcher/run_log.json" | wc -l) -eq 2 ]] || failed "two ranks were not on $node"
  done
  echo "run.sbatch with $launcher: 4 ranks on 2 nodes, results identical"
done

export ARRAY_OPTIONS=--cpus-per-task=2
OUTPUT=$base/sweep submit sweep --nodes=2 --ntasks-per-node=1 --cpus-per-task=2
ended_well
array=$(sed -n 's/^Submitted batch job //p' "$job_log")
wait_until 120 is_over "$array" || failed "the array did not end"
for task in 0 1; do
  job=${array}_$task job_log=$base/reap-sweep-$job.log
  ended_well
done
same_as_reference "$base/sweep"
echo "sweep.sbatch: observed once, 2 tasks planned and pruned, results identical"

# A job that cannot observe takes its array with it.
OUTPUT=$base/broken CALIBRATION=$base/absent.h5 submit sweep --cpus-per-task=1
array=$(sed -n 's/^Submitted batch job //p' "$job_log")
[[ $(field "$job" JobState) == FAILED ]] || failed "observing without a calibration file did not fail"
wait_until 30 is_over "$array" || failed "the array of a failed job was not cancelled"
[[ $(field "$array" JobState) == CANCELLED ]] || failed "the array of a failed job is $(field "$array" JobState)"
echo "sweep.sbatch: a failed observation cancels the array"

OUTPUT=$base/parts submit parts --array=1-3 --cpus-per-task=1
merge=$(sed -n 's/^Submitted batch job //p' "$base/reap-parts-${job}_1.log")
wait_until 120 is_over "$merge" || failed "the merging job did not end"
job=$merge job_log=$base/reap-parts-$merge.log
ended_well
cmp "$base/reference/saliency.h5" "$base/parts/saliency.h5" || failed "the parts together are not the whole"
echo "parts.sbatch: 3 tasks observed a share each, their sum is identical to one pass"
