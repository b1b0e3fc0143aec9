"""Many researchers at once: real MCP clients against one HTTP server, each in a folder of its own, until enough was tried.

    python -m tests.crowd.crowd [--clients N] [--experiments N] [--quick]

Each researcher turns its own knob of train.py, keeps what the gate allows, and goes through merges like an agent: it only
reads answers. `Findings.of` then reads from the record what must hold whatever happened: no update lost, none kept twice, the
champions strictly improving, and everybody served in turn.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
import statistics
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anyio
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.states import Decision
from mcp import Client

from ..quick.adopt import adopt_quick_runner
from ..serving import serving

_WAIT_SECONDS = 20.0  # of a call for a verdict
_KNOB = re.compile(r"^KNOB_(\w+) = (-?\d+)$", re.MULTILINE)

HEAD = '''\
"""A small honest candidate whose learning rate has a knob for each researcher."""
import torch
from prepare import DEVICE, MAX_SEQ_LEN, SEED, Tokenizer, evaluate_bpb, make_dataloader, seconds_left

torch.manual_seed(SEED)
# quick: val_bpb=2.0 noise=0.004
'''
BLOCK = """
# the knob of {name}
# quick: minus=0
KNOB_{name} = 0
# its end
"""
TAIL = """
KNOBS = {names}
LEARNING_RATE = 0.01
for knob in KNOBS:
    LEARNING_RATE *= 1.002**knob
tokenizer = Tokenizer.load(257)
model = torch.nn.Sequential(torch.nn.Embedding(257, 16), torch.nn.Linear(16, 257)).to(DEVICE)
optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE * 10)
loader = make_dataloader(tokenizer, 4, MAX_SEQ_LEN, "train")
while seconds_left() > 0.3:
    x, y, epoch = next(loader)
    torch.nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
    optimizer.step()
    optimizer.zero_grad()
