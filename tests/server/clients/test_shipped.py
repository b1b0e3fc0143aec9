"""The files of this repository that clients read: rendered from the table, parsed as the clients parse them."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from autoresearch_mcp.server.clients import shipped
from autoresearch_mcp.server.clients.table import ALIASES, BY_NAME, CLIENTS, SERVER_NAME
from autoresearch_mcp.server.hooks import CLIENTS as HOOK_CLIENTS
from autoresearch_mcp.tools.catalog import TOOLS

ROOT = Path(__file__).resolve().parent.parent.parent.parent


def read(name: str) -> Any:
    text = (ROOT / name).read_text()
    return tomllib.loads(text) if name.endswith(".toml") else json.loads(text)


@pytest.mark.parametrize("name", shipped.shipped_files())
def test_a_committed_file_is_what_the_table_says(name: str) -> None:
    path = ROOT / name
    assert path.is_file(), f"{name} is missing. Run: {shipped.UPDATE}"
    assert path.read_text() == shipped.shipped_files()[name], f"{name} is not what the table says. Run: {shipped.UPDATE}"


@pytest.mark.parametrize("name", shipped.shipped_files())
def test_git_takes_every_file(name: str) -> None:
    command = ["git", "-c", f"core.excludesFile={os.devnull}", "check-ignore", "--quiet", name]  # but for a person's own rules
    ignored = subprocess.run(command, cwd=ROOT, check=False)
    assert ignored.returncode == 1


@pytest.mark.parametrize(
    ("name", "path", "timeout"),
    [
        (".mcp.json", ("mcpServers",), ("timeout", 0.001)),
        (".codex/config.toml", ("mcp_servers",), ("tool_timeout_sec", 1.0)),
        (".gemini/settings.json", ("mcpServers",), ("timeout", 0.001)),
        ("opencode.json", ("mcp",), ("timeout", 0.001)),
        (".cursor/mcp.json", ("mcpServers",), None),
        (".vscode/mcp.json", ("servers",), None),
        ("gemini-extension.json", ("mcpServers",), ("timeout", 0.001)),
        (f"{shipped.PLUGIN}/.claude-plugin/plugin.json", ("mcpServers",), ("timeout", 0.001)),
        (f"{shipped.PLUGIN}/codex-mcp.json", ("mcpServers",), ("tool_timeout_sec", 1.0)),
    ],
)
def test_a_tool_answers_before_its_client_gives_up(name: str, path: tuple[str, ...], timeout: tuple[str, float] | None) -> None:
    entry = read(name)
    for key in (*path, SERVER_NAME):
        entry = entry[key]
    environment = entry.get("env", entry.get("environment", {}))
    if timeout is None:  # the client has no limit that can be raised: the 45 s of autoresearch.toml hold
        assert not environment
    else:
        key, seconds = timeout
        assert float(environment["AUTORESEARCH_MAX_WAIT"]) + 30 <= entry[key] * seconds


def test_claude_code_loads_the_tools_up_front_and_waits_less_than_its_two_minutes() -> None:
    server = read(".mcp.json")["mcpServers"][SERVER_NAME]
    assert server["alwaysLoad"] is True
    assert float(server["env"]["AUTORESEARCH_MAX_WAIT"]) < 120


def test_codex_waits_for_the_server_and_needs_no_approval() -> None:
    server = read(".codex/config.toml")["mcp_servers"][SERVER_NAME]
    assert server["required"] is True
    assert server["default_tools_approval_mode"] == "approve"


def test_no_shipped_file_forbids_an_edit() -> None:
    """Whoever develops this software edits the locked folders."""
    assert not [name for name, text in shipped.shipped_files().items() if '"deny"' in text]


def hooks() -> list[str]:
    return [
        read(".claude/settings.json")["hooks"]["Stop"][0]["hooks"][0]["command"],
        read(".codex/hooks.json")["hooks"]["Stop"][0]["hooks"][0]["command"],
        read(".gemini/settings.json")["hooks"]["AfterAgent"][0]["hooks"][0]["command"],
        read(".cursor/hooks.json")["hooks"]["stop"][0]["command"],
        read(f"{shipped.PLUGIN}/.claude-plugin/plugin.json")["hooks"]["Stop"][0]["hooks"][0]["command"],
    ]


def in_folder(folder: Path, path: str) -> dict[str, str]:
    return {**os.environ, "CLAUDE_PROJECT_DIR": str(folder), "GEMINI_PROJECT_DIR": str(folder), "PATH": path}


@pytest.mark.parametrize("command", hooks())
def test_a_hook_is_silent_where_the_program_is_missing(command: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=tmp_path, env=in_folder(tmp_path, "/usr/bin:/bin"), capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("command", hooks())
def test_a_hook_calls_the_program_of_a_folder_with_a_space_for_a_client_that_it_knows(command: str, tmp_path: Path) -> None:
    folder = tmp_path / "a clone"
    program = folder / ".venv" / "bin" / "autoresearch"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    environment = in_folder(folder, f"{program.parent}:/usr/bin:/bin")
    done = subprocess.run(["/bin/sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    words = done.stdout.splitlines()
    assert words[:3] == ["hook", "stop", "--client"]
    assert words[3] in HOOK_CLIENTS
    assert words[4:] in ([], ["--lab", str(folder)])


def test_a_plugin_says_in_one_line_what_is_missing(tmp_path: Path) -> None:
    server = read(f"{shipped.PLUGIN}/.claude-plugin/plugin.json")["mcpServers"][SERVER_NAME]
    command = [f"/bin/{server['command']}", *server["args"]]
    done = subprocess.run(command, env={"PATH": "/nowhere"}, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "PATH" in done.stderr


def test_the_marketplace_names_the_plugin_folder_and_both_have_one_name() -> None:
    (plugin,) = read(".claude-plugin/marketplace.json")["plugins"]
    folder = ROOT / plugin["source"]
    for manifest in (".claude-plugin/plugin.json", ".codex-plugin/plugin.json", "gemini-extension.json"):
        assert json.loads((folder / manifest).read_text())["name"] == plugin["name"]


def test_the_skill_has_a_head_that_clients_find_it_by_and_names_tools_that_exist() -> None:
    text = (ROOT / shipped.SKILL).read_text()
    _, head, body = text.split("---\n", 2)
    fields = dict(line.split(": ", 1) for line in head.splitlines())
    assert fields["name"] == Path(shipped.SKILL).parent.name
    assert len(fields["description"]) <= 1024
    assert {tool.name for tool in TOOLS} >= {"read_program", "start_session", "run_experiment", "wait_experiment", "report"}
    for name in ("read_program", "start_session", "run_experiment", "wait_experiment", "keep", "revert", "report"):
        assert f"`{name}" in body


def test_every_client_has_a_row_and_every_alias_leads_to_one() -> None:
    assert [client.name for client in CLIENTS] == ["claude", "codex", "cursor", "vscode", "gemini", "opencode"]
    assert set(ALIASES.values()) <= set(BY_NAME)
    assert all(client.trust and client.unattended for client in CLIENTS)
