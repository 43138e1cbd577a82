# A Slurm cluster on one machine. Sourced by isolated.sh, in namespaces where nothing else runs.
# shellcheck shell=bash disable=SC2016
nodes=(n1 n2)
cores_per_node=2

# A node's own UTS name and /dev/shm are what makes two of them on one machine: Open MPI names its shared-memory files by
# host and rank. The two partitions are for preemption: a job in `urgent` sends one in `main` back into the queue.
write_configuration() {
  local base=$1 i
  cat >"$base/slurm.conf" <<CONF
ClusterName=reaptest
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits until its old credential has expired, two minutes by default.
AuthInfo=socket=$base/run/munge.socket,cred_expire=5
SlurmctldParameters=preempt_send_user_signal
StateSaveLocation=$base/state
SlurmdSpoolDir=$base/spool/%n
TmpFS=$base/tmp/%n
SlurmctldPidFile=$base/run/slurmctld.pid
SlurmdPidFile=$base/run/slurmd-%n.pid
SlurmctldLogFile=$base/log/slurmctld
SlurmdLogFile=$base/log/slurmd-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MpiDefault=none
ReturnToService=2
KillWait=5
MinJobAge=600
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmdParameters=config_overrides
CONF
  for ((i = 0; i < ${#nodes[@]}; ++i)); do
    echo "NodeName=${nodes[i]} NodeHostname=${nodes[i]} NodeAddr=127.0.0.1 Port=$((6820 + i)) CPUs=$cores_per_node" \
      "Sockets=1 CoresPerSocket=$cores_per_node ThreadsPerCore=1 RealMemory=1000" >>"$base/slurm.conf"
  done
  cat >>"$base/slurm.conf" <<'CONF'
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=2 PreemptMode=OFF
CONF
}

start_node() {
  local base=$1 node=$2
  mkdir -p "$base/spool/$node" "$base/tmp/$node"
  unshare --mount --uts --propagation private bash -c '
    hostname "$1" && mount -t tmpfs -o size=512m tmpfs /dev/shm && exec slurmd -N "$1"' - "$node" >>"$base/log/daemons" 2>&1
}

# wait_until SECONDS COMMAND...: polls; fails when the time is over
wait_until() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [[ $SECONDS -lt $end ]] || return 1
    sleep 0.2
  done
}

all_idle() { [[ $(sinfo --noheader --format=%T | sort -u) == idle ]]; }

# Leaves SLURM_CONF and the settings of Open MPI in the environment.
cluster_start() {
  local base=$1 node
  hostname control
  ip link set lo up
  ip address add 10.0.0.1/32 dev lo  # glibc resolves no IPv4 name where 127.0.0.1 is the only address
  mount -t tmpfs -o size=512m tmpfs /dev/shm
  mkdir -p "$base"/{run,log,state}
  { cat /etc/hosts; printf '127.0.0.1 %s\n' control "${nodes[@]}"; } >"$base/hosts"
  mount --bind "$base/hosts" /etc/hosts
  write_configuration "$base"
  export SLURM_CONF=$base/slurm.conf

  (umask 077 && head -c 128 /dev/urandom >"$base/run/munge.key")
  munged --force --socket="$base/run/munge.socket" --key-file="$base/run/munge.key" --pid-file="$base/run/munge.pid" \
    --log-file="$base/log/munge" --seed-file="$base/run/munge.seed" >>"$base/log/daemons" 2>&1
  slurmctld -i >>"$base/log/daemons" 2>&1
  for node in "${nodes[@]}"; do start_node "$base" "$node"; done
  if ! wait_until 30 all_idle 2>/dev/null; then
    echo "the cluster did not come up"
    tail -n 20 "$base"/log/*
    return 1
  fi

  # The scripts have to do without the settings of the other tests; what is left is what this machine needs: it is root's,
  # its cores are shared, and its two hosts have nothing but loopback between them.
  unset "${!OMPI_MCA_@}"
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  export OMPI_MCA_btl=self,vader,tcp OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_oob_tcp_if_include=lo OMPI_MCA_pml=ob1
  export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_base_warn_component_unused=0
}
