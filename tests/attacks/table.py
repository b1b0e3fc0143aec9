"""docs/ATTACKS.md from the outcomes that the runs wrote down."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from assembly import names, sentence
from autoresearch_mcp.lab.isolation import LADDER
from autoresearch_mcp.prepare import landlock

PRETRAIN = Path(__file__).with_name("pretrain.json")
_WITHOUT_PROMISE = " *"


def write_table(path: Path, cells_of_user: Mapping[str, Path]) -> None:
    """Write the table of every attack on every rung for each user of whom there is a file of cells."""
    outcomes: dict[tuple[str, str, str], str] = {}
    for user, file in cells_of_user.items():
        for cell in json.loads(file.read_text())["cells"]:
            mark = "" if cell["promised"] else _WITHOUT_PROMISE
            outcomes[cell["attack"], cell["level"], user] = f"{cell['outcome']}{mark}"
    columns = [(str(isolation.level), user) for isolation in LADDER for user in cells_of_user]
    lines = [
        "# Attacks",
        "",
        "What became of every attack in [tests/attacks/candidates](../tests/attacks/candidates) on every rung of the sandbox's "
        "ladder, as run by `make attack-table`. Do not edit.",
        "",
        f"Run on Linux {platform.release()} ({platform.machine()}), Landlock ABI {landlock.abi()}, {_bubblewrap()}, "
        f"Python {platform.python_version()}.",
        "",
        "- **stopped**: no victim saw anything, and there was an honest number or none.",
        "- **bounded**: it gets something, within a limit that the referee sets.",
        "- **gets through**: a victim saw it.",
        "- an asterisk: the level promises nothing here (levels below landlock run only where the human has allowed it).",
        "- **not run**: the rung does not work for this user here, or the attack is measured apart (below).",
        "",
        _row(["attack", "what it tries", *(f"{level}, {user}" for level, user in columns)]),
        _row(["---"] * (2 + len(columns))),
    ]
    for name in names():
        cells = [outcomes.get((name, level, user), "not run") for level, user in columns]
        lines.append(_row([f"`{name}`", sentence(name), *cells]))
    path.write_text("\n".join([*lines, *_pretraining()]) + "\n")


def _pretraining() -> list[str]:
    if not PRETRAIN.exists():
        return []
    measured = json.loads(PRETRAIN.read_text())
    lines = [
        "",
        "## Bounded: training on torch's sources before the clock",
        "",
        f"Torch is text that every train.py can read. `pretrain_on_torch` trains the shipped model on it before START, on the "
        f"corpus {measured['corpus']} with a budget of {measured['budget_seconds']:g} s (`make attack-figures`). What start-up "
        "takes beyond the allowance is taken from the budget, so longer pretraining does not pay:",
        "",
        _row(["pretraining, CPU seconds", "val_bpb of each run", "mean", "against honest", "deducted, s"]),
        _row(["---"] * 5),
    ]
    honest = sum(measured["runs"][0]["val_bpb"]) / len(measured["runs"][0]["val_bpb"])
    for row in measured["runs"]:
        mean = sum(row["val_bpb"]) / len(row["val_bpb"])
        values = ", ".join(f"{value:.4f}" for value in row["val_bpb"])
        deducted = f"{max(row['deducted_seconds']):.1f}"
        lines.append(_row([f"{row['pretrain_seconds']:g}", values, f"{mean:.4f}", f"{mean - honest:+.4f}", deducted]))
    return lines


def _bubblewrap() -> str:
    if shutil.which("bwrap") is None:
        return "no bubblewrap"
    return subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=True).stdout.strip()


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
