"""What an interpreter has, from its packages' metadata: imported for the server's own, run by path in any other.

Never imports torch. It must run where nothing of ours is installed, in an old Python too: so no other import than these.
"""

from __future__ import annotations

import glob
import importlib.metadata
import importlib.util
import json
import os
import re
import sys
import sysconfig

PACKAGES = ("torch", "numpy", "tiktoken", "cloudpickle")  # what `prepare` imports beside the standard library
_COMPILING = ("setuptools",)  # what torch.compile needs to build C++ kernels


def look() -> dict:
    """Return this interpreter's version, the versions of `PACKAGES`, and whether its torch is built for CUDA."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    spec = importlib.util.find_spec("torch")
    libraries = "" if spec is None or spec.origin is None else os.path.join(os.path.dirname(spec.origin), "lib")
    names = os.listdir(libraries) if os.path.isdir(libraries) else []
    return {
        "python": list(sys.version_info[:2]),
        "versions": versions,
        "cuda": any(name.startswith("libtorch_cuda") for name in names),
        "packages": sysconfig.get_path("purelib"),
    }


def layout() -> dict:
    """Return the files that this interpreter needs to run `PACKAGES`; every path exists and is free of links.

    ``executable`` is the program itself, ``standard`` its standard library, ``extensions`` that library's compiled modules,
    ``files`` what else belongs to it (libpython, C headers). ``entries`` are the files and folders that make up `PACKAGES`,
    `_COMPILING` and all they require, by the name under which they lie in a package folder; ``packages`` is that folder.
    """
    executable = os.path.realpath(sys.executable)
    prefix = os.path.realpath(sys.base_prefix)
    libraries = {sysconfig.get_config_var("LIBDIR") or "", os.path.join(prefix, "lib")}
    files = [found for folder in libraries if folder for found in glob.glob(os.path.join(folder, "lib*.so*"))]
    files += [sysconfig.get_path("include") or "", os.path.join(prefix, "Python3"), os.path.join(prefix, "Python")]
    return {
        "executable": executable,
        "version": list(sys.version_info[:3]),
        "standard": os.path.dirname(os.path.realpath(os.__file__)),
        "extensions": os.path.realpath(sysconfig.get_config_var("DESTSHARED") or ""),
        "files": sorted({os.path.realpath(path) for path in files if os.path.exists(path)}),
        "entries": _entries(),
        "packages": sysconfig.get_path("purelib"),
    }


def _entries() -> dict:
    """Return name -> path of what the closure's distributions have installed, as their RECORDs say."""
    entries, seen, queue = {}, set(), [*PACKAGES, *_COMPILING]
    while queue:
        name = re.sub(r"[-_.]+", "-", queue.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform, or optional
        for line in distribution.requires or []:
            if "extra ==" not in line:
                queue.append(re.split(r"[^\w.-]", line, maxsplit=1)[0])
        for top in _top_levels(distribution):
            path = os.path.realpath(str(distribution.locate_file(top)))
            if os.path.exists(path):
                entries[top] = path
    return entries


def _top_levels(distribution) -> set:
    lines = (distribution.read_text("RECORD") or "").splitlines()
    tops = {re.split(r"[/,]", line.strip('"'), maxsplit=1)[0] for line in lines if line}
    if not tops:  # of a system's package manager
        tops = set((distribution.read_text("top_level.txt") or distribution.metadata["Name"]).split())
        tops |= {f"{top}.py" for top in tops}
    return {top for top in tops if top not in ("..", "", "__pycache__") and not os.path.isabs(top) and not top.endswith(".pth")}


if __name__ == "__main__":
    print(json.dumps(layout() if sys.argv[1:] == ["layout"] else look()))
