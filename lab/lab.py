"""One lab, opened: its repository, its record, its executor, and the session that research happens in.

Any number of processes may have the same lab open. Nothing here trains or judges; `experiments` proposes and decides,
`dispatch` moves runs along.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from ..prepare.files import exclusive_lock
from . import machine, researchers
from .candidate import MAX_SOURCE_BYTES
from .catching_up import catch_up
from .config import CONFIG_NAME, LabConfig, load_config
from .devices import CUDA, Devices, GpuDriver, device_kind, kind_of
from .environment import TrainerPython, require_cuda, trainer_python
from .errors import CandidateError, GitError, NotReadyError, StoppedError, UnknownNameError
from .executor import Executor
from .files import read_regular_file, read_settled_file, sha256_hex
from .git import GitRepository, validate_tag
from .identity import Identity, establish_identity, known_identity, known_labs
from .isolation import NONE as NO_ISOLATION
from .isolation import Isolation, is_allowed, require_allowed
from .isolation import probe as probe_isolation
from .ledger import Ledger
from .local_executor import LocalExecutor
from .noise import Noise, measured_noise, unselected
from .paths import PROGRAM_FILE, TRAIN_FILE, StatePaths, WorkspacePaths
from .pins import adopted_environment, open_prepared_corpus
from .records import AcceptedRules, Experiment, Researcher, Session
from .referee.harness import pin_harness
from .stopping import SessionFacts, crashes_in_a_row, stop_reason

NEW_SESSION = "new"  # the tag that asks for a new session under a free name
_PROGRAM_BYTES = 262_144
_MOST_NAMED = 20  # sessions, in an error
_REPEATED = (  # SQL: experiments of a comparability group that have runs with fresh seeds, the newest, which are noise enough
    'id IN (SELECT id FROM experiments WHERE session IN (SELECT tag FROM sessions WHERE "group" = ?) '
    "AND id IN (SELECT experiment FROM runs WHERE purpose IN ('confirm', 'noise')) ORDER BY rowid DESC LIMIT 200)"
)
_COUNTED = "session = ? AND verdict IS NOT 'cancelled' AND verdict IS NOT 'lost'"  # what a stop rule counts


class Lab:
    """An open lab. Make it with `Lab.open`; close it when done (runs go on)."""

    def __init__(
        self,
        *,
        root: Path,
        git: GitRepository,
        identity: Identity,
        ledger: Ledger,
        executor: Executor,
        devices: Devices,
        isolation: Isolation,
        pinned: bool,
        worktree: str = "",
        autopilot: bool = False,
    ) -> None:
        self.root = root
        self.presence = researchers.Presence(worktree, autopilot=autopilot)
        self.isolation = isolation
        self.pinned = pinned
        self.devices = devices
        self.workspace = WorkspacePaths(root)
        self.git = git
        self.id = identity.id
        self.state: StatePaths = identity.state
        self.ledger = ledger
        self.executor = executor
        self._session_tag: str | None = None
        self._budget_seconds: float | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        budget_seconds: float | None = None,
        renew_identity: bool = False,
        isolation: Isolation | None = None,
        gpu_driver: GpuDriver | None = None,
        pinned: bool = True,
        autopilot: bool = False,
    ) -> Lab:
        """Open the lab around ``folder``; the first opening gives it its identity and pins its harness.

        A researcher's worktree leads to its lab, where this process then works for that researcher.
        ``isolation`` is what candidates get instead of what this machine offers (at most that); ``gpu_driver`` is asked for
        GPUs instead of NVIDIA's. Unless ``pinned``, runs do not check that harness, corpus and environment are what they were,
        which their results then do not list. ``autopilot``: this process serves the built-in researcher.
        ``budget_seconds`` is the human's choice for the sessions that this process starts, instead of the file's.
        Raises `NotReadyError` where there is no lab; the text names the command that makes one.
        """
        root, worktree = _lab_of(find_lab_root(folder))
        git = GitRepository.discover(root)
        if git.root != root:
            raise NotReadyError(
                f"{root} holds {CONFIG_NAME} but is not the top of its git repository ({git.root}). "
                f"A lab is a repository of its own: run `autoresearch init {root}`"
            )
        load_config(root / CONFIG_NAME)  # a wrong file is told at once
        writable = os.access(git.common_dir, os.W_OK)  # else there can be no first opening, and the rest only reads
        lock = exclusive_lock(git.common_dir / "autoresearch.lock") if writable else nullcontext()
        with lock:  # the first opening happens once
            identity = establish_identity(git.common_dir, root, renew=renew_identity)
            ledger = Ledger(identity.state.ledger)
            if ledger.latest_harness() is None:
                with ledger.transaction():
                    ledger.append("lab_created", {"lab": identity.id, "root": str(root)})
                    ledger.append("harness_pinned", {"sha256": pin_harness(identity.state.harness)})
        devices = Devices(gpu_driver)
        executor = LocalExecutor(identity.state, devices=devices)
        lab = cls(
            root=root,
            git=git,
            identity=identity,
            ledger=ledger,
            executor=executor,
            devices=devices,
            isolation=probe_isolation() if isolation is None else isolation,
            pinned=pinned,
            worktree=worktree,
            autopilot=autopilot,
        )
        lab._budget_seconds = budget_seconds
        catch_up(lab)
        return lab

    @classmethod
    def look(cls, folder: Path) -> Lab:
        """Open the lab around ``folder`` to look at it: nothing is made, brought up to date, moved along or written.

        What the machine offers is not tried, so runs cannot start here, and `isolation` says the least.
        Raises `NotReadyError` where there is no lab, or none that was ever opened on this machine.
        """
        root, worktree = _lab_of(find_lab_root(folder))
        git = GitRepository.discover(root)
        identity = known_identity(git.common_dir)
        if identity is None or not identity.state.ledger.is_file():
            raise NotReadyError(f"{root} has no record on this machine yet. Call start_session first.")
        devices = Devices()
        return cls(
            root=root,
            git=git,
            identity=identity,
            ledger=Ledger(identity.state.ledger, for_reading=True),
            executor=LocalExecutor(identity.state, devices=devices),
            devices=devices,
            isolation=NO_ISOLATION,
            pinned=False,
            worktree=worktree,
        )

    def close(self) -> None:
        self.executor.close()
        self.presence.close()
        self.ledger.close()

    # -- what people wrote ------------------------------------------------------------------------------------------------

    def accepted_rules(self) -> AcceptedRules | None:
        """Return what the human accepted last: by starting the first session, later by `autoresearch accept-config`."""
        event = self.ledger.latest("rules_accepted")
        if event is None:
            return None
        config = LabConfig.model_validate_json(event.body["config"])
        return AcceptedRules(config=config, program_sha256=event.body["program_sha256"], at=event.at)

    def config(self) -> LabConfig:
        """Return the accepted autoresearch.toml (before the first session: the file); sessions keep the one they began with."""
        accepted = self.accepted_rules()
        config = load_config(self.workspace.config) if accepted is None else accepted.config
        return config if self._budget_seconds is None else config.with_budget(self._budget_seconds)

    def session_config(self, session: Session) -> LabConfig:
        return LabConfig.model_validate_json(session.config)

    def noise(self, session: Session | None) -> Noise:
        """Return the noise between seeds that a session is judged with: the human's, else what this lab measured, else a prior.

        It is measured in the session's comparability group, on devices of its kind; before the first session nothing is.
        """
        config = self.config() if session is None else self.session_config(session)
        if config.gate.sigma is not None:
            return Noise(sigma=config.gate.sigma, source="set")
        if session is None:
            return measured_noise([], prior=config.profile_facts.prior_sigma)
        kind = device_kind(config)
        runs = self.ledger.runs_by_experiment(_REPEATED, session.group)
        groups = [
            unselected((run for run in runs[each.id] if kind_of(run.device) == kind), is_baseline=each.is_baseline)
            for each in self.ledger.experiments(_REPEATED, session.group)
        ]
        return measured_noise(groups, prior=config.profile_facts.prior_sigma)

    def program(self, session: Session | None = None) -> str:
        """Return the program.md that a session works under; without one, the accepted text, before the first the file."""
        accepted = self.accepted_rules()
        sha256 = session.program_sha256 if session else accepted.program_sha256 if accepted else None
        content = self.program_file() if sha256 is None else self.ledger.stored(sha256)
        return content.decode(errors="replace")

    def program_file(self) -> bytes:
        """Return the bytes of the workspace's program.md."""
        return read_regular_file(self.root, PROGRAM_FILE, _PROGRAM_BYTES)

    def train_file(self, researcher: Researcher | None = None, limit_bytes: int = MAX_SOURCE_BYTES) -> bytes:
        """Return the bytes of a researcher's train.py, or of the one in the lab's own folder.

        Raises `CandidateError` for a link or an oversized file.
        """
        folder = self.root if researcher is None else researchers.folder_of(self, researcher)
        if researcher is not None and not folder.is_dir():
            again = f"start_session(researcher={researcher.name!r})"
            raise CandidateError(f"The folder {folder} of {researcher.name} is gone. Call {again}, which makes it again.")
        return read_settled_file(folder, TRAIN_FILE, limit_bytes)

    # -- sessions ---------------------------------------------------------------------------------------------------------

    def session(self, tag: str = "") -> Session:
        """Return a session by its tag; without one, that of this process: the one it started, or the newest of the lab."""
        if tag:
            if (found := self.ledger.session(tag)) is None:
                known = ", ".join(session.tag for session in self.ledger.sessions()[:_MOST_NAMED])
                raise UnknownNameError(f"No session {tag!r} in {self.root}. The sessions are: {known or 'none yet'}.")
            return found
        if self._session_tag is not None:
            return self.ledger.session_now(self._session_tag)
        session = self.ledger.newest_session()
        if session is None:
            raise NotReadyError(
                f"No session in {self.root} yet. Call start_session first (from a shell: `autoresearch research` or "
                f"`autoresearch run`).{neighbour_hint(self.id)}"
            )
        return session

    def start_session(self, tag: str | None, researcher: str = "") -> tuple[Session, bool]:
        """Begin a session, or go on with an earlier one, as ``researcher``; returns it and whether it is new.

        Without a name: as whoever works where this process was started.
        Without a ``tag``, goes on with the newest session if its numbers are still comparable, else begins one named after
        today. Raises `NotReadyError` when the corpus is not prepared, or when ``tag`` exists in another comparability group.
        """
        self.require_isolation()
        researchers.require_own_name(self, researcher)
        with self.ledger.transaction():  # two that begin at once do not take the same name
            session, is_new = self._start_session(tag, researcher or researchers.DEFAULT_NAME)
        self.align_branch(session)
        if session.tag != self._session_tag:
            self.presence.leave()
            self._session_tag = session.tag
        researchers.join(self, session, researcher)
        return session, is_new

    def _start_session(self, tag: str | None, researcher: str) -> tuple[Session, bool]:
        accepted = self.accepted_rules()
        if accepted is None:  # the first session: what lies there is what the human wants
            program = self.program_file()
            self.ledger.append("rules_accepted", rules_event(load_config(self.workspace.config), program), blobs=(program,))
            accepted = self.accepted_rules()
            assert accepted is not None
        group, config = self.comparability_group(), self.config()
        self._require_windows(config)
        if tag == NEW_SESSION:
            tag = self._untouched(group, researcher) or self._free_tag()
        if tag is None:
            newest = self.ledger.newest_session()
            if newest is not None and newest.group == group:
                return newest, False
            tag = self._free_tag()
        existing = self.ledger.session(validate_tag(tag))
        if existing is not None:
            # A session goes on under the rules that it was started with, unless this process was asked for another budget.
            rules = self.session_config(existing) if self._budget_seconds is None else config
            if existing.group != self.comparability_group(rules):
                raise NotReadyError(
                    f"Session {tag!r} was measured under other conditions (corpus, budget, harness, device or torch), so new "
                    "numbers could not be compared with its own. Call start_session with a new tag."
                )
            return existing, False
        train = self.train_file()
        base_commit = self._base_commit(tag, train)
        self.ledger.append(
            "session_started",
            {
                "tag": tag,
                "researcher": researcher,
                "base_commit": base_commit,
                "base_sha256": sha256_hex(train),
                "group": group,
                "config": config.canonical_json(),
                "harness": self.harness(),
                "program_sha256": accepted.program_sha256,
            },
            blobs=(train,),
        )
        return self.ledger.session_now(tag), True

    def champion(self, session: Session) -> Experiment | None:
        """Return the best kept experiment, or None before the baseline has been measured."""
        return None if session.champion is None else self.ledger.experiment(session.champion)

    def champion_source(self, session: Session) -> bytes:
        """Return the champion's train.py, or the file that the session started from."""
        return self.source_of(session, self.champion(session))

    def source_of(self, session: Session, experiment: Experiment | None) -> bytes:
        """Return an experiment's train.py; None: the file that the session started from."""
        return self.ledger.stored(session.base_sha256 if experiment is None else experiment.candidate_sha256)

    def align_branch(self, session: Session) -> str | None:
        """Make the session's branch point at its champion; returns a sentence when somebody else moved it.

        The ledger decides and git follows, so a process that died between the two is repaired by the next call.
        """
        while True:
            found = self.git.ref(session.branch)
            session = self.ledger.session_now(session.tag)  # after the look at git, so that no branch is moved back
            try:
                return self._align_branch(session, found)
            except GitError:
                if self.git.ref(session.branch) == found:  # it cannot be moved; else another process was faster
                    raise

    def _align_branch(self, session: Session, found: str | None) -> str | None:
        champion = self.champion(session)
        wanted = session.base_commit if champion is None else champion.commit
        if found == wanted:
            return None
        kept = self.ledger.experiments("session = ? AND decision = 'kept'", session.tag)
        ours = {None, session.base_commit, *(experiment.commit for experiment in kept)}
        if found not in ours:
            return (
                f"The branch autoresearch/{session.tag} was moved to {found} by somebody else; the champion is {wanted}. "
                f"Move it back (git branch -f autoresearch/{session.tag} {wanted}) or call start_session with a new tag."
            )
        self.git.update_ref(session.branch, wanted, found)
        return None

    @property
    def started_session(self) -> str | None:
        """The tag of the session that this process was told to work in, by whichever of its clients."""
        return self._session_tag

    # -- going on, or not -------------------------------------------------------------------------------------------------

    def paused(self) -> str | None:
        """Return why no run starts, when the human has paused the lab."""
        event = self.ledger.latest("lab_paused", "lab_resumed")
        if event is None or event.kind == "lab_resumed":
            return None
        reason = f": {event.body['reason']}" if event.body["reason"] else ""
        return f"the human paused it at {time.strftime('%Y-%m-%d %H:%M', time.localtime(event.at))}{reason}"

    def require_isolation(self) -> None:
        """Raise `NotReadyError` where candidates are not isolated and the human has not accepted that."""
        require_allowed(self)

    def require_able_to_run(self) -> None:
        """Raise `StoppedError` or `NotReadyError`, with what to do, where `may_run` is false."""
        if (paused := self.paused()) is not None:
            raise StoppedError(f"The lab is paused ({paused}), so no run would start: `autoresearch resume`, then this again.")
        self.require_isolation()

    def may_run(self) -> bool:
        """True while runs may start: nobody paused the lab, and the isolation is there or was accepted to be missing."""
        return self.paused() is None and is_allowed(self)

    def stop_reason(self, session: Session) -> str | None:
        """Return which stop rule the session has met, or None while it may go on."""
        champion = self.champion(session)
        resumed = self.ledger.latest("lab_resumed")
        since = self.ledger.latest_verdicts(session.tag, recorded_after=0.0 if resumed is None else resumed.at)
        facts = SessionFacts(
            experiments=self.ledger.count_experiments(_COUNTED, session.tag),
            crashes_in_a_row=crashes_in_a_row(since),
            hours=(time.time() - session.created_at) / 3600,
            best_val_bpb=None if champion is None else champion.val_bpb,
        )
        return stop_reason(self.session_config(session).stop, facts)

    # -- comparability ----------------------------------------------------------------------------------------------------

    def harness(self) -> str:
        """Return the SHA-256 of the pinned harness."""
        sha256 = self.ledger.latest_harness()
        assert sha256 is not None, "open pins a harness"
        return sha256

    def adopt_harness(self) -> bool:
        """Pin the installed harness if it differs from the pinned one; only `autoresearch init`, run by a human, does."""
        sha256 = pin_harness(self.state.harness)
        if sha256 == self.ledger.latest_harness():
            return False
        self.ledger.append("harness_pinned", {"sha256": sha256})
        return True

    def conditions(self, config: LabConfig | None = None) -> dict[str, object]:
        """Return everything that a number depends on besides the candidate; two labs differ in the secret."""
        config = self.config() if config is None else config
        profile = config.profile_facts
        corpus_id = open_prepared_corpus(config.corpus_name).corpus_id
        python = self.trainer(config)
        return {
            "corpus": corpus_id,
            "profile": config.profile,
            "context_length": profile.context_length,
            "validation_bytes": profile.validation_bytes,
            "window_bytes": profile.window_bytes,
            "windows": hashlib.sha256(self.state.validation_secret.read_bytes()).hexdigest()[:16],
            "budget_seconds": config.budget.seconds,
            "clock": config.clock_kind,
            "device": self.devices.device_class(config),
            "python": python.python,
            "torch": python.torch,
            "harness": self.harness(),
            **adopted_environment(self.ledger, config),
        }

    def trainer(self, config: LabConfig) -> TrainerPython:
        """Return the Python that trains; raises `NotReadyError` where runs of ``config`` cannot start: no device, no Python."""
        self.devices.usable(config)
        python = trainer_python(config.trainer.python)
        if device_kind(config) == CUDA:
            require_cuda(python)
        return python

    def comparability_group(self, config: LabConfig | None = None) -> str:
        """Return the short name of these conditions; numbers of different groups are never compared."""
        return group_of(self.conditions(config))

    # -- private ----------------------------------------------------------------------------------------------------------

    def _untouched(self, group: str, researcher: str) -> str | None:
        """Return the newest session where it is what this call asks for: it was made, and the answer was lost on its way."""
        newest = self.ledger.newest_session()
        if newest is None or (newest.group, newest.researcher) != (group, researcher):
            return None
        same = newest.base_sha256 == sha256_hex(self.train_file())
        return newest.tag if same and not self.ledger.count_experiments("session = ?", newest.tag) else None

    def _free_tag(self) -> str:
        today = f"{datetime.date.today():%b%d}".lower()
        taken = {session.tag for session in self.ledger.sessions()}
        taken |= {name.rpartition("/")[2] for name in self.git.refs("refs/heads/autoresearch")}
        return next(tag for tag in (today, *(f"{today}-{n}" for n in range(2, 10_000))) if tag not in taken)

    def _require_windows(self, config: LabConfig) -> None:
        """Raise `NotReadyError` where the corpus has only documents that are too short for the profile's windows."""
        from ..prepare.corpus import open_corpus
        from .referee.windows import NoWindowsError, require_windows

        try:
            require_windows(open_corpus(config.corpus_name).offsets("val"), window_bytes=config.profile_facts.window_bytes)
        except NoWindowsError as error:
            raise NotReadyError(f"The corpus {config.corpus_name} does not fit profile {config.profile}: {error}.") from error

    def _base_commit(self, tag: str, train: bytes) -> str:
        """Return HEAD if it holds these bytes, else a commit on top of it that does; HEAD itself never moves."""
        if self.git.ref(f"refs/heads/autoresearch/{tag}") is not None:
            raise GitError(f"The branch autoresearch/{tag} exists already. Call start_session with another tag.")
        head = self.git.head_commit()
        if head is not None and self.git.read_file(head, TRAIN_FILE) == train:
            return head
        message = f"autoresearch: train.py at the start of session {tag}\n"
        return self.git.commit_with_file(head, TRAIN_FILE, train, message, int(time.time()))


