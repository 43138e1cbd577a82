#!/usr/bin/env bash
# One job on two hosts whose link goes down: for a moment, and it goes on to the same bits; for good, and it ends by its
# deadline, with nothing left on either host.
# usage: two_hosts.sh REAP_DIST LONG_CALIBRATION      exit code 77: this machine cannot do it
#
# The hosts are namespaces (network, host name, mounts with a /dev/shm of their own) joined by a bridge. They live in
# namespaces that end with this script, so that no process, device or file is left.
# shellcheck disable=SC2016  # the inner shells expand
set -uo pipefail
reap_dist=$1 long_calibration=$2

if [ "${REAP_INSIDE:-}" = "" ]; then
  skip() { echo "skipped: $*"; exit 77; }
  [ "$(id -u)" = 0 ] || skip "joining network namespaces needs root"
  for tool in ip unshare nsenter setpriv; do command -v $tool >/dev/null || skip "$tool is not installed"; done
  isolate=(setpriv --pdeathsig KILL unshare --mount --pid --net --uts --ipc --fork --kill-child --mount-proc --propagation private)
  "${isolate[@]}" sh -c 'ip link add br0 type bridge && ip link add v1 type veth peer name v2' 2>/dev/null ||
    skip "this machine permits no network namespaces"
  work=$(mktemp -d /tmp/reap-network.XXXXXX)
  trap 'rmdir "$work"' EXIT
  REAP_INSIDE=$work "${isolate[@]}" bash "$0" "$@"
  exit $?
fi

work=$REAP_INSIDE
mount -t tmpfs -o size=1g,mode=755 tmpfs "$work"
model=$REAP_TEST_DATA/m2-nano-fp8
timeout=20

printf '127.0.0.1 localhost\n10.77.0.1 h1\n10.77.0.2 h2\n' >"$work/hosts"
mount --bind "$work/hosts" /etc/hosts
ip link set lo up
ip link add br0 type bridge && ip link set br0 up
for i in 1 2; do
  unshare --net --uts --mount --propagation private bash -c \
    'hostname "$1"; mount -t tmpfs -o size=512m tmpfs /dev/shm; echo $$ >"$2"; exec sleep infinity' - h$i "$work/h$i.pid" &
  until [ -s "$work/h$i.pid" ]; do sleep 0.05; done
  process=$(cat "$work/h$i.pid")
  ip link add link$i type veth peer name eth0 netns "$process"
  ip link set link$i master br0 up
  nsenter -t "$process" --net sh -c "ip address add 10.77.0.$i/24 dev eth0; ip link set eth0 up; ip link set lo up"
done
on() { nsenter -t "$(cat "$work/$1.pid")" --net --uts --mount -- "${@:2}"; }
cat >"$work/rsh" <<REMOTE
#!/bin/bash
exec nsenter -t "\$(cat $work/\$1.pid)" --net --uts --mount -- /bin/bash -c "\${*:2}"
REMOTE
chmod +x "$work/rsh"

# mpirun finds out by itself that a host is gone only when its connections say so. The batch scripts set the same, longer.
unset "${!OMPI_MCA_@}"
export OMPI_MCA_oob_tcp_keepalive_time=5 OMPI_MCA_oob_tcp_keepalive_intvl=2 OMPI_MCA_oob_tcp_keepalive_probes=3
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_plm_rsh_agent=$work/rsh
export OMPI_MCA_btl=self,vader,tcp OMPI_MCA_pml=ob1 OMPI_MCA_btl_tcp_if_include=eth0 OMPI_MCA_oob_tcp_if_include=eth0
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_base_warn_component_unused=0

failed() {
  echo "FAILED: $*"
  cat "$work/err"
  exit 1
}

observe=("$reap_dist" observe --model "$model" --calibration "$work/long.h5" --compute fp32 --block-tokens 512 --threads 1)
"$long_calibration" "$work/long.h5" 800

# start SALIENCY: four stages, two on each host, up to all of them being at work
start() {
  rm -rf "$work/log"
  on h1 mpirun -n 4 --host h1:2,h2:2 --map-by slot "${observe[@]}" --pp 4 --saliency "$1" --timeout $timeout --log-dir "$work/log" \
    </dev/null >"$work/out" 2>"$work/err" &
  job=$!
  until [ "$(grep -l 'observe .* block .* ' "$work"/log/rank-*.operations 2>/dev/null | wc -l)" = 4 ]; do
    kill -0 $job 2>/dev/null || failed "the job did not begin"
    sleep 0.1
  done
  sleep 1
}

link() { ip link set link2 "$1"; }
# left NAME...: the processes of these names, on both hosts
left() { local name; for name in "$@"; do pgrep -l -r D,R,S,T -x "$name"; done; }

# gone_by_the_deadline NAME...: half a minute after the deadline no process of these names is left; sets took
gone_by_the_deadline() {
  local began=$SECONDS
  while [ -n "$(left "$@")" ]; do
    [ $((SECONDS - began)) -le $((timeout + 30)) ] || failed "$((SECONDS - began)) s after the link went down, there are still: $(left "$@")"
    sleep 0.2
  done
  [ ! -e "$work/cut.h5" ] || failed "there is a result without a link"
  took=$((SECONDS - began))
}

start "$work/short.h5"
link down
sleep 3
link up
wait $job || failed "the job did not survive three seconds without a link"
grep -q 'host h1' "$work/log/rank-0001.operations" || failed "rank 1 was not on the first host"
grep -q 'host h2' "$work/log/rank-0002.operations" || failed "rank 2 was not on the second host"
on h1 "${observe[@]}" --saliency "$work/reference.h5" >/dev/null 2>"$work/err" || failed "one rank alone failed"
cmp "$work/short.h5" "$work/reference.h5" || failed "the result is not that of one rank"
echo "link down for 3 s: the job went on, result identical"

start "$work/cut.h5"
for name in reap_dist orted mpirun; do [ -n "$(left $name)" ] || failed "cannot see a process $name"; done
link down
gone_by_the_deadline reap_dist orted mpirun
wait $job && failed "the job ended well without a link"
for i in 1 2; do [ -z "$(on h$i ls /dev/shm)" ] || failed "left in /dev/shm of h$i: $(on h$i ls /dev/shm)"; done
echo "link down for good: all over after $took s, deadline $timeout s"
link up

# Without a word from mpirun, the ranks end by their own deadline.
unset "${!OMPI_MCA_oob_tcp_keepalive@}"
start "$work/cut.h5"
link down
gone_by_the_deadline reap_dist
grep -Eq 'error: rank [0-3]: rank [0-3] \(host h[12]\) has not answered for [0-9]+ s, last heard of in observe, layer' "$work/err" ||
  failed "the silent ranks are not named"
echo "link down for good, and mpirun does not notice: the ranks are over after $took s, deadline $timeout s"
