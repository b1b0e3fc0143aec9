"""Landlock, in a process of its own: what stays reachable, what does not, and which kernel can do what."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from autoresearch_mcp.lab.referee.sandbox import filters, make_interpreter, view_for
from autoresearch_mcp.prepare import landlock

from .staging import Staged, run_staged

needs_landlock = pytest.mark.skipif(not landlock.abi(), reason="this kernel has no Landlock")

FILES = """
open("scratch/mine", "w").write("mine")
os.mkdir("scratch/folder")
descriptor = os.open("readable/file", os.O_RDONLY)
print(json.dumps({
    "read": outcome(lambda: open("readable/file").read()),
    "write": outcome(lambda: open("readable/file", "a")),
    "reopen": outcome(lambda: open(f"/proc/self/fd/{descriptor}", "a")),
    "remove": outcome(lambda: os.remove("readable/file")),
    "list": outcome(lambda: os.listdir("listable")),
    "read what is listed": outcome(lambda: open("listable/file").read()),
    "list the rest": outcome(lambda: os.listdir("hidden")),
    "read the rest": outcome(lambda: open("hidden/file").read()),
    "link out": outcome(lambda: os.link("scratch/mine", "readable/link")),
    "move": outcome(lambda: os.rename("scratch/mine", "scratch/folder/mine")),
    "a named device": outcome(lambda: open("/dev/null", "w").write("x")),
    "another device": outcome(lambda: open("/dev/zero", "rb").read(1)),
    "truncate": outcome(lambda: os.truncate("readable/file", 0)),
}))
"""

OUTSIDE = """
import socket
port, name = int(os.environ["PORT"]), os.environ["NAME"]
def connected(family, address):
    with socket.socket(family) as client:
        client.connect(address)
def bound():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
def forked():
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.kill(pid, 0)
    os.waitpid(pid, 0)
print(json.dumps({
    "connect": outcome(lambda: connected(socket.AF_INET, ("127.0.0.1", port))),
    "bind": outcome(bound),
    "abstract socket": outcome(lambda: connected(socket.AF_UNIX, "\\0" + name)),
    "signal the parent": outcome(lambda: os.kill(os.getppid(), 0)),
    "signal a child": outcome(forked),
}))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("readable", "listable", "hidden", "scratch"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    return tmp_path


def confined(source: str, folder: Path, **order: object) -> Staged:
    """Run source that may read the interpreter, ``readable`` and /proc/self, and write ``scratch``."""
    program = make_interpreter(None, folder / "python")
    readable = [*view_for(program.view, "cpu").readable, str(folder / "readable"), "/proc/self", sys.executable]
    access = {
        "readable": [*readable, str(Path(sys.executable).resolve().parent.parent), str(folder / "nothing")],
        "listable": [str(folder / "listable")],
        "writable": [str(folder / "scratch")],
        "devices": ["/dev/null"],
    }
    return run_staged(source, folder, access=access, **order)


@needs_landlock
def test_files_are_as_they_were_named_and_nothing_else_is_there(folder: Path) -> None:
    staged = confined(FILES, folder)
    assert staged.said == [{"limits": [], "landlock": landlock.abi()}]
    answers = staged.answers
    allowed = {"read", "list", "a named device"} | ({"move"} if landlock.abi() >= 2 else set())
    if landlock.abi() < 3:
        allowed.add("truncate")  # Landlock has no right for it; the system call filter refuses it
    assert {name for name, came in answers.items() if came == "done"} == allowed, answers
    assert set(answers.values()) <= {"done", "EACCES", "EXDEV"}
    if landlock.abi() >= 3:
        assert (folder / "readable" / "file").read_text() == "readable"


@contextmanager
def listening() -> Iterator[dict[str, str]]:
    """Yield what says where two sockets listen."""
    name = f"autoresearch-test-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0{name}")
        abstract.listen()
        yield {"PORT": str(server.getsockname()[1]), "NAME": name}


@needs_landlock
def test_tcp_is_denied_from_version_4_and_signals_and_abstract_sockets_from_version_6(folder: Path) -> None:
    with listening() as environment:
        answers = confined(OUTSIDE, folder, environment=environment).answers
    tcp = "EACCES" if landlock.abi() >= 4 else "done"
    outside = "EPERM" if landlock.abi() >= 6 else "done"
    assert (answers["connect"], answers["bind"]) == (tcp, tcp)
    assert (answers["signal the parent"], answers["abstract socket"]) == (outside, outside)
    assert answers["signal a child"] == "done"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="abstract sockets are Linux's")
def test_without_restriction_all_of_it_works(folder: Path) -> None:
    with listening() as environment:
        answers = run_staged(OUTSIDE, folder, environment=environment).answers
    assert set(answers.values()) == {"done"}


@needs_landlock
def test_what_is_given_up_once_cannot_be_taken_back(folder: Path) -> None:
    source = f"""
import sys
sys.path.insert(0, {str(Path(landlock.__file__).parent)!r})
import landlock
landlock.restrict(landlock.Access(readable=("/",), writable=("/",)))
print(json.dumps({{"read the rest": outcome(lambda: open("hidden/file").read())}}))
"""
    (folder / "readable" / "harness").symlink_to(Path(landlock.__file__).parent)
    assert confined(source, folder).answers == {"read the rest": "EACCES"}


@pytest.mark.skipif(not filters.is_available(), reason="there is no libseccomp here")
def test_without_landlock_it_says_so_and_nothing_is_confined(folder: Path) -> None:
    import pyseccomp

    older = pyseccomp.SyscallFilter(defaction=pyseccomp.ALLOW)
    older.add_rule(pyseccomp.ERRNO(38), "landlock_create_ruleset")
    with (folder / "filter").open("w+b") as file:
        older.export_bpf(file)
        file.seek(0)
        compiled = file.read()
    source = f"""
import sys
sys.path.insert(0, {str(Path(landlock.__file__).parent)!r})
import landlock
print(json.dumps({{
    "version": landlock.abi(),
    "restrict": outcome(lambda: landlock.restrict(landlock.Access(readable=("/usr",)))),
    "read": outcome(lambda: open("hidden/file").read()),
}}))
"""
    assert run_staged(source, folder, filter=compiled).answers == {"version": 0, "restrict": "ENOSYS", "read": "done"}
