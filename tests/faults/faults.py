#!/usr/bin/env python3
"""Disturbs `reap_dist run` with one fault at a time and starts it again until it ends, every second time on another
grid, every third time with streamed weights. At every step whatever stands under a final name has to be whole, and in
the end every byte has to be that of an undisturbed run.

  faults.py --reap-dist build/cpu/reap_dist                       about ten faults
  faults.py --reap-dist build/cpu/reap_dist --soak                hundreds
  faults.py --reap-dist ... --seed 7 --only kill:13               one of them again
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import strike
from harness import Bench, Violation, check_complete, check_whole

GRIDS = [(2, ["--pp", "2"]), (2, ["--dp", "2"]), (2, ["--ep", "2"]), (4, ["--pp", "2", "--ep", "2"]), (1, []),
         (3, ["--pp", "3"])]
MOST_ATTEMPTS = 6
SKIPPED = 77
KILLED, PEER, IO, BAD_INPUT, STOPPED = 137, 6, 4, 3, 75
QUICK = {"kill": 3, "kill-call": 3, "usr1": 1, "term": 1, "error": 3, "short": 1, "full": 1}
SOAK = {"kill": 40, "kill-call": 40, "usr1": 30, "term": 30, "error": 60, "short": 6, "full": 12}


class Case:
    """One fault and what follows. Everything random about it comes from the seed, its kind and its number."""

    def __init__(self, suite, kind, number):
        self.suite, self.bench, self.kind, self.number = suite, suite.bench, kind, number
        self.random = random.Random(f"{suite.seed}/{kind}/{number}")
        self.codes, self.phase, self.detail, self.seconds = [], "none", "", 0.0

    def grid(self, attempt):
        """Starts on a grid of several ranks; every second case goes on with others."""
        change = attempt if self.number % 2 == 1 else 0
        return GRIDS[(self.number + change) % len(GRIDS)] if attempt else GRIDS[self.number % 4]

    def extra(self, attempt):
        return ["--weights", "stream"] if (self.number + attempt) % 3 == 2 else []

    def note(self, attempt, expected):
        self.codes.append(attempt.code)
        self.seconds += attempt.seconds
        if attempt.code not in expected:
            raise Violation(f"ended with {attempt.code}, expected one of {sorted(expected)}\n{attempt.text}")
        if attempt.code in (IO, BAD_INPUT) and "reap_dist: error: " not in attempt.text:
            raise Violation(f"ended with {attempt.code}, but named no error\n{attempt.text}")
        check_whole(self.bench, self.suite.reference)

    def run(self):
        self.bench.clear()
        getattr(self, self.kind.replace("-", "_"))()
        for attempt in range(1, MOST_ATTEMPTS):
            if self.codes[-1] == 0:
                break
            self.note(self.bench.finish(self.bench.start(self.grid(attempt), self.extra(attempt))), {0})
        check_complete(self.bench, self.suite.reference)

    def wait_a_random_time(self, process):
        """Anywhere in the job, but rarely in the launcher's own start; half of the time from some stage on."""
        usual, stage = self.suite.usual_seconds, self.random.choice([None, None, "observe", "write"])
        if stage is None:
            time.sleep(self.random.uniform(0.2, 1.05) * usual)
            return
        self.bench.wait_for(stage, process)
        time.sleep(self.random.uniform(0, 0.3) * usual)

    def kill(self):
        """SIGKILL of a random rank at a random time."""
        process = self.bench.start(self.grid(0), self.extra(0))
        self.wait_a_random_time(process)
        self.phase = self.bench.stage()
        if ranks := self.bench.ranks():
            os.kill(self.random.choice(ranks)[0], signal.SIGKILL)
        self.note(self.bench.finish(process), {0, KILLED, PEER})

    def kill_call(self):
        """SIGKILL of a rank in the middle of one of its system calls."""
        self.strike_at(self.suite.random_target(self.random), "signal=KILL", {0, KILLED, PEER})

    def usr1(self):
        """The request to save the state and end, as the batch scripts send it: by way of mpirun."""
        process = self.bench.start(self.grid(0), self.extra(0))
        self.wait_a_random_time(process)
        self.request(process, [process.pid], signal.SIGUSR1)

    def term(self):
        """The same as Slurm's step manager sends it: to the ranks."""
        process = self.bench.start(self.grid(0), self.extra(0))
        self.wait_a_random_time(process)
        self.request(process, [pid for pid, _ in self.bench.ranks()], signal.SIGTERM)

    def request(self, process, receivers, number):
        heeded = "observe: " in self.bench.text()  # before, the signal may end the process as it ends any
        self.phase = self.bench.stage()
        for pid in receivers:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass  # it has just ended
        early = set() if heeded else {128 + number}
        self.note(self.bench.finish(process), {0, STOPPED} | early)
        if self.codes[-1] == STOPPED and self.bench.stage() == "load":
            raise Violation("ended with 75, but saved no state")

    def error(self):
        """A system call on a file fails."""
        target = self.suite.random_target(self.random)
        errors = ["EIO"] if target.call in ("pread64", "rename") else ["EIO", "ENOSPC"]
        if target.call == "openat":
            errors.append("EMFILE")
        self.strike_at(target, f"error={self.random.choice(errors)}", {0, IO})

    def strike_at(self, target, fault, expected):
        self.detail = f"rank {target.rank}: {target.call} {fault} {os.path.relpath(target.path, self.bench.folder)}"
        log = self.bench.folder / "strace"
        log.unlink(missing_ok=True)
        if target.phase == "resume":
            shutil.copytree(self.suite.saved_state, self.bench.state)
        strike_with = strike.wrapper(target.rank, strike.arguments(target, fault), log)
        process = self.bench.start(self.suite.grid, wrapper=strike_with)
        attempt = self.bench.finish(process)
        self.phase = target.phase if strike.struck(log) else "none"
        self.note(attempt, expected)

    def short(self):
        """Every write of a rank may be cut short: nothing must come of it."""
        preload = {"LD_PRELOAD": str(self.suite.options.short_writes)}
        script = f'[ "$OMPI_COMM_WORLD_RANK" = {self.random.choice([0, 1])} ] || unset LD_PRELOAD; exec "$@"'
        process = self.bench.start(self.grid(0), self.extra(0), ["sh", "-c", script, "sh"], preload)
        self.phase = "all"
        self.note(self.bench.finish(process), {0})

    def full(self):
        """The disk fills up at a random byte of what a run needs."""
        disk = self.bench.folder / "disk"
        disk.mkdir(exist_ok=True)
        free = self.random.randrange(64 << 10, self.suite.needed_bytes)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={free}", "tmpfs", disk], check=True)
        usual = self.bench.out, self.bench.state
        self.bench.out, self.bench.state = disk / "out", disk / "state"
        try:
            attempt = self.bench.finish(self.bench.start(self.grid(0), self.extra(0)))
            self.phase = self.bench.stage()
            self.note(attempt, {0, IO})
            subprocess.run(["mount", "-o", "remount,size=1g", disk], check=True)
            for again in range(1, MOST_ATTEMPTS):
                if self.codes[-1] == 0:
                    break
                self.note(self.bench.finish(self.bench.start(self.grid(again), self.extra(again))), {0})
            check_complete(self.bench, self.suite.reference)
            shutil.copytree(self.bench.out, usual[0])
        finally:
            self.bench.out, self.bench.state = usual
            subprocess.run(["umount", disk], check=True)


