"""A long night in minutes: a real server and a real MCP client, experiments that train nothing, and what the server needs.

    python -m tests.nights.soak [--experiments 2000] [--every 50] [--output DIR]

Each experiment is proposed, waited for, and kept or reverted, with `status` and `history` after it, over HTTP; a second server
of the same lab stays open meanwhile, as every client window starts one. Each sample says what the process that serves holds
(memory, descriptors, threads, children), what the calls since the last sample took, and how much lies on the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import anyio
import psutil
from mcp import Client

from ..serving import serving

TIMED = ("run_experiment", "wait_experiment", "keep", "revert", "status", "history")
_QUICK = re.compile(r"^# quick:.*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The server after so many experiments."""

    experiments: int
    seconds: float  # since the first
    memory_mb: float  # resident, of the process that serves
    descriptors: int
    threads: int
    children: int
    wal_mb: float  # of SQLite's log: it grows where nobody can empty it
    ledger_kb_each: float  # for each experiment
    run_folder_kb_each: float
    git_kb_each: float  # as it lies on the disk, in whole blocks
    p50_ms: dict[str, float]  # of the calls since the last sample, as the client sees them
    largest_answer_bytes: int  # since the last sample: of its text, or of its structure


class Night:
    """One researcher who never sleeps."""

    def __init__(self, folder: Path, state: Path, process: psutil.Process, client: Client) -> None:
        self._folder, self._state, self._process, self._client = folder, state, process, client
        self._train = folder / "trainer" / "train.py"
        self._random = random.Random(0)
        self._champion = 2.0
        self._took: dict[str, list[float]] = {}
        self._largest = 0
        self._began = time.monotonic()

    async def live(self, experiments: int, every: int, other: Client) -> list[Sample]:
        """Do ``experiments``, with a sample after each ``every`` of them; ``other`` is asked for the status now and then."""
        samples = []
        await self._call("start_session")
        for number in range(experiments):
            await self._experiment(number)
            await self._call("status")
            await self._call("history")
            if number % 10 == 0:
                await other.call_tool("status", {})
            if (number + 1) % every == 0:
                samples.append(self._sample(number + 1))
        return samples

    async def _experiment(self, number: int) -> None:
        if number:
            wish = f"val_bpb={max(0.5, self._champion + self._random.gauss(0.03, 0.04)):.4f}"
            if self._random.random() < 0.05:
                wish = "outcome=crashed"
            self._train.write_text(_QUICK.sub(f"# quick: {wish} seconds=0\n# idea {number}", self._train.read_text()))
        answer = await self._call("run_experiment", description=f"idea {number}", hypothesis="less is more", wait_seconds=0)
        while answer["state"] != "finished":
            after = answer["elapsed_seconds"] or 0.0
            answer = await self._call("wait_experiment", experiment_id=answer["experiment"]["id"], after=after, wait_seconds=10)
        name = answer["experiment"]["id"]
        if answer["experiment"]["decision"] == "kept":  # the baseline
            return
        if answer["keepable"] and self._random.random() < 0.3:
            await self._call("keep", experiment_id=name, reason="lower, and not longer")
            self._champion = answer["experiment"]["val_bpb"]
        else:
            await self._call("revert", experiment_id=name, lesson="costs more than it brings")

    async def _call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        began = time.monotonic()
        result = await self._client.call_tool(tool, arguments)
        self._took.setdefault(tool, []).append(1000 * (time.monotonic() - began))
        assert not result.is_error, result.content
        assert result.structured_content is not None
        structure = len(json.dumps(result.structured_content, ensure_ascii=False).encode())
        self._largest = max(self._largest, structure, len(result.content[0].text.encode()))  # type: ignore[union-attr]
        return result.structured_content

    def _sample(self, experiments: int) -> Sample:
        ledger = self._state / "ledger.db"
        wal = ledger.with_name("ledger.db-wal")
        with self._process.oneshot():
            sample = Sample(
                experiments=experiments,
                seconds=round(time.monotonic() - self._began, 1),
                memory_mb=round(self._process.memory_info().rss / 2**20, 1),
                descriptors=self._process.num_fds(),
                threads=self._process.num_threads(),
                children=len(self._process.children(recursive=True)),
                wal_mb=round(wal.stat().st_size / 2**20, 2) if wal.exists() else 0.0,
                ledger_kb_each=round(ledger.stat().st_size / 1024 / experiments, 1),
                run_folder_kb_each=round(_kb_on_disk(self._state / "runs") / experiments, 1),
                git_kb_each=round(_kb_on_disk(self._folder / ".git") / experiments, 1),
                p50_ms={tool: round(statistics.median(self._took[tool]), 1) for tool in TIMED if tool in self._took},
                largest_answer_bytes=self._largest,
            )
        self._took, self._largest = {}, 0
        print(json.dumps(asdict(sample)), file=sys.stderr, flush=True)
        return sample


