"""A runner that trains nothing: it stands in the pinned harness where the real one does, and ends in a tenth of a second.

What it "measures" is what train.py says in comments, so a test decides it with an edit:

    # quick: val_bpb=1.93 seconds=0.05 outcome=scored noise=0.01 minus=0.02 test_plus=0.03 error=0.001

where every line counts, `minus` of each is taken off, `noise` is the largest that the run's seed adds or takes off,
`test_plus` is added on the test split, and `error` is the number's standard error.
Like the real one it detaches itself, holds the runner's lock it was given and the device's, tells events and progress, ends
when it is asked to, and writes result.json as its last act. Nothing is confined, because nothing of train.py is executed.
"""

import os
import re
import sys
import time
from pathlib import Path


def main() -> None:
    folder, lock_fd = Path(sys.argv[1]), int(sys.argv[2])
    if os.fork() != 0:
        os._exit(0)
    os.setsid()
    os.set_inheritable(lock_fd, False)
    sys.path[0] = str(Path(__file__).resolve().parents[3])
    from autoresearch_mcp.lab.executor import RunResult
    from autoresearch_mcp.lab.locks import try_lock
    from autoresearch_mcp.lab.paths import RunPaths, device_lock_path
    from autoresearch_mcp.lab.referee.reports import Reports
    from autoresearch_mcp.lab.referee.specfile import read_spec, write_result
    from autoresearch_mcp.lab.states import Outcome

    paths = RunPaths(folder)
    spec, began = read_spec(paths), time.monotonic()
    said = re.findall(rb"^# quick:(.*)$", spec.candidate, re.MULTILINE)
    wished = [part.split("=", 1) for line in said for part in line.decode().split()]
    wishes = dict(wished)
    minus = sum(float(value) for name, value in wished if name == "minus")
    noise = float(wishes.get("noise", "0")) * (spec.seed % 2001 - 1000) / 1000
    cancelled = RunResult(outcome=Outcome.CANCELLED, reason="cancelled")

    while (device := try_lock(device_lock_path(spec.device))) is None:
        if paths.cancel.exists():
            write_result(paths, cancelled)
            return
        time.sleep(0.01)
    reports = Reports(paths)
    for phase in ("starting", "training"):
        reports.phase(phase)
    paths.log.write_text(f"a quick run on {spec.device}\n")
    seconds = float(wishes.get("seconds", "0.02"))
    late = seconds > spec.budget_seconds
    end = time.monotonic() + min(seconds, spec.budget_seconds)
    while time.monotonic() < end and not paths.cancel.exists():
        time.sleep(0.005)
    outcome = Outcome.TIMED_OUT if late else Outcome(wishes.get("outcome", "scored"))
    took = round(time.monotonic() - began, 3)
    result = RunResult(outcome=outcome, reason=f"a quick run that {outcome}", elapsed_seconds=took, total_seconds=took)
    if outcome is Outcome.SCORED:
        reports.phase("scoring")
        reports.close()
        val_bpb = float(wishes.get("val_bpb", "2.0")) - minus + noise
        val_bpb += float(wishes.get("test_plus", "0")) if spec.split == "test" else 0.0
        number = {"val_bpb": round(val_bpb, 6), "split": spec.split, "standard_error": float(wishes.get("error", "0"))}
        result = RunResult(outcome=outcome, reason="scored", elapsed_seconds=took, total_seconds=took, **number)
    os.close(device)
    write_result(paths, cancelled if paths.cancel.exists() else result)


if __name__ == "__main__":
    main()
