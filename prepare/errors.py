"""The exceptions of the data half of `prepare`, split by what the caller does next.

PrepareError              a message that says what happened, the value, and the next step
├── CorpusMissingError    nothing is prepared under that name: run `autoresearch prepare`
├── CorpusDamagedError    something is there, but it is not what its manifest says: prepare it again
├── DownloadError         the package index or the hub did not deliver what was asked for
├── LibraryMissingError   a library that this corpus needs is not installed: the text names the pip command
├── DiskFullError         there is no room for the corpus: free some, or choose another cache
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


class LibraryMissingError(PrepareError):
    pass


class DiskFullError(PrepareError):
    pass


class OverlapError(PrepareError):
    pass
