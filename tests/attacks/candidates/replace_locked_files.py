"""Replaces files of others: renames over them, writes through links to them, removes them, moves their folder away."""

import os
import shutil

from attack import VICTIM, attempt

HOME = os.environ["HOME"]


def write(path):
    with open(path, "a") as file:
        file.write("# changed\n")


def through_link(path, make):
    link = f"{HOME}/{make.__name__}"
    if os.path.lexists(link):
        os.unlink(link)
    make(path, link)
    write(link)


def rename_over(path):
    write(f"{HOME}/replacement")
    try:
        os.rename(f"{HOME}/replacement", path)
    except OSError:
        write(f"{path}.new")
        os.rename(f"{path}.new", path)


for path in VICTIM["locked"]:
    attempt(f"wrote through a link to {path}", lambda path=path: through_link(path, os.symlink))
    attempt(f"wrote through a hard link to {path}", lambda path=path: through_link(path, os.link))
    attempt(f"renamed over {path}", lambda path=path: rename_over(path))
    attempt(f"removed {path}", lambda path=path: os.unlink(path))
attempt("moved a folder away", lambda: os.rename(VICTIM["packages"], f"{VICTIM['packages']}-gone"))
attempt("removed a folder", lambda: shutil.rmtree(VICTIM["packages"]))