class Suite:
    """All cases of a call, with what they are compared with."""

    grid = (2, ["--pp", "2"])  # of the undisturbed run, and of those that strace strikes

    def __init__(self, options, folder):
        self.options, self.seed = options, options.seed
        self.bench = Bench(options, folder)
        self.reference, self.saved_state = folder / "reference", folder / "saved-state"
        self.targets = defaultdict(list)

    def prepare(self):
        """An undisturbed run, and where to strike it."""
        attempt = self.bench.finish(self.bench.start(self.grid))
        if attempt.code != 0:
            raise Violation(f"the undisturbed run ended with {attempt.code}\n{attempt.text}")
        self.usual_seconds = attempt.seconds
        self.bench.out.rename(self.reference)
        self.needed_bytes = sum(path.stat().st_size for path in self.reference.rglob("*"))
        if not shutil.which("strace"):
            return
        for rank in range(self.grid[0]):
            self.bench.clear()
            self.collect_targets(rank, lambda phase: True)
        self.save_a_state()
        for rank in range(self.grid[0]):
            self.bench.clear()
            shutil.copytree(self.saved_state, self.bench.state)
            self.collect_targets(rank, lambda phase: phase == "resume")

    def save_a_state(self):
        """What a run that was asked to stop leaves, for runs that are struck while they go on from it."""
        self.bench.clear()
        process = self.bench.start(self.grid)
        self.bench.wait_for("observe", process)
        process.send_signal(signal.SIGUSR1)
        attempt = self.bench.finish(process)
        if attempt.code != STOPPED:
            raise Violation(f"asked to stop, the run ended with {attempt.code}\n{attempt.text}")
        self.bench.state.rename(self.saved_state)

    def collect_targets(self, rank, wanted):
        log = self.bench.folder / "strace"
        calls = f"--seccomp-bpf -e trace={','.join(strike.CALLS)}"
        attempt = self.bench.finish(self.bench.start(self.grid, wrapper=strike.wrapper(rank, calls, log)))
        if attempt.code != 0:
            raise Violation(f"under strace the run ended with {attempt.code}\n{attempt.text}")
        check_complete(self.bench, self.reference)
        for target in strike.targets(self.bench, rank, log):
            if wanted(target.phase):
                self.targets[target.phase].append(target)

    def random_target(self, chance):
        """All phases are as likely, and so are the kinds of calls in a phase."""
        phase = self.targets[chance.choice(sorted(self.targets))]
        call = chance.choice(sorted({target.call for target in phase}))
        return chance.choice([target for target in phase if target.call == call])

    def cannot(self, kind):
        """Why faults of a kind cannot be had here; None when they can."""
        if kind in ("kill-call", "error") and not self.targets:
            return "strace is not installed"
        if kind == "short" and not self.options.short_writes:
            return "no --short-writes"
        if kind == "full" and not self.can_mount():
            return "mounting a small file system is not permitted"
        return None

    def can_mount(self):
        probe = self.bench.folder / "probe"
        probe.mkdir(exist_ok=True)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", probe], capture_output=True,
                                 check=False)
        return mounted.returncode == 0 and subprocess.run(["umount", probe], check=False).returncode == 0

    def run(self, kinds, only):
        """Runs all cases and prints a table. @return how many broke a promise"""
        broken, rows = 0, []
        for kind, count in kinds.items():
            if why := self.cannot(kind):
                print(f"{kind}: skipped, {why}", flush=True)
                continue
            cases = [Case(self, kind, number) for number in range(count)]
            for case in cases if only is None else [case for case in cases if only == f"{kind}:{case.number}"]:
                broken += self.run_case(case)
                rows.append(case)
        print_table(rows)
        return broken

    def run_case(self, case):
        try:
            case.run()
        except Violation as violation:
            print(f"FAILED: --seed {self.seed} --only {case.kind}:{case.number} in phase {case.phase}, {case.detail}, "
                  f"codes {case.codes}: {violation}", flush=True)
            return 1
        if self.options.verbose:
            print(f"{case.kind}:{case.number} {case.phase} {case.codes} {case.detail}", flush=True)
        return 0


