"""Where user namespaces are forbidden, as in the usual GPU container, the ladder has a rung that works."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from autoresearch_mcp.lab.isolation import IsolationLevel
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.referee.sandbox import problem_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="containers are Linux"),
]


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="capabilities are set by number")
def test_in_a_container_without_user_namespaces_landlock_isolates_an_honest_run(make_lab: Callable[..., Lab]) -> None:
    if (problem := problem_of(IsolationLevel.LANDLOCK)) is not None:
        pytest.skip(f"no Landlock here: {problem}")
    lab = make_lab()
    script = Path(__file__).with_name("container.py")
    done = subprocess.run([sys.executable, str(script), str(lab.root)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["level"] == IsolationLevel.LANDLOCK
    assert said["problems"]["bubblewrap"]
    assert (said["verdict"], said["val_bpb"] is not None) == ("improved", True), said["reason"]
    assert "Landlock ABI" in said["guarantees"]["files"]
