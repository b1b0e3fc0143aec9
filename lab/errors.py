"""The exceptions of the lab, split by what the caller does next.

LabError                  a message that says what happened, the value, and the next call to make
├── NotReadyError         something must be set up first (no lab, no corpus, no session)
├── ConfigError           autoresearch.toml is wrong: names the key, the value and the file
├── CandidateError        train.py cannot be a fair experiment; no device time was used
├── UnknownExperimentError  no such experiment here
├── UnknownNameError      no such session or program here; the text lists those there are
├── DecisionError         keep or revert is not allowed now, and why
├── StoppedError          the session has met a stop rule, or the human paused the lab: report, and end
├── DiskError             a disk is full or takes no writes: nothing is half-done, and the same call works once it does
├── GitError              git refused, or the repository is in a state we do not touch
└── LedgerError           the record is damaged or was written by a newer version
"""

from __future__ import annotations


class LabError(Exception):
    """Base of every error that a user or an agent may see; its text names the next step."""


class NotReadyError(LabError):
    pass


class ConfigError(LabError):
    pass


class CandidateError(LabError):
    pass


class UnknownExperimentError(LabError):
    pass


class UnknownNameError(LabError):
    pass


class DecisionError(LabError):
    pass


class StoppedError(LabError):
    pass


class DiskError(LabError):
    pass


class GitError(LabError):
    pass


class LedgerError(LabError):
    pass
