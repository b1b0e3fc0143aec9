"""The calls that answers print: found in an entry of `next`, parsed as Python, and checked against the tools' input schemas."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema
from mcp.types import Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call as an answer printed it; ``leads`` where the entry begins with it, so that it is to be made as it is."""

    tool: str
    arguments: dict[str, Any]
    leads: bool
    rest: str  # of the entry, after it


def calls_in(entry: str, tools: Mapping[str, Tool]) -> Iterator[Call]:
    """Yield the calls in an entry; none: it is prose. Raises `AssertionError` for one that a program could not make."""
    for found in re.finditer(rf"\b({'|'.join(tools)})\(", entry):
        text = _balanced(entry[found.start() :])
        node = ast.parse(text, mode="eval").body
        assert isinstance(node, ast.Call), entry
        schema = tools[found[1]].input_schema
        names = list(schema.get("properties", {}))
        assert len(node.args) <= len(names), entry
        arguments = {name: ast.literal_eval(value) for name, value in zip(names, node.args, strict=False)}
        for keyword in node.keywords:
            assert keyword.arg is not None
            assert keyword.arg not in arguments, entry
            arguments[keyword.arg] = ast.literal_eval(keyword.value)
        jsonschema.validate(arguments, {**schema, "additionalProperties": False})
        yield Call(tool=found[1], arguments=arguments, leads=found.start() == 0, rest=entry[found.start() + len(text) :])


def _balanced(text: str) -> str:
    """Return the call at the start of ``text``, up to the parenthesis that closes it."""
    depth = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        depth += (token.string == "(") - (token.string == ")")
        if token.string == ")" and depth == 0:
            return text[: token.end[1]]
    raise AssertionError(f"not closed: {text}")
