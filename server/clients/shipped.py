"""The files of this repository that clients read, rendered from the table; a test compares them with what is committed.

    .venv/bin/python -m autoresearch_mcp.server.clients.shipped

writes them. In a clone the lab is the clone and the command is its own `.venv/bin/autoresearch`; there are no rules against
editing the locked folders, since whoever develops this software edits them there.

The plugin is a folder of its own below `server/clients/`, not the repository's root: a client copies the whole folder of a
plugin, and would read the root's `.mcp.json`, whose relative command means a clone. Its server is the `autoresearch` on the
PATH.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ...lab.files import write_atomically
from . import json_text
from .pieces import Entry
from .table import (
    CLAUDE_WAIT_SECONDS,
    CLIENTS,
    HOOK_TIMEOUT_SECONDS,
    LONG_WAIT_SECONDS,
    MAX_WAIT_VARIABLE,
    SERVER_NAME,
    TIMEOUT_SECONDS,
    Client,
    Setup,
)

PLUGIN = "server/clients/plugin"
SKILL = f"{PLUGIN}/skills/autoresearch/SKILL.md"  # the source; the other two are copies of it
SKILL_COPIES = (".agents/skills/autoresearch/SKILL.md", ".claude/skills/autoresearch/SKILL.md")
UPDATE = ".venv/bin/python -m autoresearch_mcp.server.clients.shipped"
_DESCRIPTION = "Turns a coding agent into an overnight ML researcher, and is itself the referee."
_ROOT = Path(__file__).resolve().parent.parent.parent


def shipped_files() -> dict[str, str]:
    """Return every rendered file by its path in the repository."""
    files: dict[str, str] = {}
    for client in CLIENTS:
        files |= _project_files(client)
    skill = (_ROOT / SKILL).read_text()
    return files | _plugin_files() | dict.fromkeys(SKILL_COPIES, skill)


def new_files(client: Client, setup: Setup) -> dict[Path, str]:
    """Return the files of a client where there are none yet."""
    files: dict[Path, str] = {}
    for piece in client.pieces(setup):
        if isinstance(piece, Entry):
            text = files.get(piece.file, "{}\n")
            files[piece.file] = json_text.add(text, piece.path, piece.value, item=piece.item)[0]
        else:
            files[piece.file] = files.get(piece.file, "") + piece.text
    return files


def lab_files(lab: Path, command: str) -> dict[str, bytes]:
    """Return the files of a new lab that a client reads without being asked: Claude Code's, which names the server."""
    setup = Setup(command=command, lab=lab, home=Path.home(), allow=False, hook=False)
    return {".mcp.json": new_files(CLIENTS[0], setup)[lab / ".mcp.json"].encode()}


def _project_files(client: Client) -> dict[str, str]:
    setup = Setup(command=None, lab=None, home=Path())
    return {file.as_posix(): text for file, text in new_files(client, setup).items()}


def _plugin_files() -> dict[str, str]:
    number = version("autoresearch-mcp")
    named = {"name": SERVER_NAME, "version": number, "description": _DESCRIPTION}
    claude = {
        **named,
        "author": {"name": "autoresearch-mcp"},
        "license": "MIT",
        "keywords": ["research", "machine-learning"],
        "mcpServers": {
            SERVER_NAME: {**_plugin_server(CLAUDE_WAIT_SECONDS), "timeout": TIMEOUT_SECONDS * 1000, "alwaysLoad": True}
        },
        "hooks": {"Stop": [_plugin_hook("claude-code")]},
    }
    codex = {
        **named,
        "skills": "./skills/",
        "mcpServers": "./codex-mcp.json",
    }
    codex_server = {
        **_plugin_server(LONG_WAIT_SECONDS),
        "tool_timeout_sec": TIMEOUT_SECONDS,
        "startup_timeout_sec": 60,
    }
    gemini = {
        **named,
        "mcpServers": {SERVER_NAME: {**_plugin_server(LONG_WAIT_SECONDS), "timeout": TIMEOUT_SECONDS * 1000}},
    }
    marketplace = {
        "name": SERVER_NAME,
        "owner": {"name": "autoresearch-mcp"},
        "metadata": {"description": _DESCRIPTION},
        "plugins": [{"name": SERVER_NAME, "source": f"./{PLUGIN}", "description": _DESCRIPTION}],
    }
    return {
        ".claude-plugin/marketplace.json": _rendered(marketplace),
        "gemini-extension.json": _rendered(gemini),
        f"{PLUGIN}/.claude-plugin/plugin.json": _rendered(claude),
        f"{PLUGIN}/.codex-plugin/plugin.json": _rendered(codex),
        f"{PLUGIN}/codex-mcp.json": _rendered({"mcpServers": {SERVER_NAME: codex_server}}),
        f"{PLUGIN}/gemini-extension.json": _rendered(gemini),
    }


def _plugin_server(wait_seconds: int) -> dict[str, Any]:
    """The server of a plugin: the one on the PATH, or in one line what is missing."""
    missing = "autoresearch is not on the PATH: install it with pip, or put the .venv/bin of a clone there"
    command = f"command -v autoresearch >/dev/null || {{ echo '{missing}' >&2; exit 127; }}; exec autoresearch serve"
    return {"command": "sh", "args": ["-c", command], "env": {MAX_WAIT_VARIABLE: str(wait_seconds)}}


def _plugin_hook(client: str) -> dict[str, Any]:
    command = f"! command -v autoresearch >/dev/null || autoresearch hook stop --client {client}"
    return {"hooks": [{"type": "command", "command": command, "timeout": HOOK_TIMEOUT_SECONDS}]}


def _rendered(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the files into the repository."""
    for name, text in shipped_files().items():
        path = _ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            write_atomically(path, text.encode())
            print(name)


if __name__ == "__main__":
    main()
