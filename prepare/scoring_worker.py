"""The processes in which a candidate's model is loaded and run for scoring. Started fresh for every run.

They share their address space with the candidate's code, so nothing they say is trusted: the bulk pass answers with *claimed*
nats, the audit pass with logits whose log-softmax the referee takes itself. Run by path:

    scoring_worker.py DEVICE GIVEN_UP FD:FOLDER [FD:FOLDER ...]   import torch once, then one process for each socket
    scoring_worker.py --rehearse MODEL LENGTH DEVICE              load the model and run one forward

The processes part right after the import, before anything of a candidate exists: a second import costs 2.4 core-seconds.
GIVEN_UP is what each still gives up then, as JSON: ``access`` are the fields of `landlock.Access` that it keeps, null where the
kernel has no Landlock; ``filter`` a compiled system call filter that keeps what it starts in its process group, or null.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from prepare import landlock
from prepare.channel import Channel, ChannelClosedError, Frame
from prepare.files import mapped_files
from prepare.handoff import load_model
from prepare.stage import filter_system_calls

_MESSAGE_LIMIT = 2000
_ANY_VOCABULARY = 256  # ids below this exist in every prepared vocabulary


def serve(channel: Channel, device: str) -> None:
    """Answer the referee's requests until it closes the channel."""
    channel.send({"type": "ready", "pid": os.getpid()})  # the referee believes it: there is no candidate's code here yet
    model: torch.nn.Module | None = None
    while True:
        try:
            frame = channel.receive()
        except ChannelClosedError:
            return
        message = ""
        try:
            if frame.header["type"] == "load":
                with os.fdopen(frame.fds[0], "rb") as file:
                    model = load_model(file.read(), device)
                try_out(model, frame, device)
                channel.send({"type": "loaded"})
                continue
            assert model is not None, "load comes first"
            answer = bulk(model, frame, device) if frame.header["type"] == "bulk" else audit(model, frame, device)
            channel.send({"type": "answer", "shape": list(answer.shape)}, memoryview(answer.tobytes()))
            continue
        except Exception as error:  # noqa: BLE001 - whatever the candidate's model raises is reported, never trusted
            if frame.header["type"] == "load" or not is_out_of_memory(error):
                message = traceback.format_exc()[-_MESSAGE_LIMIT:]
        # The exception is gone, and with it what its frames held.
        if message:
            channel.send({"type": "error", "message": message})
        else:
            if device != "cpu":
                torch.cuda.empty_cache()
            channel.send({"type": "out_of_memory"})


def is_out_of_memory(error: Exception) -> bool:
    """Say whether fewer rows at once could help; torch has a class for it on GPUs, and only a text on CPUs."""
    texts = ("out of memory", "ALLOC_FAILED", "allocate memory", "not enough memory")
    return isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) or any(text in str(error) for text in texts)


@torch.inference_mode()
def try_out(model: torch.nn.Module, frame: Frame, device: str) -> None:
    """Run one forward on random tokens, as long as a row: what it raises cannot be about validation data."""
    inputs = torch.randint(_ANY_VOCABULARY, (1, frame.header["context"]), device=device)
    _logits(model, inputs, frame.header["vocab_size"])


@torch.inference_mode()
def bulk(model: torch.nn.Module, frame: Frame, device: str) -> np.ndarray:
    """Rows int32 [n, T + 1] -> claimed nats float32 [n, T]: -log p(row[t + 1] | row[: t + 1])."""
    rows = _array(frame.payload, frame.header["rows"]).to(device)
    logits = _logits(model, rows[:, :-1].contiguous(), frame.header["vocab_size"])
    targets = rows[:, 1:, None]
    return -logits.float().log_softmax(-1).gather(2, targets)[..., 0].cpu().numpy()


@torch.inference_mode()
def audit(model: torch.nn.Module, frame: Frame, device: str) -> np.ndarray:
    """Rows int32 [n, T] and one cut each -> logits float32 [n, V] at the cut."""
    rows = _array(frame.payload, frame.header["rows"]).to(device)
    logits = _logits(model, rows, frame.header["vocab_size"])
    cuts = torch.tensor(frame.header["cuts"], device=device)
    return logits[torch.arange(len(cuts), device=device), cuts].float().cpu().numpy()


def _array(payload: bytes, shape: list[int]) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(payload, dtype=np.int32).reshape(shape).astype(np.int64))


def _logits(model: torch.nn.Module, inputs: torch.Tensor, vocab_size: int) -> torch.Tensor:
    logits: Any = model(inputs)
    expected = (*inputs.shape, vocab_size)
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != expected:
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise TypeError(f"model(idx) must return logits of shape {expected}; it returned {got}")
    return logits


def part(sockets: dict[int, Path], device: str, given_up: dict[str, Any]) -> None:
    """Become one process for each socket, in its own process group and folder, with its own output; serve in each."""
    children = []
    first = str(next(iter(sockets.values())))
    libraries = mapped_files() if given_up["access"] is not None else ()  # a child may not ask for its own
    for fd, folder in sockets.items():
        if len(sockets) > 1 and (pid := os.fork()) != 0:
            children.append(pid)
            continue
        for other in sockets:
            if other != fd:
                os.close(other)
        if len(sockets) > 1:
            os.setpgid(0, 0)
            _die_with_parent()
        os.chdir(folder)
        _move_home(first, str(folder))
        _confine_further(given_up, folder, libraries)
        output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        serve(Channel.from_fd(fd), device)
        os._exit(0)
    for fd in sockets:
        os.close(fd)
    for pid in children:
        os.waitpid(pid, 0)


def _move_home(old: str, new: str) -> None:
    """Point what the environment says about folders, such as TMPDIR, at this process's own."""
    for name, value in os.environ.items():
        if value == old or value.startswith(f"{old}/"):
            os.environ[name] = new + value.removeprefix(old)
    tempfile.tempdir = None


def _confine_further(given_up: dict[str, Any], folder: Path, libraries: tuple[str, ...]) -> None:
    """Keep the other process's folder, its /proc and its signals from this one, and its descendants in one group."""
    if given_up["access"] is not None:
        access = {name: tuple(paths) for name, paths in given_up["access"].items()}
        access["readable"] = (*access["readable"], *libraries, "/proc/self")
        landlock.restrict(landlock.Access(**access, writable=(str(folder), "/proc/self")))
    if given_up["filter"] is not None:
        filter_system_calls(base64.b64decode(given_up["filter"]))


def _die_with_parent() -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG; a fork clears it


if __name__ == "__main__":
    if sys.argv[1] == "--rehearse":
        from prepare.rehearsal import rehearse_here

        print(f"\n{rehearse_here(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])}")
    else:
        pairs = (argument.split(":", maxsplit=1) for argument in sys.argv[3:])
        part({int(fd): Path(folder) for fd, folder in pairs}, sys.argv[1], json.loads(sys.argv[2]))
