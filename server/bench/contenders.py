"""Who runs: our train.py, the port of upstream's recipe, and the port with the sizes of our model.

The texts are files of this package, as they lie there; of the port, "same model" edits constants the way the built-in
researchers do.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from ...lab.errors import NotReadyError
from ..autopilot.edits import Number, read_constants, replace_constants

OURS, PORT, SAME_MODEL = "ours", "port", "same model"
NAMES = (OURS, PORT, SAME_MODEL)
MEANINGS = {
    OURS: "trainer/train.py of this package",
    PORT: "a port of karpathy/autoresearch's recipe",
    SAME_MODEL: "the port's way of training with our model, vocabulary, context and batch",
}

_PACKAGE = Path(__file__).resolve().parents[2]
_SIZES = (
    "DEPTH",
    "WIDTH",
    "HEAD_DIM",
    "MLP_RATIO",
    "VOCAB_SIZE",
    "VALUE_EMBED_EVERY",
    "VALUE_GATE_CHANNELS",
    "TOTAL_BATCH_TOKENS",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One text to run; ``sizes`` are the constants that describe it, as they count on the profile."""

    name: str
    source: bytes
    sizes: dict[str, Number] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.source).hexdigest()


def contender(name: str, profile: str) -> Contender:
    """Return one of `NAMES` for a profile; raises `NotReadyError` where "same model" cannot read the sizes of train.py."""
    ours = (_PACKAGE / "trainer" / "train.py").read_text(encoding="utf-8")
    port = (_PACKAGE / "server" / "bench" / "upstream_recipe.py").read_text(encoding="utf-8")
    if name == SAME_MODEL:
        port = with_sizes_of(ours, port, profile)
    source = ours if name == OURS else port
    constants = read_constants(source, profile)
    sizes = {size: constants[size].value for size in _SIZES if size in constants}
    return Contender(name=name, source=source.encode(), sizes=sizes)


def with_sizes_of(train: str, port: str, profile: str) -> str:
    """Return ``port`` with the sizes of ``train``; raises `NotReadyError` where one is no constant number there."""
    wanted, constants = read_constants(train, profile), read_constants(port, profile)
    if missing := [name for name in _SIZES if name not in wanted]:
        raise NotReadyError(
            f"The contender {SAME_MODEL!r} takes its sizes from constants of trainer/train.py, and {', '.join(missing)} is no "
            f"single number there. Leave it out: --only {OURS} --only {PORT}"
        )
    return replace_constants(port, {constants[name]: wanted[name].value for name in _SIZES})
