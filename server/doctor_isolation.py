"""What `doctor` says about isolation: the level, what is in force by which mechanism, what is not, and what would raise it.

The levels are tried, never guessed: a process was started on each, from the strongest down. The advice is a pure function of
what went wrong and of the kind of machine, so that every kind can be looked at anywhere. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..lab.isolation import Isolation, guarantees_here, guarantees_not_given, obstacles
from ..lab.referee.sandbox import IsolationLevel
from .check import Check, Level, Table
from .host import Host, Thing, this_host

_PROMISED_NOWHERE = "timing and cache side channels; bugs of the kernel; what an agent with a shell does (docs/SECURITY.md)"
_ACCEPT = "autoresearch accept-isolation"
# What bubblewrap says where a switch of the kernel forbids user namespaces, and the switch.
_SWITCHES = (
    ("/proc/sys/user/max_", "sysctl -w user.max_user_namespaces=15000"),
    ("unprivileged_userns_clone", "sysctl -w kernel.unprivileged_userns_clone=1"),
)
# What it says under AppArmor's restriction (Ubuntu since 23.10): the namespace is made, and nothing may be done in it.
_RESTRICTED = ("setting up uid map: Permission denied", "RTM_NEWADDR: Operation not permitted")
_PROFILE = r"abi <abi/4.0>,\ninclude <tunables/global>\nprofile bwrap /usr/bin/bwrap flags=(unconfined) {\n  userns,\n}\n"


def check_isolation(isolation: Isolation, host: Host) -> Check:
    """Report the level of this machine."""
    problems = obstacles(isolation)
    advice = raising(problems, host)
    if isolation.needs_acceptance:
        advice = f"{advice}; or, once for each lab: {_ACCEPT}" if advice else f"once for each lab: {_ACCEPT}"
    not_promised = [("at this level", ", ".join(guarantees_not_given(isolation)))]
    not_promised += [("in words", isolation.warning), ("at any level", _PROMISED_NOWHERE)]
    tables = [
        Table(title="in force", rows=tuple(guarantees_here(isolation).items())),
        Table(title="not promised", rows=tuple((name, text) for name, text in not_promised if text)),
    ]
    if problems:
        tables.append(Table(title="not available", rows=tuple((str(level), problem) for level, problem in problems.items())))
    return Check(
        name="isolation",
        level=Level.WARN if isolation.needs_acceptance else Level.OK,
        found=f"level {isolation.level}: {isolation.mechanism}",
        advice=advice,
        tables=tuple(tables),
    )


def raising_here(isolation: Isolation) -> str:
    """Return what gives this machine a stronger level than this one; empty where nothing is worth it."""
    return raising(obstacles(isolation), this_host())


def raising(problems: Mapping[IsolationLevel, str], host: Host) -> str:
    """Return the one command, or the one thing to do, that gives this machine a stronger level; empty where none is worth it.

    ``problems`` is why it does not have each stronger level.
    """
    bubblewrap = problems.get(IsolationLevel.BUBBLEWRAP)
    if bubblewrap is None:
        return ""
    if host.system != "Linux":
        return "run the server in a container or virtual machine with Linux (Docker's has level landlock)"
    if host.wsl == 1:
        return "in PowerShell: wsl --set-version DISTRIBUTION 2"
    wanted: list[Thing] = []
    if any("libseccomp" in problem for problem in problems.values()):
        wanted.append("libseccomp")
    if "not installed" in bubblewrap and "bwrap" in bubblewrap and not host.in_container:
        wanted.append("bubblewrap")
    if wanted:
        return host.install(*wanted)
    if host.in_container:
        return _in_a_container(problems.get(IsolationLevel.LANDLOCK))
    if host.apparmor_restricts or any(text in bubblewrap for text in _RESTRICTED):
        tee = f"{host.sudo}tee /etc/apparmor.d/bwrap && {host.sudo}apparmor_parser -r /etc/apparmor.d/bwrap"
        return f"printf '{_PROFILE}' | {tee}"
    for text, switch in _SWITCHES:
        if text in bubblewrap:
            return f"{host.sudo}{switch}"
    return "ask whoever runs this machine for user namespaces (below is what bubblewrap said)"


def _in_a_container(landlock: str | None) -> str:
    """Containers forbid user namespaces by default, and allow Landlock."""
    if landlock is None:
        return ""  # a full boundary already; opening the container for bubblewrap would give up more than it gains
    return "run the container on a host with Linux 5.13 or newer and Landlock (lsm=landlock,... on the kernel's command line)"
