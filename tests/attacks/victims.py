"""What attacks are aimed at, all of it made by the test: files, secrets, processes, sockets; and what became of it.

Guarantees: after a test nothing that an attack left is still there, whatever the sandbox let through. A harm is named by the
promise that it breaks, in the words of `lab.isolation`. Does not: judge the number (the test does).
"""

from __future__ import annotations

import hashlib
import os
import resource
import secrets
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import psutil
from autoresearch_mcp.lab.lab import Lab
from autoresearch_mcp.prepare.corpus import Corpus, open_corpus

PLACES = tuple(map(Path, ("/tmp", "/var/tmp", "/dev/shm", "/run")))
_IPC_REMOVE = 0
_WAIT_SECONDS = 5.0
_SERVER = "import os, sys; sys.stdin.read()"


class Promise(StrEnum):
    """What a level may promise, as the rest of a sentence that begins "it cannot"; ALWAYS holds on every level."""

    FILES = "read or change a file that training does not need"
    NETWORK = "use the network"
    OTHERS = "reach another process"
    OUTLIVING = "outlive its run"
    ALWAYS = "fake, stretch or take more than its share"


@dataclass(frozen=True, slots=True, kw_only=True)
class Harm:
    """What one victim suffered."""

    breaks: Promise
    what: str


