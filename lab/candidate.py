"""What can be said about a candidate's bytes before any device time is spent.

Guarantees: nothing of the candidate is executed or imported; every refusal names the line or the value and the next
step; the answer takes well under a second whatever the bytes are.

Does not: prove that a candidate is honest. Imports can be made at run time and data can hide in names or comments;
the sandbox and the referee answer for that. These checks catch mistakes early and keep ordinary cheats out.
"""

from __future__ import annotations

import ast
import codecs
import difflib
import functools
import io
import re
import sys
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import CandidateError
from .files import sha256_hex
from .seeds import seed_warnings

MAX_SOURCE_BYTES = 65_536
MAX_NEW_LITERAL_BYTES = 4_096

_ALLOWED_PACKAGES = frozenset({"numpy", "torch", "prepare"})
_UPSTREAM_PACKAGES = frozenset({"kernels", "flash_attn", "flash_attn_interface"})  # what a file for upstream attends with
_REQUIRED_CALLS = {
    "make_dataloader": "it opens the training data and starts the clock",
    "evaluate_bpb": "it hands the model over to be scored",
}
# Control characters, and what turns the direction of the text around it or ends a line for some readers: a regular expression.
# Python takes a lone carriage return for the end of a line, so after one a comment is code.
HIDDEN = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]"
_HIDDEN = re.compile(rf"(?!\r\n){HIDDEN}")

_UPPERCASE = re.compile(r"[A-Z][A-Z0-9_]*")
_AGAIN = "then call run_experiment again"

# Comparing lines is cubic in the worst case; beyond this many steps the rest of a diff is shown as one replaced block.
_DIFF_STEPS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateFacts:
    """What a candidate is, as text.

    ``lines`` counts lines of code: no blank lines, no comments, no docstrings. ``constants`` maps the names that the
    module assigns in capitals at its top level to the source text of their values.
    """

    sha256: str
    lines: int
    constants: dict[str, str]
    warnings: tuple[str, ...]


def check_candidate(source: bytes, parent: bytes | None) -> CandidateFacts:
    """Return the facts about ``source``, or refuse it.

    Args:
        source: the bytes of train.py.
        parent: the bytes it was made from; None (a baseline) leaves out the checks for new literal data and for what no
            reader would see.

    Raises:
        CandidateError: more than 64 KB; not UTF-8 or with NUL bytes; does not parse; imports something outside the
            standard library, numpy, torch and prepare; lacks the contract with prepare; has a character that hides what
            a diff shows; or brings more than 4 KB of new literal data.
    """
    analysis = _analyse(source)
    if parent is not None:
        _check_visible(source)
        _check_new_literals(analysis, parent)
    return CandidateFacts(
        sha256=sha256_hex(source),
        lines=analysis.lines,
        constants=dict(analysis.constants),
        warnings=analysis.warnings,
    )


