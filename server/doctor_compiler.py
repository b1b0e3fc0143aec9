"""Whether torch.compile will find a compiler: a small file is compiled and called where a candidate would do it, in a sandbox.

That a program of that name exists says little: the sandbox shows a candidate the system's compilers and no others, and the
headers of Python may be a package of their own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..lab.isolation import Isolation
from ..lab.referee.sandbox import LADDER, try_program
from .check import Check, Level
from .host import Host

# Runs inside, without any package. torch calls g++ on Linux and clang++ on macOS, on Linux with OpenMP.
_PROGRAM = r"""
import ctypes, json, shutil, subprocess, sys, sysconfig
SOURCE = '''
#include <Python.h>
#include <cmath>
#include <vector>
extern "C" int answer() {
    std::vector<double> parts(42, 1.0);
    double sum = 0.0;
    #pragma omp parallel for reduction(+:sum)
    for (int i = 0; i < 42; i++) sum += std::sqrt(parts[i]);
    return static_cast<int>(sum);
}
'''
linux = sys.platform.startswith("linux")
path = shutil.which("g++" if linux else "clang++")
said = {"path": path, "version": "", "error": ""}
if path:
    with open("probe.cpp", "w") as file:
        file.write(SOURCE)
    flags = ["-fopenmp"] if linux else ["-undefined", "dynamic_lookup"]
    flags += ["-shared", "-fPIC", "-std=c++17", "-I", sysconfig.get_path("include")]
    try:
        said["version"] = subprocess.run([path, "--version"], capture_output=True, text=True).stdout.partition("\n")[0]
        done = subprocess.run([path, *flags, "probe.cpp", "-o", "probe.so"], capture_output=True, text=True)
        errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        if done.returncode:
            said["error"] = errors[0][:300] if errors else f"it ended with {done.returncode}"
        elif ctypes.CDLL("./probe.so").answer() != 42:
            said["error"] = "what it made gives a wrong answer"
    except OSError as error:
        said["error"] = str(error)
print(json.dumps(said))
"""
_EAGER = "experiments with long budgets train eagerly"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What came of compiling; ``error`` is empty where it worked."""

    path: str | None
    version: str = ""
    error: str = ""


def compile_inside(isolation: Isolation, python: str | None) -> Compiled:
    """Compile, load and call a C++ function at this level; ``python`` is the configured interpreter, None our own."""
    trial = try_program(LADDER[isolation.level], _PROGRAM, python=python)
    if trial.problem is not None:
        return Compiled(path=None, error=trial.problem)
    try:
        return Compiled(**json.loads(trial.output))
    except (TypeError, ValueError):
        return Compiled(path=None, error=f"the trial program wrote {trial.output!r}")


def check_compiler(compiled: Compiled, host: Host, folders: tuple[Path, ...]) -> Check:
    """Say what torch.compile will find; ``folders`` are those that its commands name."""

    def warn(found: str, advice: str) -> Check:
        return Check(name="C++ compiler", level=Level.WARN, found=f"{found}: {_EAGER}", advice=advice)

    if compiled.path is None:
        missing = f"the trial in the sandbox failed ({compiled.error})" if compiled.error else "none inside the sandbox"
        return warn(missing, host.install("C++ compiler"))
    if "Python.h" in compiled.error:
        return warn(f"{compiled.path}, but no headers of Python ({compiled.error})", host.install("Python headers"))
    if compiled.error:
        return warn(f"{compiled.path} does not work inside the sandbox ({compiled.error})", host.install("C++ compiler"))
    if spaced := [str(folder) for folder in folders if " " in str(folder)]:
        found = f"{compiled.path}, but torch.compile fails where a path has a space, as in {spaced[0]!r}"
        return warn(found, "move it to a path without spaces (the state folder: export AUTORESEARCH_STATE=DIR)")
    found = f"{compiled.path} ({compiled.version}) compiled a file inside the sandbox, and it ran"
    return Check(name="C++ compiler", level=Level.OK, found=found)
