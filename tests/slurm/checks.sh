# What the tests of jobs/ share: submitting, and judging what came out. Sourced in the cluster that isolated.sh has started.
# shellcheck shell=bash disable=SC1091,SC2154
repository=$(cd "$here/../.." && pwd)
export MODEL=$repository/tests/data/m2-nano-fp8 CALIBRATION=$repository/tests/data/calib_64x512.h5
export RATIOS="0.25 0.5" REAP_DIST=$reap_dist

failed() {
  echo "FAILED: $*"
  [[ ! -e ${job_log:-} ]] || { echo "--- $job_log"; cat "$job_log"; }
  echo "--- the cluster's last words"
  tail -n 15 "$base"/log/slurm*
  exit 1
}

# The same run without Slurm, on one rank.
reference() {
  # shellcheck disable=SC2086  # options are several words
  "$reap_dist" run --model "$MODEL" --calibration "$CALIBRATION" --output "$base/reference" --ratio 0.25 0.5 \
    --criterion ${CRITERIA:-reap} ${REAP_OPTIONS:-} \
    >"$base/reference.log" 2>&1 || { cat "$base/reference.log"; exit 1; }
}

# Everything that a run leaves has the reference's bytes, but for the file that is made of clocks and host names.
same_as_reference() {
  diff -r --exclude run_log.json --exclude '*.state' "$base/reference" "$1" || failed "$1 differs from the run without Slurm"
}

# field JOB NAME: what the controller says of a job
field() { scontrol --oneliner show job "$1" | head -n 1 | grep -o " $2=[^ ]*" | cut -d = -f 2; }

is_over() { [[ -z $(squeue --noheader --job "$1" --states=PENDING,RUNNING,COMPLETING --format=%i) ]]; }

# submit SCRIPT OPTIONS...: jobs/SCRIPT.sbatch, in the background with `submit_only`; sets job and job_log
submit_only() {
  local script=$1
  shift
  job=$(sbatch --parsable "$@" "$repository/jobs/$script.sbatch")
  job_log=$base/reap-$script-$job.log
}

submit() {
  submit_only "$@"
  wait_until 120 is_over "$job" || failed "job $job did not end"
}

ended_well() { [[ $(field "$job" JobState) == COMPLETED ]] || failed "job $job is $(field "$job" JobState)"; }
