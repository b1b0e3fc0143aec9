"""Records of long nights, made in seconds: the events that real sessions append, without the runs, processes and commits.

Guarantees: every event goes through `Ledger.append`, with the fields that a real session's have (a test compares them);
verdicts come from `policy`; `verify` finds nothing. Does not: make run folders or commits; every experiment names its
session's base commit, so that the branch is where the record says.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass

from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.files import sha256_hex
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.ledger import result_to_json
from autoresearch_mcp.lab.policy import Judgement, Measurement, judge
from autoresearch_mcp.lab.records import Session
from autoresearch_mcp.lab.states import Outcome, Purpose
from autoresearch_mcp.lab.themes import BASELINE, theme_of

_BATCH = 1000  # experiments in a transaction
_LINES = 40
_CONSTANTS = (
    *(
        "MATRIX_LR",
        "EMBEDDING_LR",
        "SCALAR_LR",
        "WARMUP_FRACTION",
        "WARMDOWN_FRACTION",
        "WEIGHT_DECAY",
        "MOMENTUM",
        "ADAM_BETA1",
    ),
    *(
        "ADAM_BETA2",
        "ROPE_BASE",
        "SOFTCAP",
        "TOTAL_BATCH_TOKENS",
        "INIT_STD",
        "DEPTH",
        "WIDTH",
        "HEAD_DIM",
        "MLP_RATIO",
        "VOCAB_SIZE",
    ),
    *("LOSS_CHUNK_TOKENS", "ORTHOGONAL_STEPS", "VALUE_GATE_CHANNELS", "FINAL_LR_FRACTION", "HEAD_STD", "MUON_BETA2"),
)
_SOURCE = (
    "# quick: {id}\nfrom prepare import evaluate_bpb, make_dataloader\n\n"
    + "".join(f"{name} = 0.5\n" for name in _CONSTANTS)
    + "\nmake_dataloader(None, 1, 1, 'train')\nevaluate_bpb(None, None, 1)\n"
)
_WORDS = ("wider", "deeper", "shorter", "longer", "warmup", "decay", "rotary", "heads", "norm", "clip", "batch", "bias", "tied")
_GUARANTEES = {
    "files": "Landlock and mount namespace: nothing but its own folder, torch and the interpreter",
    "network": "own network namespace without devices",
    "processes": "own pid namespace, ended with its first process",
    "memory": "rlimits and the referee's watch, 9830 MB",
    "time": "the referee's clock, in CPU seconds of the whole process tree",
    "scoring": "two sandboxes of their own that share nothing",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What the experiments are like: how many numbers a result has for the windows of its validation text (137 on the CPU
    profile), the share that nobody decides, and words that each description, hypothesis and lesson ends with."""

    windows: int = 137
    undecided: float = 0.002
    words: str = ""


