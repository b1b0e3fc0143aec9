"""The table of clients: for each, its files, how our server stands in them, what is allowed, and what a person does once.

The waits go together with the timeouts: a client ends a call at its own limit, so a tool answers before that and says which
call goes on (`AUTORESEARCH_MAX_WAIT`). Claude Code moves a call to the background after 120 s, so it waits 110 s; Cursor and
VS Code have no timeout that can be raised, so they keep the 45 s of the configuration. Which of this was tried with the real
client, and with which version, is in docs/CLIENTS.md.

Does not: read or write files, or know whether a client is installed.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...lab.paths import STATE_VARIABLE
from ...prepare.corpus import CACHE_VARIABLE
from ...tools.waiting import MAX_WAIT_VARIABLE
from .pieces import Entry, Piece, Purpose, Tables, WholeFile

SERVER_NAME = "autoresearch"
LOCKED_FOLDERS = ("prepare", "lab", "server", "tools")
LOCKED_FILES = ("program.md", "autoresearch.toml")
TRAIN = "trainer/train.py"
WORKTREE_TRAIN = ".autoresearch/worktrees/*/trainer/train.py"  # of the researchers beyond the first
TIMEOUT_SECONDS = 900
LONG_WAIT_SECONDS = 840
CLAUDE_WAIT_SECONDS = 110
HOOK_TIMEOUT_SECONDS = 30
VENV_COMMAND = ".venv/bin/autoresearch"  # what `make setup` puts into a clone


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is to be set up, and where.

    Attributes:
        command: the absolute path of `autoresearch`; None in a clone that is shipped: then it is the clone's own `.venv`.
        lab: the lab; None in a clone that is shipped: then it is the folder that the client has open.
        home: the person's home folder.
        user: write the person's own files, which count everywhere, instead of those in the lab.
        allow, deny, hook: which of the optional pieces are wanted.
    """

    command: str | None
    lab: Path | None
    home: Path
    user: bool = False
    allow: bool = True
    deny: bool = False
    hook: bool = True

    @property
    def root(self) -> Path:
        return self.lab or Path()

    def serve(self, relative: str = VENV_COMMAND, folder: str = "") -> tuple[str, list[str]]:
        """Return command and arguments of the server; in a clone ``relative`` is the command and ``folder`` names the lab."""
        place = str(self.lab) if self.lab else folder
        return self.command or relative, ["serve", *(["--lab", place] if place else [])]

    def stop_hook(self, client: str, folder: str = "") -> str:
        """Return the shell command of a Stop hook; it does nothing where the program is gone. ``folder`` is shell text."""
        if self.command and self.lab:
            program, lab = shlex.quote(self.command), f" --lab {shlex.quote(str(self.lab))}"
        else:
            program = f"{folder}/{VENV_COMMAND}" if folder else VENV_COMMAND
            lab = f" --lab {folder}" if folder else ""
        return f"test ! -x {program} || {program} hook stop --client {client}{lab}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One row of the table.

    Attributes:
        name: how the command line calls it.
        title: how people call it.
        programs: its executables, the first to be found says that it is on this machine.
        folder: a folder below the home that says so too.
        pieces: what its configuration needs for a setup.
        trust: what a person does once, by hand.
        unattended: how to start it for a night without anybody.
    """

    name: str
    title: str
    programs: tuple[str, ...]
    folder: str
    pieces: Callable[[Setup], tuple[Piece, ...]]
    trust: str
    unattended: str


def _environment(setup: Setup, wait_seconds: int | None = None) -> dict[str, str]:
    """Return what a server is to find in its environment; not every client hands on its own."""
    places = {name: os.environ[name] for name in (STATE_VARIABLE, CACHE_VARIABLE) if setup.command and os.environ.get(name)}
    return places if wait_seconds is None else {MAX_WAIT_VARIABLE: str(wait_seconds), **places}


def _configured(variable: str, default: Path) -> Path:
    return Path(os.environ[variable]) if os.environ.get(variable) else default


def _items(file: Path, path: tuple[str, ...], values: list[str], purpose: Purpose) -> list[Entry]:
    return [Entry(file=file, path=path, value=value, item=True, purpose=purpose) for value in values]


def _command_hook(command: str, timeout: int) -> dict[str, Any]:
    return {"hooks": [{"type": "command", "command": command, "timeout": timeout}]}


def _claude(setup: Setup) -> tuple[Piece, ...]:
    command, arguments = setup.serve()
    server = {
        "type": "stdio",
        "command": command,
        "args": arguments,
        "env": _environment(setup, CLAUDE_WAIT_SECONDS),
        "timeout": TIMEOUT_SECONDS * 1000,
        "alwaysLoad": True,  # or only names of the tools are in the prompt, and the model must search for them
    }
    folder = _configured("CLAUDE_CONFIG_DIR", setup.home / ".claude")
    settings = (folder if setup.user else setup.root / ".claude") / "settings.json"
    servers = setup.root / ".mcp.json"
    if setup.user:
        servers = folder / ".claude.json" if os.environ.get("CLAUDE_CONFIG_DIR") else setup.home / ".claude.json"
    anchor = f"/{setup.lab}" if setup.user else ""  # "//" begins an absolute path, "/" one of the project
    pieces: list[Piece] = [Entry(file=servers, path=("mcpServers", SERVER_NAME), value=server, purpose=Purpose.SERVER)]
    if setup.allow:
        if not setup.user:
            pieces += _items(settings, ("enabledMcpjsonServers",), [SERVER_NAME], Purpose.ALLOW)
        allowed = [f"mcp__{SERVER_NAME}", f"Edit({anchor}/{TRAIN})", f"Edit({anchor}/{WORKTREE_TRAIN})"]
        pieces += _items(settings, ("permissions", "allow"), allowed, Purpose.ALLOW)
    if setup.deny:
        denied = [f"Edit({anchor}/{name}/**)" for name in LOCKED_FOLDERS] + [f"Edit({anchor}/{name})" for name in LOCKED_FILES]
        pieces += _items(settings, ("permissions", "deny"), denied, Purpose.DENY)
    if setup.hook and not setup.user:
        hook = _command_hook(setup.stop_hook("claude-code", '"$CLAUDE_PROJECT_DIR"'), HOOK_TIMEOUT_SECONDS)
        pieces.append(_hook(settings, ("hooks", "Stop"), hook, "claude-code"))
    return tuple(pieces)


def _hook(file: Path, path: tuple[str, ...], value: Any, client: str) -> Entry:
    return Entry(file=file, path=path, value=value, item=True, mark=f"hook stop --client {client}", purpose=Purpose.HOOK)


def toml_string(text: str) -> str:
    """Return ``text`` as a TOML basic string; JSON's escapes are TOML's, but for one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _codex(setup: Setup) -> tuple[Piece, ...]:
    command, arguments = setup.serve()
    folder = _configured("CODEX_HOME", setup.home / ".codex") if setup.user else setup.root / ".codex"
    environment = ", ".join(f"{key} = {toml_string(value)}" for key, value in _environment(setup, LONG_WAIT_SECONDS).items())
    lines = [
        f"[mcp_servers.{SERVER_NAME}]",
        f"command = {toml_string(command)}",
        f"args = [{', '.join(toml_string(argument) for argument in arguments)}]",
        f"env = {{ {environment} }}",
        # In a person's own file a lab that is gone must not keep Codex from starting elsewhere.
        *([] if setup.user else ["required = true"]),
        "startup_timeout_sec = 60",
        f"tool_timeout_sec = {TIMEOUT_SECONDS}",
        *(['default_tools_approval_mode = "approve"'] if setup.allow else []),
    ]
    key = ("mcp_servers", SERVER_NAME)
    pieces: list[Piece] = [Tables(file=folder / "config.toml", text="\n".join(lines) + "\n", key=key, purpose=Purpose.SERVER)]
    if setup.hook and not setup.user:
        hook = _command_hook(setup.stop_hook("codex"), HOOK_TIMEOUT_SECONDS)
        pieces.append(_hook(folder / "hooks.json", ("hooks", "Stop"), hook, "codex"))
    return tuple(pieces)


