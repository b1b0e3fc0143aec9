"""What this machine can do for a lab: one check per line, each with the one command that would improve it.

A check looks and measures; it changes nothing. The server is really started, as a client would start it (`doctor_handshake`).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path

from ..lab.config import LabConfig
from ..lab.errors import LabError, NotReadyError
from ..lab.isolation import Isolation, probe
from ..prepare.errors import PrepareError
from . import doctor_machine as machine
from .check import Check, Level
from .doctor_compiler import check_compiler, compile_inside
from .doctor_handshake import check_servers
from .doctor_isolation import check_isolation
from .host import Host, foreign_file_system, this_host

_HUB_PACKAGES = ("huggingface_hub", "pyarrow")  # of the corpora that come from the Hugging Face hub


@dataclass(frozen=True, slots=True, kw_only=True)
class _FoundLab:
    config: LabConfig  # the defaults where there is no lab
    check: Check


def examine(folder: Path) -> Iterator[Check]:
    """Yield every check of this machine and of the lab around ``folder``, the quick ones first."""
    from ..lab.devices import GpuDriverError, NvmlDriver
    from ..lab.paths import STATE_VARIABLE, state_root
    from ..prepare.corpus import CACHE_VARIABLE, cache_root

    host, lab = this_host(), _lab(folder)
    try:
        gpus, problem = tuple(NvmlDriver().gpus()), "the driver names none"
    except GpuDriverError as error:
        gpus, problem = (), str(error)
    yield machine.check_platform(host)
    yield machine.check_python()
    yield from _trainer(lab.config, gpus)
    yield machine.check_processor()
    yield machine.check_gpu(gpus, problem, profile=lab.config.profile)
    isolation = probe()
    yield _compiler(isolation, lab.config, host)
    yield machine.check_git(host)
    yield machine.check_pip()
    yield machine.check_awake(host)
    yield lab.check
    yield _corpus(lab.config.corpus_name)
    yield _corpora()
    yield machine.check_disk({STATE_VARIABLE: state_root(), CACHE_VARIABLE: cache_root()})
    yield check_isolation(isolation, host)
    yield from check_servers(folder)


def _trainer(config: LabConfig, gpus: tuple) -> Iterator[Check]:
    """The Python that trains, where it is another than this one, and its torch."""
    from ..lab.environment import trainer_python

    wanted = next((line for line in requires("autoresearch-mcp") or [] if line.startswith("torch")), "torch")
    configured = config.trainer.python
    try:
        python = trainer_python(configured)
    except NotReadyError as error:
        found, _, advice = str(error).partition(" Run: ")
        name = "torch" if configured is None else "trainer python"
        yield Check(name=name, level=Level.FAIL, found=found, advice=advice or "correct [trainer] python in autoresearch.toml")
        return
    if configured is not None:
        yield Check(name="trainer python", level=Level.OK, found=f"{python.python} at {python.path}")
    yield machine.check_torch(python, wanted, this_host(), gpus)


def _compiler(isolation: Isolation, config: LabConfig, host: Host) -> Check:
    """Compile something where the candidates of this lab would, with the headers of the Python that trains."""
    from ..lab.environment import trainer_path
    from ..lab.paths import state_root

    configured = config.trainer.python
    compiled = compile_inside(isolation, None if configured is None else trainer_path(configured))
    return check_compiler(compiled, host, (state_root(), Path(sys.prefix)))


def _lab(folder: Path) -> _FoundLab:
    """Find the lab and its config; what is wrong with it is its check."""
    from ..lab.config import CONFIG_NAME, load_config
    from ..lab.lab import find_lab_root

    try:
        root = find_lab_root(folder)
        config = load_config(root / CONFIG_NAME)
    except NotReadyError:
        check = Check(
            name="lab", level=Level.WARN, found=f"none at or above {folder}", advice="autoresearch init, or pass --lab DIR"
        )
        return _FoundLab(config=LabConfig(), check=check)
    except LabError as error:
        check = Check(name="lab", level=Level.FAIL, found=str(error), advice="repair the file")
        return _FoundLab(config=LabConfig(), check=check)
    found = f"{root}, profile {config.profile}, {config.budget.seconds:g} s per experiment ({config.clock_kind} clock)"
    if (kind := foreign_file_system(root)) is not None:
        advice = "git clone the lab into a folder on a local disk (in WSL: below your Linux home)"
        check = Check(name="lab", level=Level.WARN, found=f"{found}; on {kind}, where git and locks are slow", advice=advice)
        return _FoundLab(config=config, check=check)
    return _FoundLab(config=config, check=Check(name="lab", level=Level.OK, found=found))


def _corpus(name: str) -> Check:
    from ..prepare.corpus import open_corpus

    try:
        corpus = open_corpus(name)
    except PrepareError as error:
        return Check(name="corpus", level=Level.FAIL, found=str(error), advice=f"autoresearch prepare --corpus {name}")
    return Check(name="corpus", level=Level.OK, found=f"{name} ({corpus.corpus_id}) in {corpus.path}")


def _corpora() -> Check:
    """Name every corpus that is prepared here, and whether those of the hub could be."""
    from ..prepare.corpus import cache_root

    folders = sorted(path.parent for path in cache_root().glob("[a-z0-9]*/manifest.json"))
    prepared = ", ".join(folder.name for folder in folders) or "none"
    missing = [name for name in _HUB_PACKAGES if importlib.util.find_spec(name) is None]
    if not missing:
        return Check(name="corpora", level=Level.OK, found=f"prepared: {prepared}; those of the Hugging Face hub can be")
    advice = f"{sys.executable} -m pip install huggingface_hub pyarrow"
    found = f"prepared: {prepared}; those of the Hugging Face hub need {' and '.join(missing)}"
    return Check(name="corpora", level=Level.OK, found=found, advice=advice)
