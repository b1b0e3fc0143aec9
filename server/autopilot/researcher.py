"""The autopilot's loop: baseline, then ideas of a strategy, each run, judged, and kept or reverted through the tools.

It knows only what an agent knows: the tools, and trainer/train.py in the workspace. It ends after a number of experiments, or
before that when the human has paused the lab, a stop rule is met, or the strategy has no further idea; the report says which.
Stopping it cancels and reverts the experiment in flight; everything before is decided and recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import anyio

from ...lab.control_group import AUTOPILOT, is_autopilot
from ...lab.errors import CandidateError, StoppedError
from ...lab.paths import WorkspacePaths
from ...lab.states import Decision, Verdict
from ...tools.results import ExperimentAnswer, ExperimentSummary, KeepAnswer, SessionAnswer
from ...tools.revert import RevertAnswer
from .client import AutopilotError, LabClient, ToolRefusedError
from .record import Record, pages
from .strategy import Observation, Proposal, Strategy

_NO_FURTHER_IDEA = "The strategy has no further idea for the constants of this train.py."
_POLL_SECONDS = 1.0  # short, so that a view moves
_CANCEL_SECONDS = 15.0
_PER_PAGE = 25
_LESSON_CHARACTERS = 500
_REFUSALS_IN_A_ROW = 20  # then something is wrong that another proposal will not mend
_REFUSED_IDEAS_IN_A_ROW = 200  # each of them tried before, or no fair candidate; another idea may well be new


class Observer(Protocol):
    """Who watches the research; called in order, from the event loop, and must return at once."""

    def session_started(self, session: SessionAnswer) -> None: ...

    def progressed(self, answer: ExperimentAnswer) -> None: ...

    def finished(self, answer: ExperimentAnswer) -> None:
        """An experiment is judged and decided; ``answer`` carries both."""
        ...

    def refused(self, proposal: Proposal, reason: str) -> None: ...

    def saved(self, ref: str) -> None:
        """Content of train.py that belonged to no experiment was saved under ``ref`` before it was replaced."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a session of the autopilot came to; ``experiments`` in the order they were run.

    ``ended_early`` says why fewer ideas were tried than were asked for; None where all were.
    """

    session: SessionAnswer
    experiments: list[ExperimentSummary]
    ended_early: str | None
    ledger_head: str


class Autopilot:
    """One session of research in the lab at ``folder``; ``researcher`` is whom the record names."""

    def __init__(
        self, client: LabClient, folder: Path, strategy: Strategy, observer: Observer, *, researcher: str = AUTOPILOT
    ) -> None:
        self._client = client
        self._train = WorkspacePaths(folder).train  # until a session says which file is this researcher's
        self._strategy = strategy
        self._observer = observer
        self._researcher = researcher

    async def research(self, experiments: int) -> Report:
        """Start a new session, measure the baseline, try ``experiments`` ideas, and return the record of the session.

        Raises:
            AutopilotError: the baseline got no number that can be kept, or the server refuses everything.
            ToolRefusedError: the server refuses the session itself.
        """
        await self._settle_earlier()
        session = await self._client.call("start_session", SessionAnswer, tag="new", researcher=self._researcher)
        self._train = Path(session.train_file)
        self._observer.session_started(session)
        record = Record(self._client, session, self._train.read_text())
        ended_early: str | None = None
        try:
            await self._measure_baseline()
            ended_early = await self._try_ideas(experiments, session, record)
        except StoppedError as error:
            ended_early = str(error)
            await self._revert("workspace", "")
        history = await pages(self._client, per_page=_PER_PAGE, session=session.tag, sort="oldest")
        return Report(
            session=session,
            experiments=[experiment for page in history for experiment in page.experiments],
            ended_early=ended_early,
            ledger_head=history[-1].ledger_head,
        )

    async def _measure_baseline(self) -> None:
        baseline = await self._run("baseline", "The number that every idea of this session is measured against.")
        self._observer.finished(baseline)
        if baseline.experiment.decision != Decision.KEPT:
            await self._revert(baseline.experiment.id, lesson(baseline.experiment))
            raise AutopilotError(_failed_baseline(baseline))

    async def _try_ideas(self, experiments: int, session: SessionAnswer, record: Record) -> str | None:
        """Try ``experiments`` ideas, one after the other; returns why it tried fewer, or None."""
        tried, observed = await record.tried(), await self._observed(record)
        done = refusals = 0
        while done < experiments:
            source = self._train.read_text()
            proposal = self._strategy.propose(source, profile=session.profile, tried=tried, observed=observed)
            if proposal is None:
                return _NO_FURTHER_IDEA
            self._train.write_text(proposal.source)
            try:
                answer = await self._run(proposal.description, proposal.hypothesis)
            except ToolRefusedError as error:
                refusals += 1
                self._observer.refused(proposal, str(error))
                await self._revert("workspace", "")
                if error.kind != CandidateError.__name__ and refusals >= _REFUSALS_IN_A_ROW:
                    raise AutopilotError(f"{refusals} proposals in a row were refused; the last: {error}") from error
                if refusals == _REFUSED_IDEAS_IN_A_ROW:
                    return f"{refusals} ideas in a row were refused; the last: {error}"
                continue
            self._observer.finished(await self._decide(answer))
            observed = await self._observed(record)
            done, refusals = done + 1, 0
        return None

    async def _observed(self, record: Record) -> Sequence[Observation]:
        return await record.observed() if self._strategy.learns else ()

    async def _settle_earlier(self) -> None:
        """Decide what a killed research left undecided, so that this session begins with the champion's train.py."""
        for page in await pages(self._client, per_page=_PER_PAGE, decision="pending"):
            for experiment in page.experiments:
                if is_autopilot(experiment.researcher):  # under whatever strategy; others are at work
                    await self._client.call("cancel_experiment", ExperimentAnswer, experiment_id=experiment.id)
                    try:
                        await self._decide(await self._finished(experiment.id))
                    except StoppedError as error:  # a stale win, whose merge may not be run any more
                        await self._revert(experiment.id, f"Could not be kept: {error}"[:_LESSON_CHARACTERS])

    async def _run(self, description: str, hypothesis: str) -> ExperimentAnswer:
        """Run the workspace's train.py and wait for its verdict; leaving early abandons it."""
        answer = await self._client.call(
            "run_experiment", ExperimentAnswer, description=description, hypothesis=hypothesis, wait_seconds=0.0
        )
        try:
            self._observer.progressed(answer)
            return await self._finished(answer.experiment.id)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), anyio.move_on_after(_CANCEL_SECONDS):
                await self._abandon(answer.experiment.id)
            raise

    async def _finished(self, experiment_id: str) -> ExperimentAnswer:
        """Wait for a verdict, showing where the experiment stands."""
        after = 0.0
        while True:
            answer = await self._client.call(
                "wait_experiment",
                ExperimentAnswer,
                experiment_id=experiment_id,
                after=after,
                wait_seconds=_POLL_SECONDS,
            )
            if answer.state == "finished":
                return answer
            after = answer.elapsed_seconds or 0.0
            self._observer.progressed(answer)

    async def _abandon(self, experiment_id: str) -> None:
        """End an experiment and restore train.py, so that the next session does not begin with half an idea."""
        await self._client.call("cancel_experiment", ExperimentAnswer, experiment_id=experiment_id)
        await self._revert(experiment_id, "The research was stopped before this had an answer.")

    async def _decide(self, answer: ExperimentAnswer) -> ExperimentAnswer:
        """Keep what the gate allows, also where another's keep came first and the server merged it; revert the rest."""
        experiment_id, learned = answer.experiment.id, lesson(answer.experiment)
        if answer.keepable:
            verdict = Verdict(answer.experiment.verdict)  # what may be kept has one
            reason = f"{answer.experiment.delta or 0.0:+.4f} bpb, {verdict.words}; the gate allows it."
            try:
                kept = await self._client.call("keep", KeepAnswer, experiment_id=experiment_id, reason=reason)
                if kept.outcome == "kept":
                    return kept
                if kept.outcome == "stale_win":
                    return await self._decide(await self._finished(kept.experiment.id))
                learned = kept.explanation[:_LESSON_CHARACTERS]
            except ToolRefusedError as error:
                learned = f"Could not be kept: {error}"[:_LESSON_CHARACTERS]
        reverted = await self._revert(experiment_id, learned)
        assert reverted.experiment is not None, "revert of an experiment describes it"
        return reverted.experiment

    async def _revert(self, experiment_id: str, learned: str) -> RevertAnswer:
        """Restore train.py, and tell who watches where anything else that it held was saved."""
        answer = await self._client.call("revert", RevertAnswer, experiment_id=experiment_id, lesson=learned)
        if answer.backup is not None:
            self._observer.saved(answer.backup)
        return answer


