"""read_program: the rules in force, the human's strategy, and where research stands."""

from __future__ import annotations

from dataclasses import dataclass

from ..lab.calibration import calibration
from ..lab.config import LabConfig
from ..lab.confirmation import CONFIRMATIONS, MAX_EXTRA_RUNS
from ..lab.dispatch import dispatch
from ..lab.errors import NotReadyError
from ..lab.lab import Lab
from ..lab.noise import Noise
from ..lab.policy import CONFIRMED_GAIN_SIGMAS, SMALLEST_GAIN_SIGMAS
from ..lab.records import Session
from ..lab.rules import unaccepted_changes
from .describe import count_undecided, next_without_experiment, researcher_lines, shorten, summarise, undecided, undecided_ids
from .known_text import what_was_taught
from .results import ProgramAnswer, cut_bytes

_BYTES = 8_000  # of the text, which the prompt `resume` embeds
_JSON_BYTES = 9_500  # of the whole answer
_OPEN = 3  # undecided experiments that are told in full
_OPEN_BYTES = 160  # of a description or a hypothesis


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    """How much an answer says. What was recent is also in the digest, and program.md is the human's: that is cut last."""

    recent: int  # experiments
    text_bytes: int  # of a description or a note
    digest_rows: int  # of each kind
    program_bytes: int


_LIMITS = tuple(  # the first with which the answer is small enough is taken
    _Limits(recent=recent, text_bytes=text_bytes, digest_rows=digest_rows, program_bytes=program_bytes)
    for program_bytes, rows in (
        (3_500, ((10, 200, 6), (10, 140, 6), (10, 100, 6), (8, 80, 6), (6, 80, 5), (5, 60, 4), (5, 60, 3))),
        (2_500, ((6, 80, 5), (5, 60, 4), (5, 60, 3))),
        (1_500, ((6, 60, 4), (5, 60, 3), (5, 40, 3), (4, 40, 2), (3, 40, 1))),
    )
    for recent, text_bytes, digest_rows in rows
)
RECENT = _LIMITS[0].recent


def read_program(lab: Lab) -> ProgramAnswer:
    """Read this first, and again whenever you have lost track: it alone is enough to go on.

    It has the rules in force, the human's program.md, the champion, what the session has taught, the last experiments, what is
    open, and the next calls. Next: start_session in a new conversation, else the first of those calls that applies.
    """
    dispatch(lab)
    try:
        session = lab.session()
    except NotReadyError:
        session = None
    champion = lab.champion(session) if session else None
    taught = what_was_taught(lab, session, champion) if session else None
    recent = lab.ledger.experiments("session = ?", session.tag, order="rowid DESC", limit=RECENT) if session else []
    answer = ProgramAnswer(
        rules=[*rules(lab), *_researchers_rule(lab, session), *unaccepted_changes(lab)],
        program="",
        session=session.tag if session else None,
        experiments=lab.ledger.count_experiments("session = ?", session.tag) if session else 0,
        champion=summarise(lab, champion) if champion else None,
        recent=[summarise(lab, experiment) for experiment in recent],
        undecided=undecided_ids(lab, session) if session else [],
        undecided_count=count_undecided(lab, session) if session else 0,
        open=_open(lab, session) if session else [],
        known=[],
        warnings=_standing_in_the_way(lab, session),
        next=next_without_experiment(lab, session),
        ledger_head=lab.ledger.head(),
    )
    program = lab.program(session)
    rows = answer.recent
    told = [*zip(rows, recent, strict=True), *([(answer.champion, champion)] if answer.champion and champion else [])]
    for limits in _LIMITS:
        for shown, experiment in told:
            shown.description = shorten(experiment.description, limits.text_bytes)
            shown.note = shorten(experiment.note, limits.text_bytes)
        answer.recent = rows[: limits.recent]
        answer.known = [] if taught is None else taught.lines(limits.digest_rows)
        answer.program = program
        if len(program.encode()) > limits.program_bytes:
            answer.program = cut_bytes(program, limits.program_bytes) + "\n[cut here: read program.md in the lab for the rest]"
        if len(answer.text().encode()) <= _BYTES and len(answer.model_dump_json().encode()) <= _JSON_BYTES:
            break
    return answer


