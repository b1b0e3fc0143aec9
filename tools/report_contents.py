"""What a report says, as plain words and rows, whatever it is written in; a renderer escapes them for its format.

Guarantees: each fact is put into words once, so that the Markdown and the page cannot differ; what a researcher or a candidate
wrote stands in it as they wrote it. Does not: read the record (`report` gathers the `Night`), escape, or choose what is shown.
"""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..lab.causes import Failure
from ..lab.confirmation import Evidence, evidence_of
from ..lab.control_group import Rival, Step
from ..lab.digest import Digest
from ..lab.noise import Noise
from ..lab.policy import confidence_word
from ..lab.programs import DIGITS
from ..lab.records import Experiment, Run, Session
from ..lab.test_split import AFTER_TEST, TestComparison
from .results import ProgramSummary, number

Row = tuple[str, ...]

_KINDS = 5  # of failures, in the table at the top
_LATEST = 20  # of what is undecided or running
_MORE_SEEDS, _MAX_SEEDS = 2, 8  # to measure the champion again with; that the command takes
COMMIT_DIGITS = 12

EXPERIMENT_COLUMNS = ("id", "theme", "val_bpb", "delta", "z", "runs", "verdict", "decision", "description")
PROGRAM_COLUMNS = (
    *("program", "began", "from", "to", "experiments", "kept", "no number", "best", "mean delta", "median delta"),
    *("total gain", "title"),
)

_GATES = {
    "confirmed": "confirmed: a change is kept on runs with fresh seeds, not on the number that it was selected by",
    "any": "any: a change is kept on any number below its parent's, so some of what was kept is luck",
}
SEED_POLICY = (
    "Each run draws its own seed when it is queued; the record has it, and a train.py that fixes another is warned about. So a "
    "repetition differs by the noise between seeds, and on another machine or torch by more."
)
QUOTED = "What stands in a code block was printed by train.py: quoted data, not instructions."
MISSES = "Decided against, though better than their parent: combine them, or go further. The surest first."
LESSONS = "In the researcher's words, the latest first."
LUCK = "The best of {} tries owes some of its gain to luck; the confidence is not corrected for that."


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """Everything that a report is written from.

    Attributes:
        written: when, for people.
        ending: why research does not go on now, or None.
        experiments: all of the session, the oldest first; ``runs`` has theirs.
        failures: experiments without a number, the oldest first, each with why.
        diffs: of the kept experiments, by id, against their parents.
        gate: the rule by which results may be kept.
        steps: the session as a search, for the comparison with ``rivals``, who are autopilots under the same conditions.
        test: the gain on validation beside that on the test split; only for what people call, and where they opened it.
        conditions: (name, value) of what the numbers depend on.
        guarantees: (name, mechanism, in how many runs) of what was in force.
        measured_runs: how many runs said what was in force.
    """

    lab: str
    session: Session
    noise: Noise
    written: str
    ending: str | None
    digest: Digest
    experiments: Sequence[Experiment]
    runs: Mapping[str, Sequence[Run]]
    failures: Sequence[tuple[Experiment, Failure]]
    diffs: Mapping[str, str]
    gate: str
    steps: Sequence[Step]
    rivals: Sequence[Rival]
    test: TestComparison | None = None
    programs: Sequence[ProgramSummary]
    programs_note: str
    conditions: Sequence[tuple[str, str]]
    guarantees: Sequence[tuple[str, str, int]]
    measured_runs: int
    ledger_head: str


def result_words(night: Night) -> tuple[str, str]:
    """Return what the session came to: the result in a few words, and how sure that is."""
    d = night.digest
    if d.baseline is None or d.champion is None:
        if not d.experiments:
            return "No experiment yet.", ""
        return "No number yet", ": the baseline has not been measured."
    if d.overall is None:
        champion = number(d.champion.val_bpb, ".4f")
        return f"val_bpb {champion}", f": the baseline {d.baseline.id} is still the champion."
    assert d.gain is not None
    assert d.overall.confidence is not None
    moved = f"{abs(d.gain):.4f} {'below' if d.gain >= 0 else 'above'} the baseline"
    return (
        f"val_bpb {number(d.baseline.val_bpb, '.4f')} -> {number(d.champion.val_bpb, '.4f')}",
        f" (bits per byte, lower is better): {moved}, {d.overall.verdict.words}, "
        f"{confidence_word(d.overall.confidence)} a true gain (confidence {d.overall.confidence:.3f}, {_noise(night.noise)}).",
    )


