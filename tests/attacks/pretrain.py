"""What is left of the gain of training on torch's sources before the clock: honest against attack, on the shipped model.

    pretrain.py [--seconds 20] [--repeats 2]     needs the corpus `wheels`; writes pretrain.json for docs/ATTACKS.md

Several minutes; no test runs it. Each row of the outcome is one length of pretraining, 0 being the honest run.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from pathlib import Path

from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.scaffold import create_lab

ROOT = Path(__file__).resolve().parents[2]
CORPUS = "wheels"
LENGTHS_SECONDS = (0.0, 3.0, 12.0, 24.0)  # less than the budget on two cores, or nothing is left to train with
_OPENS = "\nbatches = make_dataloader("
_RUN_SECONDS = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--repeats", type=int, default=2)
    known = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="autoresearch-pretrain-") as name:
        folder = Path(name)
        (folder / "trainer").mkdir()
        shipped = (ROOT / "trainer" / "train.py").read_text()
        (folder / "trainer" / "train.py").write_text(shipped)
        (folder / "autoresearch.toml").write_text(f'[budget]\nseconds = {known.seconds}\n[corpus]\nname = "{CORPUS}"\n')
        create_lab(folder)
        lab = Lab.open(folder)
        lab.start_session(None, "tester")
        rows = []
        try:
            run(lab, shipped)  # the baseline, whose start-up makes the allowance
            for seconds in LENGTHS_SECONDS:
                results = [run(lab, attacked(shipped, seconds) + f"# {repeat}\n") for repeat in range(known.repeats)]
                rows.append(row_of(seconds, results))
                print(json.dumps(rows[-1]), flush=True)
        finally:
            lab.close()
    outcome = {"corpus": CORPUS, "budget_seconds": known.seconds, "runs": rows}
    Path(__file__).with_name("pretrain.json").write_text(json.dumps(outcome, indent=1) + "\n")


def attacked(shipped: str, seconds: float) -> str:
    """Return the shipped train.py with the attack before it opens the data; of no length it is honest."""
    if not seconds:
        return shipped
    attack = (Path(__file__).parent / "candidates" / "pretrain_on_torch.py").read_text()
    attack = re.sub(r"PRETRAIN_SECONDS = [\d.]+", f"PRETRAIN_SECONDS = {seconds}", attack)
    before, opens, after = shipped.partition(_OPENS)
    return f"{before}\n{attack}\n{opens}{after}"


def run(lab: Lab, source: str) -> RunResult:
    lab.workspace.train.write_text(source)
    experiment, _ = experiments.propose(lab, description="pretraining", hypothesis="")
    experiment = wait(lab, experiment.id, _RUN_SECONDS)
    result = lab.ledger.runs(experiment.id)[0].result
    assert result is not None, "the run did not end in time"
    if experiment.parent is not None:
        experiments.revert(lab, experiment.id, "measured")
    return result


def row_of(seconds: float, results: list[RunResult]) -> dict[str, object]:
    scored = [result for result in results if result.val_bpb is not None]
    assert scored, f"no run was scored: {results[0].reason}"
    return {
        "pretrain_seconds": seconds,
        "val_bpb": [result.val_bpb for result in scored],
        "startup_cpu_seconds": [result.startup_cpu_seconds for result in scored],
        "deducted_seconds": [result.startup_deducted_seconds or 0.0 for result in scored],
        "steps": [result.steps for result in scored],
    }


if __name__ == "__main__":
    main()