def fill(lab: Lab, count: int, *, sessions: int = 4, programs: int = 3, kind: Kind | None = None, seed: int = 0) -> None:
    """Append ``count`` experiments to a lab whose session has none yet; without a choice of session, the last is in force."""
    kind, chance = Kind() if kind is None else kind, random.Random(seed)
    first = lab.session()
    texts = [f"# Program {number}\n\nChange one thing at a time.\n".encode() for number in range(programs)]
    done = 0
    for number in range(sessions):
        session = first if number == 0 else _begin(lab, first, number)
        share = count * (number + 1) // sessions - done
        for start in range(0, share, _BATCH):
            size = min(_BATCH, share - start)
            with lab.ledger.transaction():
                text = texts[(number + start // _BATCH) % programs]
                if done + start:
                    _accept(lab, session, text)
                for offset in range(size):
                    _experiment(lab, session.tag, chance, number=done + start + offset + 1, kind=kind)
        done += share


def _begin(lab: Lab, like: Session, number: int) -> Session:
    event = {
        "tag": f"night-{number}",
        "researcher": like.researcher,
        "base_commit": like.base_commit,
        "base_sha256": like.base_sha256,
        "group": like.group,
        "config": like.config,
        "harness": like.harness,
        "program_sha256": like.program_sha256,
    }
    lab.ledger.append("session_started", event)
    session = lab.ledger.session(event["tag"])
    assert session is not None
    return session


def _accept(lab: Lab, session: Session, program: bytes) -> None:
    event = {
        "config": lab.config().canonical_json(),
        "program_sha256": sha256_hex(program),
        "session": session.tag,
        "session_config": session.config,
    }
    lab.ledger.append("rules_accepted", event, blobs=(program,))


def _experiment(lab: Lab, tag: str, chance: random.Random, *, number: int, kind: Kind) -> None:
    """One experiment from its proposal to the decision."""
    session = lab.ledger.session(tag)
    assert session is not None
    champion = lab.champion(session)
    experiment_id = f"e{number:04d}"
    what = " ".join(chance.choices(_WORDS, k=6))
    source = _SOURCE.format(id=experiment_id).encode() if champion else lab.champion_source(session)
    changes = _changes(chance) if champion else {}
    lines_delta = chance.randint(-3, 6) if champion else 0
    lab.ledger.append(
        "experiment_recorded",
        {
            "id": experiment_id,
            "session": tag,
            "researcher": session.researcher,
            "parent": None if champion is None else champion.id,
            "parent_version": session.version,
            "description": f"{experiment_id}: {what}{kind.words}"[:500] if champion else "baseline",
            "hypothesis": f"A model that is {what} learns more in the same time, because {what} costs little.{kind.words}"[
                :2000
            ],
            "candidate_sha256": sha256_hex(source),
            "commit": session.base_commit,
            "committed_at": 1_750_000_000 + number,
            "program_sha256": session.program_sha256,
            "lines": _LINES + lines_delta,
            "lines_delta": lines_delta,
            "rebase_of": None,
            "theme": theme_of(changes, what, ()) if champion else BASELINE,
            "changes": json.dumps(changes, sort_keys=True),
            "added": max(1, lines_delta) if champion else 0,
            "removed": max(1, -lines_delta) if champion else 0,
        },
        blobs=(source,),
    )
    run_id = f"{experiment_id}.1"
    seed = chance.randrange(2**31)
    queued = {"id": run_id, "experiment": experiment_id, "seed": seed, "device": "cpu", "purpose": Purpose.PROPOSED}
    lab.ledger.append("run_queued", queued)
    lab.ledger.append("run_started", {"id": run_id, "attempt": 1, "device": "cpu"})
    before = 2.2 if champion is None or champion.val_bpb is None else champion.val_bpb
    result = _result(chance, before, is_baseline=champion is None, windows=kind.windows)
    lab.ledger.append("run_finished", {"id": run_id, "result": result_to_json(result)})
    parent = None
    if champion is not None and champion.val_bpb is not None:
        parent = Measurement(val_bpb=champion.val_bpb, standard_error=champion.standard_error or 0.0)
    judgement = _judged(lab, experiment_id, result, parent, lines_delta)
    if champion is None:
        kept = {"id": experiment_id, "session": tag, "version": session.version, "reason": "the baseline"}
        lab.ledger.append("experiment_kept", kept)
    elif judgement.keepable and chance.random() < 0.2:
        kept = {"id": experiment_id, "session": tag, "version": session.version, "reason": f"{what} is worth its lines"}
        lab.ledger.append("experiment_kept", kept)
    elif chance.random() >= kind.undecided:
        lesson = {"id": experiment_id, "lesson": f"{what}: costs more than it gains, {result.reason}{kind.words}"[:1000]}
        lab.ledger.append("experiment_reverted", lesson)
        restored = {"session": tag, "researcher": session.researcher, "sha256": session.base_sha256, "backup": None}
        lab.ledger.append("train_file_restored", restored)


def _changes(chance: random.Random) -> dict[str, list[str]]:
    """Most ideas change one constant, some two, a fifth none; a quarter of the constants is never changed."""
    names = chance.sample(_CONSTANTS[: len(_CONSTANTS) * 3 // 4], k=chance.choices((0, 1, 2), weights=(2, 7, 1))[0])
    return {name: ["0.5", f"{0.5 * chance.choice((0.5, 0.8, 1.25, 2.0)):g}"] for name in names}


def _result(chance: random.Random, before: float, *, is_baseline: bool, windows: int) -> RunResult:
    dice = 1.0 if is_baseline else chance.random()
    if dice < 0.08:
        outcome = Outcome.CRASHED if dice < 0.05 else Outcome.TIMED_OUT if dice < 0.07 else Outcome.CANCELLED
        return RunResult(outcome=outcome, reason=f"it {outcome}", exit_code=1, guarantees=_GUARANTEES, total_seconds=30.0)
    val_bpb = before if is_baseline else max(0.9, before + chance.gauss(0.03, 0.04))
    return RunResult(
        outcome=Outcome.SCORED,
        reason="scored",
        val_bpb=val_bpb,
        standard_error=0.0002,
        claimed_bpb=val_bpb + 0.0001,
        audits=40,
        scored_bytes=280_123,
        scored_tokens=101_234,
        window_nats=tuple(2048 * 0.693 * val_bpb * chance.uniform(0.8, 1.2) for _ in range(windows)),
        vocab_size=2048,
        startup_seconds=chance.uniform(3, 5),
        startup_cpu_seconds=chance.uniform(4, 6),
        startup_deducted_seconds=0.0,
        elapsed_seconds=300.2,
        wall_seconds=310.0,
        cpu_seconds=600.0,
        scoring_seconds=chance.uniform(8, 12),
        bulk_cpu_seconds=9.1,
        audit_cpu_seconds=4.2,
        total_seconds=330.0,
        steps=chance.randint(900, 1100),
        peak_memory_mb=812.5,
        exit_code=0,
        log_bytes=2048,
        guarantees=_GUARANTEES,
        others_share=chance.uniform(0.0, 0.2),
        contended="others used 31% of its cores" if chance.random() < 0.01 else None,
        device_name=None,
        train_tokens=4_000_000,
        forward_flops_per_token=2.1e6,
    )


def _judged(lab: Lab, experiment_id: str, result: RunResult, parent: Measurement | None, lines_delta: int) -> Judgement:
    number = None
    if result.val_bpb is not None:
        number = Measurement(val_bpb=result.val_bpb, standard_error=result.standard_error or 0.0)
    judgement = judge(result.outcome, number, parent, sigma=0.02, lines_delta=lines_delta)
    measured = asdict(judgement)
    event = {name: measured[name] for name in ("verdict", "reason", "delta", "z", "confidence", "keepable")}
    event |= {"id": experiment_id, "val_bpb": result.val_bpb, "standard_error": result.standard_error}
    lab.ledger.append("experiment_judged", event)
    return judgement
