"""Installing into a person's files: nothing of theirs is lost, and uninstall gives back the same bytes."""

from __future__ import annotations

import json
import re
import stat
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from autoresearch_mcp.lab.config import DEFAULT_CONFIG_TEXT
from autoresearch_mcp.server.cli.application import app
from autoresearch_mcp.server.clients.errors import ClientConfigError
from autoresearch_mcp.server.clients.installing import install, plan_install, plan_uninstall, uninstall
from autoresearch_mcp.server.clients.shipped import lab_files
from autoresearch_mcp.server.clients.table import BY_NAME, CLIENTS, Setup
from autoresearch_mcp.server.clients.toml_block import END
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from .test_json_text import texts

BUSY = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
FILES = {
    "claude": ".claude/settings.json",
    "codex": ".codex/config.toml",
    "cursor": ".cursor/mcp.json",
    "vscode": ".vscode/settings.json",
    "gemini": ".gemini/settings.json",
    "opencode": "opencode.json",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab, as far as these commands look, with a home of its own beside it."""
    monkeypatch.setenv("AUTORESEARCH_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("CLAUDE_CONFIG_DIR", "CODEX_HOME", "XDG_CONFIG_HOME", "GEMINI_CLI_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()
    lab = tmp_path / "lab"
    lab.mkdir()
    (lab / "autoresearch.toml").write_text(DEFAULT_CONFIG_TEXT)
    return lab


@pytest.fixture
def call(folder: Path) -> Callable[..., Result]:
    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--lab", str(folder)], env={"COLUMNS": "200"})

    return invoke


def contents(*folders: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for folder in folders for file in folder.rglob("*") if file.is_file()}


def refused(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    return result.stderr


@pytest.mark.parametrize("client", BY_NAME)
@pytest.mark.parametrize("user", [False, True])
def test_install_then_uninstall_leaves_nothing_behind(
    client: str, user: bool, folder: Path, call: Callable[..., Result]
) -> None:
    before = contents(folder, folder.parent / "home")
    scope = ["--user"] if user else []
    assert call("install", client, *scope).exit_code == 0
    made = contents(folder, folder.parent / "home").keys() - before.keys()
    texts = b"".join(file.read_bytes() for file in made)
    assert made
    assert {stat.S_IMODE(file.stat().st_mode) for file in made} == {0o600}
    assert str(folder).encode() in texts
    assert b'"/' in texts  # the command, as an absolute path
    result = call("uninstall", client, *scope)
    assert result.exit_code == 0, result.output
    assert contents(folder, folder.parent / "home") == before
    assert [path for path in folder.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize("client", BY_NAME)
def test_a_server_finds_the_state_folder_of_whoever_installed_it(
    client: str, folder: Path, call: Callable[..., Result]
) -> None:
    assert call("install", client).exit_code == 0
    assert any(str(folder.parent / "state").encode() in text for text in contents(folder).values())


@pytest.mark.parametrize("client", BY_NAME)
def test_a_second_install_has_nothing_to_change(client: str, call: Callable[..., Result], folder: Path) -> None:
    first = call("install", client)
    assert "Once: " in first.stdout
    before = contents(folder, folder.parent / "home")
    assert "Nothing to change" in call("install", client).stdout
    assert contents(folder, folder.parent / "home") == before


@pytest.mark.parametrize("client", BY_NAME)
def test_print_shows_and_writes_nothing(client: str, call: Callable[..., Result], folder: Path) -> None:
    before = contents(folder.parent)
    result = call("install", client, "--print")
    assert result.exit_code == 0
    assert re.search(r"^\+.*autoresearch", result.stdout, re.MULTILINE)
    assert contents(folder.parent) == before


@settings(deadline=None, max_examples=40, suppress_health_check=BUSY)
@given(text=texts(), client=st.sampled_from([row for row in CLIENTS if row.name != "codex"]), allow=st.booleans())
def test_whatever_json_was_there_uninstall_gives_back_the_same_bytes(text: str, client: Any, allow: bool, folder: Path) -> None:
    file = folder / FILES[client.name]
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(text.encode())
    setup = Setup(command="/opt/bin/autoresearch", lab=folder, home=folder.parent / "home", allow=allow, deny=allow)
    before = contents(folder)
    try:
        plan = plan_install(client, setup)
    except ClientConfigError:  # a value that is no object stands where the servers go
        assert contents(folder) == before
        return
    install(client, plan)
    was, now = json.loads(text), json.loads(file.read_bytes())
    assert all(now[key] == value for key, value in was.items() if not isinstance(value, dict | list))
    assert not plan_install(client, setup).changes
    uninstall(client, plan_uninstall(client, setup))
    assert contents(folder) == before


@settings(deadline=None, max_examples=60, suppress_health_check=BUSY)
@given(
    lines=st.lists(
        st.sampled_from(
            [
                "# a comment",
                "",
                "model = 'x'  # why",
                "[mcp_servers.other]",
                "[projects.'/a b']",
                "[[list]]",
                'text = """',
                '"""',
            ]
        ),
        max_size=6,
    ),
    end=st.sampled_from(["", "\n", "\n\n"]),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_whatever_toml_was_there_uninstall_gives_back_the_same_bytes(
    lines: list[str], end: str, newline: str, folder: Path
) -> None:
    text = ("\n".join(lines) + end).replace("\n", newline)
    try:
        was = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    file = folder / ".codex/config.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(text.encode())
    setup = Setup(command="/opt/bin/autoresearch", lab=folder, home=folder.parent / "home", hook=False)
    codex = BY_NAME["codex"]
    install(codex, plan_install(codex, setup))
    now = tomllib.loads(file.read_bytes().decode())
    assert now["mcp_servers"].pop("autoresearch")["args"] == ["serve", "--lab", str(folder)]
    assert now == {"mcp_servers": {}, **was}
    uninstall(codex, plan_uninstall(codex, setup))
    assert file.read_bytes() == text.encode()


