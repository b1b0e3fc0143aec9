"""A tool of the protocol that takes the arguments it has, and no others.

The SDK ignores an unknown argument, so a misspelled `hypothesis` would be lost without a word. Here the schema forbids it, for
clients that check, and the call is refused with the name and the ones there are, for those that do not. A wrong value is told
in one line for each. Does not: change what a valid call does.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, cast

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.types import ToolAnnotations
from pydantic import ValidationError

_VALUE_CHARACTERS = 80
_MOST_NAMED = 5  # unknown arguments, in an error
_NAMES = ("properties", "$defs")  # below these, keys are names and no keywords


class StrictTool(Tool):
    """See the module; make it with `strict_tool`."""

    async def run(self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False) -> Any:
        """Run the tool, or raise the `ToolError` that says which argument is wrong."""
        known = list(self.parameters.get("properties", {}))
        if unknown := [name for name in arguments if name not in known]:
            raise ToolError(f"Error executing tool {self.name}: {_refusal(self.name, unknown, known)}")
        try:
            return await super().run(arguments, context, convert_result)
        except ToolError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            wrong = "; ".join(_told(each) for each in error.__cause__.errors(include_url=False))
            raise ToolError(f"Error executing tool {self.name}: {wrong}. Nothing was done.") from error.__cause__


def strict_tool(
    function: Callable[..., Any], *, name: str, title: str, description: str, annotations: ToolAnnotations
) -> StrictTool:
    """Return a tool whose schemas are as small as they can be, and which refuses what its input schema does not name."""
    tool = StrictTool.from_function(function, name=name, title=title, description=description, annotations=annotations)
    assert isinstance(tool, StrictTool), "the SDK makes the class that it is asked for"
    tool.parameters = {**without_titles(tool.parameters), "additionalProperties": False}
    if tool.fn_metadata.output_schema is not None:
        tool.fn_metadata.output_schema = without_titles(tool.fn_metadata.output_schema)
    return tool


def without_titles(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON schema without pydantic's titles, which say a name again; a client reads every schema at its start."""
    return {
        key: {name: _within(each) for name, each in value.items()} if key in _NAMES else _within(value)
        for key, value in schema.items()
        if key != "title"
    }


def _within(value: Any) -> Any:
    if isinstance(value, dict):
        return without_titles(cast("dict[str, Any]", value))
    return [_within(each) for each in cast("list[Any]", value)] if isinstance(value, list) else value


def _refusal(tool: str, unknown: list[str], known: list[str]) -> str:
    named = ", ".join(repr(name[:_VALUE_CHARACTERS]) for name in unknown[:_MOST_NAMED])
    more = f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
    close = get_close_matches(unknown[0][:_VALUE_CHARACTERS], known, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    arguments = f"Its arguments are: {', '.join(known)}." if known else "It has no arguments."
    return f"{tool} has no argument {named}{more}.{meant} {arguments} Nothing was done."


def _told(error: Any) -> str:
    """Return one line for one wrong argument: which, why, and what it was."""
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"{name} is missing"
    value = repr(error["input"])
    short = value if len(value) <= _VALUE_CHARACTERS else f"{value[:_VALUE_CHARACTERS]}..."
    return f"{name}: {error['msg'][:1].lower()}{error['msg'][1:]}, not {short}"
