"""Every attack on every rung asked for: what the level promises holds, and what it does not promise is written down.

By default the best rung of the machine; `--rungs=all` for each that works here (`make test-all`). Where a level makes no
promise, an attack must get through, else it proves nothing where it is stopped.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.dispatch import wait
from autoresearch_mcp.lab.errors import CandidateError
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.isolation import LADDER, Isolation, IsolationLevel, probe
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.locks import locked_if_free
from autoresearch_mcp.lab.paths import RunPaths
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.referee.sandbox import problem_of
from autoresearch_mcp.lab.referee.scorer import negative_log_softmax
from autoresearch_mcp.lab.states import Verdict
from autoresearch_mcp.prepare.corpus import open_corpus
from autoresearch_mcp.tools.show_experiment import show_experiment

from ..windows import draw_windows, encode_rows
from . import assembly
from .catalog import ATTACKS, MEASURED_APART, NUMBER_TOLERANCE_BPB, Attack
from .victims import Harm, Promise, Victims, made_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the victims are Linux processes and files"),
]

MakeLab = Callable[..., Lab]
OpenLab = Callable[..., Lab]

UNFILTERED = (IsolationLevel.PROCESS, IsolationLevel.NONE)
BUDGET_SECONDS = 1.5
RUN_SECONDS = 90.0
SIZE_TOLERANCE_MB = 100
LOG_TAIL_BYTES = 32 << 10
HONEST = """
\"\"\"The honest model that others lie about.\"\"\"
from honest import Bigram, evaluate_bpb, logits, tokenizer

