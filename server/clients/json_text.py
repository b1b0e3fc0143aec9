"""Changing a JSON file as text: one value goes in or comes out, and every other byte stays what it was.

Guarantees: what is added can be removed again so that the text is what it was, to the byte, whatever its indentation, line
ends, escapes, number formats or order; a text that is no strict JSON is refused with the line at fault.

Does not: keep comments (a text with comments is refused), or write files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .errors import ClientConfigError

_SPACE = re.compile(r"[ \t\n\r]*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SCALAR = re.compile(r"[^\s,\]}]+")
_COMMENT = re.compile(r'"(?:[^"\\\n]|\\.)*"|(//|/\*)')
_TRAILING_COMMA = re.compile(r'"(?:[^"\\\n]|\\.)*"|(,)(?=\s*[\]}])')


@dataclass(slots=True, kw_only=True)
class Node:
    """A value and where it stands in the text: ``text[start:end]``. Members of an object have a key, items have None."""

    start: int
    end: int = 0
    kind: str = ""  # "{", "[" or "" for a scalar
    key: str | None = None
    key_start: int = 0  # where the member or item begins: at its key, if it has one
    children: list[Node] = field(default_factory=list)

    def member(self, key: str) -> Node | None:
        """Return the member that counts: of several with one key, the last."""
        return next((child for child in reversed(self.children) if child.key == key), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What was put into a text, enough to take it out again.

    Attributes:
        path: the keys that lead to the container.
        key: the member's key, or None for an item of a list.
        value: what was put there.
        gap: the white space that the container held before, where it was empty; None where it was not.
    """

    path: tuple[str, ...]
    key: str | None
    value: Any
    gap: str | None


