"""The processes in which a candidate's model is loaded and run for scoring. Started fresh for every run.

They share their address space with the candidate's code, so nothing they say is trusted: the bulk pass answers with *claimed*
nats, the audit pass with logits whose log-softmax the referee takes itself. Run by path:

    scoring_worker.py DEVICE GIVEN_UP FD:FOLDER [FD:FOLDER ...]   import torch once, then one process for each socket
    scoring_worker.py --rehearse MODEL LENGTH DEVICE              load the model and run one forward

The processes part right after the import, before anything of a candidate exists: a second import costs 2.4 core-seconds.
On a GPU the next batch is launched before the answer to the last is read back, so that the device does not wait.
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
from collections import deque
from collections.abc import Callable
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
_USABLE_SHARE = 0.8  # of a GPU's free memory: what one row takes is not quite what each of many does

Answer = Callable[[], np.ndarray]  # waits for what was launched, and returns it


def serve(channel: Channel, device: str, *, ahead: int = 0) -> None:
    """Answer the referee's requests until it closes the channel.

    ``ahead`` batches more are launched before an answer is read back.
    """
    channel.send({"type": "ready", "pid": os.getpid()})  # the referee believes it: there is no candidate's code here yet
    model: torch.nn.Module | None = None
    launched: deque[Answer] = deque()
    while True:
        try:
            frames = channel.poll() if launched else [channel.receive()]
        except ChannelClosedError:
            return
        for frame in frames:
            try:
                if frame.header["type"] == "load":
                    with os.fdopen(frame.fds[0], "rb") as file:
                        model = load_model(file, device)
                    channel.send({"type": "loaded", "rows": try_out(model, frame, device)})
                    continue
                assert model is not None, "load comes first"
                launched.append(launch(model, frame, device))
                message = None
            except Exception as error:  # noqa: BLE001 - whatever the candidate's model raises is reported, never trusted
                message = _problem(error, of_load=frame.header["type"] == "load")
            # The exception is gone, and with it what its frames held.
            while len(launched) > (ahead if message is None else 0):
                _answer(channel, launched.popleft(), device)
            if message is not None:
                _report(channel, message, device)
        if not frames and launched:
            _answer(channel, launched.popleft(), device)


def _answer(channel: Channel, launched: Answer, device: str) -> None:
    """Send what was launched, or what became of it: a device tells some of its errors late."""
    try:
        answer = launched()
    except Exception as error:  # noqa: BLE001 - as above
        message = _problem(error, of_load=False)
    else:
        channel.send({"type": "answer", "shape": list(answer.shape)}, answer.data.cast("B"))
        return
    _report(channel, message, device)


def _problem(error: Exception, *, of_load: bool) -> str:
    """Return what to tell of an error; nothing where fewer rows at once could help."""
    return "" if is_out_of_memory(error) and not of_load else traceback.format_exc()[-_MESSAGE_LIMIT:]


def _report(channel: Channel, message: str, device: str) -> None:
    if message:
        channel.send({"type": "error", "message": message})
        return
    if device != "cpu":
        torch.cuda.empty_cache()
    channel.send({"type": "out_of_memory"})


def is_out_of_memory(error: Exception) -> bool:
    """Say whether fewer rows at once could help; torch has a class for it on GPUs, and only a text on CPUs."""
    texts = ("out of memory", "ALLOC_FAILED", "allocate memory", "not enough memory")
    return isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) or any(text in str(error) for text in texts)


@torch.inference_mode()
def try_out(model: torch.nn.Module, frame: Frame, device: str) -> int | None:
    """Run one forward on random tokens, as long as a row: what it raises cannot be about validation data.

    Returns how many rows at once a GPU has room for, judged by that one; None on a CPU, where the referee measures it.
    """
    row, vocab_size = (
        torch.randint(_ANY_VOCABULARY, (1, frame.header["context"] + 1), device=device),
        frame.header["vocab_size"],
    )
    nats_of(_logits(model, row[:, :-1].contiguous(), vocab_size), row[:, 1:])
    if device == "cpu":
        return None
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()  # the first has taken the libraries' own memory, the second takes what a row does
    nats_of(_logits(model, row[:, :-1].contiguous(), vocab_size), row[:, 1:])
    free, _ = torch.cuda.mem_get_info()
    unused = torch.cuda.memory_reserved() - before
    return rows_that_fit(free + unused, row_bytes=torch.cuda.max_memory_allocated() - before)


def rows_that_fit(free_bytes: int, *, row_bytes: int) -> int:
    """Return how many rows at once a device has room for, where one takes ``row_bytes``; at least one."""
    return max(1, int(_USABLE_SHARE * free_bytes) // max(1, row_bytes))


@torch.inference_mode()
def launch(model: torch.nn.Module, frame: Frame, device: str) -> Answer:
    """Begin to answer one request."""
    header = frame.header
    torch.set_num_threads(header["threads"])
    rows = _to_device(np.frombuffer(frame.payload, np.int32).reshape(header["rows"]), device)
    if header["type"] == "bulk":
        return _reading_back(bulk(model, rows, header["vocab_size"]))
    cuts = _to_device(np.array(header["cuts"], np.int32), device)
    return _reading_back(audit(model, rows, cuts, header["vocab_size"]))


@torch.inference_mode()
def bulk(model: torch.nn.Module, rows: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """Rows int64 [n, T + 1] -> claimed nats float32 [n, T]: -log p(row[t + 1] | row[: t + 1])."""
    return nats_of(_logits(model, rows[:, :-1].contiguous(), vocab_size), rows[:, 1:])


@torch.inference_mode()
def audit(model: torch.nn.Module, rows: torch.Tensor, cuts: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """Rows int64 [n, T] and one cut each, int64 [n] -> logits float32 [n, V] at the cut."""
    logits = _logits(model, rows, vocab_size)
    return logits[torch.arange(len(cuts), device=cuts.device), cuts].float()


def nats_of(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Logits [n, T, V] and targets int64 [n, T] -> -log softmax in float32 at the targets, [n, T].

    Row by row, so that no second copy of all logits exists.
    """
    nats = torch.empty(targets.shape, dtype=torch.float32, device=targets.device)
    for row, target, result in zip(logits, targets[..., None], nats, strict=True):
        result.copy_(row.float().log_softmax(-1).gather(1, target)[:, 0])
    return nats.neg_()


def _to_device(array: np.ndarray, device: str) -> torch.Tensor:
    """Return integers as int64 on the device; to a GPU they travel as they are, from pinned memory, and nobody waits."""
    if device == "cpu":
        return torch.from_numpy(array.astype(np.int64))
    pinned = torch.empty(array.shape, dtype=torch.int32, pin_memory=True)
    pinned.numpy()[:] = array
    return pinned.to(device, non_blocking=True).long()


def _reading_back(answer: torch.Tensor) -> Answer:
    """Begin to copy an answer to the host; what is returned waits for it."""
    if answer.device.type == "cpu":
        return lambda: answer.contiguous().numpy()
    host = torch.empty(answer.shape, dtype=answer.dtype, pin_memory=True)
    host.copy_(answer, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()

    def wait() -> np.ndarray:
        arrived.synchronize()
        return host.numpy()

    return wait


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
        serve(Channel.from_fd(fd), device, ahead=0 if device == "cpu" else 1)
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