def lesson(experiment: ExperimentSummary) -> str:
    """Return what a discarded experiment taught, in one sentence."""
    what = experiment.description.partition(",")[0]
    delta = experiment.delta
    match experiment.verdict:
        case Verdict.WORSE if delta is not None:
            return f"{what} hurts: {delta:+.4f} bpb against {experiment.parent}."
        case Verdict.IMPROVED if delta is not None:
            return f"{what} looks better ({delta:+.4f} bpb against {experiment.parent}), and the gate does not allow it."
        case Verdict.WITHIN_NOISE if delta is not None:
            return f"{what} makes no difference beyond noise: {delta:+.4f} bpb against {experiment.parent}."
        case Verdict.PRUNED:
            return f"{what} was ended early: far above its parent while it trained."
        case Verdict.TIMED_OUT:
            return f"{what} does not finish within its time."
        case _:
            return f"{what} gives no number: {experiment.verdict}."


def _failed_baseline(baseline: ExperimentAnswer) -> str:
    experiment = baseline.experiment
    if experiment.val_bpb is not None:
        return f"The baseline {experiment.id} cannot be kept, so there is nothing to improve on: {baseline.reason}"
    tail = "".join(f"\n> {line}" for line in baseline.log_tail)
    return (
        f"The baseline {experiment.id} got no number ({experiment.verdict}), so there is nothing to improve on. "
        f"{baseline.reason} Repair trainer/train.py; the whole log: autoresearch show {experiment.id} --part log{tail}"
    )