@dataclass(slots=True, kw_only=True)
class Victims:
    """The victims of one attack; made by `made_for`."""

    mark: str  # the name of the attack's processes and files, by which they are known
    lab: Lab
    folder: Path
    server: subprocess.Popen[bytes]
    bystander: subprocess.Popen[bytes]
    secrets: Mapping[str, str]
    listeners: Mapping[str, socket.socket]
    told: dict[str, object]  # what the attack knows of them
    _before: dict[str, object] = field(default_factory=dict)

    def remember(self) -> None:
        """Take down how everything is before the attack."""
        self._before = {**self._files(), **self._processes()}

    def harms(self, said: str) -> list[Harm]:
        """Return what became of the victims; ``said`` is all that the run has left for others to read."""
        harms = [Harm(breaks=Promise.FILES, what=f"it read {name}") for name, text in self.secrets.items() if text in said]
        for what, breaks in ((self._files(), Promise.FILES), (self._processes(), Promise.OTHERS)):
            for name in sorted({**what, **{key: None for key in self._before if key.startswith(breaks.name)}}):
                if what.get(name) != self._before.get(name):
                    harms.append(Harm(breaks=breaks, what=f"{name.partition(' ')[2]} changed"))
        harms += [Harm(breaks=Promise.FILES, what=f"it left {path}") for path in self.leftovers()]
        harms += [Harm(breaks=Promise.NETWORK, what=f"it was heard over {name}") for name in self._heard()]
        if survivors := self.survivors():
            harms.append(Harm(breaks=Promise.OUTLIVING, what=f"{len(survivors)} of its processes are alive"))
        return harms

    def survivors(self) -> list[psutil.Process]:
        """Return what is alive of an attack."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                name = Path(f"/proc/{process.pid}/comm").read_text().strip()
                if name.startswith(self.mark) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def leftovers(self) -> list[Path]:
        """Return the files that an attack left where they do not end with its run."""
        found = [path for place in PLACES for path in place.glob(f"{self.mark}*")]
        return found + sorted(Path(str(self.told["outside"])).iterdir())

    def _files(self) -> dict[str, object]:
        """Every file whose change would be a harm, as (content, mode)."""
        corpus, found = _corpus(self.lab), {}
        roots = [self.lab.root, self.folder / "packages", self.lab.state.harness, self.lab.state.root / "copy"]
        roots += [path for path in corpus.path.rglob("*") if path.is_file()]
        for root in roots:
            for path in [root] if root.is_file() else sorted(root.rglob("*")):
                if path.is_file() and ".git" not in path.parts and path.name != "progress.png":
                    status = path.stat()
                    content = status.st_mtime_ns if path.is_relative_to(corpus.path) else _digest(path)
                    found[f"FILES {path}"] = (content, stat.S_IMODE(status.st_mode), os.listxattr(path))
        return found

    def _processes(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for name, process in (("the server", self.server), ("a bystander", self.bystander)):
            pid = process.pid
            try:
                state = psutil.Process(pid).status()
                found[f"OTHERS {name}"] = (
                    state in (psutil.STATUS_RUNNING, psutil.STATUS_SLEEPING),
                    os.getpriority(os.PRIO_PROCESS, pid),
                    os.sched_getaffinity(pid),
                    os.sched_getscheduler(pid),
                    resource.prlimit(pid, resource.RLIMIT_NOFILE),
                )
            except (psutil.Error, ProcessLookupError):
                found[f"OTHERS {name}"] = "ended"
        return found

    def _heard(self) -> list[str]:
        heard = []
        for name, listener in self.listeners.items():
            with suppress(BlockingIOError):
                if listener.type & socket.SOCK_STREAM:
                    listener.accept()[0].close()
                else:
                    listener.recv(64)
                heard.append(name)
        return heard


@contextmanager
def made_for(lab: Lab, folder: Path) -> Iterator[Victims]:
    """Make the victims of one attack on a lab below an empty folder; end and remove all of it afterwards."""
    mark = f"atk-{secrets.token_hex(4)}"
    secret = {name: secrets.token_hex(16) for name in ("a private key", "an environment", "arguments")}
    home, outside, packages = (folder / name for name in ("home", "outside", "packages"))
    for made in (home / ".ssh", outside, packages, lab.state.root / "copy"):
        made.mkdir(parents=True)
    key, wheel, package = home / ".ssh" / "id_ed25519", home / "package.whl", packages / "package.py"
    record, train = lab.state.root / "copy" / "ledger.db", lab.root / "locked.py"
    key.write_text(secret["a private key"])
    for path in (wheel, package, record, train):
        path.write_text(f"the content of {path.name}\n" * 20)
    corpus = _corpus(lab)
    text, tokens = corpus.text_path("val"), corpus.token_store(257)
    (module,) = lab.state.harness.glob("*/*/prepare/loader.py")
    with ExitStack() as stack:
        # The address of a socket has room for a hundred characters.
        meeting = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp", prefix="meet-"))) / "socket"
        listeners = {name: stack.enter_context(listener) for name, listener in _listeners(mark, meeting).items()}
        opened = stack.enter_context(text.open("rb"))
        server = stack.enter_context(
            _ended(
                subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _SERVER, secret["arguments"]],
                    stdin=subprocess.PIPE,
                    env={"SERVER_API_KEY": secret["an environment"]},
                    pass_fds=(opened.fileno(),),
                    start_new_session=True,
                )
            )
        )
        bystander = stack.enter_context(_ended(subprocess.Popen(["sleep", "600"], start_new_session=True)))
        told: dict[str, object] = {
            "mark": mark,
            "home": str(home),
            "private_key": str(key),
            "wheel": str(wheel),
            "outside": str(outside),
            "packages": str(packages),
            "installed": str(Path(psutil.__file__).parent.parent),
            "checkout": str(Path(__file__).resolve().parents[2]),
            "locked": [str(path) for path in (package, record, train, module)],
            "harness": str(module.parent.parent),
            "ledger": str(lab.state.ledger),
            "runs": str(lab.state.runs),
            "corpus": str(corpus.path),
            "validation_text": str(text),
            "test_text": str(corpus.text_path("test")),
            "training_text": str(corpus.text_path("train")),
            "validation_secret": str(lab.state.validation_secret),
            "server": server.pid,
            "server_fd": opened.fileno(),
            "bystander": bystander.pid,
            "tcp_port": listeners["TCP"].getsockname()[1],
            "udp_port": listeners["UDP"].getsockname()[1],
            "unix_socket": str(meeting),
            "abstract_socket": f"{mark}-stream",
            "abstract_datagram_socket": f"{mark}-datagram",
        }
        known = {
            **{f"the secret of {name}": text for name, text in secret.items()},
            **{
                f"the {split} text": hashlib.sha256(corpus.text_path(kind).read_bytes()[:4096]).hexdigest()
                for kind, split in (("val", "validation"), ("test", "test"))
            },
            "the API key of the server's environment": os.environ.get("ATTACK_API_KEY", mark),
        }
        with suppress(OSError):  # only root may
            known["/etc/shadow"] = _digest(Path("/etc/shadow"))
        victims = Victims(
            mark=mark,
            lab=lab,
            folder=folder,
            server=server,
            bystander=bystander,
            secrets=known,
            listeners=listeners,
            told=told,
        )
        _settle(server, bystander)
        tokens.touch()
        try:
            yield victims
        finally:
            _clean(victims)


def _listeners(mark: str, meeting: Path) -> dict[str, socket.socket]:
    stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
    wanted: dict[str, tuple[int, int, object]] = {
        "TCP": (socket.AF_INET, stream, ("127.0.0.1", 0)),
        "UDP": (socket.AF_INET, datagram, ("127.0.0.1", 0)),
        "a socket by path": (socket.AF_UNIX, stream, str(meeting)),
        "an abstract socket": (socket.AF_UNIX, stream, f"\0{mark}-stream"),
        "an abstract datagram socket": (socket.AF_UNIX, datagram, f"\0{mark}-datagram"),
    }
    listeners = {}
    for name, (family, kind, address) in wanted.items():
        listener = listeners[name] = socket.socket(family, kind)
        listener.bind(address)  # type: ignore[arg-type]
        if kind == stream:
            listener.listen()
        listener.setblocking(False)
    return listeners


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait(timeout=_WAIT_SECONDS)
        if process.stdin is not None:
            process.stdin.close()


def _settle(*processes: subprocess.Popen[bytes]) -> None:
    """Wait until each has become its program: before, it has the environment of this one."""
    for process in processes:
        while psutil.Process(process.pid).status() != psutil.STATUS_SLEEPING:
            os.sched_yield()


def _clean(victims: Victims) -> None:
    import ctypes

    for _ in range(100):  # one that becomes another process all the time is met in the end
        if not (alive := victims.survivors()):
            break
        for process in alive:
            with suppress(psutil.Error):
                process.kill()
    for path in victims.leftovers():
        with suppress(OSError):
            path.unlink()
    libc, number = ctypes.CDLL(None), int(victims.mark[-6:], 16)
    for get, control in ((lambda: libc.shmget(number, 0, 0), libc.shmctl), (lambda: libc.msgget(number, 0), libc.msgctl)):
        if (found := get()) >= 0:
            control(found, _IPC_REMOVE, None)


def _corpus(lab: Lab) -> Corpus:
    return open_corpus(lab.config().corpus_name)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