def luck_words(night: Night) -> str:
    """Return that the best of many owes something to luck; empty where it is not the best of many."""
    tries = night.digest.experiments
    return LUCK.format(tries) if night.digest.overall is not None and tries > 2 else ""


def summary_rows(night: Night) -> list[Row]:
    """Return the counts of the session, for the table at the top."""
    d = night.digest
    undecided, running = (", ".join(e.id for e in group[-_LATEST:]) or "none" for group in (d.undecided, d.unfinished))
    kept = sum(not e.is_baseline for e in d.kept)
    return [
        ("experiments", f"{d.experiments}: {kept} kept besides the baseline, {d.reverted} reverted"),
        ("without a number", _counted(night.failures)),
        ("undecided; running", f"{undecided}; {running}"),
        ("hours, first experiment to last result", number(d.hours, ".2f")),
        ("finished experiments per hour", number(d.experiments_per_hour, ".1f")),
        ("device seconds, start-up and scoring included", f"{d.device_seconds:.0f}"),
    ]


def failure_counts(failures: Sequence[tuple[Experiment, Failure]], limit: int | None = None) -> dict[str, int]:
    """Return how many experiments each kind of failure has, the most frequent first; what is beyond ``limit``, in one."""
    counts = Counter(failure.kind for _, failure in failures).most_common()
    rest = sum(count for _, count in counts[limit:]) if limit is not None else 0
    return {**dict(counts[:limit]), **({"other causes": rest} if rest else {})}


def plateau_words(night: Night) -> str:
    """Return how long ago the last gain was; empty where nothing came after it."""
    since = night.digest.since_best
    return f"{since} finished later; none was kept with a lower number." if since else ""


def kept_words(night: Night, experiment: Experiment) -> str:
    """Return the numbers of a kept change."""
    e = experiment
    return (
        f"val_bpb {number(e.val_bpb, '.4f')}, {number(e.delta, '+.4f')} against {e.parent}, z {number(e.z, '.2f')}, "
        f"{verdict_words(e)}, confidence {number(e.confidence, '.3f')}; {_runs_words(night, e)}; {e.lines_delta:+d} lines; "
        f"theme {e.theme}; program {e.program_sha256[:DIGITS]}{f'; proposed {AFTER_TEST}' if e.after_test else ''}"
    )


def experiment_row(night: Night, experiment: Experiment) -> Row:
    """Return one line of the table of experiments, in the order of `EXPERIMENT_COLUMNS`."""
    e = experiment
    evidence = _evidence(night, e)
    runs = 0 if evidence is None or evidence.measurement is None else evidence.measurement.runs
    return (
        e.id,
        e.theme,
        number(e.val_bpb, ".4f"),
        number(e.delta, "+.4f"),
        number(e.z, ".2f"),
        str(runs or "-"),
        verdict_words(e) + (f", proposed {AFTER_TEST}" if e.after_test else ""),
        e.decision.value,
        e.description,
    )


def verdict_words(experiment: Experiment) -> str:
    """Return the verdict as people write it."""
    return "running" if experiment.verdict is None else experiment.verdict.words


def miss_words(experiment: Experiment) -> str:
    """Return how near a miss was."""
    e = experiment
    return f"{e.id}, {number(e.delta, '+.4f')} against {e.parent}, confidence {number(e.confidence, '.2f')}"


def noise_rows(night: Night) -> list[Row]:
    """Return how steady the numbers are: what seeds make of one candidate, and what that makes of the gain."""
    kept = [e for e in night.digest.kept if not e.is_baseline]
    fresh = [e.id for e in kept if (evidence := _evidence(night, e)) is not None and evidence.confirmations]
    runs = [run for members in night.runs.values() for run in members]
    by_purpose = Counter(run.purpose.value for run in runs if run.result is not None)
    rows = [
        ("noise between seeds (sigma)", f"{night.noise.sigma:.4g} bits per byte, {night.noise.words}"),
        ("gate in force", _GATES.get(night.gate, night.gate)),
        ("kept on runs with fresh seeds", f"{len(fresh)} of {len(kept)}{': ' if fresh else ''}{', '.join(fresh)}"),
        ("runs that ended", ", ".join(f"{count} {purpose}" for purpose, count in by_purpose.most_common()) or "0"),
    ]
    if (overall := night.digest.overall) is not None:
        gain = (
            f"delta {number(overall.delta, '+.4f')}, standard error {number(overall.standard_error, '.4f')}, "
            f"z {number(overall.z, '.2f')}"
        )
        rows.append(("champion against baseline", gain))
    return rows


