"""`doctor` as a client: it says what is wrong with a server that is registered, ends in time, and leaves no process behind."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import psutil
import pytest
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.machine import command_path
from autoresearch_mcp.server.check import Check, Level
from autoresearch_mcp.server.doctor_handshake import check_registration, check_server, check_servers, registrations
from autoresearch_mcp.server.handshake import Era, HandshakeError, Launch, shake_hands

from ..polling import until

# A small server in both eras. Each test changes one thing about it.
SERVER = """
import json, sys
NAME, VERSION, MODERN = "autoresearch", "0.1.0", True
def answer(message):
    modern = "_meta" in message.get("params", {})
    if modern and not MODERN:
        return {"error": {"code": -32601, "message": "Method not found"}}
    info = {"name": NAME, "version": VERSION}
    return {"result": {
        "initialize": {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": info},
        "server/discover": {"supportedVersions": ["2026-07-28"], "_meta": {"io.modelcontextprotocol/serverInfo": info}},
        "tools/list": {"tools": [{"name": "status"}]},
        "tools/call": {"content": [{"type": "text", "text": "lab here"}]},
    }[message["method"]]}
for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer(message)}), flush=True)
"""


def launch(folder: Path, source: str, *options: str) -> Launch:
    script = folder / "a server.py"
    script.write_text(source)
    return Launch(command=(sys.executable, *options, str(script)), folder=folder)


def check(folder: Path, source: str, *, deadline_seconds: float = 30.0) -> Check:
    return check_server(launch(folder, source), ask_status=True, deadline_seconds=deadline_seconds)


@pytest.mark.parametrize("era", Era)
def test_a_server_that_is_fine_is_described(tmp_path: Path, era: Era) -> None:
    said = shake_hands(launch(tmp_path, SERVER), era, ask_status=True, deadline_seconds=30.0)
    assert (said.name, said.version, said.revision) == ("autoresearch", "0.1.0", era.value)
    assert (said.tools, said.status, said.stray) == (1, "lab here", "")
    found = check(tmp_path, SERVER)
    assert found.level is Level.OK
    assert "2025-06-18 and 2026-07-28; status answers" in found.found


def test_a_command_that_is_missing_or_may_not_be_executed_is_named_with_what_installs_it(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    for command in ("no-such-program", "./plain", str(tmp_path / "none" / "autoresearch")):
        found = check_server(Launch(command=(command, "serve"), folder=tmp_path), ask_status=False)
        assert found.level is Level.FAIL
        assert f"{command}: command not found" in found.found
        assert "make setup" in found.advice


def test_a_command_of_the_wrong_kind_is_no_traceback(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    assert "cannot be started" in check_server(Launch(command=("./script",), folder=tmp_path), ask_status=False).found


def test_a_line_that_is_no_message_is_quoted(tmp_path: Path) -> None:
    found = check(tmp_path, "print('Welcome to Python \\x1b[1m!', flush=True)\n" + SERVER)
    assert found.level is Level.FAIL
    assert "Welcome to Python" in found.found
    assert "\x1b" not in found.found
    assert "standard error" in found.advice


def test_a_flood_of_garbage_ends_at_once(tmp_path: Path) -> None:
    for source in ("while True: print('garbage')", "import sys\nwhile True: sys.stdout.write('x' * 65536)"):
        began = time.monotonic()
        found = check(tmp_path, source, deadline_seconds=20.0)
        assert found.level is Level.FAIL
        assert time.monotonic() - began < 15.0


def test_a_server_that_dies_is_told_with_its_last_words_and_the_command_to_see_more(tmp_path: Path) -> None:
    found = check(tmp_path, "import sys\nprint('booting', file=sys.stderr)\nsys.exit('no license')")
    assert found.level is Level.FAIL
    assert "exit code 1" in found.found
    assert "Its last words: booting | no license" in found.found
    assert found.advice.startswith(sys.executable)
    killed = check(tmp_path, "import os\nos.kill(os.getpid(), 9)")
    assert "killed by signal 9" in killed.found


def test_a_server_that_hangs_is_ended_at_the_deadline_with_its_children(tmp_path: Path) -> None:
    source = f"""
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({str(tmp_path / "pids")!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
time.sleep(600)
"""
    began = time.monotonic()
    with pytest.raises(HandshakeError, match=r"no answer to initialize within 3 s"):
        shake_hands(launch(tmp_path, source), Era.LEGACY, ask_status=False, deadline_seconds=3.0)
    assert time.monotonic() - began < 15.0
    until(lambda: not any(alive(int(pid)) for pid in (tmp_path / "pids").read_text().split()))


def alive(pid: int) -> bool:
    """Say whether a process runs; one that nobody has waited for yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_server_of_one_era_another_version_or_another_name_is_told_apart(tmp_path: Path) -> None:
    old = check(tmp_path, SERVER.replace('"0.1.0", True', '"0.1.0", False'))
    assert old.level is Level.WARN
    assert "in revision 2026-07-28: it answers server/discover with an error" in old.found
    other = check(tmp_path, SERVER.replace("0.1.0", "9.9.9"))
    assert other.level is Level.WARN
    assert "version 9.9.9, and this is" in other.found
    foreign = check(tmp_path, SERVER.replace('"autoresearch"', '"filesystem"'))
    assert foreign.level is Level.FAIL
    assert "filesystem 0.1.0 answers, which is another server" in foreign.found


def test_a_file_of_the_lab_that_python_takes_for_a_module_is_found(tmp_path: Path) -> None:
    (tmp_path / "sched.py").write_text("raise SystemError('mine')\n")
    (tmp_path / "mine.py").write_text("import sched\n")
    found = check_server(Launch(command=(sys.executable, "-m", "mine"), folder=tmp_path), ask_status=False)
    assert found.level is Level.FAIL
    assert found.advice.startswith(f"rename {tmp_path / 'sched.py'}, or ")


def write(root: Path, file: str, text: str) -> None:
    (root / file).parent.mkdir(exist_ok=True)
    (root / file).write_text(text)


def entry(**values: object) -> str:
    return json.dumps({"mcpServers": {"autoresearch": values}})


def test_what_the_clients_files_name_is_read_in_each_ones_form(tmp_path: Path) -> None:
    write(tmp_path, ".mcp.json", entry(type="stdio", command="a", args=["serve"], env={"X": "1"}))
    write(tmp_path, ".codex/config.toml", '[mcp_servers.autoresearch]\ncommand = "b"\nargs = ["serve"]\n')
    write(tmp_path, "opencode.json", json.dumps({"mcp": {"autoresearch": {"type": "local", "command": ["c", "serve"]}}}))
    write(
        tmp_path,
        ".vscode/mcp.json",
        json.dumps({"servers": {"autoresearch": {"command": "${workspaceFolder}/d", "args": ["serve"]}}}),
    )
    write(tmp_path, ".cursor/mcp.json", json.dumps({"mcpServers": {"another": {"command": "e"}}}))
    write(tmp_path, ".gemini/settings.json", entry(url="http://127.0.0.1:8765/mcp"))
    found = {str(each.file.relative_to(tmp_path)): each.launch for each in registrations(tmp_path)}
    commands = {file: None if each is None else each.command for file, each in found.items()}
    assert commands == {
        ".mcp.json": ("a", "serve"),
        ".codex/config.toml": ("b", "serve"),
        ".vscode/mcp.json": (f"{tmp_path}/d", "serve"),
        "opencode.json": ("c", "serve"),
    }
    assert found[".mcp.json"] == Launch(command=("a", "serve"), folder=tmp_path, environment={"X": "1"})


@pytest.mark.parametrize("text", ["{", "[]", '{"mcpServers": []}', entry(args=["serve"]), entry(command="a", env=["X"])])
def test_a_file_that_no_client_can_read_is_a_warning(tmp_path: Path, text: str) -> None:
    write(tmp_path, ".mcp.json", text)
    (registration,) = registrations(tmp_path)
    found = check_registration(registration, root=tmp_path)
    assert found.level is Level.WARN
    assert found.name == ".mcp.json"
    assert "is not what its client reads" in found.found


def test_a_registered_command_that_is_another_is_a_warning_and_never_started(tmp_path: Path) -> None:
    def told(**values: object) -> Check:
        write(tmp_path, ".mcp.json", entry(**values))
        (registration,) = registrations(tmp_path)
        return check_registration(registration, root=tmp_path)

    gone = told(command="/gone/bin/autoresearch", args=["serve"])
    assert gone.level is Level.WARN
    assert "/gone/bin/autoresearch serve: command not found" in gone.found
    assert gone.advice == f"{command_path()} install claude --lab {tmp_path} --replace"
    (tmp_path / "wrapper").write_text(f"#!/bin/sh\ntouch {tmp_path / 'started'}\n")  # as an agent could write it
    (tmp_path / "wrapper").chmod(0o755)
    other = told(command="./wrapper", args=["serve"])
    assert other.level is Level.WARN
    assert "another server, not started here" in other.found
    assert not (tmp_path / "started").exists()
    elsewhere = told(command=command_path(), args=["serve", "--lab", str(tmp_path.parent)])
    assert elsewhere.level is Level.WARN
    for arguments in (["serve"], ["serve", "--lab", str(tmp_path)], ["serve", "--lab", "."]):
        assert told(command=command_path(), args=arguments).found == "names this server"


@pytest.mark.slow
def test_the_server_of_a_lab_answers_status_and_a_file_that_names_it_is_not_tried_again(lab: Lab) -> None:
    write(lab.root, ".mcp.json", entry(command=command_path(), args=["serve", "--lab", str(lab.root)]))
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    server, client = check_servers(lab.root / "trainer")
    assert server.name == "server"
    assert server.level is not Level.FAIL  # a busy machine makes it slow
    assert "; status answers" in server.found
    assert (client.name, client.level, client.found) == (".mcp.json", Level.OK, "names this server")
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before


@pytest.mark.slow
def test_where_there_is_no_lab_the_server_is_still_tried(tmp_path: Path) -> None:
    (server,) = check_servers(tmp_path)
    assert server.level is not Level.FAIL
    assert list(tmp_path.iterdir()) == []
