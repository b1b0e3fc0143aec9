"""The candidate's own process: the interpreter and the files that it finds, and the settings that it is started with.

Guarantees: it is started on the rung that the run was promised, or not at all; what it is told comes through its environment.
Does not: watch it, or end it (the runner does).
"""

from __future__ import annotations

from pathlib import Path

from ...prepare.settings import CandidateSettings
from ...prepare.tokenizer import TOKENIZER_VARIABLE
from ..devices import kind_of
from ..executor import RunSpec
from ..paths import RunPaths
from . import sandbox
from .sandbox.bubblewrap import TEMPORARY
from .tracing import MARK_VARIABLE
from .workers import NAMES


def prepare_folder(spec: RunSpec, paths: RunPaths) -> sandbox.Interpreter:
    """Make the folders of a run and the interpreter that it sees, with the pinned prepare/ among its packages."""
    for folder in (paths.scratch, *(paths.scoring / name for name in NAMES)):
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
    interpreter = sandbox.make_interpreter(spec.python, paths.python)
    (sandbox.package_folder(interpreter) / "prepare").symlink_to(Path(spec.harness) / "prepare")
    return interpreter


def start_candidate(
    spec: RunSpec,
    paths: RunPaths,
    interpreter: sandbox.Interpreter,
    *,
    tokenizer: Path,
    mark: str,
    channel_fd: int,
    output_fd: int,
) -> sandbox.Sandboxed:
    """Start train.py.

    Args:
        tokenizer: the ranks file that `Tokenizer.load` reads.
        mark: in its environment and in that of all it starts, by which they are found where no subreaper keeps them.
        channel_fd: its end of the channel to the runner.
        output_fd: where it prints to.
    """
    rung = sandbox.rung_of(spec)
    settings = CandidateSettings(
        profile=spec.profile,
        device=kind_of(spec.device),
        context_length=spec.context_length,
        budget_seconds=spec.budget_seconds,
        seed=spec.seed,
        channel_fd=channel_fd,
        memory_bytes=spec.memory_mb << 20,
        scratch=str(paths.scratch),
    )
    extra = {
        **settings.to_environment(),
        TOKENIZER_VARIABLE: str(tokenizer),
        MARK_VARIABLE: mark,
        **sandbox.device_environment(spec.device),
        **({"TMPDIR": TEMPORARY} if rung.level is sandbox.IsolationLevel.BUBBLEWRAP else {}),
    }
    confinement = sandbox.Confinement(
        argv=(str(interpreter.program), "-I", "-B", "train.py"),
        environment=sandbox.environment(scratch=paths.scratch, cores=spec.cores, extra=extra),
        view=sandbox.view_for(interpreter.view, spec.device, paths.code, tokenizer),
        writable=(paths.scratch,),
        folder=paths.code,
        limits=sandbox.limits_of(spec),
        descriptors=(channel_fd,),
        device=spec.device,
    )
    return sandbox.start(rung, confinement, python=interpreter.program, output=output_fd)
