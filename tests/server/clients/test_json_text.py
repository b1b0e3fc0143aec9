"""JSON as text: what goes in comes out again, and every other byte stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from autoresearch_mcp.server.clients import json_text
from autoresearch_mcp.server.clients.errors import ClientConfigError
from hypothesis import given, settings
from hypothesis import strategies as st

KEYS = st.sampled_from(
    ["a", "mcpServers", "servers", "permissions", "allow", "mcp", "Stop", 'quo"te', "ünï", "", "hooks"]
) | st.text(max_size=4)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=4)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """A document as some program or person may have written it."""
    indent = draw(st.sampled_from([None, 0, 1, 2, 4, "\t"]))
    text = json.dumps(draw(DOCUMENTS), indent=indent, ensure_ascii=draw(st.booleans()))
    text = text.replace("[]", draw(st.sampled_from(["[]", "[ ]", "[\n]"]))).replace(
        "{}", draw(st.sampled_from(["{}", "{\n  }"]))
    )
    text = draw(st.sampled_from(["", " ", "\n"])) + text + draw(st.sampled_from(["", "\n", "\n\n", "  "]))
    return text.replace("\n", draw(st.sampled_from(["\n", "\r\n"])))


@settings(deadline=None, max_examples=100)
@given(text=texts(), steps=st.lists(st.tuples(st.lists(KEYS, min_size=1, max_size=3), VALUES, st.booleans()), max_size=5))
def test_what_is_added_is_there_and_comes_out_to_the_byte(text: str, steps: list[tuple[list[str], Any, bool]]) -> None:
    json_text.read(text, "it")
    before, undo = text, []
    for keys, value, item in steps:
        path = tuple(keys)
        depth, found = json_text.lookup(json.loads(text), path)
        if depth == len(path) and not (item and isinstance(found, list)):
            continue  # something stands there: not this module's decision
        try:
            text, added = json_text.add(text, path, value, item=item)
        except ClientConfigError:
            continue  # a scalar stands in the way
        undo.append(added)
        now = json_text.lookup(json.loads(text), path)[1]
        assert (now[-1] if item else now) == value
    for added in reversed(undo):
        removed = json_text.remove(text, added)
        assert removed is not None
        text = removed
    assert text == before


def test_a_new_member_is_written_as_its_neighbours_are() -> None:
    text, _ = json_text.add('{\n\t"mcpServers": {\n\t\t"x": 1\n\t}\n}\n', ("mcpServers", "y"), {"b": 2}, item=False)
    assert text == '{\n\t"mcpServers": {\n\t\t"x": 1,\n\t\t"y": {\n\t\t\t"b": 2\n\t\t}\n\t}\n}\n'
    assert json_text.add('{"a": [1]}', ("a",), 2, item=True)[0] == '{"a": [1, 2]}'


def test_of_two_members_with_one_key_the_one_that_clients_read_is_changed() -> None:
    text, added = json_text.add('{"a": {"x": 1}, "a": {"y": 2}}', ("a", "z"), 3, item=False)
    assert json.loads(text)["a"] == {"y": 2, "z": 3}
    assert json_text.remove(text, added) == '{"a": {"x": 1}, "a": {"y": 2}}'


def test_what_was_changed_since_is_not_removed() -> None:
    text, added = json_text.add("{}", ("a",), {"x": 1}, item=False)
    assert json_text.remove(text.replace("1", "2"), added) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ('{\n  // mine\n  "a": 1\n}', "comments (line 2)"),
        ('{"a": "http://x",\n "b": [1,],\n}', "trailing comma (line 2)"),
        ('{"a": 1\n "b": 2}', "broken in line 2"),
        ("[1]", "holds list"),
        ("[" * 100_000, "too deep"),
        ('{"a": ' + "1" * 5000 + "}", "too long"),
        ("\ufeff{}", "broken in line 1"),
    ],
)
def test_what_is_no_strict_json_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ClientConfigError, match=r"it .*") as caught:
        json_text.read(text, "it")
    assert said in str(caught.value)