def test_a_server_of_another_lab_is_told_and_replaced_only_when_asked(folder: Path, call: Callable[..., Result]) -> None:
    file = folder / ".mcp.json"
    file.write_text('{"mcpServers": {"autoresearch": {"command": "/x/autoresearch", "args": ["serve", "--lab", "/y"]}}}')
    before = contents(folder)
    error = refused(call("install", "claude"))
    assert "/y" in error
    assert "--replace" in error
    assert contents(folder) == before
    assert call("install", "claude", "--replace").exit_code == 0
    assert json.loads(file.read_text())["mcpServers"]["autoresearch"]["args"] == ["serve", "--lab", str(folder)]


def test_the_relative_entry_of_a_clone_is_this_labs_server_already(folder: Path, call: Callable[..., Result]) -> None:
    entry = {"type": "stdio", "command": "bin/autoresearch", "args": ["serve"]}
    (folder / ".mcp.json").write_text(json.dumps({"mcpServers": {"autoresearch": entry}}))
    claude = BY_NAME["claude"]
    setup = Setup(command=str(folder / "bin/autoresearch"), lab=folder, home=folder)
    plan = plan_install(claude, setup)
    assert not [change for change in plan.changes if change.file.name == ".mcp.json"]
    assert "already" in plan.notes[0]


@pytest.mark.parametrize(
    ("client", "name", "text", "said"),
    [
        ("vscode", ".vscode/mcp.json", '{\n  // mine\n  "servers": {}\n}', "comments (line 2)"),
        ("opencode", "opencode.jsonc", '{"mcp": {}, /* mine */}', "comments (line 1)"),
        ("gemini", ".gemini/settings.json", '{"a": 1\n "b"}', "broken in line 2"),
        ("codex", ".codex/config.toml", "a = 1\nb = = 2\n", "line 2"),
        ("codex", ".codex/config.toml", 'mcp_servers = { other = { command = "x" } }\n', "To add by hand"),
        ("cursor", ".cursor/mcp.json", '{"mcpServers": []}', "cannot be added to"),
        ("claude", ".mcp.json", "", "is empty"),
    ],
)
def test_a_file_that_cannot_be_changed_safely_is_refused_and_no_file_is_written(
    client: str, name: str, text: str, said: str, folder: Path, call: Callable[..., Result]
) -> None:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    before = contents(folder.parent)
    error = refused(call("install", client))
    assert said in error
    assert "Nothing was written" in error
    assert contents(folder.parent) == before


def test_a_file_keeps_its_mode_and_a_link_of_the_persons_stays_a_link(folder: Path, call: Callable[..., Result]) -> None:
    dotfile = folder.parent / "dotfiles.json"
    dotfile.write_text('{"theme": "dark"}\n')
    dotfile.chmod(0o600)
    link = folder.parent / "home" / ".cursor" / "mcp.json"
    link.parent.mkdir()
    link.symlink_to(dotfile)
    assert call("install", "cursor", "--user").exit_code == 0
    assert link.is_symlink()
    assert "autoresearch" in dotfile.read_text()
    assert dotfile.stat().st_mode & 0o777 == 0o600
    assert call("uninstall", "cursor", "--user").exit_code == 0
    assert dotfile.read_text() == '{"theme": "dark"}\n'


