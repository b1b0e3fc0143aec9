"""Plants code that a later Python would run: sitecustomize, a .pth file, bytecode beside the harness and beside a package."""

import os
import py_compile
import sys

from attack import VICTIM, attempt

CODE = "import sys\nsys.exit('planted')\n"


def plant(path, text=CODE):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "x") as file:
        file.write(text)


def plant_bytecode(module):
    cached = f"{os.path.dirname(module)}/__pycache__/{os.path.basename(module)[:-3]}.{sys.implementation.cache_tag}.pyc"
    source = f"{os.environ['TMPDIR']}/planted.py"
    with open(source, "w") as file:
        file.write(CODE)
    py_compile.compile(source, cached, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)


version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
for folder in (
    ".",
    os.environ["HOME"],
    f"{os.environ['HOME']}/.local/lib/{version}/site-packages",
    VICTIM["packages"],
    VICTIM["harness"],
):
    attempt(f"sitecustomize in {folder}", lambda folder=folder: plant(f"{folder}/sitecustomize.py"))
    attempt(
        f"a .pth file in {folder}", lambda folder=folder: plant(f"{folder}/planted.pth", "import sys; sys.exit('planted')\n")
    )
for module in ("prepare/scoring_worker.py", "prepare/channel.py", "lab/referee/runner.py"):
    attempt(f"bytecode of {module}", lambda module=module: plant_bytecode(f"{VICTIM['harness']}/{module}"))
attempt("bytecode of a package", lambda: plant_bytecode(f"{VICTIM['packages']}/package.py"))