def group_of(conditions: Mapping[str, object]) -> str:
    """Return the short name of `Lab.conditions`."""
    return hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:12]


def rules_event(
    config: LabConfig, program: bytes, *, session: Session | None = None, session_config: LabConfig | None = None
) -> dict[str, object]:
    """Return the body of a ``rules_accepted`` event; ``session`` goes on under ``session_config``."""
    return {
        "config": config.canonical_json(),
        "program_sha256": sha256_hex(program),
        "session": None if session is None else session.tag,
        "session_config": None if session_config is None else session_config.canonical_json(),
    }


def _lab_of(root: Path) -> tuple[Path, str]:
    """Return the folder of the lab, and the researcher's worktree below it that ``root`` is (empty: it is the lab itself)."""
    lab = root.parent.parent.parent
    if root.parent == lab / researchers.WORKTREES and (lab / CONFIG_NAME).is_file():
        return lab, root.relative_to(lab).as_posix()
    return root, ""


def find_lab_root(folder: Path) -> Path:
    """Return the nearest folder upwards that holds autoresearch.toml; raises `NotReadyError` naming `init` otherwise."""
    start = folder.resolve()
    for candidate in (start, *start.parents):
        if (candidate / CONFIG_NAME).is_file():
            return candidate
    raise NotReadyError(f"No lab at or above {start} (no {CONFIG_NAME}). Run: {machine.command_path()} init {start}")


def neighbour_hint(lab_id: str) -> str:
    """A hint for who stands in the wrong folder: the other labs of this machine that exist."""
    others = [str(root) for other, root in known_labs() if other != lab_id and (root / CONFIG_NAME).exists()]
    return f" Other labs on this machine: {', '.join(others[:5])}." if others else ""
