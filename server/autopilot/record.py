"""What the lab's record says to a strategy: the changes that were tried, and the constants and the number of each experiment.

Read through the tools, as any researcher could. Only sessions of the same comparability group count: what another budget or
corpus found is the answer to another question. Cancelled and lost runs say nothing, tainted ones nothing that is sure.

The constants of an experiment follow from its session's baseline and the diffs since. The baseline of the present session is
known in full, that of an earlier one as far as its experiments changed it, which is as far as it can teach anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from ...lab.states import NO_ANSWER
from ...tools.results import ExperimentSummary, HistoryAnswer, PartAnswer, SessionAnswer
from .client import LabClient
from .edits import Number, read_constants
from .strategy import Change, Observation, changes_in

_PER_PAGE_IN_WORDS = 8  # so few that no description is cut: the changes are read from them
_PER_PAGE = 25

Values = dict[str, Number]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What an experiment's diff says of constants: their values before and after, as far as its lines changed."""

    before: Values
    after: Values


@dataclass(slots=True)
class _Lineage:
    """The constants of one session's experiments. ``root``: of its baseline; ``since``: what changed from there, by id."""

    root: Values
    since: dict[str, dict[str, Number | None]] = field(default_factory=dict)

    def add(self, experiment_id: str, parent: str | None, step: Step) -> None:
        changed = dict(self.since.get(parent, {})) if parent is not None else {}
        for name, value in step.before.items():
            if name not in changed:
                self.root.setdefault(name, value)
        gone = dict.fromkeys(step.before.keys() - step.after.keys())
        self.since[experiment_id] = changed | gone | step.after

    def values(self, experiment_id: str) -> Values:
        everything = self.root | self.since[experiment_id]
        return {name: value for name, value in everything.items() if value is not None}


class Record:
    """The record of the lab as the researcher of ``session`` sees it; ``baseline`` is the train.py it began with."""

    def __init__(self, client: LabClient, session: SessionAnswer, baseline: str) -> None:
        self._client = client
        self._session = session
        self._baseline = read_constants(baseline, session.profile)
        self._comparable = {session.tag: True}
        self._steps: dict[str, Step | None] = {}

    async def tried(self) -> Set[Change]:
        """Return what was tried and got an answer, read from the descriptions."""
        tried = set[Change]()
        for experiment in await self._answered(per_page=_PER_PAGE_IN_WORDS, text=" -> "):
            tried |= changes_in(experiment.description)
        return tried

    async def observed(self) -> list[Observation]:
        """Return what came of every experiment whose constants are known, the oldest first."""
        lineages = {self._session.tag: _Lineage({name: constant.value for name, constant in self._baseline.items()})}
        found: list[tuple[_Lineage, ExperimentSummary]] = []
        for experiment in await self._answered(per_page=_PER_PAGE):
            lineage = lineages.setdefault(experiment.session, _Lineage({}))
            step = await self._step(experiment)
            if step is None or (experiment.parent is not None and experiment.parent not in lineage.since):
                continue
            lineage.add(experiment.id, experiment.parent, step)
            if experiment.doubt != "tainted":
                found.append((lineage, experiment))
        return [Observation(values=lineage.values(each.id), val_bpb=each.val_bpb) for lineage, each in found]

    async def _answered(self, *, per_page: int, text: str = "") -> list[ExperimentSummary]:
        """Return the comparable experiments that have an answer, the oldest first."""
        answered = []
        for page in await pages(self._client, per_page=per_page, session="all", sort="oldest", text=text):
            for experiment in page.experiments:
                if experiment.verdict is None or experiment.verdict in NO_ANSWER:
                    continue
                if experiment.session not in self._comparable:
                    group = await self._group(experiment.session)
                    self._comparable[experiment.session] = group == self._session.comparability_group
                if self._comparable[experiment.session]:
                    answered.append(experiment)
        return answered

    async def _group(self, session: str) -> str:
        """Return the comparability group of a session that has experiments; it is that of each of its programs."""
        answer = await self._client.call("history", HistoryAnswer, session=session, per_page=1)
        return answer.programs[-1].group

    async def _step(self, experiment: ExperimentSummary) -> Step | None:
        """Return what an experiment changed in its parent; None where its diff is too long to be shown in full."""
        if experiment.parent is None:
            return Step(before={}, after={})
        if experiment.id not in self._steps:
            answer = await self._client.call("show_experiment", PartAnswer, experiment_id=experiment.id, part="diff")
            whole = not answer.omitted
            self._steps[experiment.id] = step_of(answer.content, self._session.profile) if whole else None
        return self._steps[experiment.id]


def step_of(diff: str, profile: str) -> Step:
    """Return what a unified diff of train.py says of constants."""
    lines = diff.splitlines()[2:]  # after the two that name the files
    before, after = (_values((line[1:] for line in lines if line.startswith(sign)), profile) for sign in "-+")
    return Step(before=before, after=after)


async def pages(client: LabClient, *, per_page: int, **filters: str) -> list[HistoryAnswer]:
    """Return every page of the history that ``filters`` select, and at least one."""
    found: list[HistoryAnswer] = []
    while not found or found[-1].page < found[-1].pages:
        page = len(found) + 1
        found.append(await client.call("history", HistoryAnswer, page=page, per_page=per_page, **filters))
    return found


def _values(lines: Iterable[str], profile: str) -> Values:
    constants = read_constants("".join(f"{line}\n" for line in lines), profile)
    return {name: constant.value for name, constant in constants.items()}
