"""The labelled points: those at which a server is killed, here, and those of a runner (`runner_points`).

A point whose function was renamed no longer fires, which fails its test and `test_points.py`.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from .point import Point
from .runner_points import QUICK, REAL


def _appended(label: str, kind: str, says: str, scenario: str, *, often: bool = True) -> Point:
    where = {"kind": kind}
    return Point(
        label=label,
        says=says,
        event="return",
        function="Ledger.append",
        module="lab/ledger.py",
        where=where,
        scenario=scenario,
        often=often,
    )


def _ref_moves(label: str, name: str, what: str, scenario: str, *, often: bool = True, nth: int = 1) -> list[Point]:
    """Before, during and after `git update-ref` of a ref; ``nth``: the how many-th ref that moves there."""
    common = {"where": {"name": name}, "module": "lab/git.py", "scenario": scenario, "often": often}
    update = "GitRepository.update_ref"
    return [
        Point(label=f"{label}-before", says=f"before git is asked to {what}", event="call", function=update, **common),
        Point(
            label=f"{label}-during",
            says=f"while git is asked to {what}",
            event="return",
            function="Popen.__init__",
            module="subprocess.py",
            within=update,
            nth=nth,
            scenario=scenario,
            often=often,
        ),
        Point(label=f"{label}-after", says=f"after git was asked to {what}", event="return", function=update, **common),
    ]


_BRANCH, _CANDIDATE, _BACKUP = "refs/heads/autoresearch/.*", "refs/autoresearch/.*/e.*", "refs/autoresearch/backup/.*"

_CREATE = [
    Point(
        label="create.identity-unnamed",
        says="the lab's identity written, not yet under its name",
        event="c_return",
        function="fsync",
        within="establish_identity",
        scenario="create",
    ),
    Point(
        label="create.identity",
        says="the identity in place, no state folder yet",
        event="return",
        function="write_json",
        module="lab/jsonfiles.py",
        within="establish_identity",
        scenario="create",
        often=False,
    ),
    Point(
        label="create.secret-unnamed",
        says="the validation secret drawn, not yet under its name",
        event="c_call",
        function="link",
        within="_state_folder",
        scenario="create",
        often=False,
    ),
    Point(
        label="create.secret",
        says="the validation secret in place, its temporary name still there",
        event="c_return",
        function="link",
        within="_state_folder",
        scenario="create",
        often=False,
    ),
    Point(
        label="create.ledger",
        says="the ledger made, nothing in it",
        event="return",
        function="Ledger._create_or_check_schema",
        module="lab/ledger.py",
        scenario="create",
    ),
    _appended("create.recorded", "lab_created", "`lab_created` appended, not committed", "create", often=False),
    Point(
        label="create.harness-unnamed",
        says="the harness copied, not yet under its name",
        event="c_call",
        function="rename",
        within="pin_harness",
        scenario="create",
    ),
    Point(
        label="create.harness",
        says="the harness in place, not recorded",
        event="return",
        function="pin_harness",
        module="lab/referee/harness.py",
        scenario="create",
    ),
    Point(
        label="create.opened",
        says="the lab opened",
        event="return",
        function="Lab.open",
        module="lab/lab.py",
        scenario="create",
    ),
    _appended("create.rules", "rules_accepted", "`rules_accepted` appended, not committed", "session", often=False),
    Point(
        label="create.base",
        says="the session's first commit stored, nothing recorded",
        event="return",
        function="Lab._base_commit",
        module="lab/lab.py",
        scenario="session",
    ),
    _appended("create.session", "session_started", "`session_started` appended, not committed", "session"),
    *_ref_moves("create.branch", _BRANCH, "make the session's branch", "session"),
    Point(
        label="create.worktree-named",
        says="a researcher's folder known to git, no file in it",
        event="return",
        function="_connect",
        module="lab/git_worktree.py",
        scenario="join",
    ),
    Point(
        label="create.worktree-filled",
        says="the files of a researcher's folder there, no index",
        event="call",
        function="write_atomically",
        module="lab/files.py",
        within="_fill",
        scenario="join",
    ),
    Point(
        label="create.worktree",
        says="a researcher's folder made, nothing recorded",
        event="return",
        function="_make_folder",
        module="lab/researchers.py",
        scenario="join",
        often=False,
    ),
    _appended("create.joined", "researcher_joined", "`researcher_joined` appended, not committed", "join"),
]

_SUBMIT = [
    Point(
        label="submit.blob",
        says="the candidate's bytes in git, nothing recorded",
        event="return",
        function="GitRepository.store_blob",
        module="lab/git.py",
        within="GitRepository.commit_with_file",
        scenario="submit",
        often=False,
    ),
    Point(
        label="submit.commit",
        says="the candidate's commit in git, nothing recorded",
        event="return",
        function="GitRepository.commit_with_file",
        module="lab/git.py",
        scenario="submit",
    ),
    _appended("submit.recorded", "experiment_recorded", "`experiment_recorded` appended, not committed", "submit"),
    _appended("submit.queued", "run_queued", "`run_queued` appended, not committed", "submit"),
    *_ref_moves("submit.ref", _CANDIDATE, "make the candidate's ref", "submit"),
    Point(
        label="submit.dispatching",
        says="the dispatch lock taken",
        event="call",
        function="_dispatch_locked",
        module="lab/dispatch.py",
        scenario="submit",
        often=False,
    ),
    Point(
        label="submit.spec-made",
        says="the run's spec made, nothing on disk",
        event="return",
        function="_spec",
        module="lab/dispatch.py",
        scenario="submit",
        often=False,
    ),
    Point(
        label="submit.folder",
        says="the run's folder made, empty",
        event="c_return",
        function="mkdir",
        within="LocalExecutor.submit",
        scenario="submit",
    ),
    Point(
        label="submit.locked",
        says="the runner's lock taken for it",
        event="return",
        function="try_lock",
        module="lab/locks.py",
        within="LocalExecutor.submit",
        scenario="submit",
        often=False,
    ),
    Point(
        label="submit.candidate",
        says="train.py in the run's folder, no spec",
        event="return",
        function="Path.write_bytes",
        module="pathlib.py",
        within="write_spec",
        scenario="submit",
    ),
    Point(
        label="submit.spec-unnamed",
        says="the spec written, not yet under its name",
        event="c_return",
        function="fsync",
        within="write_spec",
        scenario="submit",
        often=False,
    ),
    Point(
        label="submit.spec",
        says="the spec in place, no runner started",
        event="return",
        function="write_spec",
        module="lab/referee/specfile.py",
        scenario="submit",
    ),
    Point(
        label="submit.starting",
        says="the runner's process begun, which has not detached itself",
        event="return",
        function="Popen.__init__",
        module="subprocess.py",
        within="LocalExecutor._launch",
        scenario="submit",
    ),
    Point(
        label="submit.launched",
        says="the runner on its own, the lock still shared with it",
        event="return",
        function="LocalExecutor._launch",
        module="lab/local_executor.py",
        scenario="submit",
    ),
    Point(
        label="submit.submitted",
        says="the run submitted, which is not recorded",
        event="return",
        function="LocalExecutor.submit",
        module="lab/local_executor.py",
        scenario="submit",
        often=False,
    ),
    _appended("submit.started", "run_started", "`run_started` recorded", "submit"),
]

_TRAIN = [
    Point(
        label="train.watched",
        says="while a client waits and the run goes on",
        event="c_call",
        function="sleep",
        within="wait",
        nth=2,
        scenario="wait",
    ),
    Point(
        label="train.cancel-asked",
        says="the runner asked to end, the client not told",
        event="return",
        function="LocalExecutor.cancel",
        module="lab/local_executor.py",
        scenario="cancel",
    ),
]

_INGEST = [
    Point(
        label="ingest.read",
        says="the result read, nothing recorded",
        event="call",
        function="finish",
        module="lab/dispatch.py",
        scenario="wait",
    ),
    _appended("ingest.finished", "run_finished", "`run_finished` appended, not committed", "wait"),
    _appended("ingest.judged", "experiment_judged", "`experiment_judged` appended, not committed", "wait"),
    Point(
        label="ingest.committed",
        says="result and verdict recorded, the client not told",
        event="call",
        function="Lab.align_branch",
        module="lab/lab.py",
        within="finish",
        scenario="wait",
    ),
    Point(
        label="ingest.orphans-ended",
        says="the runner found dead, its processes ended",
        event="return",
        function="_end_orphans",
        module="lab/local_executor.py",
        scenario="wait-for-the-dead",
        often=False,
    ),
    _appended("ingest.retried", "run_retried", "`run_retried` recorded", "wait-for-the-dead"),
    _appended(
        "ingest.baseline-kept", "experiment_kept", "the baseline's `experiment_kept` appended, not committed", "baseline"
    ),
    *_ref_moves("ingest.baseline-branch", _BRANCH, "move the branch to the baseline", "baseline", nth=2),
]

_KEEP = [
    Point(
        label="keep.checked",
        says="the branch looked at, nothing recorded",
        event="return",
        function="Lab.align_branch",
        module="lab/lab.py",
        within="_keep",
        scenario="keep",
        often=False,
    ),
    _appended("keep.kept", "experiment_kept", "`experiment_kept` appended, not committed", "keep"),
    *_ref_moves("keep.branch", _BRANCH, "move the branch to the champion", "keep"),
    Point(
        label="keep.done",
        says="the champion kept, the client not told",
        event="return",
        function="keep",
        module="lab/experiments.py",
        scenario="keep",
        often=False,
    ),
]

_STALE = [
    _appended("keep.merged", "experiment_recorded", "a stale win merged and appended, not committed", "stale"),
    _appended("keep.replaced", "experiment_reverted", "the stale win reverted for it, not committed", "stale", often=False),
    *_ref_moves("keep.merged-ref", _CANDIDATE, "make the merged candidate's ref", "stale", often=False),
    _appended("keep.merged-started", "run_started", "the merged candidate's `run_started` recorded", "stale", often=False),
]

_REVERT = [
    _appended("revert.reverted", "experiment_reverted", "`experiment_reverted` appended, not committed", "revert"),
    Point(
        label="revert.decided",
        says="the decision recorded, train.py not restored",
        event="call",
        function="restore_train_file",
        scenario="revert",
    ),
    Point(
        label="revert.saved",
        says="the unknown content of train.py in git, without a ref",
        event="return",
        function="GitRepository.store_blob",
        module="lab/git.py",
        within="restore_train_file",
        scenario="revert",
    ),
    *_ref_moves("revert.backup", _BACKUP, "make the backup's ref", "revert", often=False),
    Point(
        label="revert.unnamed",
        says="the champion's train.py written beside the old one",
        event="c_return",
        function="fsync",
        within="restore_train_file",
        scenario="revert",
    ),
    Point(
        label="revert.replaced",
        says="train.py replaced, its folder not flushed",
        event="c_return",
        function="replace",
        within="write_atomically",
        scenario="revert",
    ),
    Point(
        label="revert.written",
        says="train.py restored, which is not recorded",
        event="return",
        function="write_atomically",
        module="lab/files.py",
        within="restore_train_file",
        scenario="revert",
        often=False,
    ),
    _appended("revert.restored", "train_file_restored", "`train_file_restored` recorded", "revert"),
]

_CONFIRM = [
    _appended(
        "confirm.reopened", "experiment_reopened", "`experiment_reopened` appended, not committed", "confirm", often=False
    ),
    _appended("confirm.queued", "run_queued", "the first of two fresh runs queued, not committed", "confirm"),
    Point(
        label="confirm.committed",
        says="reopened and both runs queued, none started",
        event="call",
        function="dispatch",
        module="lab/dispatch.py",
        scenario="confirm",
    ),
]

_TEST = [
    _appended("test.opened", "test_opened", "`test_opened` appended, not committed", "open-test", often=False),
    Point(
        label="test.open",
        says="the test split open on the record, no run queued",
        event="return",
        function="open_test",
        module="lab/test_split.py",
        scenario="open-test",
    ),
    _appended("test.queued", "run_queued", "the first run of the comparison queued, not committed", "open-test", often=False),
    _appended("test.started", "run_started", "the first run of the comparison started", "open-test", often=False),
    _appended("test.compared", "test_compared", "`test_compared` appended, not committed", "open-test"),
]

POINTS = (*_CREATE, *_SUBMIT, *_TRAIN, *_INGEST, *_CONFIRM, *_KEEP, *_STALE, *_REVERT, *_TEST, *QUICK, *REAL)


def table() -> str:
    """The points as the hook reads them."""
    return json.dumps([asdict(point) for point in POINTS])
