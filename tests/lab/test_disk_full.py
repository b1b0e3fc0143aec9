"""Labs on disks that are full, or take no writes: real ones, mounted where only these tests see them.

Each behaviour is a test of `on_small_disks`, which one `pytest` runs in a user and mount namespace of its own.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

_INSIDE = Path(__file__).with_name("on_small_disks.py")
_BEHAVIOURS = [
    node.name
    for node in ast.parse(_INSIDE.read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
]
_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "--propagation", "private")
_TRAINS = "-- real runs --"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What became of each behaviour: nothing where it held, else the failure."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare here, so no disk of our own can be mounted")
    folder = tmp_path_factory.mktemp("disks")
    allowed = subprocess.run(
        [*_NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if allowed.returncode != 0:
        pytest.skip(f"no disk of our own can be mounted here: {allowed.stderr.strip()}")
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", f"--junitxml={report}", str(_INSIDE)]
    ended = subprocess.run([*_NAMESPACE, *command], cwd=_INSIDE.parents[2], capture_output=True, text=True, check=False)
    assert report.is_file(), ended.stdout + ended.stderr
    found: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = re.sub(r"\[.*", "", case.attrib["name"])
        problems = [*case.iter("failure"), *case.iter("error")]
        found[name] = "\n".join([found.get(name, ""), *(f"{case.attrib['name']}\n{each.text}" for each in problems)]).strip()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", _BEHAVIOURS)
def test_on_a_small_disk(outcomes: dict[str, str], behaviour: str) -> None:
    assert behaviour in outcomes
    if outcomes[behaviour]:
        pytest.fail(outcomes[behaviour], pytrace=False)