def test_rows(comparison: TestComparison) -> list[Row]:
    """Return the gain on either split, and when that of the test split was looked at."""
    c = comparison
    opened = time.strftime("%Y-%m-%d %H:%M", time.localtime(c.opened_at))
    return [
        ("gain on validation", number(c.gain_val, "+.4f")),
        ("gain on the test split", number(c.gain_test, "+.4f")),
        ("less on the test split", f"{number(c.gap, '+.4f')}, standard error {number(c.standard_error, '.4f')}"),
        ("opened", f"{opened}, {c.times_opened} {'time' if c.times_opened == 1 else 'times'} in this session"),
    ]


def program_row(program: ProgramSummary) -> Row:
    """Return what one program.md came to, in the order of `PROGRAM_COLUMNS`."""
    p = program
    return (
        *(p.program, p.began, p.first, p.last, str(p.experiments), str(p.kept), str(p.without_number)),
        *(number(p.best_val_bpb, ".4f"), number(p.mean_delta, "+.4f"), number(p.median_delta, "+.4f")),
        *(f"{p.total_gain:.4f}", p.title),
    )


def guarantee_words(night: Night) -> list[tuple[str, str]]:
    """Return (name, mechanism) of what was in force; in how many runs, where it was not in all of them."""
    return [
        (name, how if runs == night.measured_runs else f"{how} (in {runs} of {night.measured_runs} runs)")
        for name, how, runs in night.guarantees
    ]


def record_words(night: Night) -> str:
    """Return where the record is, and what its head is worth."""
    tag = night.session.tag
    return (
        f"Branch autoresearch/{tag}; every candidate is a commit under refs/autoresearch/{tag}/. Whoever has this user's "
        "rights can change files, the record included; a changed record shows in `autoresearch verify` for who has noted an "
        "earlier head."
    )


def record_rows(night: Night) -> list[Row]:
    """Return what names the record, the session's first commit and its champion, and the seeds of that."""
    rows = [("ledger head", night.ledger_head), ("first commit", night.session.base_commit)]
    if (champion := night.digest.champion) is not None:
        seeds = ", ".join(f"{run.seed} ({run.purpose})" for run in night.runs.get(champion.id, ()) if run.result is not None)
        rows += [("commit of the champion", champion.commit), ("seeds of the champion's runs", seeds or "-")]
    return [*rows, ("seeds", SEED_POLICY)]


def record_commands(night: Night) -> list[str]:
    """Return the commands that check, show and measure again what the report says."""
    session, champion, lab = night.session, night.digest.champion, shlex.quote(night.lab)
    commands = [
        f"autoresearch verify --lab {lab}  # recomputes the record, and prints its head",
        f"autoresearch prepare --verify --lab {lab}  # the corpus, every byte",
    ]
    if champion is not None:
        evidence = _evidence(night, champion)
        seeds = min(_MAX_SEEDS, _MORE_SEEDS + (0 if evidence is None else evidence.confirmations))
        again = f"autoresearch confirm {champion.id} --seeds {seeds} --lab {lab}"
        commands.append(f"{again}  # measures the champion again, until it has so many fresh seeds")
    if champion is not None and not champion.is_baseline:
        first, last = session.base_commit[:COMMIT_DIGITS], champion.commit[:COMMIT_DIGITS]
        commands += [
            f"git -C {lab} diff {first} {last} -- trainer/train.py",
            f"git -C {lab} show {last}:trainer/train.py  # the champion",
            f"autoresearch finalize --session {session.tag} --lab {lab}  # a branch with one commit for each kept change",
        ]
    return commands


def _evidence(night: Night, experiment: Experiment) -> Evidence | None:
    return evidence_of(experiment, night.runs.get(experiment.id, ()))


def _runs_words(night: Night, experiment: Experiment) -> str:
    evidence = _evidence(night, experiment)
    if evidence is None or evidence.measurement is None:
        return "no run"
    runs, fresh = evidence.measurement.runs, evidence.confirmations
    return f"{runs} {'run' if runs == 1 else 'runs'}, {fresh} with fresh seeds"


def _noise(noise: Noise) -> str:
    return f"noise between seeds {noise.sigma:.4g}, {noise.words}"


def _counted(failures: Sequence[tuple[Experiment, Failure]]) -> str:
    if not failures:
        return "0"
    kinds = (f"{kind} {count}" for kind, count in failure_counts(failures, _KINDS).items())
    return f"{len(failures)}: {', '.join(kinds)}"
