"""Numbers that are only shown: whatever a candidate says, they are numbers or left out; and the meter of a GPU."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from autoresearch_mcp.lab.devices import FakeGpuDriver, Gpu
from autoresearch_mcp.lab.executor import RunResult
from autoresearch_mcp.lab.ledger import result_to_json
from autoresearch_mcp.lab.referee.advisory import advisory_numbers, model_flops_utilisation
from autoresearch_mcp.lab.referee.gpu_meter import GpuMeter
from autoresearch_mcp.lab.referee.specfile import result_from_json
from autoresearch_mcp.lab.states import Outcome

CARD = Gpu(index=0, uuid="GPU-1", name="NVIDIA L4", memory_mb=23_034)


def test_true_numbers_are_taken_under_the_names_of_a_result() -> None:
    header = {"train_tokens": 4096, "forward_flops_per_token": 2e6, "allocated_gpu_memory_mb": 100, "other": 1}
    numbers = advisory_numbers(header)
    assert numbers == {"train_tokens": 4096, "forward_flops_per_token": 2e6, "allocated_gpu_memory_mb": 100.0}
    assert RunResult(outcome=Outcome.SCORED, reason="", **numbers).train_tokens == 4096  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, True, "12", -1, float("nan"), float("inf"), 10**400, [1], {}])
def test_what_is_no_number_is_left_out(value: object) -> None:
    header = {"train_tokens": value, "forward_flops_per_token": value, "allocated_gpu_memory_mb": value}
    assert advisory_numbers(header) == {}


def test_a_utilisation_needs_tokens_flops_and_a_known_card() -> None:
    handoff = {"train_tokens": 10**6, "forward_flops_per_token": 1e8}
    share = model_flops_utilisation(handoff, seconds=10.0, device_name=CARD.name)
    assert share == pytest.approx(3e14 / (10.0 * 121e12), abs=1e-4)
    assert model_flops_utilisation(handoff, seconds=10.0, device_name=None) is None
    assert model_flops_utilisation({"train_tokens": 10**6}, seconds=10.0, device_name=CARD.name) is None


def test_the_peak_is_what_a_run_adds_to_the_memory_in_use() -> None:
    meter = GpuMeter(CARD.device, FakeGpuDriver(found=[CARD], used_mb=[500.0, 2500.0, 9000.0, 700.0]))
    for _ in range(3):
        meter.sample()
    facts = meter.facts()
    assert facts == {"device_name": "NVIDIA L4", "driver_version": "0.0-fake", "peak_gpu_memory_mb": 8500.0}


def test_a_driver_that_does_not_answer_costs_the_numbers_and_nothing_else() -> None:
    driver = FakeGpuDriver(found=[CARD], used_mb=[500.0, 900.0])
    meter = GpuMeter(CARD.device, driver)
    meter.sample()
    driver.problem = "the driver is gone"
    meter.sample()
    assert meter.facts()["peak_gpu_memory_mb"] == 400.0
    silent = GpuMeter(CARD.device, driver)
    silent.sample()
    assert set(silent.facts().values()) == {None}


def test_a_result_of_another_version_is_read_with_what_both_know() -> None:
    result = RunResult(outcome=Outcome.SCORED, reason="scored", val_bpb=2.0, train_tokens=4096)
    newer = {**json.loads(json.dumps(result_to_json(result))), "a_field_of_the_future": 1}
    assert result_from_json(newer) == result
    older = {name: value for name, value in asdict(result).items() if not name.endswith("tokens") and "gpu" not in name}
    assert result_from_json(older).train_tokens is None
