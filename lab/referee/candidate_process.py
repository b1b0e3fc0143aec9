"""The candidate's own process: what lies around train.py when it starts, and with which settings it is started.

Guarantees: beside train.py there is the pinned prepare/ and nothing else of ours; what the process is told comes through its
environment. Does not: watch it, or end it (the runner does).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from ...prepare.settings import CandidateSettings
from ...prepare.tokenizer import TOKENIZER_VARIABLE
from ..devices import kind_of
from ..executor import RunSpec
from ..paths import RunPaths
from . import sandbox
from .tracing import MARK_VARIABLE
from .workers import NAMES


def prepare_folder(spec: RunSpec, paths: RunPaths) -> None:
    """Make the scratch folders of a run, and put the pinned prepare/ beside its train.py."""
    for folder in ("tmp", *NAMES):
        (paths.scratch / folder).mkdir(parents=True, exist_ok=True)
    shutil.copytree(Path(spec.harness) / "prepare", paths.code / "prepare", dirs_exist_ok=True)


def start_candidate(
    spec: RunSpec,
    paths: RunPaths,
    *,
    limits: sandbox.Limits,
    tokenizer: Path,
    mark: str,
    channel_fd: int,
    output_fd: int,
) -> subprocess.Popen[bytes]:
    """Start train.py.

    Args:
        tokenizer: the ranks file that `Tokenizer.load` reads.
        mark: in its environment and in that of all it starts, by which they are found where no subreaper keeps them.
        channel_fd: its end of the channel to the runner.
        output_fd: where it prints to.
    """
    settings = CandidateSettings(
        profile=spec.profile,
        device=kind_of(spec.device),
        context_length=spec.context_length,
        budget_seconds=spec.budget_seconds,
        seed=spec.seed,
        channel_fd=channel_fd,
        scratch=str(paths.scratch),
    )
    extra = {
        **settings.to_environment(),
        TOKENIZER_VARIABLE: str(tokenizer),
        MARK_VARIABLE: mark,
        **sandbox.python_environment(spec.python),
        **sandbox.device_environment(spec.device),
    }
    return sandbox.start(
        [spec.python or sys.executable, "-s", "-B", "train.py"],
        cwd=paths.code,
        env=sandbox.environment(scratch=paths.scratch, cores=spec.cores, extra=extra),
        limits=limits,
        pass_fds=(channel_fd,),
        output=output_fd,
    )
