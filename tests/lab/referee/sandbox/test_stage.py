"""The stage says what is in force before it becomes the program, and becomes nothing where a part of the order failed."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import pytest

from .staging import run_order, run_staged

LINUX = sys.platform.startswith("linux")
LIMITS = """
import resource
print(json.dumps({
    "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    "size": resource.getrlimit(resource.RLIMIT_FSIZE),
    "mask": os.umask(0),
    "folder": os.getcwd(),
    "environment": dict(os.environ),
    "open": len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None,
}))
"""
CAPABILITIES = """
lines = open("/proc/self/status").read().splitlines()
sets = {line.split(":")[0]: int(line.split()[1], 16) for line in lines if line.startswith("Cap")}
print(json.dumps({**sets, "a closed file": outcome(lambda: open("secret").read())}))
"""


def test_limits_folder_and_environment_are_as_ordered(tmp_path: Path) -> None:
    staged = run_staged(LIMITS, tmp_path, limits={"NOFILE": 64, "FSIZE": 1 << 20}, environment={"WORD": "x", "LC_ALL": "C"})
    assert staged.said == [{"limits": ["FSIZE", "NOFILE"]}]
    answers = staged.answers
    assert answers["files"] == [64, 64]
    assert answers["size"] == [1 << 20, 1 << 20]
    assert answers["mask"] == 0o077
    assert answers["folder"] == str(tmp_path)
    assert answers["environment"]["WORD"] == "x"
    assert set(answers["environment"]) <= {"WORD", "LC_ALL", "LC_CTYPE", "__CF_USER_TEXT_ENCODING"}
    if answers["open"] is not None:
        assert answers["open"] <= 4  # input, output, errors, and the listing itself: neither order nor status is left


def test_a_limit_above_what_the_process_has_is_cut_to_it(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        wanted = hard + 1000 if hard != resource.RLIM_INFINITY else 1 << 20
        answers = run_staged(LIMITS, tmp_path, limits={"NOFILE": wanted}).answers
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert answers["files"] == ([hard, hard] if hard != resource.RLIM_INFINITY else [1 << 20, 1 << 20])


@pytest.mark.parametrize(
    ("order", "why"),
    [
        ({"argv": ["/nowhere/program"]}, "there is no program /nowhere/program"),
        ({"limits": {"NOFILE": -7}}, "ValueError"),
        ({"limits": {"PATIENCE": 1}}, "RLIMIT_PATIENCE"),
        ({"folder": "/nowhere"}, "/nowhere"),
        ({"filter": b"12345678"}, "the system call filter was refused"),
        ({"access": {"unknown": []}}, "unknown"),
    ],
    ids=["no program", "a refused limit", "an unknown limit", "no folder", "a refused filter", "no such access"],
)
def test_what_cannot_be_done_is_said_and_nothing_runs(tmp_path: Path, order: dict[str, object], why: str) -> None:
    if "filter" in order and not LINUX:
        pytest.skip("there are no system call filters here")
    made = tmp_path / "made"
    argv = [sys.executable, "-I", "-S", "-c", f"open({str(made)!r}, 'w')"]
    staged = run_order({"argv": argv, "folder": str(tmp_path), **order})
    assert staged.code == 98
    assert why in staged.said[-1]["error"]
    assert not made.exists()


def test_a_file_that_is_no_program_is_told_in_a_second_line(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\0\1\2 no program")
    program.chmod(0o700)
    staged = run_order({"argv": [str(program)], "folder": str(tmp_path)})
    assert staged.code == 98
    assert [sorted(line) for line in staged.said] == [["limits"], ["error"]]


@pytest.mark.skipif(not LINUX, reason="only Linux ends a process with its parent")
def test_a_stage_whose_parent_is_gone_runs_nothing(tmp_path: Path) -> None:
    staged = run_staged("print('ran')", tmp_path, parent=os.getpid() + 1)
    assert (staged.code, staged.said, staged.output) == (1, [], "")
    assert run_staged("print('ran')", tmp_path, parent=os.getpid()).output == "ran\n"


@pytest.mark.skipif(not LINUX or os.geteuid() != 0, reason="only root on Linux has capabilities to drop")
def test_root_is_left_with_the_rights_of_an_owner(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of somebody else")
    secret.chmod(0o000)
    answers = run_staged(CAPABILITIES, tmp_path, drop_capabilities=True).answers
    assert (answers["CapEff"], answers["CapPrm"], answers["CapInh"], answers["CapBnd"]) == (0, 0, 0, 0)
    assert answers["a closed file"] == "EACCES"
    assert run_staged(CAPABILITIES, tmp_path).answers["a closed file"] == "done"
