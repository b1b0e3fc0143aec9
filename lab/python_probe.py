"""What an interpreter has, from its packages' metadata: imported for the server's own, run by path in any other.

Never imports torch. It must run where nothing of ours is installed, in an old Python too: so no other import than these.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import sys
import sysconfig

PACKAGES = ("torch", "numpy", "tiktoken", "cloudpickle")  # what `prepare` imports beside the standard library


def look() -> dict:
    """Return this interpreter's version, the versions of `PACKAGES`, and whether its torch is built for CUDA."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    spec = importlib.util.find_spec("torch")
    libraries = "" if spec is None or spec.origin is None else os.path.join(os.path.dirname(spec.origin), "lib")  # noqa: PTH118, PTH120
    names = os.listdir(libraries) if os.path.isdir(libraries) else []  # noqa: PTH208, PTH112
    return {
        "python": list(sys.version_info[:2]),
        "versions": versions,
        "cuda": any(name.startswith("libtorch_cuda") for name in names),
        "packages": sysconfig.get_path("purelib"),
    }


if __name__ == "__main__":
    print(json.dumps(look()))
