"""Putting a candidate together: train.py is one file, so what attacks share is written into it.

`from attack import ...`, `from wire import ...` and `from honest import ...` stand for the files of inlined/; the victims of a
test are written in as one dictionary. Guarantees: the text is what the candidate check accepts. Does not: run anything.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
_VICTIM = "VICTIM: dict = {}"
_CONTRACT = """

if __name__ == "never":  # what the check of a candidate asks for; this one has ended, or has no use for it
    from prepare import evaluate_bpb, make_dataloader

    make_dataloader(None, 1, 1, "train")
    evaluate_bpb(None, None, 1)
"""


def names() -> list[str]:
    """Return the names of all attacks."""
    return sorted(path.stem for path in (FOLDER / "candidates").glob("*.py"))


def sentence(name: str) -> str:
    """Return what an attack tries, in its own words."""
    docstring = ast.get_docstring(ast.parse(_source("candidates", name)))
    assert docstring, f"{name}.py says nothing about itself"
    return docstring.splitlines()[0]


def candidate(name: str, victim: Mapping[str, object]) -> str:
    """Return the whole train.py of an attack."""
    return candidate_of(_source("candidates", name), victim)


def candidate_of(source: str, victim: Mapping[str, object]) -> str:
    """Return the whole train.py of a text that is written as those of candidates/ are."""
    text = _inline(source, done=set())
    text = text.replace(_VICTIM, f"VICTIM: dict = {dict(victim)!r}")
    return text if "evaluate_bpb(" in text and "make_dataloader(" in text else text + _CONTRACT


def _inline(source: str, done: set[str]) -> str:
    """Replace imports of inlined/ by what they import, once each."""
    lines = source.splitlines()
    for node in reversed(ast.parse(source).body):
        module = node.module if isinstance(node, ast.ImportFrom) else None
        if module is None or not (FOLDER / "inlined" / f"{module}.py").exists():
            continue
        text = "" if module in done else _inline(_source("inlined", module), done | {module})
        done.add(module)
        lines[node.lineno - 1 : node.end_lineno] = text.splitlines()
    return "\n".join(lines) + "\n"


def _source(folder: str, name: str) -> str:
    return (FOLDER / folder / f"{name}.py").read_text()
