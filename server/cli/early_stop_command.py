"""`autoresearch early-stop`: what ending hopeless runs early saves, and what it would cost, on the lab's recorded curves."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from .opened import opened
from .options import HERE, JsonOption, LabOption

if TYPE_CHECKING:
    from ...lab.config import EarlyStopConfig
    from ...lab.early_stop import Replay

_DESCRIPTION_CHARACTERS = 60


def early_stop(
    session: Annotated[str, typer.Option(metavar="TAG", help="A session.", show_default="the newest")] = "",
    lab: LabOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Judge the recorded runs of a session, and those comparable with it, by the rules of [early_stop], in force or not.

    Says the device seconds that they would have saved, and how many runs that were worth keeping they would have ended.
    """
    from ...lab.early_stop import replayed

    with opened(lab) as this:
        chosen = this.session(session)
        config = this.session_config(chosen)
        found = replayed(this, chosen.group, config)
        names = {each.experiment: this.ledger.experiment(each.experiment).description for each in found.would_end}
    if as_json:
        shares = {"saved_seconds": round(found.saved_seconds, 1), "winners_lost": found.winners_lost}
        typer.echo(json.dumps({"comparability_group": chosen.group, **asdict(found), **shares}))
        return
    for line in _lines(found, names, chosen.group, config.early_stop):
        typer.echo(line)


def _lines(found: Replay, names: dict[str, str], group: str, rules: EarlyStopConfig) -> list[str]:
    lines = [
        f"Recorded runs of comparability group {group} that can be judged (a curve, and their parent's): {found.compared}. "
        f"They took {found.device_seconds:,.0f} device seconds; {found.winners} of them were kept, or might have been.",
        f"The rules would have ended {len(found.would_end)}, saved {found.saved_seconds:,.0f} device seconds"
        f"{_share(found.saved_seconds, found.device_seconds)} and lost {found.winners_lost} of the "
        f"{found.winners}{_share(found.winners_lost, found.winners)}.",
    ]
    for each in found.would_end:
        came_to = each.verdict if each.delta is None else f"{each.verdict} {each.delta:+.4f}"
        name = names[each.experiment][:_DESCRIPTION_CHARACTERS]
        lines.append(f"  {each.experiment} ({came_to}{', LOST' if each.won else ''}) {name}: {each.reason}")
    if found.ended:
        lines.append(
            f"{found.ended} runs were ended early for real, which saved about {found.ended_seconds:,.0f} device seconds."
        )
    margin = "not known yet, too few runs are recorded" if found.margin is None else f"{found.margin:.2f} nats above the parent"
    diverged, futility = ("on" if rule else "off" for rule in (rules.diverged, rules.futility))
    lines.append(f"In [early_stop]: diverged is {diverged}, futility is {futility}; its margin now: {margin}.")
    return lines


def _share(part: float, whole: float) -> str:
    return f" ({part / whole:.0%})" if whole else ""