evaluate_bpb(Bigram(logits), tokenizer, 64)
"""


def rungs(wanted: str) -> list[Isolation]:
    """Return the levels to run on, of those that work here."""
    if wanted == "best":
        return [probe()]
    known = {str(isolation.level): isolation for isolation in LADDER}
    chosen = list(known) if wanted == "all" else wanted.split(",")
    return [known[level] for level in chosen if problem_of(known[level].level) is None]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "rung" in metafunc.fixturenames:
        wanted = metafunc.config.getoption("rungs", default="best")
        metafunc.parametrize("rung", rungs(wanted), ids=lambda rung: str(rung.level))


def test_every_candidate_is_in_the_table_and_says_what_it_tries() -> None:
    assert set(assembly.names()) == {*ATTACKS, *MEASURED_APART}
    for name in assembly.names():
        assert 20 < len(assembly.sentence(name)) < 140


def test_the_promises_of_the_levels_are_those_that_are_attacked() -> None:
    attacked = {str(attack.against) for attack in ATTACKS.values()}
    assert {sentence for isolation in LADDER for sentence in isolation.prevents} <= attacked


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One run of an attack, and everything that it left to read."""

    experiment: Experiment
    result: RunResult
    log: str
    said: str


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_what_a_level_promises_holds_against_every_attack(
    name: str, rung: Isolation, open_lab: OpenLab, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    attack = ATTACKS[name]
    lab = open_lab(attack.rules, attack.scoring_seconds)
    (tmp_path / "victims").mkdir()
    with made_for(lab, tmp_path / "victims") as victims:
        if attack.after_honest:
            run(lab, assembly.candidate_of(HONEST, victims.told), tag="honest")
        victims.remember()
        harms, ran = commit(attack, name, lab, victims)
    promised = {Promise.ALWAYS, *(promise for promise in Promise if promise in rung.prevents)}
    if attack.needs_filter and rung.level in UNFILTERED:
        promised.discard(attack.against)
    broken = [harm.what for harm in harms if harm.breaks in promised]
    suffered = [harm.what for harm in harms if harm.breaks is attack.against]
    outcome = "gets through" if suffered else "bounded" if attack.bounded else "stopped"
    cell = {"attack": name, "level": str(rung.level), "outcome": outcome, "promised": attack.against in promised}
    how = "refused" if ran is None else f"{ran.experiment.verdict}: {ran.experiment.reason[:300]}"
    record_property("attack_cell", {**cell, "harms": [harm.what for harm in harms], "ended": how})
    assert not broken, f"{rung.level} promises otherwise: {'; '.join(broken)}\n{'' if ran is None else ran.said[-3000:]}"
    if attack.against in promised:
        if ran is not None:
            assert ran.experiment.verdict in attack.verdicts, (ran.experiment.reason, ran.log[-2000:])
            assert attack.expects in ran.experiment.reason
            assert all(line in ran.log for line in attack.shown)
    elif rung.level in attack.sure and (os.geteuid() == 0 or not attack.needs_root):
        assert suffered, f"this attack works nowhere: repair it\n{'' if ran is None else ran.said[-3000:]}"


@pytest.fixture
def open_lab(make_lab: MakeLab, rung: Isolation) -> Iterator[OpenLab]:
    """Return a function that makes a lab and opens it on the rung."""
    with ExitStack() as stack:

        def opened(rules: str = "", scoring_seconds: float = 60.0) -> Lab:
            extra = f"{rules}[sandbox]\nallow_unsandboxed = true\n"
            lab = make_lab(seconds=BUDGET_SECONDS, scoring_seconds=scoring_seconds, extra=extra)
            return stack.enter_context(closing(Lab.open(lab.root, isolation=rung, pinned=False)))

        yield opened


def commit(attack: Attack, name: str, lab: Lab, victims: Victims) -> tuple[list[Harm], Ran | None]:
    """Run an attack as often as it asks for; return every harm, and its last run (None where it was refused)."""
    source = assembly.candidate(name, {**victims.told, "answers": validation_text(lab)[:8192] if attack.after_honest else ""})
    try:
        ran = run(lab, source, tag=None if attack.after_honest else "new")
    except CandidateError as refusal:
        if attack.expects not in str(refusal):
            raise
        return victims.harms(str(refusal)), None
    harms = victims.harms(ran.said) + broken_rules(attack, lab, ran)
    if attack.twice:
        ran = run(lab, source, tag="new")
    if attack.speaks:
        said = [*ran.log.splitlines(), *ran.experiment.reason.replace("; ", "\n").splitlines()]
        reached = [line.partition("reached: ")[2] for line in said if "reached: " in line]
        harms += [Harm(breaks=attack.against, what=what[:200]) for what in dict.fromkeys(reached)]
    if attack.then_honest:
        after = run(lab, assembly.candidate_of(HONEST, victims.told), tag="new").experiment
        if after.val_bpb is None or abs(after.val_bpb - honest_bpb(lab)) > NUMBER_TOLERANCE_BPB:
            harms.append(Harm(breaks=Promise.FILES, what=f"the next run got {after.val_bpb}: {after.reason[:200]}"))
    return harms, ran


def run(lab: Lab, source: str, *, tag: str | None) -> Ran:
    before = lab.workspace.train.read_bytes()
    lab.workspace.train.write_text(source)
    lab.start_session(tag, "tester")
    try:
        experiment, _ = experiments.propose(lab, description="an attack", hypothesis="")
        experiment = wait(lab, experiment.id, RUN_SECONDS)
    finally:
        lab.workspace.train.write_bytes(before)
    last = lab.ledger.runs(experiment.id)[-1]
    assert last.result is not None, "the run did not end in time"
    await_runner(lab.state.run(last.attempt_id))
    log = lab.executor.log(last.attempt_id, limit=1 << 22).decode(errors="replace")
    paths = lab.state.run(last.attempt_id)
    left = [path for path in paths.root.rglob("*") if path.is_file() and not path.is_relative_to(paths.code)]
    left = [path for path in left if path != paths.spec and not path.is_symlink() and path.stat().st_size < 1 << 22]
    said = [log, experiment.reason, *(path.read_text(errors="replace") for path in left)]
    return Ran(experiment=experiment, result=last.result, log=log, said="\n".join(said))


def await_runner(paths: RunPaths) -> None:
    """Wait until the runner has ended: a forged result ends the wait for an experiment before that."""
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        with locked_if_free(paths.runner_lock) as ended:
            if ended:
                return
        time.sleep(0.05)
    raise AssertionError("the runner does not end")


def broken_rules(attack: Attack, lab: Lab, ran: Ran) -> list[Harm]:
    """Return what the referee itself must never let happen, on whatever level; a number that is too good breaks a promise."""
    harms: list[str] = []
    experiment, result, config = ran.experiment, ran.result, lab.config()
    if experiment.val_bpb is not None:
        honest = honest_bpb(lab)
        margin = 3 * (experiment.standard_error or 0.0) + attack.gain_bpb
        if experiment.val_bpb < honest - margin:
            harms.append(f"it was certified at {experiment.val_bpb:.4f} bits per byte, honest is {honest:.4f}")
    last = lab.ledger.runs(experiment.id)[-1]
    if experiment.verdict is Verdict.LOST or last.attempt != 1:
        harms.append(f"its referee died: {experiment.reason[-300:]}")
    if attack.signals and experiment.verdict is Verdict.INVALID:
        harms.append("a signal of the bulk pass reached the audit")
    if lab.ledger.verify():
        harms.append("the record does not verify")
    if lab.state.run(last.attempt_id).scratch.exists():
        harms.append("its scratch folder is still there")
    if len(ran.log.encode()) > (config.limits.log_kb << 10) + LOG_TAIL_BYTES:
        harms.append(f"its log has {len(ran.log)} characters")
    limit = config.limits.memory_mb
    if limit and (result.peak_memory_mb or 0.0) > 2 * limit + SIZE_TOLERANCE_MB:
        harms.append(f"it used {result.peak_memory_mb} MB of memory")
    if (result.elapsed_seconds or 0.0) > BUDGET_SECONDS + 2.5:
        harms.append(f"it trained for {result.elapsed_seconds} s of a budget of {BUDGET_SECONDS} s")
    shown = show_experiment(lab, experiment.id, "log").content
    if not all(character.isprintable() or character in "\n\t" for character in shown):
        harms.append("control characters reach the agent")
    return [Harm(breaks=attack.against, what=what) for what in harms]


def validation_text(lab: Lab) -> str:
    return open_corpus(lab.config().corpus_name).text_path("val").read_text(errors="replace")


def honest_bpb(lab: Lab) -> float:
    """Return what the honest model scores, computed here from the text alone."""
    corpus = open_corpus(lab.config().corpus_name)
    profile = lab.config().profile_facts
    tokens = np.fromfile(corpus.token_store(257), np.uint16).astype(np.int64)
    counts = np.bincount(tokens[:-1] * 257 + tokens[1:], minlength=257 * 257).reshape(257, 257) + 0.1
    counts[256] = np.bincount(tokens, minlength=257) / profile.context_length + 0.1  # BOS stands before any place of the text
    text, secret = corpus.text("val"), lab.state.validation_secret.read_bytes()
    windows = draw_windows(
        text,
        corpus.offsets("val"),
        secret=secret,
        total_bytes=profile.validation_bytes,
        window_bytes=profile.window_bytes,
    )
    rows = encode_rows(
        text,
        windows,
        corpus.tokenizer(257),
        context_length=profile.context_length,
        padding=tokens.astype(np.uint16),
        rng=np.random.default_rng(0),
    )
    inputs, targets, scored = rows.tokens[:, :-1], rows.tokens[:, 1:], rows.mask()
    nats = negative_log_softmax(np.log(counts)[inputs[scored]], targets[scored])
    return float(nats.sum()) / (math.log(2) * rows.scored_bytes)


def test_the_honest_model_is_certified_at_what_the_text_alone_says(open_lab: OpenLab) -> None:
    lab = open_lab()
    ran = run(lab, assembly.candidate_of(HONEST, {}), tag="new")
    assert ran.experiment.verdict is Verdict.IMPROVED, ran.experiment.reason
    assert ran.experiment.val_bpb == pytest.approx(honest_bpb(lab), abs=NUMBER_TOLERANCE_BPB)
