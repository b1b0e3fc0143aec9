"""``autoresearch.toml`` as one frozen object, built and validated once.

Guarantees: every key is optional, unknown keys are refused, and every error is a ``ConfigError`` that names the file,
the key, the value and what is allowed. The allowed values are said once, in the field's description; errors and the
file that ``init`` writes both take them from there.

Does not: watch the file, read the environment, or look at the machine (``resolved_memory_mb`` is told its size).
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from .errors import ConfigError

CONFIG_NAME = "autoresearch.toml"

# What a candidate may use of the machine unless memory_mb says otherwise.
_MEMORY_SHARE = 0.6

ProfileName = Literal["cpu", "gpu"]
ClockKind = Literal["wall", "core_seconds"]
GateRule = Literal["confirmed", "any"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a profile fixes: sizes of the task, the text it is about, and the noise to expect before a lab has measured its own.

    ``context_length`` is in tokens, ``prior_sigma`` in bits per byte (standard deviation between seeds). ``audits`` is how
    many rows are audited in every run, each at most once, ``audits_before_keep`` where the claim may be kept.
    """

    corpus: str
    context_length: int
    vocab_size: int
    validation_bytes: int
    window_bytes: int
    audits: int
    audits_before_keep: int
    prior_sigma: float


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "cpu": Profile(
            corpus="wheels",
            context_length=256,
            vocab_size=2048,
            validation_bytes=280_000,
            window_bytes=2048,
            audits=40,
            audits_before_keep=1_000_000,  # every row
            prior_sigma=0.02,
        ),
        "gpu": Profile(
            corpus="climbmix",
            context_length=2048,
            vocab_size=8192,
            validation_bytes=60_000_000,
            window_bytes=16384,
            audits=1000,
            audits_before_keep=1000,
            prior_sigma=0.002,
        ),
    }
)


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


_Seconds = Annotated[float, Field(ge=1, le=86400)]
_GpuIndex = Annotated[int, Field(ge=0, le=1023)]


class BudgetConfig(_Table):
    """How long one experiment trains, and the caps around it."""

    seconds: _Seconds = Field(default=300.0, description="seconds of training for each experiment, from 1 to 86400")
    startup_seconds: _Seconds = Field(
        default=300.0, description="cap on start-up and compilation before the clock starts, in seconds from 1 to 86400"
    )
    clock: Literal["auto", "wall", "core_seconds"] = Field(
        default="auto",
        description='what the budget counts: "wall", "core_seconds" (CPU time over all cores), '
        'or "auto" (core_seconds on cpu, wall on gpu)',
    )
    scoring_seconds: _Seconds = Field(default=300.0, description="cap on scoring one model, in seconds from 1 to 86400")


class CorpusConfig(_Table):
    """Which prepared text is learned."""

    name: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$",
        examples=["wheels"],
        description="a corpus that `autoresearch prepare` has made; lowercase letters, digits, '_' and '-'; left out: the "
        "profile's (wheels on cpu, climbmix on gpu)",
    )


class TrainerConfig(_Table):
    """What trains a candidate."""

    python: str | None = Field(
        default=None,
        pattern=r"^(/|~/).+$",
        examples=["/opt/cuda-env/bin/python"],
        description="absolute path of the Python whose torch trains and scores; left out: the one that runs the server",
    )
    gpus: tuple[_GpuIndex, ...] = Field(
        default=(),
        strict=False,  # TOML and JSON have lists
        description="indexes of the GPUs that may be used, as nvidia-smi counts them, such as [0, 1]; empty: all of one kind",
    )


class LimitsConfig(_Table):
    """What a candidate may use."""

    memory_mb: int = Field(
        default=0, ge=0, le=16_777_216, description="megabytes of memory from 0 to 16777216; 0 is 60 % of the machine"
    )
    processes: int = Field(default=256, ge=1, le=65_536, description="processes at the same time, from 1 to 65536")
    disk_mb: int = Field(default=2048, ge=1, le=16_777_216, description="megabytes of scratch space, from 1 to 16777216")
    log_kb: int = Field(default=1024, ge=1, le=1_048_576, description="kilobytes of log that are kept, from 1 to 1048576")


class SandboxConfig(_Table):
    """How a candidate is kept apart."""

    allow_unsandboxed: bool = Field(
        default=False,
        description="true or false: may runs start where train.py can reach this user's files, since the machine offers no "
        "sandbox (see `autoresearch doctor`)",
    )


