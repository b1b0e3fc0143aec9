"""What the human decides about a running lab: which rules count, and whether runs start at all.

autoresearch.toml and program.md are proposals until they are accepted: the first session accepts what lies there, and later
edits take `accept_rules` (`autoresearch accept-config`), so an agent that edits them changes nothing unnoticed. Guarantees:
what was accepted, and when, is in the record. Does not: know who calls; an agent with a shell can, and the record shows it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from .candidate import unified_diff
from .config import CONFIG_NAME, LabConfig, load_config
from .errors import CandidateError, ConfigError, NotReadyError
from .lab import Lab, rules_event
from .machine import command_path
from .paths import PROGRAM_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """What `accept_rules` recorded.

    Attributes:
        changes: config keys as ``budget.seconds: 300.0 -> 60.0``, in the order of the file.
        program_diff: unified diff of program.md, empty when it is the same.
        session: the session that goes on under the new rules; None where there is none, or numbers would not be comparable.
        opens_group: the next session measures under other conditions: its numbers are never compared with earlier ones.
    """

    changes: list[str]
    program_diff: str
    session: str | None
    opens_group: bool

    @property
    def is_empty(self) -> bool:
        return not self.changes and not self.program_diff


def unaccepted_changes(lab: Lab) -> list[str]:
    """Return a sentence for each file of the human's that differs from what was accepted: it does not count yet."""
    accepted = lab.accepted_rules()
    if accepted is None:
        return []
    advice = f"The accepted one counts. The human accepts the change with: {command_path()} accept-config --lab {lab.root}"
    changes = []
    try:
        if load_config(lab.workspace.config) != accepted.config:
            changes.append(f"{CONFIG_NAME} differs from the accepted one. {advice}")
    except ConfigError as error:
        changes.append(f"{error}. The accepted one counts.")
    try:
        if lab.program_file() != lab.ledger.blob(accepted.program_sha256):
            changes.append(f"{PROGRAM_FILE} differs from the accepted one. {advice}")
    except CandidateError as error:
        changes.append(f"{error} The accepted {PROGRAM_FILE} counts; `autoresearch repair` restores it.")
    return changes


def accept_rules(lab: Lab) -> Acceptance:
    """Accept autoresearch.toml and program.md as they lie in the workspace, and record it.

    The newest session goes on under them when its numbers stay comparable; otherwise it keeps its own rules and the next
    `start_session` begins one in a new comparability group. Raises `ConfigError` for a broken file: nothing is accepted then.
    """
    config, program = load_config(lab.workspace.config), lab.program_file()
    with lab.ledger.transaction():
        accepted = lab.accepted_rules()
        if accepted is None:
            lab.ledger.append("rules_accepted", rules_event(config, program), blobs=(program,))
            return Acceptance(changes=[], program_diff="", session=None, opens_group=False)
        before, old_program = accepted.config, lab.ledger.blob(accepted.program_sha256)
        assert old_program is not None, "the ledger stores every program in the transaction that names it"
        changes = _changed_keys(before, config)
        program_diff = unified_diff(old_program, program, name=PROGRAM_FILE)
        session = lab.ledger.newest_session()
        opens_group, session_config = False, None
        if session is not None:
            pinned = lab.session_config(session)
            # A budget that was given on the command line stays what it is.
            overridden = pinned.budget.seconds != before.budget.seconds
            session_config = config.with_budget(pinned.budget.seconds) if overridden else config
            opens_group = _touches_numbers(lab, pinned, session_config)
        result = Acceptance(
            changes=changes,
            program_diff=program_diff,
            session=None if session is None or opens_group else session.tag,
            opens_group=opens_group,
        )
        if not result.is_empty:
            goes_on = None if opens_group else session
            event = rules_event(config, program, session=goes_on, session_config=session_config if goes_on else None)
            lab.ledger.append("rules_accepted", event, blobs=(program,))
    return result


def pause(lab: Lab, reason: str) -> bool:
    """Start no further run until `resume`; what runs, ends. False when the lab is paused already."""
    with lab.ledger.transaction():
        if lab.paused() is not None:
            return False
        lab.ledger.append("lab_paused", {"reason": reason.strip()})
    return True


def resume(lab: Lab) -> bool:
    """Let runs start again, and forgive the crashes in a row so far. False when the lab was not paused."""
    with lab.ledger.transaction():
        was_paused = lab.paused() is not None
        lab.ledger.append("lab_resumed", {})
    return was_paused


def _touches_numbers(lab: Lab, before: LabConfig, after: LabConfig) -> bool:
    """True when numbers measured under the two are not comparable; a corpus that is not prepared yet is another one."""
    try:
        return lab.comparability_group(before) != lab.comparability_group(after)
    except NotReadyError:
        return True


def _changed_keys(before: LabConfig, after: LabConfig) -> list[str]:
    old, new = _flat(before), _flat(after)
    return [f"{key}: {json.dumps(old[key])} -> {json.dumps(new[key])}" for key in new if old[key] != new[key]]


def _flat(config: LabConfig) -> dict[str, object]:
    """Return the keys as people write them: ``profile``, ``budget.seconds``."""
    flat: dict[str, object] = {}
    for key, value in config.model_dump(mode="json").items():
        flat |= {f"{key}.{inner}": item for inner, item in value.items()} if isinstance(value, dict) else {key: value}
    return flat
