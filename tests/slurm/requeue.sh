# jobs/requeue.sbatch: asked to stop, and preempted, a job goes back into the queue and ends with the bits of an undisturbed
# run; cancelled, it stays away. Sourced by isolated.sh.
# shellcheck shell=bash disable=SC1091,SC2154
. "$here/checks.sh"
# Small blocks: many points where the ranks can stop. Many outputs: on a fast machine the pass alone is over before Slurm
# has told anybody to stop.
export REAP_OPTIONS="--compute fp32 --block-tokens 512"
export CRITERIA="reap reap_sum ean_sum ean_mean frequency gate_sum max_activation random"
reference

says() { grep -q "$1" "$job_log" 2>/dev/null; }

# start NAME PARTITION-OPTIONS...: submits and waits until the ranks are at work
start() {
  OUTPUT=$base/$1 submit_only requeue --nodes=2 --ntasks-per-node=1 --cpus-per-task=1
  wait_until 60 says 'observe: [0-9]* samples' || failed "job $job did not begin to observe"
}

# stopped_and_came_back NAME: requeued once, and ended well
stopped_and_came_back() {
  wait_until 120 is_over "$job" || failed "job $job did not end"
  ended_well
  [[ $(field "$job" Restarts) -eq 1 ]] || failed "job $job was restarted $(field "$job" Restarts) times"
  same_as_reference "$base/$1"
  echo "requeue.sbatch: $1: requeued, results identical"
}

preempt() { sbatch --partition=urgent --nodes=2 --ntasks-per-node=2 --output=/dev/null --wrap "sleep 1" >/dev/null; }

for launcher in mpirun srun; do
  export REAP_LAUNCHER=$launcher

  start "$launcher-asked"
  scancel --batch --signal=USR1 "$job"
  stopped_and_came_back "$launcher-asked"
  says 'asked to stop' || failed "the batch script was not asked to stop"

  start "$launcher-preempted"
  preempt
  stopped_and_came_back "$launcher-preempted"
  says 'asked to stop' || failed "the batch script was not asked to stop"

  start "$launcher-cancelled"
  scancel "$job"
  wait_until 60 is_over "$job" || failed "the cancelled job $job did not end"
  sleep 3
  [[ $(field "$job" JobState) == CANCELLED ]] || failed "the cancelled job $job is $(field "$job" JobState)"
  echo "requeue.sbatch: $launcher-cancelled: stays cancelled"
done

# Most clusters do not send a preempted job the signal that it has asked for.
sed -i /preempt_send_user_signal/d "$SLURM_CONF"
scontrol reconfigure
for launcher in mpirun srun; do
  export REAP_LAUNCHER=$launcher
  start "$launcher-preempted-without-signal"
  preempt
  stopped_and_came_back "$launcher-preempted-without-signal"
done