def test_a_link_out_of_the_lab_is_not_followed(folder: Path, call: Callable[..., Result]) -> None:
    victim = folder.parent / "home" / "victim.json"
    victim.write_text("{}")
    (folder / ".mcp.json").symlink_to(victim)
    assert "out of the lab" in refused(call("install", "claude"))
    assert victim.read_text() == "{}"


def test_what_others_added_since_survives_an_uninstall(folder: Path, call: Callable[..., Result]) -> None:
    call("install", "claude")
    file = folder / ".mcp.json"
    value = json.loads(file.read_text())
    value["mcpServers"]["other"] = {"command": "x"}
    file.write_text(json.dumps(value, indent=4))
    assert call("uninstall", "claude").exit_code == 0
    assert json.loads(file.read_text()) == {"mcpServers": {"other": {"command": "x"}}}


def test_what_a_person_allowed_before_is_theirs(folder: Path, call: Callable[..., Result]) -> None:
    file = folder / ".claude" / "settings.json"
    file.parent.mkdir()
    text = '{"permissions": {"allow": ["Bash(ls)", "mcp__autoresearch"]}, "model": "x"}'
    file.write_text(text)
    assert call("install", "claude").exit_code == 0
    assert json.loads(file.read_text())["permissions"]["allow"].count("mcp__autoresearch") == 1
    assert call("uninstall", "claude").exit_code == 0
    assert file.read_text() == text


def test_files_that_were_deleted_are_written_again_and_come_out_clean(folder: Path, call: Callable[..., Result]) -> None:
    """Agents run `git clean -fdx`."""
    before = contents(folder)
    call("install", "claude")
    (folder / ".claude" / "settings.json").unlink()
    call("install", "claude")
    result = call("uninstall", "claude")
    assert "Note" not in result.stdout
    assert contents(folder) == before


def test_an_entry_that_install_did_not_write_is_not_taken_out(folder: Path, call: Callable[..., Result]) -> None:
    (folder / ".mcp.json").write_text('{"mcpServers": {"autoresearch": {"command": "x"}}}')
    before = contents(folder)
    assert "was not written by" in call("uninstall", "claude").stdout
    assert contents(folder) == before


def test_locked_files_are_denied_in_a_lab_and_not_in_a_clone_of_the_source(folder: Path, call: Callable[..., Result]) -> None:
    call("install", "claude")
    rules = json.loads((folder / ".claude/settings.json").read_text())["permissions"]
    assert {"Edit(/prepare/**)", "Edit(/program.md)", "Edit(/autoresearch.toml)"} <= set(rules["deny"])
    assert "Edit(/trainer/train.py)" in rules["allow"]
    call("uninstall", "claude")
    (folder / "lab" / "referee").mkdir(parents=True)
    call("install", "claude")
    assert "deny" not in json.loads((folder / ".claude/settings.json").read_text())["permissions"]


def test_without_allow_and_hook_only_the_server_is_written(folder: Path, call: Callable[..., Result]) -> None:
    assert call("install", "claude", "--no-allow", "--no-deny", "--no-hook").exit_code == 0
    assert [path.name for path in contents(folder) if path.name != "autoresearch.toml"] == [".mcp.json"]


def test_geminis_rules_match_the_files_they_name_and_no_others(folder: Path, call: Callable[..., Result]) -> None:
    call("install", "gemini")
    (rules,) = (folder.parent / "home/.gemini/policies").iterdir()
    deny, allow = (re.compile(rule["argsPattern"]) for rule in tomllib.loads(rules.read_text())["rule"])

    def arguments(path: str) -> str:
        return json.dumps({"file_path": path, "old_string": '"file_path":"trainer/train.py"'}, separators=(",", ":"))

    for path in ("trainer/train.py", f"{folder}/trainer/train.py", f"{folder}/.autoresearch/worktrees/ben/trainer/train.py"):
        assert allow.search(arguments(path)), path
        assert not deny.search(arguments(path)), path
    for path in ("prepare/runtime.py", f"{folder}/program.md", "./autoresearch.toml"):
        assert deny.search(arguments(path)), path
        assert not allow.search(arguments(path)), path
    for path in ("/elsewhere/trainer/train.py", f"{folder}/trainer/train.pyc", "program.md.bak"):
        assert not allow.search(arguments(path)), path
        assert not deny.search(arguments(path)), path


