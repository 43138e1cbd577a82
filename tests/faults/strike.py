"""Which files a rank touches in an undisturbed run, and with which system calls: where strace can strike."""

import os
import re
from collections import Counter, namedtuple

CALLS = ("openat", "pread64", "write", "pwrite64", "fallocate", "fsync", "rename", "mkdir")
STARTED = re.compile(r"^(\d+) +(\w+)\((.*)$")
NAMED = re.compile(r'<(/[^>]*)>|"(/[^"]*)"')
PROCESS = re.compile(r"\.\d+\.tmp$")  # temporary files are named for the process that writes them

Target = namedtuple("Target", "phase rank call path occurrence")


def wrapper(rank, arguments, log):
    """Runs one rank under strace, all others as they are. With -D the program keeps the number of the shell, $$."""
    strace = f"strace -D -f -qq -y -o {log} {arguments}"
    return ["sh", "-c", f'if [ "$OMPI_COMM_WORLD_RANK" = {rank} ]; then exec {strace} "$@"; else exec "$@"; fi', "sh"]


def phase_of(bench, call, path):
    """The part of the job that a call on this file belongs to; None when it is none of ours."""
    inside = os.path.relpath(path, bench.folder)
    if path.startswith(str(bench.data)):
        return "observe" if path.endswith("calib_64x512.h5") else "load"
    if inside.startswith("state"):
        if call == "pread64" or (call == "openat" and ".partial" not in inside and inside != "state"):
            return "resume"
        return "rename" if call == "rename" else "commit"
    if not inside.startswith("out"):
        return None
    if call == "rename":
        return "rename"
    if ".reap-partial" in inside:
        return "verify" if call == "pread64" else "write"
    return "results" if call in ("write", "fsync", "openat") else None


def targets(bench, rank, log):
    """Where a rank can be struck: (phase, rank, call, path, n-th such call of a thread), from a log of strace."""
    calls = Counter()
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        started = STARTED.match(line)
        if not started or started[2] not in CALLS:
            continue
        thread, call = started[1], started[2]
        paths = [match[0] or match[1] for match in NAMED.findall(started[3])]
        path = next((path for path in paths if phase_of(bench, call, path)), None)
        if path:
            calls[thread, call, path] += 1  # strace counts by thread
            yield Target(phase_of(bench, call, path), rank, call, path, calls[thread, call, path])


def arguments(target, fault):
    """Options of strace for a fault such as error=EIO or signal=KILL at a target."""
    path = PROCESS.sub(".$$.tmp", target.path)
    filtered = "" if fault.startswith("signal") else "--seccomp-bpf "  # faster, but strace 6.1 then sends no signals
    return f"{filtered}-P {path} -e trace={target.call} -e inject={target.call}:{fault}:when={target.occurrence}"


def struck(log):
    """Whether the fault came about."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return "(INJECTED)" in text or "killed by SIGKILL" in text
