"""GPUs without a GPU: which are seen, which are chosen, who gets one, and what is said where there is none."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from autoresearch_mcp.lab import experiments
from autoresearch_mcp.lab.devices import (
    Devices,
    FakeGpuDriver,
    Gpu,
    GpuDriverError,
    NvmlDriver,
    choose_gpus,
    visible_gpus,
)
from autoresearch_mcp.lab.dispatch import dispatch, judge_experiment, wait
from autoresearch_mcp.lab.errors import NotReadyError
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.lab.ledger import result_to_json
from autoresearch_mcp.lab.locks import locked_if_free, try_lock
from autoresearch_mcp.lab.paths import device_lock_path
from autoresearch_mcp.lab.records import Experiment
from autoresearch_mcp.lab.states import Outcome, RunState, Verdict
from autoresearch_mcp.tools.status import status

MakeLab = Callable[..., Lab]


def gpu(index: int, uuid: str, name: str = "NVIDIA L4", memory_mb: int = 23_034) -> Gpu:
    return Gpu(index=index, uuid=f"GPU-{uuid}", name=name, memory_mb=memory_mb)


TWO = (gpu(0, "aaaa-1"), gpu(1, "abbb-2"))
MIXED = (gpu(0, "aaaa-1"), gpu(1, "cccc-3", name="Tesla T4", memory_mb=15_360), gpu(2, "abbb-2"))


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        pytest.param(None, [0, 1, 2], id="not set"),
        pytest.param("", [], id="empty hides all"),
        pytest.param("-1", [], id="minus one hides all"),
        pytest.param("2,0", [2, 0], id="indexes in their order"),
        pytest.param(" 1 , 2 ", [1, 2], id="spaces"),
        pytest.param("0,9,2", [0], id="nothing after an index that does not exist"),
        pytest.param("GPU-cccc-3", [1], id="a UUID"),
        pytest.param("GPU-c,0", [1, 0], id="a UUID cut short, and an index"),
        pytest.param("GPU-a", [], id="a UUID cut so short that it names two"),
        pytest.param("GPU-", [], id="no UUID at all"),
        pytest.param("0,0", [0], id="twice the same"),
        pytest.param("MIG-1234", [], id="a slice of a GPU"),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(variable: str | None, expected: list[int]) -> None:
    assert [found.index for found in visible_gpus(MIXED, variable)] == expected


def test_without_a_choice_all_gpus_of_the_first_ones_kind_are_used() -> None:
    assert [found.index for found in choose_gpus(MIXED, ())] == [0, 2]
    assert [found.index for found in choose_gpus(MIXED, (2,))] == [2]


def test_a_choice_of_two_kinds_or_of_a_hidden_gpu_is_refused_with_what_there_is() -> None:
    with pytest.raises(NotReadyError, match=r"never compared.*Tesla T4"):
        choose_gpus(MIXED, (0, 1))
    with pytest.raises(NotReadyError, match=r"names 5.*0 \(NVIDIA L4, 22 GB\)"):
        choose_gpus(TWO, (0, 5))


def test_a_machine_without_a_driver_has_no_gpu_and_says_so_at_once() -> None:
    started = time.monotonic()
    seen = Devices().all()
    assert time.monotonic() - started < 2.0
    assert seen[0] == "cpu"
    if seen == ("cpu",) and "CUDA_VISIBLE_DEVICES" not in os.environ:
        with pytest.raises(GpuDriverError, match="libnvidia-ml"):
            NvmlDriver().gpus()


def with_driver(lab: Lab, driver: FakeGpuDriver) -> Lab:
    """Open the same lab again, on a machine with other GPUs."""
    lab.close()
    return Lab.open(lab.root, gpu_driver=driver)


def gpu_lab(make_lab: MakeLab, python: Path | None = None, **options: object) -> Lab:
    lab = make_lab(extra="" if python is None else f'[trainer]\npython = "{python}"\n', **options)
    lab.workspace.config.write_text('profile = "gpu"\n' + lab.workspace.config.read_text())
    return lab


@pytest.fixture
def cuda_python(tmp_path: Path) -> Path:
    """An interpreter that says its torch is built for CUDA; otherwise it is this one."""
    answer = {"torch": "2.13.0+cu130", "numpy": "2", "tiktoken": "0.14", "cloudpickle": "3"}
    said = json.dumps({"python": [3, 11], "versions": answer, "cuda": True, "packages": str(tmp_path)})
    script = tmp_path / "cuda" / "bin" / "python"
    script.parent.mkdir(parents=True)
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *python_probe.py) echo {shlex.quote(said)};; *) exec {sys.executable} "$@";; esac\n'
    )
    script.chmod(0o755)
    return script


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        (FakeGpuDriver(problem="libnvidia-ml was not found"), "libnvidia-ml was not found"),
        (FakeGpuDriver(), "there is none"),
    ],
)
def test_the_gpu_profile_without_a_gpu_is_refused_at_once_and_nothing_is_recorded(
    make_lab: MakeLab, driver: FakeGpuDriver, expected: str
) -> None:
    lab = with_driver(gpu_lab(make_lab), driver)
    started = time.monotonic()
    with pytest.raises(NotReadyError, match=expected) as raised:
        lab.start_session(None, "tester")
    assert time.monotonic() - started < 2.0
    assert "doctor" in str(raised.value)
    assert 'profile = "cpu"' in str(raised.value)
    assert lab.ledger.sessions() == []
    assert expected in status(lab).device
    lab.close()


def test_a_torch_without_cuda_is_refused_before_anything_is_queued(
    make_lab: MakeLab, tmp_path: Path, cuda_python: Path
) -> None:
    cuda_python.write_text(cuda_python.read_text().replace('"cuda": true', '"cuda": false'))
    lab = with_driver(gpu_lab(make_lab, cuda_python), FakeGpuDriver(found=TWO))
    with pytest.raises(NotReadyError, match="built without CUDA"):
        lab.start_session(None, "tester")
    lab.close()


def test_a_gpu_that_is_gone_is_noticed_before_an_experiment_is_recorded(make_lab: MakeLab, cuda_python: Path) -> None:
    lab = with_driver(gpu_lab(make_lab, cuda_python), FakeGpuDriver(found=TWO))
    lab.start_session(None, "tester")
    lab = with_driver(lab, FakeGpuDriver(problem="the driver is gone"))
    with pytest.raises(NotReadyError, match="the driver is gone"):
        experiments.propose(lab, description="baseline", hypothesis="")
    assert lab.ledger.count_experiments() == 0
    lab.close()


def test_another_kind_of_gpu_is_another_comparability_group_and_another_card_of_the_kind_is_not(
    make_lab: MakeLab, cuda_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = with_driver(gpu_lab(make_lab, cuda_python), FakeGpuDriver(found=MIXED))
    groups = {}
    for visible in ("0", "1", "2"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        groups[visible] = lab.comparability_group()
    assert groups["0"] == groups["2"] != groups["1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert lab.conditions()["device"] == "Tesla T4, 15 GB"
    lab.close()


def test_an_event_of_a_version_that_bound_devices_when_queueing_still_replays(lab: Lab) -> None:
    hold = try_lock(lab.state.dispatch_lock)
    assert hold is not None
    experiment, _ = experiments.propose(lab, description="baseline", hypothesis="")
    lab.ledger.append("run_started", {"id": f"{experiment.id}.1", "attempt": 1})
    assert lab.ledger.runs(experiment.id)[0].device == "cpu"
    assert lab.ledger.verify() == []
    os.close(hold)


SLEEPER = """
import os, time
print("sees", os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
time.sleep(300)
if False:
    from prepare import evaluate_bpb, make_dataloader
    make_dataloader(None, 1, 1, "train")
    evaluate_bpb(None, None, 1)
"""


def measured_baseline(lab: Lab) -> None:
    """Give the session a champion without training one."""
    hold = try_lock(lab.state.dispatch_lock)
    assert hold is not None
    baseline, _ = experiments.propose(lab, description="baseline", hypothesis="")
    result = RunResult(outcome=Outcome.SCORED, reason="measured", val_bpb=2.0, standard_error=0.0)
    with lab.ledger.transaction():
        lab.ledger.append("run_finished", {"id": f"{baseline.id}.1", "result": result_to_json(result)})
        judge_experiment(lab, baseline)
    os.close(hold)


def sleep_as_experiment(lab: Lab, number: int) -> Experiment:
    lab.workspace.train.write_text(f"{SLEEPER}NUMBER = {number}\n")
    return experiments.propose(lab, description=f"sleeper {number}", hypothesis="")[0]


def log_of(lab: Lab, experiment: Experiment) -> str:
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        if (text := lab.executor.log(f"{experiment.id}.1").decode()).endswith("\n"):  # print writes the end by itself
            return text
        dispatch(lab)
    raise AssertionError("the candidate said nothing")


@pytest.mark.slow
def test_each_gpu_has_one_run_the_next_one_waits_and_gets_the_first_that_is_free(make_lab: MakeLab, cuda_python: Path) -> None:
    lab = with_driver(gpu_lab(make_lab, cuda_python), FakeGpuDriver(found=TWO))
    other = with_driver(gpu_lab(make_lab, cuda_python, name="other"), FakeGpuDriver(found=TWO))
    lab.start_session(None, "tester")
    measured_baseline(lab)
    try:
        first, second, third = (sleep_as_experiment(lab, number) for number in range(3))
        devices = [lab.ledger.runs(one.id)[0].device for one in (first, second, third)]
        assert devices == [TWO[0].device, TWO[1].device, "cuda"]
        assert lab.ledger.runs(third.id)[0].state is RunState.QUEUED
        assert [log_of(lab, one) for one in (first, second)] == [f"sees {one.uuid}\n" for one in TWO]
        with locked_if_free(device_lock_path(TWO[1].device)) as free:
            assert not free
        for opened in (lab, other):
            assert opened.executor.capacity() == {"cpu": (1, 1), TWO[0].device: (0, 1), TWO[1].device: (0, 1)}
        assert not status(lab).device_free
        experiments.cancel(lab, second.id)
        assert wait(lab, second.id, 20.0).verdict is Verdict.CANCELLED
        assert lab.ledger.runs(third.id)[0].device == TWO[1].device
        assert log_of(lab, third) == f"sees {TWO[1].uuid}\n"
    finally:
        for experiment in lab.ledger.experiments():
            experiments.cancel(lab, experiment.id)
            wait(lab, experiment.id, 20.0)
        assert lab.ledger.verify() == []
        lab.close()
        other.close()