def test_what_init_writes_for_claude_code_is_what_install_wants(folder: Path) -> None:
    for name, content in lab_files(folder, "/opt/bin/autoresearch").items():
        (folder / name).write_bytes(content)
    setup = Setup(command="/opt/bin/autoresearch", lab=folder, home=folder.parent / "home")
    plan = plan_install(BY_NAME["claude"], setup)
    assert [change.file.name for change in plan.changes] == ["settings.json"]


def test_without_a_client_the_list_names_each(call: Callable[..., Result]) -> None:
    result = call("install")
    assert result.exit_code == 0
    assert all(client.name in result.stdout for client in CLIENTS)


def test_an_unknown_client_and_a_folder_without_a_lab_are_refused(folder: Path, call: Callable[..., Result]) -> None:
    assert call("install", "emacs").exit_code == 2
    (folder / "autoresearch.toml").unlink()
    assert "autoresearch init" in refused(call("install", "claude"))


def test_tables_that_a_client_wrote_before_the_end_mark_survive_uninstall_and_replace(
    folder: Path, call: Callable[..., Result]
) -> None:
    file = folder.parent / "home/.codex/config.toml"
    file.parent.mkdir()
    file.write_text('model = "x"\n')
    theirs = '# trusted by hand\n[projects."/p"]\ntrust_level = "trusted"\n\n[mcp_servers.other]\ncommand = "o"\n'
    for last in (["uninstall", "codex", "--user"], ["install", "codex", "--user", "--replace"]):
        assert call("install", "codex", "--user").exit_code == 0
        text = file.read_text()
        # Codex puts what it adds before trailing comments.
        edited = text.replace("900", "901").replace(END, theirs + END)
        file.write_text(edited)
        result = call(*last)
        assert result.exit_code == 0, result.output
        assert theirs in file.read_text()
        values = tomllib.loads(file.read_text())
        assert values["projects"] == {"/p": {"trust_level": "trusted"}}
        assert ("autoresearch" in values["mcp_servers"]) == (last[0] == "install")
        file.write_text('model = "x"\n')


def test_a_value_below_the_block_that_would_move_to_another_table_keeps_it_there(
    folder: Path, call: Callable[..., Result]
) -> None:
    file = folder / ".codex/config.toml"
    file.parent.mkdir()
    file.write_text("[other]\nx = 1\n")
    assert call("install", "codex", "--no-hook").exit_code == 0
    file.write_text(before := file.read_text() + "y = 2\n")
    assert "stays" in call("uninstall", "codex").stdout
    assert file.read_text() == before


def test_a_hook_that_shares_its_entry_with_others_is_not_replaced(folder: Path, call: Callable[..., Result]) -> None:
    assert call("install", "claude").exit_code == 0
    file = folder / ".claude/settings.json"
    value = json.loads(file.read_text())
    hooks = value["hooks"]["Stop"][0]["hooks"]
    hooks[0]["timeout"] = 60
    hooks.append({"type": "command", "command": "notify-send"})
    file.write_text(json.dumps(value))
    before = contents(folder)
    assert "together with other hooks" in refused(call("install", "claude", "--replace"))
    assert contents(folder) == before


def test_of_two_installs_at_once_both_are_on_record(folder: Path, call: Callable[..., Result]) -> None:
    setup = Setup(command="/bin/true", lab=folder, home=folder.parent / "home")
    for _ in range(3):
        before = contents(folder, folder.parent / "home")
        plans = [(BY_NAME[name], plan_install(BY_NAME[name], setup)) for name in BY_NAME]
        with ThreadPoolExecutor(len(plans)) as pool:
            list(pool.map(lambda pair: install(*pair), plans))
        for client in CLIENTS:
            uninstall(client, plan_uninstall(client, setup))
        assert contents(folder, folder.parent / "home") == before


def test_what_no_parser_can_follow_and_a_damaged_record_are_refused_in_words(folder: Path, call: Callable[..., Result]) -> None:
    file = folder / ".mcp.json"
    file.write_text('{"a":' + "[" * 900 + "]" * 900 + "}")
    assert "too deep" in refused(call("install", "claude"))
    file.unlink()
    file.symlink_to(".mcp.json")
    assert "plain file" in refused(call("install", "claude"))
    file.unlink()
    record = folder.parent / "state/clients.json"
    record.parent.mkdir(exist_ok=True)
    record.write_text("{")
    before = contents(folder)
    assert "damaged" in refused(call("install", "claude"))
    assert contents(folder) == before
