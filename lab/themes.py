"""What an idea is about, read from what it changes: the constants, the lines, and one theme out of a fixed few.

Pure and deterministic, so a record gives the same answer twice. The constants decide; where none tells, the words of the
description do, then the changed lines. Does not: understand an idea; what fits nothing is `other`.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .candidate import CandidateFacts, changed_constants, unified_diff

OTHER = "other"
BASELINE = "baseline"  # what changes nothing

# The first that matches a constant counts for it; the theme with most matches is the idea's, of equals the first.
_THEMES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (theme, re.compile(pattern, re.IGNORECASE))
    for theme, pattern in (
        ("schedule", r"warm_?(up|down)|schedul|cosine|trapezoid|final_lr|decay_fraction|anneal"),
        ("initialisation", r"(?<![a-z])init|_std\b"),
        ("learning rate", r"(?<![a-z])lrs?(?![a-z])|learning.rates?|\brates?\b"),
        ("regularisation", r"weight_?\s?decay|dropout|regulari[sz]|label.smoothing|\bema\b|averag(e|ed|ing) weights"),
        ("optimizer", r"adam|muon|polar|momentum|beta\d?|\beps\b|_eps\b|orthogonal|newton|optimi[sz]er|lion|sgd|clip"),
        ("attention", r"attention|\bheads?\b|head_dim|rope|rotary|qk|sdpa|window|value_(embed|gate)|softmax"),
        ("batch", r"batch|accumulat|context|seq_len|sequence.length"),
        ("loss", r"loss|softcap|cross.entropy|logits?|z.loss|multi.token"),
        ("data", r"vocab|token(s|izer)\b|loader|curriculum|shuffl"),
        ("speed", r"compile|queued|dtype|bf16|bfloat16|float32|fused|kernel|chunk|throughput|faster"),
        ("architecture", r"depth|width|layer|mlp|norm|residual|lambda|skip|embedding|relu|gelu|swiglu|gate|block|shift|smear"),
    )
)
THEMES = (*(theme for theme, _ in _THEMES), OTHER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a candidate changes in its parent.

    Attributes:
        constants: name -> (old, new) as source text; None: absent.
        added, removed: lines, comments and blank ones too.
    """

    theme: str
    constants: Mapping[str, tuple[str | None, str | None]]
    added: int
    removed: int


def change_of(parent: CandidateFacts, child: CandidateFacts, before: bytes, after: bytes, description: str) -> Change:
    """Return what ``child`` (whose bytes are ``after``) changes in ``parent``."""
    lines = unified_diff(before, after).splitlines()[2:]
    added = [line[1:] for line in lines if line.startswith("+")]
    removed = [line[1:] for line in lines if line.startswith("-")]
    constants = changed_constants(parent, child)
    return Change(
        theme=theme_of(constants, description, [*added, *removed]),
        constants=constants,
        added=len(added),
        removed=len(removed),
    )


def changed_lines(before: bytes, after: bytes) -> tuple[list[str], list[str]]:
    """Return the lines that ``after`` has more often than ``before``, and those that it has less often, in their order.

    Quicker than a diff, and blind for lines that only moved.
    """
    old, new = _lines_of(before), _lines_of(after)
    return _surplus(new, old), _surplus(old, new)


def theme_of(constants: Iterable[str], description: str, lines: Iterable[str]) -> str:
    """Return the theme of an idea; what says it most plainly is asked first."""
    names = Counter(theme for name in constants if (theme := _theme(name)) is not None)
    for found in (names, _mentions(description), _mentions("\n".join(lines))):
        if found:
            return found.most_common(1)[0][0]
    return OTHER


def _theme(name: str) -> str | None:
    return next((theme for theme, pattern in _THEMES if pattern.search(name)), None)


def _mentions(text: str) -> Counter[str]:
    """Return how often a text speaks of each theme; of equals the first one of the list stands first."""
    counts = {theme: sum(1 for _ in pattern.finditer(text)) for theme, pattern in _THEMES}
    return Counter({theme: count for theme, count in counts.items() if count})


@functools.lru_cache(maxsize=16)  # a champion is the parent of many
def _lines_of(source: bytes) -> tuple[list[str], Counter[str]]:
    lines = source.decode(errors="replace").splitlines()
    return lines, Counter(lines)


def _surplus(one: tuple[list[str], Counter[str]], other: tuple[list[str], Counter[str]]) -> list[str]:
    """Return the lines that ``one`` has more often than ``other``, as often as it has them more."""
    (lines, counts), (_, others) = one, other
    more = {line: count - others[line] for line, count in counts.items() - others.items()}
    surplus = []
    for line in filter(more.__contains__, lines):
        if more[line] > 0:
            more[line] -= 1
            surplus.append(line)
    return surplus