def _cursor(setup: Setup) -> tuple[Piece, ...]:
    command, arguments = setup.serve(f"${{workspaceFolder}}/{VENV_COMMAND}", "${workspaceFolder}")
    folder = (setup.home if setup.user else setup.root) / ".cursor"
    places = _environment(setup)
    server = {"type": "stdio", "command": command, "args": arguments, **({"env": places} if places else {})}
    pieces: list[Piece] = [
        Entry(file=folder / "mcp.json", path=("mcpServers", SERVER_NAME), value=server, purpose=Purpose.SERVER)
    ]
    rules = folder / ("cli-config.json" if setup.user else "cli.json")
    anchor = f"{setup.lab}/" if setup.user else ""
    if setup.allow:
        pieces += _items(folder / "permissions.json", ("mcpAllowlist",), [f"{SERVER_NAME}:*"], Purpose.ALLOW)
        allowed = [f"Mcp({SERVER_NAME}:*)", f"Write({anchor}{TRAIN})", f"Write({anchor}{WORKTREE_TRAIN})"]
        pieces += _items(rules, ("permissions", "allow"), allowed, Purpose.ALLOW)
    if setup.deny:
        denied = [f"Write({anchor}{name}/**)" for name in LOCKED_FOLDERS] + [f"Write({anchor}{name})" for name in LOCKED_FILES]
        pieces += _items(rules, ("permissions", "deny"), denied, Purpose.DENY)
    if setup.hook and not setup.user:
        hooks = folder / "hooks.json"
        # Without a limit of its own, Cursor ends the loop after five rounds.
        hook = {"command": setup.stop_hook("cursor"), "timeout": HOOK_TIMEOUT_SECONDS, "loop_limit": None}
        pieces.append(Entry(file=hooks, path=("version",), value=1, purpose=Purpose.FORMAT))
        pieces.append(_hook(hooks, ("hooks", "stop"), hook, "cursor"))
    return tuple(pieces)