class GateConfig(_Table):
    """What may be kept."""

    rule: GateRule = Field(
        default="confirmed",
        description='which results may be kept: "confirmed" (two runs with fresh seeds are better than the parent by a sigma) '
        'or "any" (better than the parent); with either what has fewer lines and is worse by half a sigma at most',
    )
    sigma: float | None = Field(
        default=None,
        gt=0,
        examples=[0.02],
        description="standard deviation of val_bpb between seeds, above 0; left out: what the lab measures, until then a prior",
    )
    measure_when_idle: bool = Field(
        default=True,
        description="true or false: run the baseline and the champion with further seeds while no experiment waits, to measure "
        "the noise",
    )


class EarlyStopConfig(_Table):
    """Which runs of a new idea are ended before their budget is used, by the loss that train.py reports."""

    diverged: bool = Field(
        default=True,
        description="true or false: end a run whose loss is not finite, or far above where it began or where its parent was",
    )
    futility: bool = Field(
        default=True,
        description="true or false: end a run whose smoothed loss is above its parent's at the same second by more than margin",
    )
    margin: float | None = Field(
        default=None,
        gt=0,
        examples=[0.5],
        description="nats per token, above 0; left out: twice what recorded runs that ended no worse were above their parents "
        "at most, once there are 8 of them",
    )
    after_share: float = Field(
        default=0.3, ge=0.1, le=0.8, description="share of the budget before which futility is not judged, from 0.1 to 0.8"
    )


class StopConfig(_Table):
    """When a session has done enough."""

    target: float | None = Field(
        default=None, gt=0, examples=[1.85], description="val_bpb at which the goal is reached, above 0; left out: none"
    )
    experiments: int = Field(
        default=0, ge=0, le=1_000_000, description="experiments of a session, from 0 to 1000000; 0 is without end"
    )
    hours: float = Field(
        default=0.0, ge=0, le=10_000, description="hours from the start of a session, from 0 to 10000; 0 is without end"
    )
    crashes_in_a_row: int = Field(
        default=20,
        ge=0,
        le=1_000_000,
        description="experiments in a row that crash, time out or are invalid, from 0 to 1000000; 0 is without end",
    )
    plateau_notice: int = Field(
        default=20,
        ge=0,
        le=1_000_000,
        description="finished experiments without a kept gain after which read_program says so, from 0 to 1000000; 0 is never",
    )


class WaitConfig(_Table):
    """How tools answer."""

    max_seconds: float = Field(
        default=45.0,
        ge=0,
        le=3600,
        description="how long one tool call may wait for a result, in seconds from 0 to 3600",
    )


class LabConfig(_Table):
    """The whole of ``autoresearch.toml``; an empty file is the defaults."""

    profile: ProfileName = Field(default="cpu", description='the sizes of model, context and corpus: "cpu" or "gpu"')
    budget: BudgetConfig = Field(default=BudgetConfig(), description="a table")
    corpus: CorpusConfig = Field(default=CorpusConfig(), description="a table")
    trainer: TrainerConfig = Field(default=TrainerConfig(), description="a table")
    limits: LimitsConfig = Field(default=LimitsConfig(), description="a table")
    sandbox: SandboxConfig = Field(default=SandboxConfig(), description="a table")
    gate: GateConfig = Field(default=GateConfig(), description="a table")
    early_stop: EarlyStopConfig = Field(default=EarlyStopConfig(), description="a table")
    stop: StopConfig = Field(default=StopConfig(), description="a table")
    wait: WaitConfig = Field(default=WaitConfig(), description="a table")

    @property
    def profile_facts(self) -> Profile:
        """What the chosen profile fixes."""
        return PROFILES[self.profile]

    @property
    def corpus_name(self) -> str:
        """The corpus in force: the named one, or the profile's."""
        return self.corpus.name or self.profile_facts.corpus

    @property
    def clock_kind(self) -> ClockKind:
        """The clock in force: a CPU is shared by nature, so there ``auto`` counts core seconds."""
        if self.budget.clock != "auto":
            return self.budget.clock
        return "core_seconds" if self.profile == "cpu" else "wall"

    def resolved_memory_mb(self, total_mb: int) -> int:
        """Return the memory limit in megabytes on a machine that has ``total_mb``."""
        return self.limits.memory_mb or max(1, int(total_mb * _MEMORY_SHARE))

    def with_budget(self, seconds: float) -> LabConfig:
        """Return a copy with another training budget; raises ``ConfigError`` where the file would."""
        content = self.model_dump()
        content["budget"]["seconds"] = seconds
        return _build(content, source="the requested budget")

    def canonical_json(self) -> str:
        """Return the content as JSON with sorted keys and no spaces: equal configs give equal text, to be hashed."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


def load_config(path: Path) -> LabConfig:
    """Read and validate the file at ``path``; raises ``ConfigError`` for whatever is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: run `autoresearch init`, which writes it")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): make it a readable file")
    return parse_config(text, source=str(path))


