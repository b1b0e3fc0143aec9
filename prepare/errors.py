"""The exceptions of the data half of `prepare`, split by what the caller does next.

PrepareError              a message that says what happened, the value, and the next step
├── CorpusMissingError    nothing is prepared under that name: run `autoresearch prepare`
├── CorpusDamagedError    something is there, but it is not what its manifest says: prepare it again
├── DownloadError         the package index did not deliver the pinned files
└── OverlapError          the held-out text is too much like the training text to measure anything
"""

from __future__ import annotations


class PrepareError(Exception):
    """Base of every error that preparing or opening a corpus raises on purpose."""


class CorpusMissingError(PrepareError):
    pass


class CorpusDamagedError(PrepareError):
    pass


class DownloadError(PrepareError):
    pass


class OverlapError(PrepareError):
    pass