def _vscode(setup: Setup) -> tuple[Piece, ...]:
    command, arguments = setup.serve(f"${{workspaceFolder}}/{VENV_COMMAND}", "${workspaceFolder}")
    folder = vscode_user_folder(setup.home) if setup.user else setup.root / ".vscode"
    places = _environment(setup)
    server = {"type": "stdio", "command": command, "args": arguments, **({"env": places} if places else {})}
    pieces: list[Piece] = [Entry(file=folder / "mcp.json", path=("servers", SERVER_NAME), value=server, purpose=Purpose.SERVER)]
    edits = "chat.tools.edits.autoApprove"
    settings = folder / "settings.json"
    if not setup.user:  # rules of paths mean the workspace
        if setup.allow:
            pieces.append(Entry(file=settings, path=(edits, TRAIN), value=True, purpose=Purpose.ALLOW))
        if setup.deny:
            names = [f"{name}/**" for name in LOCKED_FOLDERS] + list(LOCKED_FILES)
            pieces += [Entry(file=settings, path=(edits, name), value=False, purpose=Purpose.DENY) for name in names]
    return tuple(pieces)


def vscode_user_folder(home: Path) -> Path:
    """Return where VS Code keeps the person's own settings on this platform."""
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "Code" / "User"
    return _configured("XDG_CONFIG_HOME", home / ".config") / "Code" / "User"


def _gemini(setup: Setup) -> tuple[Piece, ...]:
    command, arguments = setup.serve()
    home = _configured("GEMINI_CLI_HOME", setup.home) / ".gemini"
    settings = (home if setup.user else setup.root / ".gemini") / "settings.json"
    server: dict[str, Any] = {
        "command": command,
        "args": arguments,
        "env": _environment(setup, LONG_WAIT_SECONDS),
        "timeout": TIMEOUT_SECONDS * 1000,
    }
    if setup.allow:
        server["trust"] = True
    pieces: list[Piece] = [Entry(file=settings, path=("mcpServers", SERVER_NAME), value=server, purpose=Purpose.SERVER)]
    if not setup.user:
        instructions = ["AGENTS.md", "GEMINI.md"]
        pieces.append(Entry(file=settings, path=("context", "fileName"), value=instructions, purpose=Purpose.CONTEXT))
    # Rules about files count only in the person's own folder: Gemini CLI ignores those of a workspace (its issue 18186).
    if setup.lab and (rules := _gemini_rules(setup, setup.lab)):
        name = f"{SERVER_NAME}-{sha256(os.fsencode(setup.lab)).hexdigest()[:8]}.toml"
        purpose = Purpose.ALLOW if setup.allow else Purpose.DENY
        pieces.append(WholeFile(file=home / "policies" / name, text=rules, purpose=purpose))
    if setup.hook and not setup.user:
        hook = _command_hook(setup.stop_hook("gemini", '"$GEMINI_PROJECT_DIR"'), HOOK_TIMEOUT_SECONDS * 1000)
        pieces.append(_hook(settings, ("hooks", "AfterAgent"), hook, "gemini"))
    return tuple(pieces)