def soak(folder: Path, state: Path, *, experiments: int, every: int) -> list[Sample]:
    """Live a night in the lab at ``folder``, whose state is ``state`` and whose runner trains nothing."""

    async def live(url: str, process: psutil.Process, other_url: str) -> list[Sample]:
        async with Client(url) as client, Client(other_url) as other:
            return await Night(folder, state, process, client).live(experiments, every, other)

    with serving(folder) as server, serving(folder) as other:
        return anyio.run(live, server.url, psutil.Process(server.process.pid), other.url)


def table(samples: Sequence[Sample]) -> str:
    """Return the samples in Markdown."""
    head = ["experiments", "memory MB", "descriptors", "threads", "children", "WAL MB", "ledger KB each", "run folder KB each"]
    head += [f"{tool} ms" for tool in TIMED]
    rows = [
        [
            *(sample.experiments, sample.memory_mb, sample.descriptors, sample.threads, sample.children, sample.wal_mb),
            *(sample.ledger_kb_each, sample.run_folder_kb_each),
            *(sample.p50_ms.get(tool, "-") for tool in TIMED),
        ]
        for sample in samples
    ]
    lines = [f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"


def _kb_on_disk(folder: Path) -> float:
    """Return what the files below a folder take, in whole blocks; links and what vanishes meanwhile count nothing."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(where) / name).lstat().st_blocks * 512
            except FileNotFoundError:
                continue
    return total / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=2000)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--output", type=Path, default=Path())
    known = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="autoresearch-soak-") as name:
        root = Path(name)
        os.environ |= {"AUTORESEARCH_STATE": str(root / "state"), "AUTORESEARCH_CACHE": str(root / "cache")}
        folder, state = make_lab(root / "lab")
        samples = soak(folder, state, experiments=known.experiments, every=known.every)
        known.output.mkdir(parents=True, exist_ok=True)
        (known.output / "soak.json").write_text(json.dumps([asdict(sample) for sample in samples], indent=1))
        (known.output / "soak.md").write_text(table(samples))
        print(table(samples), end="")


def make_lab(folder: Path) -> tuple[Path, Path]:
    """Make a lab whose runner trains nothing; returns its folder and its state."""
    from autoresearch_mcp.lab.calibration import record
    from autoresearch_mcp.lab.lab import Lab
    from autoresearch_mcp.lab.scaffold import create_lab
    from autoresearch_mcp.prepare.building import prepare_corpus

    from ..conftest import QUICK_TRAIN_PY, WordsSource
    from ..quick.adopt import adopt_quick_runner

    corpus = prepare_corpus("tiny", source=WordsSource()).name
    (folder / "trainer").mkdir(parents=True)
    (folder / "trainer" / "train.py").write_text(QUICK_TRAIN_PY)
    config = f'[budget]\nseconds = 5.0\n[gate]\nrule = "any"\n[corpus]\nname = "{corpus}"\n[stop]\ncrashes_in_a_row = 0\n'
    (folder / "autoresearch.toml").write_text(config)
    create_lab(folder)
    with closing(Lab.open(folder)) as lab:
        record(lab.ledger, background_share=0.0, threshold=1.0)
        adopt_quick_runner(lab)
        return lab.root, lab.state.root


if __name__ == "__main__":
    main()