def read(text: str, name: str) -> Any:
    """Return the value of a text.

    Raises:
        ClientConfigError: it is empty, has comments or trailing commas, is broken, or its top is not an object.
    """
    if not text.strip():
        raise ClientConfigError(f"{name} is empty, which is no JSON: delete it and call this again.")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if line := _line_of(_COMMENT, text):
            raise ClientConfigError(f"{name} has comments (line {line}), which a rewrite would endanger") from None
        if line := _line_of(_TRAILING_COMMA, text):
            raise ClientConfigError(f"{name} has a trailing comma (line {line}), which strict JSON does not know") from None
        raise ClientConfigError(f"{name} is broken in line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, or thousands of brackets
        raise ClientConfigError(f"{name} has a number too long or brackets too deep to be read") from None
    if not isinstance(value, dict):
        raise ClientConfigError(f"{name} holds {type(value).__name__} where an object must be")
    return value


def _line_of(pattern: re.Pattern[str], text: str) -> int | None:
    found = next((match.start(1) for match in pattern.finditer(text) if match.group(1)), None)
    return None if found is None else text.count("\n", 0, found) + 1


def lookup(value: Any, path: tuple[str, ...]) -> tuple[int, Any]:
    """Return how many keys of ``path`` exist from the top, and the value there."""
    for depth, key in enumerate(path):
        if not isinstance(value, dict) or key not in value:
            return depth, value
        value = value[key]
    return len(path), value


def add(text: str, path: tuple[str, ...], value: Any, *, item: bool) -> tuple[str, Added]:
    """Put a value into a text that `read` accepted: at ``path``, or as the last item of the list at ``path``.

    What is missing on the way is made. Raises `ClientConfigError` where something on the way is neither object nor list.
    """
    depth, found = lookup(json.loads(text), path)
    if depth == len(path) and item:
        container, key, inner = path, None, value
    else:
        assert depth < len(path), "there is a value already"
        container, key = path[:depth], path[depth]
        inner = [value] if item else value
        for outer in reversed(path[depth + 1 :]):
            inner = {outer: inner}
    if not isinstance(found, list if key is None else dict):
        raise ClientConfigError(f"{'.'.join(container)} is {json.dumps(found)[:60]}, which cannot be added to")
    added = Added(path=container, key=key, value=inner, gap=None)
    return _insert(text, _node(text, container), added)


def _insert(text: str, node: Node, added: Added) -> tuple[str, Added]:
    newline, unit = _style(text)
    siblings = node.children
    inside = text[node.start + 1 : node.end - 1]
    if siblings:
        lead = text[_end_of_blank_before(text, siblings[-1].key_start) : siblings[-1].key_start]
        multiline = "\n" in lead
        indent = lead.rpartition("\n")[2] if multiline else ""
        where = siblings[-1].end
        body = "," + (newline + indent if multiline else " ") + _written(added, unit if multiline else None, indent, newline)
        return text[:where] + body + text[where:], added
    outer = _indent_of_line(text, node.start)
    if "\n" in text.strip() or node.start == _after_space(text, 0):
        indent = outer + unit
        body = newline + indent + _written(added, unit, indent, newline) + newline + outer
    else:
        body = _written(added, None, "", newline)
    text = text[: node.start + 1] + body + text[node.end - 1 :]
    return text, Added(path=added.path, key=added.key, value=added.value, gap=inside)


def remove(text: str, added: Added) -> str | None:
    """Return the text without what was added, or None where that is no longer there as it was."""
    depth, container = lookup(json.loads(text), added.path)
    if depth < len(added.path) or not isinstance(container, list if added.key is None else dict):
        return None
    node = _node(text, added.path)
    candidates = [child for child in node.children if child.key == added.key]
    if not candidates or (added.key is not None and json.loads(text[candidates[-1].start : candidates[-1].end]) != added.value):
        return None
    equal = [child for child in candidates if json.loads(text[child.start : child.end]) == added.value]
    return _without(text, node, equal[-1], added.gap) if equal else None


def _without(text: str, node: Node, child: Node, gap: str | None) -> str:
    index = node.children.index(child)
    if len(node.children) == 1:
        return text[: node.start + 1] + (gap or "") + text[node.end - 1 :]
    if index:
        return text[: node.children[index - 1].end] + text[child.end :]
    return text[: child.key_start] + text[node.children[1].key_start :]


def replace(text: str, path: tuple[str, ...], value: Any) -> str:
    """Return the text with another value at ``path``, which exists."""
    newline, unit = _style(text)
    node = _node(text, path)
    written = json.dumps(value, indent=unit if "\n" in text[node.start : node.end] else None, ensure_ascii=False)
    indent = _indent_of_line(text, node.key_start)
    return text[: node.start] + written.replace("\n", newline + indent) + text[node.end :]


def _written(added: Added, unit: str | None, indent: str, newline: str) -> str:
    body = json.dumps(added.value, indent=unit, ensure_ascii=False).replace("\n", newline + indent)
    return body if added.key is None else f"{json.dumps(added.key, ensure_ascii=False)}: {body}"


def _style(text: str) -> tuple[str, str]:
    """Return the line end and the unit of indentation of a text, or what is usual."""
    newline = "\r\n" if "\r\n" in text else "\n"
    first = re.search(r"\n([ \t]+)\S", text)
    return newline, first.group(1) if first and len(first.group(1)) <= 8 else "  "


def _indent_of_line(text: str, position: int) -> str:
    line = text[text.rfind("\n", 0, position) + 1 : position]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _end_of_blank_before(text: str, position: int) -> int:
    """Return where the white space before ``position`` begins."""
    return len(text[:position].rstrip(" \t\r\n"))


def _node(text: str, path: tuple[str, ...]) -> Node:
    node = scan(text)
    for key in path:
        child = node.member(key)
        assert child is not None, "the path exists"
        node = child
    return node


def scan(text: str) -> Node:
    """Return the values of a text that is strict JSON, with their places."""
    try:
        return _scan(text, _after_space(text, 0))
    except RecursionError:  # the standard parser takes a few more brackets
        raise ClientConfigError("it has brackets too deep to be read") from None


def _scan(text: str, start: int) -> Node:
    opening = text[start]
    if opening in "{[":
        node = Node(start=start, kind=opening, key_start=start)
        node.children = list(_scan_children(text, start + 1, keyed=opening == "{"))
        last = node.children[-1].end if node.children else start + 1
        node.end = _after_space(text, last) + 1
        return node
    match = (_STRING if opening == '"' else _SCALAR).match(text, start)
    assert match is not None
    return Node(start=start, end=match.end(), key_start=start)


def _scan_children(text: str, position: int, *, keyed: bool) -> Iterator[Node]:
    position = _after_space(text, position)
    while text[position] not in "]}":
        begin, key = position, None
        if keyed:
            match = _STRING.match(text, position)
            assert match is not None
            key = json.loads(match.group())
            position = _after_space(text, _after_space(text, match.end()) + 1)  # past the colon
        child = _scan(text, position)
        child.key, child.key_start = key, begin
        yield child
        position = _after_space(text, child.end)
        if text[position] == ",":
            position = _after_space(text, position + 1)


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None
    return match.end()