def parse_config(text: str, *, source: str) -> LabConfig:
    """Build the config from TOML text; ``source`` is the file name that errors give."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source} is not valid TOML: {error}; strings need quotes, tables are [names]")
    except RecursionError:
        raise ConfigError(f"{source} is not valid here: its values are nested too deeply; see `autoresearch init`")
    return _build(content, source=source)


def render_config(config: LabConfig) -> str:
    """Return a commented ``autoresearch.toml`` with every key of ``config``, for `init` and `repair` to write."""
    lines = [
        "# The rules of this lab. They belong to the human: a change counts once `autoresearch accept-config` has recorded",
        "# it. Every key is optional; the values of a new lab are written out.",
    ]
    for key, field in LabConfig.model_fields.items():
        value = getattr(config, key)
        if isinstance(value, _Table):
            lines += ["", f"[{key}]  # {_first_sentence(value)}"]
            for inner, inner_field in type(value).model_fields.items():
                lines += _render_key(inner, inner_field, getattr(value, inner))
        else:
            lines += ["", *_render_key(key, field, value)]
    return "\n".join(lines) + "\n"


def new_config(*, budget_seconds: float | None = None, profile: ProfileName = "cpu") -> LabConfig:
    """Return the config of a new lab, with the profile's corpus by name; raises `ConfigError` as a file would."""
    content: dict[str, Any] = {"profile": profile, "corpus": {"name": PROFILES[profile].corpus}}
    if budget_seconds is not None:
        content["budget"] = {"seconds": budget_seconds}
    return _build(content, source="the requested config")


def _first_sentence(table: _Table) -> str:
    return (type(table).__doc__ or "").strip().rstrip(".").lower()


def _render_key(key: str, field: FieldInfo, value: object) -> list[str]:
    comment = f"# {field.description}"
    if value is None:
        return [comment, f"# {key} = {json.dumps((field.examples or [None])[0])}"]
    # JSON and TOML agree on strings, integers and finite floats.
    return [comment, f"{key} = {json.dumps(value)}"]


def _build(content: dict[str, Any], *, source: str) -> LabConfig:
    try:
        return LabConfig.model_validate(content)
    except ValidationError as error:
        problems = [_explain(content, tuple(map(str, problem["loc"])), problem["type"]) for problem in error.errors()]
        raise ConfigError(f"{source}: " + "; ".join(problems)) from None


def _explain(content: Mapping[str, Any], location: tuple[str, ...], kind: str) -> str:
    location = location[:2]  # what is wrong inside a list is wrong with the key
    value: Any = content
    for key in location:
        value = value[key]
    name = ".".join(location)
    if kind == "extra_forbidden":
        table = _table_at(location[:-1])
        known = list(table.model_fields)
        near = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        where = f"[{location[0]}]" if len(location) > 1 else "the top level"
        return f"unknown key {name} = {_short(value)}: {hint}{where} allows {', '.join(known)}"
    field = _table_at(location[:-1]).model_fields[location[-1]]
    if field.description == "a table":
        allowed = f"a table [{name}] with {', '.join(_table_at(location).model_fields)}"
    else:
        allowed = field.description
    return f"{name} = {_short(value)} is not allowed; allowed: {allowed}"


def _table_at(location: tuple[str, ...]) -> type[_Table]:
    table: type[_Table] = LabConfig
    for key in location:
        annotation = table.model_fields[key].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, _Table)
        table = annotation
    return table


def _short(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


DEFAULT_CONFIG_TEXT = render_config(new_config())