def changed_constants(parent: CandidateFacts, child: CandidateFacts) -> dict[str, tuple[str | None, str | None]]:
    """Return the constants that differ as name -> (old, new), sorted; None stands for a constant that is absent."""
    names = sorted(parent.constants.keys() | child.constants.keys())
    pairs = {name: (parent.constants.get(name), child.constants.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def unified_diff(parent: bytes, child: bytes, name: str = "trainer/train.py") -> str:
    """Return the unified diff from ``parent`` to ``child`` (empty when equal) with three lines of context.

    Of what `check_candidate` accepts it is a patch. Bytes that are not UTF-8 show as replacement characters, and what would
    hide text as an escape such as ``\\r``.
    Where two texts are too different to be aligned quickly, the diff is still right, but coarse.
    """
    old, new = (_text_lines(data) for data in (parent, child))
    shown: list[str] = []
    for group in _BoundedMatcher(old, new).get_grouped_opcodes(3):
        first, last = group[0], group[-1]
        shown.append(f"@@ -{_span(first[1], last[2])} +{_span(first[3], last[4])} @@\n")
        for kind, old_start, old_end, new_start, new_end in group:
            if kind == "equal":
                shown += [" " + line for line in old[old_start:old_end]]
                continue
            shown += ["-" + line for line in old[old_start:old_end]]
            shown += ["+" + line for line in new[new_start:new_end]]
    if not shown:
        return ""
    text = "".join([f"--- a/{name}\n", f"+++ b/{name}\n", *shown])
    return _HIDDEN.sub(lambda found: ascii(found[0])[1:-1], text)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Analysis:
    lines: int
    constants: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    literals: Counter[tuple[type, object]]


# A champion is the parent of many candidates, and a candidate becomes a parent.
@functools.lru_cache(maxsize=16)
def _analyse(source: bytes) -> _Analysis:
    _check_text(source)
    tree = _parse(source)
    nodes = _collect(tree)
    aliases = _check_imports(nodes.imports)
    _check_contract(nodes.calls, aliases)
    lines = source.removeprefix(codecs.BOM_UTF8).splitlines()
    return _Analysis(
        lines=_count_code_lines(lines, nodes.texts),
        constants=tuple(_constants(lines, tree)),
        warnings=seed_warnings(tree),
        # The type is part of the key because 1, 1.0 and True are equal.
        literals=Counter((type(value), value) for value in nodes.literals),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nodes:
    """The parts of a syntax tree that the checks look at; all but the literals in source order."""

    imports: list[ast.Import | ast.ImportFrom]
    calls: list[ast.Call]
    texts: list[ast.Expr]
    literals: list[str | bytes | complex]


def _collect(tree: ast.Module) -> _Nodes:
    # One walk for all checks: walking costs as much as parsing.
    nodes = _Nodes(imports=[], calls=[], texts=[], literals=[])
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            if isinstance(node.value, (str, bytes, int, float, complex)):
                nodes.literals.append(node.value)
        elif isinstance(node, ast.Call):
            nodes.calls.append(node)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            nodes.imports.append(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            nodes.texts.append(node)
    for found in (nodes.imports, nodes.calls, nodes.texts):
        found.sort(key=lambda node: (node.lineno, node.col_offset))
    return nodes


def _check_text(source: bytes) -> None:
    if len(source) > MAX_SOURCE_BYTES:
        raise CandidateError(f"train.py has {len(source)} bytes; the limit is {MAX_SOURCE_BYTES}: shorten it, {_AGAIN}")
    if (position := source.find(b"\0")) >= 0:
        raise CandidateError(f"train.py has a NUL byte in line {_line_at(source, position)}: remove it, {_AGAIN}")
    try:
        source.decode("utf-8")
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
    except UnicodeDecodeError as error:
        line = _line_at(source, error.start)
        raise CandidateError(f"train.py is not UTF-8 in line {line}: save it as UTF-8, {_AGAIN}")
    except SyntaxError as error:
        raise CandidateError(f"train.py declares an unusable encoding ({error.msg}): save it as UTF-8, {_AGAIN}")
    # Another declared encoding would make Python run other text than the one shown here.
    if encoding not in ("utf-8", "utf-8-sig"):
        raise CandidateError(f"train.py declares the encoding {encoding}: remove that comment, save as UTF-8, {_AGAIN}")


def _check_visible(source: bytes) -> None:
    text = source.decode()
    if (found := _HIDDEN.search(text)) is not None:
        name, line = f"U+{ord(found[0]):04X}", 1 + text.count("\n", 0, found.start())
        raise CandidateError(
            f"train.py has the character {name} in line {line}, which hides from a reader what the file does: remove it, or "
            f"write it as an escape in a string, {_AGAIN}"
        )


def _parse(source: bytes) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source, filename="train.py")
            # The parser alone accepts what only the compiler refuses, such as `return` outside a function.
            compile(source, "train.py", "exec", dont_inherit=True)
    except SyntaxError as error:
        where = f"line {error.lineno}" if error.lineno else "it"
        raise CandidateError(f"train.py does not parse: {where}: {error.msg}; correct it, {_AGAIN}")
    except (RecursionError, MemoryError):
        raise CandidateError(f"train.py is nested too deeply to be parsed: simplify its expressions, {_AGAIN}")
    except ValueError as error:
        raise CandidateError(f"train.py does not parse: {error}; correct it, {_AGAIN}")
    return tree


def _check_imports(imports: list[ast.Import | ast.ImportFrom]) -> dict[str, str]:
    """Refuse foreign imports; return what names imported from prepare are called in the file."""
    aliases: dict[str, str] = {}
    from_prepare = False
    for node in imports:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            if node.level:
                raise CandidateError(
                    f"train.py line {node.lineno} has a relative import: train.py stands alone; "
                    f"import from prepare or write the code in the file, {_AGAIN}"
                )
            names = [node.module or ""]
            if names[0].partition(".")[0] == "prepare":
                aliases.update({alias.asname or alias.name: alias.name for alias in node.names})
        for name in names:
            package = name.partition(".")[0]
            if package not in _ALLOWED_PACKAGES and package not in sys.stdlib_module_names:
                upstream = ". For a file written for karpathy/autoresearch see docs/FROM-UPSTREAM.md"
                raise CandidateError(
                    f"train.py line {node.lineno} imports {name}; allowed are the standard library, numpy, torch and "
                    f"prepare: remove the import or write what it gives in the file, {_AGAIN}"
                    + (upstream if package in _UPSTREAM_PACKAGES else "")
                )
            from_prepare = from_prepare or package == "prepare"
    if not from_prepare:
        raise CandidateError(
            "train.py does not import from prepare, which gives it the data, the clock and the hand-off: "
            f"add `from prepare import make_dataloader, evaluate_bpb`, {_AGAIN}"
        )
    return aliases


def _check_contract(calls: list[ast.Call], aliases: dict[str, str]) -> None:
    names = {_called_name(call) for call in calls}
    called = {aliases.get(name, name) for name in names}
    for name, purpose in _REQUIRED_CALLS.items():
        if name not in called:
            raise CandidateError(f"train.py never calls {name}(...), and {purpose}: add the call, {_AGAIN}")


def _called_name(call: ast.Call) -> str:
    if isinstance(call.func, ast.Name):
        return call.func.id
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def _check_new_literals(analysis: _Analysis, parent: bytes) -> None:
    new = analysis.literals - _parent_literals(parent)
    size_bytes = sum(_literal_bytes(value) * count for (_, value), count in new.items())
    if size_bytes > MAX_NEW_LITERAL_BYTES:
        raise CandidateError(
            f"train.py has {size_bytes} bytes of literal data (text and numbers written in the file) that its parent "
            f"does not have; the limit is {MAX_NEW_LITERAL_BYTES}: compute the values or leave them out, {_AGAIN}"
        )


def _parent_literals(parent: bytes) -> Counter[tuple[type, object]]:
    """Return the parent's literals; a parent was accepted once, and one that no longer is has none."""
    try:
        return _analyse(parent).literals
    except CandidateError:
        return Counter()


def _literal_bytes(value: object) -> int:
    """Return what a literal can carry: its UTF-8 length, its bytes, or the bytes of its number."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, int):
        return max(1, (value.bit_length() + 7) // 8)
    return 16 if isinstance(value, complex) else 8


def _count_code_lines(lines: list[bytes], texts: list[ast.Expr]) -> int:
    documentation: set[int] = set()
    for node in texts:
        end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or 0
        before = lines[node.lineno - 1][: node.col_offset].strip()
        after = lines[end_line - 1][end_column:].strip()
        # Code that shares a line with a bare text would otherwise be hidden from the count.
        if not before and (not after or after.startswith(b"#")):
            documentation.update(range(node.lineno, end_line + 1))
    return sum(
        1
        for number, line in enumerate(lines, start=1)
        if number not in documentation and (text := line.strip()) and not text.startswith(b"#")
    )


def _constants(lines: list[bytes], tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            target, value = node.target, node.value
        else:
            continue
        if isinstance(target, ast.Name) and _UPPERCASE.fullmatch(target.id):
            yield target.id, _source_text(lines, value)


def _source_text(lines: list[bytes], node: ast.expr) -> str:
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    selected = lines[first : last + 1]
    selected[-1] = selected[-1][: node.end_col_offset]
    selected[0] = selected[0][node.col_offset :]
    return b"\n".join(selected).decode("utf-8", "replace")


def _line_at(source: bytes, position: int) -> int:
    return source.count(b"\n", 0, position) + 1


class _BoundedMatcher(difflib.SequenceMatcher[str]):
    """Stops aligning when its steps are spent; what is left then counts as different."""

    def __init__(self, old: list[str], new: list[str]) -> None:
        super().__init__(None, old, new)
        # SequenceMatcher does not follow lines that make up more than a hundredth of a long text.
        most = len(new) // 100 + 1 if len(new) >= 200 else len(new)
        occurrences = {line: count for line, count in Counter(new).items() if count <= most}
        self._cost = [1]
        for line in old:
            self._cost.append(self._cost[-1] + 1 + occurrences.get(line, 0))
        self._steps_left = _DIFF_STEPS

    def find_longest_match(self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None) -> difflib.Match:
        self._steps_left -= self._cost[-1 if ahi is None else ahi] - self._cost[alo]
        if self._steps_left < 0:
            return difflib.Match(alo, blo, 0)
        return super().find_longest_match(alo, ahi, blo, bhi)


def _text_lines(data: bytes) -> list[str]:
    """Split at newlines only, as diff tools do, and mark a last line that has none."""
    lines = data.decode("utf-8", "replace").split("\n")
    last = lines.pop()
    return [line + "\n" for line in lines] + ([f"{last}\n\\ No newline at end of file\n"] if last else [])


def _span(start: int, end: int) -> str:
    length = end - start
    if length == 1:
        return str(start + 1)
    return f"{start + 1 if length else start},{length}"
