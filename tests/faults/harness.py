"""What the fault tests have in common: starting the job, ending it, and judging what it leaves on the disk."""

import filecmp
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

LAUNCH_TIMEOUT = 90  # seconds; the job takes a few
MARK = "REAP_FAULTS_JOB"
UNFINISHED = re.compile(r"\.tmp$|\.reap-partial$|\.reap-replaced$|\.reap-trial$|\.partial$")
STAGES = ("load", "observe", "plan", "write", "done")
OF_A_RUN = "run_log.json"  # times and hosts: the only file that may differ


class Violation(Exception):
    """The program has broken a promise."""


class Attempt:
    """One start of the command: its exit code, what it said, how long it took."""

    def __init__(self, code, text, seconds):
        self.code, self.text, self.seconds = code, text, seconds


class Bench:
    """The command under test with all its files in one folder; `wrapper` is put before the program on each rank."""

    def __init__(self, options, folder):
        self.program, self.data = Path(options.reap_dist).resolve(), Path(os.environ["REAP_TEST_DATA"])
        self.folder = folder
        self.out, self.state = folder / "out", folder / "state"
        self.shm = Path(f"/dev/shm/reap-faults-{os.getpid()}")
        self.clear()

    def clear(self):
        for path in (self.out, self.state):
            shutil.rmtree(path, ignore_errors=True)

    def command(self, ranks, extra, wrapper=()):
        return ["mpirun", "-n", str(ranks), *wrapper, str(self.program), "run",
                "--model", str(self.data / "m2-nano-fp8"), "--calibration", str(self.data / "calib_64x512.h5"),
                "--output", str(self.out), "--state", str(self.state), "--checkpoint-minutes", "0.002",
                "--ratio", "0.25", "0.5", "--block-tokens", "512", "--max-shard-size", "1MB", "--compute", "fp32",
                "--threads", "1", "--timeout", "20", *extra]

    def start(self, grid, extra=(), wrapper=(), environment=None):
        """Starts the job on a grid, (ranks, options), and returns the process of mpirun."""
        self.shm.mkdir(exist_ok=True)
        ranks, options = grid
        self.log = self.folder / "log"
        surroundings = {**os.environ, MARK: str(os.getpid()), "OMPI_MCA_btl_vader_backing_directory": str(self.shm),
                        **(environment or {})}
        with open(self.log, "w", encoding="utf-8") as log:
            self.begin = time.monotonic()
            return subprocess.Popen(self.command(ranks, [*options, *extra], wrapper), stdin=subprocess.DEVNULL,
                                    stdout=log, stderr=subprocess.STDOUT, env=surroundings, start_new_session=True)

    def finish(self, process):
        try:
            code = process.wait(timeout=LAUNCH_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.end_all(process)
            raise Violation(f"still running after {LAUNCH_TIMEOUT} s\n{self.text()}") from None
        seconds = time.monotonic() - self.begin
        self.expect_no_orphans()
        shutil.rmtree(self.shm, ignore_errors=True)
        return Attempt(code, self.text(), seconds)

    def text(self):
        return self.log.read_text(encoding="utf-8", errors="replace")

    def processes(self):
        """(pid, rank) of every process of our jobs; the rank is -1 for what is no rank."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                words = (entry / "environ").read_bytes().split(b"\0")
                name = (entry / "comm").read_text().strip()
                dead = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
            except OSError:
                continue
            values = dict(word.split(b"=", 1) for word in words if b"=" in word)
            if values.get(MARK.encode()) != str(os.getpid()).encode() or dead:
                continue
            rank = values.get(b"OMPI_COMM_WORLD_RANK") if name == self.program.name[:15] else None
            found.append((int(entry.name), int(rank) if rank else -1))
        return found

    def ranks(self):
        return [(pid, rank) for pid, rank in self.processes() if rank >= 0]

    def end_all(self, process):
        for pid, _ in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.wait()

    def expect_no_orphans(self):
        deadline = time.monotonic() + 10
        while left := self.processes():
            if time.monotonic() > deadline:
                for pid, _ in left:
                    os.kill(pid, signal.SIGKILL)
                raise Violation(f"{len(left)} processes outlived mpirun")
            time.sleep(0.05)

    def stage(self):
        """How far the job has come, by what is on the disk."""
        if (self.out / OF_A_RUN).exists():
            return "done"
        if any(self.out.glob("*.reap-partial")) or any(self.out.glob("reap-*")):
            return "write"
        if (self.out / "saliency.h5").exists():
            return "plan"
        return "observe" if any(self.state.glob("generation-*")) else "load"

    def wait_for(self, stage, process):
        """Returns when the job has come to a stage, or beyond, or has ended."""
        while STAGES.index(self.stage()) < STAGES.index(stage) and process.poll() is None:
            time.sleep(0.005)


def whole_tree(folder):
    """Relative paths of all files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def differences(folder, reference):
    """What differs between two trees of files, byte for byte; run_log.json aside."""
    names = [set(whole_tree(tree)) - {OF_A_RUN} for tree in (folder, reference)]
    texts = [f"{name} is missing" for name in sorted(names[1] - names[0])]
    texts += [f"{name} should not be there" for name in sorted(names[0] - names[1])]
    _, unequal, unread = filecmp.cmpfiles(folder, reference, sorted(names[0] & names[1]), shallow=False)
    return texts + [f"{name} differs" for name in unequal + unread]


def check_generation(folder):
    state = folder / "state.h5"
    digest = (folder / "state.sha256").read_text(encoding="utf-8").split()[0]
    if hashlib.sha256(state.read_bytes()).hexdigest() != digest:
        raise Violation(f"{state} is not what state.sha256 says")


def check_whole(bench, reference):
    """Everything under a final name is whole: the very bytes of the undisturbed run."""
    filecmp.clear_cache()
    for path in bench.out.iterdir() if bench.out.exists() else []:
        if UNFINISHED.search(path.name):
            continue
        if path.name == OF_A_RUN:
            json.loads(path.read_text(encoding="utf-8"))
        elif path.is_dir():
            if wrong := differences(path, reference / path.name):
                raise Violation(f"{path.name} stands under its name, but {wrong[0]}")
        elif not filecmp.cmp(path, reference / path.name, shallow=False):
            raise Violation(f"{path.name} stands under its name, but is not whole")
    for path in bench.state.glob("generation-*") if bench.state.exists() else []:
        if not UNFINISHED.search(path.name):
            check_generation(path)


def check_complete(bench, reference):
    """The results of the undisturbed run, and nothing else: no leftovers of the attempts before."""
    if wrong := differences(bench.out, reference):
        raise Violation("after the last run: " + ", ".join(wrong))
    if left := whole_tree(bench.state) if bench.state.exists() else []:
        raise Violation(f"a state is left after the end: {left[0]}")
