"""The process in which a candidate rehearses its hand-off: one that knows torch and nothing of train.py.

On Linux it is a copy of the candidate's process, made before train.py has defined anything, so it costs no second import of
torch (2.4 s here); it waits on a pipe. Elsewhere, or when CUDA is in use already, a new interpreter is started.
It says how the scorer will fare; it guarantees nothing, since the candidate could do as it likes with it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
import types
from pathlib import Path

import torch

from .handoff import try_model

_LIMIT_SECONDS = 120.0
_MESSAGE_CHARACTERS = 2000


class Rehearsal:
    """One chance to try a saved model; `close` it when it is not needed."""

    def __init__(self, *, length: int, device: str, close_in_child: int) -> None:
        self._length = length
        self._device = device
        self._pipes: tuple[int, int] | None = None
        if sys.platform.startswith("linux") and not (device != "cpu" and torch.cuda.is_initialized()):
            self._pipes = self._fork(close_in_child)

    def run(self, path: Path) -> str | None:
        """Return None when the model loads and answers, else what went wrong."""
        if self._pipes is None:
            return self._run_in_new_interpreter(path)
        request, answer = self._pipes
        os.write(request, f"{path}\n".encode())
        self._pipes = None
        os.close(request)
        with os.fdopen(answer, "rb") as file:
            message = file.read().decode(errors="replace")
        return None if message == "ok" else message or "the process ended without an answer (out of memory, or a crash)"

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
                os.write(answer_in, _outcome(path, self._length, self._device).encode())
        finally:
            os._exit(0)

    def _run_in_new_interpreter(self, path: Path) -> str | None:
        worker = Path(__file__).with_name("scoring_worker.py")
        command = [sys.executable, "-s", "-B", str(worker), "--rehearse", str(path), str(self._length), self._device]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return f"one forward took more than {_LIMIT_SECONDS:.0f} s"
        return None if done.returncode == 0 else done.stderr[-_MESSAGE_CHARACTERS:]


def _outcome(path: str, length: int, device: str) -> str:
    try:
        try_model(Path(path), length, device)
    except BaseException:  # noqa: BLE001 - whatever a candidate's model raises is the answer
        return traceback.format_exc()[-_MESSAGE_CHARACTERS:]
    return "ok"
