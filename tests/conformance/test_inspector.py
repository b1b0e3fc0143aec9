"""The official Inspector's command line against our server: over stdio and HTTP, in both eras, as a person would try it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.machine import command_path
from autoresearch_mcp.lab.paths import STATE_VARIABLE
from autoresearch_mcp.prepare.corpus import CACHE_VARIABLE
from autoresearch_mcp.server.tokens import make_token
from autoresearch_mcp.tools.catalog import TOOLS

from ..serving import serving
from . import clients

pytestmark = pytest.mark.slow

MakeLab = Callable[..., Lab]

_ERAS = ("legacy", "modern")
_TOOL_ERROR = 5  # exit codes of the Inspector: the tool answered isError; 6 is a schema that some clients cannot use
_AT_ONCE = 2  # each call over stdio starts a server


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    code: int
    result: Any
    stderr: str


def inspect(target: tuple[str, ...], era: str, method: str, *options: str) -> Said:
    """Make one request; ``target`` is the command of a server, or its URL.

    As most clients do, it gives a server little of its own environment, so where state and corpora are is said.
    """
    settings = [f"{name}={os.environ[name]}" for name in (STATE_VARIABLE, CACHE_VARIABLE)]
    arguments = ("--method", method, "--protocol-era", era, "--format", "json", "--quiet", *options)
    given = [word for setting in settings for word in ("-e", setting)]
    done = clients.run(clients.INSPECTOR, "--cli", *target, *given, *arguments)
    result = json.loads(done.stdout)["result"] if done.stdout else None
    return Said(code=done.returncode, result=result, stderr=done.stderr)


def tool(name: str, **arguments: str) -> tuple[str, ...]:
    return ("tools/call", "--tool-name", name, "--tool-args-json", json.dumps(arguments))


def text_of(said: Said) -> str:
    assert said.code == 0, said.stderr
    return said.result["content"][0]["text"]


def lists_the_tools(said: Said) -> None:
    assert said.code == 0, said.stderr
    assert [each["name"] for each in said.result["tools"]] == [each.name for each in TOOLS]


def answers_status(said: Said) -> None:
    assert text_of(said).startswith("lab ")
    assert said.result["structuredContent"]["next"]


def shows_the_program(said: Said) -> None:
    assert "program.md" in text_of(said)


def starts_a_session(said: Said) -> None:
    assert said.code == 0, said.result
    assert said.result["structuredContent"]["branch"] == "autoresearch/inspected"


def refuses_an_unknown_experiment(said: Said) -> None:
    assert said.code == _TOOL_ERROR
    assert "No experiment 'e0099'" in said.result["content"][0]["text"]


def lists_the_program_first(said: Said) -> None:
    assert said.code == 0, said.stderr
    assert said.result["resources"][0]["uri"] == "autoresearch://program"


def lists_the_parts_of_an_experiment(said: Said) -> None:
    templates = [each["uriTemplate"] for each in said.result["resourceTemplates"]]
    assert "autoresearch://experiments/{id}/diff" in templates


def reads_the_program(said: Said) -> None:
    assert said.code == 0, said.stderr
    assert "strategy" in said.result["contents"][0]["text"]


def lists_the_prompts(said: Said) -> None:
    assert {"start", "resume"} <= {each["name"] for each in said.result["prompts"]}


def writes_the_arguments_into_the_prompt(said: Said) -> None:
    assert 'start_session(tag="night", researcher="ben")' in said.result["messages"][0]["content"]["text"]


def says_that_there_is_no_such_prompt(said: Said) -> None:
    assert said.code not in (0, _TOOL_ERROR)
    assert "Unknown prompt: nothing" in said.stderr


Requests = tuple[tuple[tuple[str, ...], Callable[[Said], None]], ...]

_START = ("--prompt-name", "start", "--prompt-args", "tag=night", "researcher=ben")
_ONE_OF_EACH: Requests = (
    (("tools/list", "--strict"), lists_the_tools),
    (tool("status"), answers_status),
    (("resources/read", "--uri", "autoresearch://program"), reads_the_program),
    (("prompts/get", *_START), writes_the_arguments_into_the_prompt),
)
_EVERYTHING: Requests = (
    *_ONE_OF_EACH,
    (tool("read_program"), shows_the_program),
    (tool("start_session", tag="inspected"), starts_a_session),
    (tool("keep", experiment_id="e0099", reason="a test"), refuses_an_unknown_experiment),
    (("resources/list",), lists_the_program_first),
    (("prompts/list",), lists_the_prompts),
)
_MORE: Requests = (
    (("resources/templates/list",), lists_the_parts_of_an_experiment),
    (("prompts/get", "--prompt-name", "nothing"), says_that_there_is_no_such_prompt),
)


def ask(target: tuple[str, ...], era: str, requests: Requests) -> None:
    """Make the requests, two at a time; the first failure ends it."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        asked = {threads.submit(inspect, target, era, *request): check for request, check in requests}
        for said in as_completed(asked):
            asked[said](said.result())


def test_over_stdio_everything_that_a_person_would_try_works(folder: Path) -> None:
    ask((command_path(), "serve", "--lab", str(folder)), "legacy", _EVERYTHING)


def test_over_stdio_one_request_of_each_kind_works_in_the_modern_era(folder: Path) -> None:
    ask((command_path(), "serve", "--lab", str(folder)), "modern", _ONE_OF_EACH)


def test_over_http_everything_that_a_person_would_try_works_in_the_modern_era(url: str) -> None:
    ask((url,), "modern", (*_EVERYTHING, *_MORE))


def test_over_http_one_request_of_each_kind_works_in_the_older_era(url: str) -> None:
    ask((url,), "legacy", _ONE_OF_EACH)


@pytest.mark.parametrize("era", _ERAS)
def test_over_http_with_tokens_the_one_in_the_header_is_asked_for(tokened: tuple[str, str], era: str) -> None:
    url, token = tokened
    answers_status(inspect((url,), era, *tool("status"), "--header", f"Authorization: Bearer {token}"))
    refused = inspect((url,), era, *tool("status"), "--stored-auth-only")
    assert refused.code not in (0, _TOOL_ERROR)
    assert refused.result is None


@pytest.fixture
def tokened(make_lab: MakeLab) -> Iterator[tuple[str, str]]:
    """The URL of a server that asks for tokens, and one."""
    lab = make_lab()
    token = make_token(lab.state.tokens, "ben")
    with serving(lab.root) as served:
        yield served.url, token