def print_table(cases):
    print(f"\n{'fault':<10}{'cases':>6}{'starts':>8}{'seconds':>9}  first ended with; struck in phase")
    for kind in dict.fromkeys(case.kind for case in cases):
        of_kind = [case for case in cases if case.kind == kind]
        codes = Counter(str(case.codes[0]) if case.codes else "?" for case in of_kind)
        phases = Counter(case.phase for case in of_kind)
        listed = "; ".join(", ".join(f"{name} x{n}" for name, n in sorted(c.items())) for c in (codes, phases))
        print(f"{kind:<10}{len(of_kind):>6}{sum(len(case.codes) for case in of_kind):>8}"
              f"{sum(case.seconds for case in of_kind):>9.0f}  {listed}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reap-dist", required=True)
    parser.add_argument("--short-writes", type=Path, help="the library that cuts writes short")
    parser.add_argument("--seed", type=int, default=1, help="0: another one every time")
    parser.add_argument("--soak", action="store_true")
    parser.add_argument("--only", metavar="KIND:NUMBER")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    options.seed = options.seed or int(time.time())
    print(f"seed {options.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="reap-faults-")).resolve()
    try:
        suite = Suite(options, folder)
        suite.prepare()
        broken = suite.run(SOAK if options.soak or options.only else QUICK, options.only)
    except Violation as violation:
        print(f"FAILED: {violation}")
        broken = 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(Path(f"/dev/shm/reap-faults-{os.getpid()}"), ignore_errors=True)
    print("no promise broken" if broken == 0 else f"{broken} cases broke a promise")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
