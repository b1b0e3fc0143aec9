"""The house itself: sizes, public words, and files that clients and people rely on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from autoresearch_mcp.lab.config import DEFAULT_CONFIG_TEXT
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.tools.catalog import TOOLS

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("server", "tools", "lab", "trainer", "prepare")


def modules() -> list[Path]:
    return [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]


def test_no_module_is_longer_than_800_lines() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in modules() if path.name != "train.py"}
    assert not [path for path, length in lengths.items() if length > 800]


def test_every_module_says_what_it_is() -> None:
    assert not [path for path in modules() if not path.read_text().lstrip().startswith('"""')]


def test_agents_md_stays_short() -> None:
    assert len((ROOT / "AGENTS.md").read_text().splitlines()) <= 150


def test_every_subpackage_is_listed_for_the_wheel() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {"autoresearch_mcp"} | {"autoresearch_mcp." + ".".join(path.parent.relative_to(ROOT).parts) for path in modules()}
    assert set(listed) == found


def test_the_clone_is_a_lab_with_the_default_rules() -> None:
    assert (ROOT / "autoresearch.toml").read_text() == DEFAULT_CONFIG_TEXT


def test_the_clones_mcp_json_starts_the_server_that_make_setup_installs() -> None:
    server = json.loads((ROOT / ".mcp.json").read_text())["mcpServers"]["autoresearch"]
    assert (server["command"], server["args"]) == (".venv/bin/autoresearch", ["serve"])
    assert server["timeout"] > 1000 * float(server["env"]["AUTORESEARCH_MAX_WAIT"])


def test_opening_the_clone_as_a_lab_changes_no_tracked_file(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    lab = Lab.open(clone)
    try:
        assert lab.config().budget.seconds == 300
    finally:
        lab.close()
    status = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True)
    assert status.stdout == ""


@pytest.mark.slow
def test_the_wheel_installs_one_name_and_its_server_starts(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True, symlinks=True)
    python = environment / "bin" / "python"
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True, cwd=tmp_path
    )
    site = Path(
        subprocess.run(
            [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    )
    ours = {path.name for path in site.iterdir()} - {"pip", "setuptools", "_distutils_hack", "pkg_resources"}
    assert {name for name in ours if not name.endswith((".dist-info", ".pth", ".virtualenv"))} == {"autoresearch_mcp"}
    assert (site / "autoresearch_mcp" / "program.md").exists()
    # The dependencies are those of this environment: only the package itself is under test, and torch is large.
    dependencies = Path(pytest.__file__).resolve().parent.parent
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    lab = tmp_path / "lab"
    script = environment / "bin" / "autoresearch"
    settings = {**os.environ, "AUTORESEARCH_STATE": str(tmp_path / "state")}
    subprocess.run([str(script), "init", str(lab)], check=True, env=settings, cwd=tmp_path, capture_output=True)
    code = (
        "import anyio, autoresearch_mcp, sys\n"
        "from mcp import Client\nfrom mcp.client.stdio import StdioServerParameters as Parameters\n"
        "async def main():\n"
        f"    async with Client(Parameters(command={str(script)!r}, args=['serve', '--lab', {str(lab)!r}])) as client:\n"
        "        print(len((await client.list_tools()).tools), autoresearch_mcp.__file__)\n"
        "anyio.run(main)\n"
    )
    done = subprocess.run([str(python), "-c", code], env=settings, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, place = done.stdout.split()
    assert int(count) == len(TOOLS)
    assert place.startswith(str(site))
