#!/usr/bin/env bash
# Runs a test on a Slurm cluster of its own: a real controller with two emulated nodes, all on this machine.
# usage: isolated.sh TEST.sh REAP_DIST      exit code 77: this machine cannot do it
#
# The cluster lives in namespaces of its own: processes (none is left over, whatever happens: they end with the first one),
# network (nothing but loopback, so no port is taken and no daemon can be reached), mounts and host name. Its files are in
# a tmpfs that goes with them.
# shellcheck disable=SC2016  # the inner shell expands
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
test=$1 reap_dist=$2

skip() {
  echo "skipped: $*"
  exit 77
}
[[ $(id -u) -eq 0 ]] || skip "starting a Slurm cluster needs root"
for tool in slurmctld slurmd srun munged ip unshare setpriv; do
  command -v $tool >/dev/null || skip "$tool is not installed; jobs/setup-debian.sh --slurm installs it"
done
isolate=(setpriv --pdeathsig KILL unshare --mount --pid --net --uts --ipc --fork --kill-child --mount-proc --propagation private)
"${isolate[@]}" ip link set lo up 2>/dev/null || skip "this machine permits no namespaces"

base=$(mktemp -d /tmp/reap-slurm.XXXXXX)
trap 'rmdir "$base"' EXIT
"${isolate[@]}" bash -c '
  set -euo pipefail
  here=$1 base=$2 test=$3 reap_dist=$4
  . "$here/cluster.sh"
  mount -t tmpfs -o size=2g,mode=755 tmpfs "$base"
  cd "$base"
  cluster_start "$base"
  . "$here/$test"' - "$here" "$base" "$test" "$reap_dist"