evaluate_bpb(model, tokenizer, 16)
"""


def names_of(clients: int) -> list[str]:
    return [f"r{number}" for number in range(clients)]


def train_py(clients: int) -> str:
    """Return a train.py with a knob for each researcher, far enough apart that their changes merge."""
    names = names_of(clients)
    return (
        HEAD
        + "".join(BLOCK.format(name=name) for name in names)
        + TAIL.format(names=[f"KNOB_{name}" for name in names]).replace("'", "")
    )


class Researcher:
    """One client that turns its knob until the crowd has tried enough."""

    def __init__(self, client: Client, name: str, crowd: Crowd) -> None:
        self._client = client
        self._name = name
        self._crowd = crowd
        self._turns = random.Random(name).sample(range(-999, 1000), 1998)  # never the same bytes twice

    async def work(self) -> None:
        session = await self._call("start_session", tag="crowd", researcher=self._name)
        self._file = Path(session["train_file"])
        while self._crowd.take():
            self._turn_the_knob()
            said = f"{self._name} turns its knob"
            answer = await self._call("run_experiment", description=said, researcher=self._name, again=True)
            await self._decide(await self._finished(answer))

    def _turn_the_knob(self) -> None:
        source = self._file.read_text()
        value = self._turns.pop()
        block = re.compile(rf"(# the knob of {self._name}\n# quick: minus=).*\nKNOB_{self._name} = .*\n")
        changed = block.sub(rf"\g<1>{value / 100_000}\nKNOB_{self._name} = {value}\n", source)
        self._file.write_text(changed)

    async def _finished(self, answer: dict[str, Any]) -> dict[str, Any]:
        asked = time.monotonic()
        while answer["state"] != "finished":
            after = answer["elapsed_seconds"] or time.monotonic() - asked
            answer = await self._call("wait_experiment", experiment_id=answer["experiment"]["id"], after=after)
        return answer

    async def _decide(self, answer: dict[str, Any]) -> None:
        while answer["keepable"]:
            kept = await self._call("keep", experiment_id=answer["experiment"]["id"], reason="lower")
            if kept["outcome"] == "kept":
                return
            self._crowd.outcomes[kept["outcome"]] += 1
            if kept["outcome"] == "stale_conflict":
                break
            answer = await self._finished(kept)
        await self._call("revert", experiment_id=answer["experiment"]["id"], lesson="not better")

    async def _call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        began = time.monotonic()
        result = await self._client.call_tool(tool, arguments)
        self._crowd.calls.append((tool, time.monotonic() - began))
        if result.is_error and tool == "keep":  # merged twice, or the champion has it: an agent reverts
            return {"outcome": "stale_conflict"}
        assert not result.is_error, result.content
        assert result.structured_content is not None
        return result.structured_content


class Crowd:
    """How much is left to try, and what was met."""

    def __init__(self, experiments: int) -> None:
        self._left = experiments
        self.outcomes: Counter[str] = Counter()
        self.calls: list[tuple[str, float]] = []

    def take(self) -> bool:
        self._left -= 1
        return self._left >= 0


async def run(url: str, clients: int, experiments: int) -> Crowd:
    """Let the researchers work until ``experiments`` of their own ideas were tried; the first one runs the baseline."""
    crowd = Crowd(experiments)
    async with Client(url) as first:
        researcher = Researcher(first, names_of(clients)[0], crowd)
        await researcher._call("start_session", tag="crowd", researcher=names_of(clients)[0])
        await researcher._finished(await researcher._call("run_experiment", description="baseline"))

    async def one(name: str) -> None:
        async with Client(url) as client:
            await Researcher(client, name, crowd).work()

    async with anyio.create_task_group() as tasks:
        for name in names_of(clients):
            tasks.start_soon(one, name)
    return crowd


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What the record says about a crowd's work.

    Attributes:
        problems: what must not be; empty.
        shares: researcher -> its own ideas among the first half of all that started.
    """

    experiments: int
    own_ideas: int
    champions: int
    merged: int
    merged_kept: int
    best_val_bpb: float
    shares: dict[str, int]
    problems: list[str]

    @classmethod
    def of(cls, lab: Lab) -> Findings:
        session = lab.ledger.session("crowd")
        assert session is not None
        experiments = lab.ledger.experiments("session = 'crowd'")
        kept = sorted((e for e in experiments if e.decision is Decision.KEPT), key=lambda e: e.parent_version)
        problems = [*lab.ledger.verify(), *_champions(kept), *_lost_updates(lab, kept)]
        if any(e.decision is Decision.PENDING or e.verdict is None for e in experiments):
            problems.append("something is undecided")
        for e in experiments:
            if lab.git.ref(f"refs/autoresearch/crowd/{e.id}") != e.commit:
                problems.append(f"{e.id} has no ref")
        if lab.git.ref(session.branch) != kept[-1].commit:
            problems.append("the branch is not at the champion")
        own = [e for e in experiments if e.rebase_of is None and e.parent is not None]
        started = sorted(own, key=lambda e: lab.ledger.runs(e.id)[0].started_at or 0.0)
        numbers = [e.val_bpb for e in kept if e.val_bpb is not None]
        return cls(
            experiments=len(experiments),
            own_ideas=len(own),
            champions=len(kept),
            merged=len(experiments) - len(own) - 1,
            merged_kept=sum(e.rebase_of is not None for e in kept),
            best_val_bpb=min(numbers),
            shares=dict(sorted(Counter(e.researcher for e in started[: len(started) // 2]).items())),
            problems=problems,
        )


def _champions(kept: list[Experiment]) -> list[str]:
    """Each champion replaced the one that it was measured against, and has a lower number."""
    problems = []
    for before, after in itertools.pairwise(kept):
        if after.parent != before.id or after.parent_version != before.parent_version + 1:
            problems.append(f"{after.id} replaced {before.id}, but was judged against {after.parent}")
        if not (after.val_bpb or 9.0) < (before.val_bpb or 0.0):
            problems.append(f"{after.id} is not better than {before.id}")
    return problems


def _lost_updates(lab: Lab, kept: list[Experiment]) -> list[str]:
    """The champion has, of every researcher, the knob that was kept last."""
    wanted: dict[str, str] = {}
    for experiment in kept:
        knobs = _knobs(lab, experiment)
        if experiment.parent is not None:
            wanted[experiment.researcher] = knobs[experiment.researcher]
    final = _knobs(lab, kept[-1])
    return [
        f"the kept knob of {name} is lost: {final[name]}, not {value}" for name, value in wanted.items() if final[name] != value
    ]


def _knobs(lab: Lab, experiment: Experiment) -> dict[str, str]:
    source = (lab.ledger.blob(experiment.candidate_sha256) or b"").decode()
    return dict(_KNOB.findall(source))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--experiments", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="train nothing (tests/quick)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crowd-") as name:
        os.environ["AUTORESEARCH_STATE"] = f"{name}/state"
        folder = Path(name) / "lab"
        from autoresearch_mcp.lab.calibration import record
        from autoresearch_mcp.lab.scaffold import create_lab

        (folder / "trainer").mkdir(parents=True)
        (folder / "trainer" / "train.py").write_text(train_py(arguments.clients))
        (folder / "autoresearch.toml").write_text(
            '[budget]\nseconds = 1.0\n[gate]\nrule = "any"\nmeasure_when_idle = false\n[stop]\ncrashes_in_a_row = 0\n'
        )
        create_lab(folder)
        with closing(Lab.open(folder)) as lab:
            record(lab.ledger, background_share=0.0, threshold=1.0)
            if arguments.quick:
                adopt_quick_runner(lab)
        began = time.monotonic()
        with serving(folder, max_wait_seconds=_WAIT_SECONDS) as server:
            crowd = anyio.run(run, server.url, arguments.clients, arguments.experiments)
        seconds = time.monotonic() - began
        with closing(Lab.open(folder)) as lab:
            findings = Findings.of(lab)
    calls: dict[str, list[float]] = {}
    for tool, took in crowd.calls:
        calls.setdefault(tool, []).append(took)
    median_ms = {tool: round(1000 * statistics.median(took), 1) for tool, took in sorted(calls.items())}
    figures = {**asdict(findings), "seconds": round(seconds, 1), "met": dict(crowd.outcomes), "median_call_ms": median_ms}
    print(json.dumps(figures, indent=1))
    return 1 if findings.problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