def _gemini_rules(setup: Setup, lab: Path) -> str:
    """Return a policy file: what may be written in one lab. A path is given absolute or from the lab, so both are matched."""
    rules = []
    prefix = f'"file_path":"({_escaped(f"{lab}/")}|\\./)?'
    if setup.deny:
        locked = "|".join([*(_escaped(name) + "/.*" for name in LOCKED_FOLDERS), *map(_escaped, LOCKED_FILES)])
        rules.append(("deny", f'{prefix}({locked})"', 200))
    if setup.allow:
        worktree = _escaped(".autoresearch/worktrees/") + "[^/]+/"
        rules.append(("allow", f'{prefix}({worktree})?{_escaped(TRAIN)}"', 100))
    head = f"# Made by `autoresearch install gemini` for the lab {lab}\n"
    return head * bool(rules) + "".join(
        f'\n[[rule]]\ntoolName = ["replace", "write_file"]\nargsPattern = {toml_string(pattern)}\n'
        f'decision = "{decision}"\npriority = {priority}\n'
        for decision, pattern, priority in rules
    )


def _escaped(text: str) -> str:
    """Return a JavaScript regular expression that matches ``text`` as JSON writes it."""
    quoted = json.dumps(text, ensure_ascii=False)[1:-1]
    return "".join(f"\\{character}" if character in r"\^$.*+?()[]{}|" else character for character in quoted)


def _opencode(setup: Setup) -> tuple[Piece, ...]:
    command, arguments = setup.serve()
    folder = _configured("XDG_CONFIG_HOME", setup.home / ".config") / "opencode" if setup.user else setup.root
    file = folder / "opencode.json"
    server = {
        "type": "local",
        "command": [command, *arguments],
        "environment": _environment(setup, LONG_WAIT_SECONDS),
        "enabled": True,
        "timeout": TIMEOUT_SECONDS * 1000,
    }
    pieces: list[Piece] = [
        Entry(file=file, path=("$schema",), value="https://opencode.ai/config.json", purpose=Purpose.FORMAT),
        Entry(file=file, path=("mcp", SERVER_NAME), value=server, purpose=Purpose.SERVER),
    ]
    if setup.allow:
        pieces.append(Entry(file=file, path=("permission", f"{SERVER_NAME}_*"), value="allow", purpose=Purpose.ALLOW))
    if setup.deny and not setup.user:  # rules of paths mean the project
        names = [f"{name}/*" for name in LOCKED_FOLDERS] + list(LOCKED_FILES)
        pieces += [Entry(file=file, path=("permission", "edit", name), value="deny", purpose=Purpose.DENY) for name in names]
    return tuple(pieces)


CLIENTS = (
    Client(
        name="claude",
        title="Claude Code",
        programs=("claude",),
        folder=".claude",
        pieces=_claude,
        trust="Start `claude` in the lab once and accept the question whether you trust the folder.",
        unattended='claude "start"    (in a trusted folder the rules above suffice; anything else it wants to do still asks)',
    ),
    Client(
        name="codex",
        title="Codex",
        programs=("codex",),
        folder=".codex",
        pieces=_codex,
        trust="Start `codex` in the lab once, accept that you trust the folder, and trust the Stop hook with /hooks.",
        unattended='codex --ask-for-approval never --sandbox workspace-write "start"',
    ),
    Client(
        name="cursor",
        title="Cursor",
        programs=("cursor-agent", "cursor"),
        folder=".cursor",
        pieces=_cursor,
        trust="Open the lab in Cursor, trust the workspace, and switch the server on under Settings, MCP.",
        unattended='set Auto-Run to use the allowlist; on the command line: cursor-agent --approve-mcps "start"',
    ),
    Client(
        name="vscode",
        title="VS Code",
        programs=("code",),
        folder=".vscode",
        pieces=_vscode,
        trust=(
            "Open the lab, trust the workspace, start the server from .vscode/mcp.json, and at the first call choose to allow "
            "all its tools in this workspace."
        ),
        unattended="keep the window open; VS Code has no file for tool approvals and no Stop hook of ours",
    ),
    Client(
        name="gemini",
        title="Gemini CLI",
        programs=("gemini",),
        folder=".gemini",
        pieces=_gemini,
        trust="Start `gemini` in the lab once and accept that you trust the folder.",
        unattended='gemini --prompt-interactive "start"',
    ),
    Client(
        name="opencode",
        title="opencode",
        programs=("opencode",),
        folder=".config/opencode",
        pieces=_opencode,
        trust="Nothing: opencode starts the servers of a project at once.",
        unattended='opencode run "start"    (opencode allows what no rule forbids)',
    ),
)

BY_NAME = {client.name: client for client in CLIENTS}
ALIASES = {"claude-code": "claude", "vs-code": "vscode", "code": "vscode", "gemini-cli": "gemini", "cursor-agent": "cursor"}
