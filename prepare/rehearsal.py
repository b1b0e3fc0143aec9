"""The process in which a candidate rehearses its hand-off: one that knows torch and nothing of train.py.

On Linux it is a copy of the candidate's process, made before train.py has defined anything, so it costs no second import of
torch (2.4 s here); it waits on a pipe. Elsewhere, or when CUDA is in use already, a new interpreter is started. CUDA cannot
be used in a copy of a process that has asked for it, be it only whether it is there, and the trainer may hold all of a GPU's
memory; so where a copy fails on a GPU, a new interpreter with the memory given back has the last word.
It says how the scorer will fare; it guarantees nothing, since the candidate could do as it likes with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
import types
from dataclasses import dataclass
from pathlib import Path

import torch

from .flops import forward_flops_per_token
from .handoff import try_model

_LIMIT_SECONDS = 120.0
_MESSAGE_CHARACTERS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """What came of it: ``problem`` is None when the model loads and answers."""

    problem: str | None
    forward_flops_per_token: float | None = None


class Rehearsal:
    """One chance to try a saved model; `close` it when it is not needed."""

    def __init__(self, *, length: int, device: str, close_in_child: int) -> None:
        self._length = length
        self._device = device
        self._pipes: tuple[int, int] | None = None
        if sys.platform.startswith("linux") and not (device != "cpu" and torch.cuda.is_initialized()):
            self._pipes = self._fork(close_in_child)

    def run(self, path: Path) -> Rehearsed:
        """Load the model, run one forward, and count its FLOPs by another."""
        on_gpu = self._device != "cpu"
        if self._pipes is not None:
            rehearsed = self._run_in_copy(self._pipes, path)
            if rehearsed.problem is None or not on_gpu:
                return rehearsed
        if on_gpu and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        return self._run_in_new_interpreter(path)

    def _run_in_copy(self, pipes: tuple[int, int], path: Path) -> Rehearsed:
        request, answer = pipes
        os.write(request, f"{path}\n".encode())
        self._pipes = None
        os.close(request)
        with os.fdopen(answer, "rb") as file:
            return _parsed(file.read().decode(errors="replace"), otherwise="")

    def close(self) -> None:
        """End the waiting process."""
        if self._pipes is not None:
            for fd in self._pipes:
                os.close(fd)
            self._pipes = None

    def _fork(self, close_in_child: int) -> tuple[int, int]:
        request_out, request_in = os.pipe()
        answer_out, answer_in = os.pipe()
        if os.fork() != 0:
            os.close(request_out)
            os.close(answer_in)
            return request_in, answer_out
        for fd in (request_in, answer_out, close_in_child):
            os.close(fd)
        try:
            with os.fdopen(request_out, "rb") as file:
                path = file.readline().decode().rstrip("\n")
            if path:
                sys.modules["__main__"] = types.ModuleType("__main__")
                os.write(answer_in, rehearse_here(Path(path), self._length, self._device).encode())
        finally:
            os._exit(0)

    def _run_in_new_interpreter(self, path: Path) -> Rehearsed:
        worker = Path(__file__).with_name("scoring_worker.py")
        command = [sys.executable, "-I", "-B", str(worker), "--rehearse", str(path), str(self._length), self._device]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return Rehearsed(problem=f"one forward took more than {_LIMIT_SECONDS:.0f} s")
        return _parsed((done.stdout.splitlines() or [""])[-1], otherwise=done.stderr)


def rehearse_here(path: Path, length: int, device: str) -> str:
    """Rehearse in this process; return the outcome as one line of JSON."""
    try:
        model = try_model(path, length, device)
    except BaseException:  # noqa: BLE001 - whatever a candidate's model raises is the answer
        return json.dumps({"problem": traceback.format_exc()[-_MESSAGE_CHARACTERS:]})
    torch.set_num_threads(1)  # one row: waking threads for it costs more than they do
    return json.dumps({"problem": None, "forward_flops_per_token": forward_flops_per_token(model, length, device)})


def _parsed(line: str, *, otherwise: str) -> Rehearsed:
    try:
        return Rehearsed(**json.loads(line))
    except (ValueError, TypeError):  # it died, or the model wrote over its answer
        said = otherwise.strip()[-_MESSAGE_CHARACTERS:]
        return Rehearsed(problem=said or "the process ended without an answer (out of memory, or a crash)")
