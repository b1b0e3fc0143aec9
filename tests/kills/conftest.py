"""Fixtures of the kills: the lab of a case, with the hook in the environment of what is started; and where outcomes go."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from autoresearch_mcp.lab.paths import STATE_VARIABLE
from autoresearch_mcp.tools.waiting import MAX_WAIT_VARIABLE

from ..polling import until
from . import points
from .labs import Copy, Place, make_stages
from .scenarios import LONG_SECONDS

HOOK = Path(__file__).parent / "hook"
_CELL = "kill_cell"
_cells: list[dict[str, str]] = []

Arm = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kill-points", default="often", help='"often", or "all"')
    parser.addoption("--kill-cells", default=None, help="write what became of each point to this JSON file")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test with an argument `server_point`, `quick_point` or `real_point` the points of that kind that are asked for."""
    everything = metafunc.config.getoption("kill_points", default="often") == "all"
    kinds = {
        "server_point": [point for point in points.POINTS if point.side == "server"],
        "quick_point": [point for point in points.POINTS if point.scenario == "quick"],
        "real_point": [point for point in points.POINTS if point.scenario == "real"],
    }
    for argument in kinds.keys() & set(metafunc.fixturenames):
        chosen = [point for point in kinds[argument] if point.often or everything]
        metafunc.parametrize(argument, chosen, ids=[point.label for point in chosen])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _cells.extend(value for name, value in report.user_properties if name == _CELL and report.when == "teardown")  # type: ignore[misc]


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("kill_cells", default=None)
    if path is not None and not hasattr(session.config, "workerinput"):
        Path(path).write_text(json.dumps(_cells, indent=1))


@pytest.fixture(scope="session")
def _place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(root=tmp_path_factory.mktemp("kills").resolve() / "here")


@pytest.fixture(scope="session")
def _stages(_place: Place, tmp_path_factory: pytest.TempPathFactory, tiny_corpus: str) -> Iterator[Path]:
    """A folder for each stage of a lab, and the table of points beside them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STATE_VARIABLE, str(_place.root / "state"))
        stages = tmp_path_factory.mktemp("stages")
        make_stages(_place, stages, tiny_corpus)
        (stages / "points.json").write_text(points.table())
        yield stages


@pytest.fixture
def copy(_place: Place, _stages: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Copy]:
    """Return a function that puts a lab at a stage in its place."""
    monkeypatch.setenv(STATE_VARIABLE, str(_place.root / "state"))
    monkeypatch.setenv(MAX_WAIT_VARIABLE, str(LONG_SECONDS))

    def make(stage: str) -> Place:
        shutil.copytree(_stages / stage, _place.root, symlinks=True)
        return _place

    yield make
    until(lambda: _is_cleared(_place))


def _is_cleared(place: Place) -> bool:
    """End what runs at a place and remove it; False where a process that was just ending wrote there once more."""
    place.kill_all()
    shutil.rmtree(place.root, ignore_errors=True)
    return not place.root.exists()


@pytest.fixture
def arm(_place: Place, _stages: Path, monkeypatch: pytest.MonkeyPatch) -> Arm:
    """Return a function that says where processes die that are started from now on."""

    def make(*, server: str = "", runner: str = "", times: int = 1, signal: str = "SIGKILL") -> None:
        path = os.pathsep.join([str(HOOK), *filter(None, [os.environ.get("PYTHONPATH")])])
        if str(HOOK) not in os.environ.get("PYTHONPATH", ""):
            monkeypatch.setenv("PYTHONPATH", path)
        monkeypatch.setenv("AUTORESEARCH_KILL_TABLE", str(_stages / "points.json"))
        monkeypatch.setenv("AUTORESEARCH_KILL_NOTES", str(_place.notes))
        monkeypatch.setenv("AUTORESEARCH_KILL_SERVER", server)
        monkeypatch.setenv("AUTORESEARCH_KILL_RUNNER", runner)
        monkeypatch.setenv("AUTORESEARCH_KILL_TIMES", str(times))
        monkeypatch.setenv("AUTORESEARCH_KILL_SIGNAL", signal)

    return make


@pytest.fixture
def disarm(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function after which nothing that is started dies."""

    def make() -> None:
        for side in ("SERVER", "RUNNER"):
            monkeypatch.delenv(f"AUTORESEARCH_KILL_{side}", raising=False)

    return make
