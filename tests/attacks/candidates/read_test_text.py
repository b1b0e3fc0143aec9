"""Looks for the text of the test split: by its path, below another process's root, and in every file of every corpus."""

import hashlib
import os

from attack import VICTIM, attempt


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read(4096)).hexdigest()


text, corpora = VICTIM["test_text"], os.path.dirname(VICTIM["corpus"])
attempt("the test text by path", lambda: digest(text))
attempt("the test text below another process's root", lambda: digest(f"/proc/{VICTIM['server']}/root{text}"))
for path in [os.path.join(folder, name) for folder, _, names in os.walk(corpora) for name in names]:
    attempt(f"{path}, a file of a corpus", lambda path=path: digest(path))
with open(text, "rb") as file:  # else it has failed
    print(len(file.read()))