def _open(lab: Lab, session: Session) -> list[str]:
    return [
        f"{experiment.id} ({experiment.verdict or 'not finished'}) {shorten(experiment.description, _OPEN_BYTES)}; hypothesis: "
        f"{shorten(experiment.hypothesis, _OPEN_BYTES) or 'none'}"
        for experiment in undecided(lab, session, limit=_OPEN)
    ]


def _standing_in_the_way(lab: Lab, session: Session | None) -> list[str]:
    """Say why no experiment could run now."""
    try:
        lab.conditions(lab.session_config(session) if session else None)
    except NotReadyError as error:
        return [f"no experiment can run now: {error}"]
    return []


def rules(lab: Lab) -> list[str]:
    """Return the rules that the server enforces, in plain sentences with the numbers in force."""
    try:
        session = lab.session()
    except NotReadyError:
        session = None
    config = lab.config() if session is None else lab.session_config(session)
    clock = "wall-clock seconds" if config.clock_kind == "wall" else "seconds on all cores (CPU time)"
    return [
        "Only trainer/train.py counts: the server runs its bytes with its own copy of everything else.",
        f"Each experiment trains {config.budget.seconds:g} {clock}; the clock starts at the first make_dataloader call.",
        "val_bpb is measured by the server in other processes, on text that train.py is never given; lower is better.",
        "The seed is the server's. A run is given no validation text, and a fresh scratch folder.",
        *_contention_rule(lab),
        *_stop_rules(config),
        _gate_rule(config, lab.noise(session)),
        "Every candidate is stored; revert loses nothing. keep and revert are final for an experiment.",
    ]


def _gate_rule(config: LabConfig, noise: Noise) -> str:
    shorter = f"or when train.py got shorter and it is worse by {SMALLEST_GAIN_SIGMAS:g} sigma at most"
    measured = f"Noise between seeds: sigma {noise.sigma:.4g} bpb ({noise.words})."
    if config.gate.rule == "any":
        return f"Gate 'any': keep is allowed when val_bpb is below the parent's, {shorter}. {measured}"
    return (
        f"Gate 'confirmed': a number that is better than the parent's by {SMALLEST_GAIN_SIGMAS:g} sigma is promising, and the "
        f"server runs it {CONFIRMATIONS} more times with fresh seeds. keep is allowed when their mean alone is better by "
        f"{CONFIRMED_GAIN_SIGMAS:g} sigma, {shorter}. {measured}"
    )


def _researchers_rule(lab: Lab, session: Session | None) -> list[str]:
    if session is None or len(there := researcher_lines(lab, session)) < 2:
        return []
    return [
        f"Several research in this session ({'; '.join(there)}), each in a train.py of its own, judged against the champion "
        "that it builds on. Whoever keeps first is the champion; a later win is merged onto it and run again."
    ]


def _contention_rule(lab: Lab) -> list[str]:
    here = calibration(lab.ledger)
    if here is None or here.threshold >= 1:
        return []
    return [
        f"A run beside which others use more than {here.threshold:.0%} of its device is contended: before such a number can be "
        f"kept, the server confirms it by up to {MAX_EXTRA_RUNS} more runs. Leave the machine alone while an experiment trains."
    ]


def _stop_rules(config: LabConfig) -> list[str]:
    stop = config.stop
    limits = [
        *([f"val_bpb reaches {stop.target:g}"] if stop.target is not None else []),
        *([f"{stop.experiments} experiments are done"] if stop.experiments else []),
        *([f"{stop.hours:g} hours have passed"] if stop.hours else []),
        *([f"{stop.crashes_in_a_row} experiments in a row failed"] if stop.crashes_in_a_row else []),
    ]
    return [f"The session takes no further experiment once {', or '.join(limits)}."] if limits else []
