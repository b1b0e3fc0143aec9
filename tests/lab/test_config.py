import json

import pytest
from autoresearch_mcp.lab.config import (
    DEFAULT_CONFIG_TEXT,
    PROFILES,
    CorpusConfig,
    LabConfig,
    load_config,
    new_config,
    parse_config,
    render_config,
)
from autoresearch_mcp.lab.errors import ConfigError
from pydantic import ValidationError

FILE = "/labs/demo/autoresearch.toml"


def parse(text: str) -> LabConfig:
    return parse_config(text, source=FILE)


def test_an_empty_file_is_the_defaults():
    config = parse("")
    assert config == LabConfig()
    assert config.profile == "cpu"
    assert (config.budget.seconds, config.budget.startup_seconds, config.budget.scoring_seconds) == (300, 300, 300)
    assert config.corpus_name == "wheels"
    assert parse('profile = "gpu"').corpus_name == "climbmix"
    assert (config.stop.target, config.stop.experiments, config.stop.hours, config.stop.crashes_in_a_row) == (None, 0, 0.0, 20)
    assert (config.trainer.python, config.trainer.gpus) == (None, ())
    limits = config.limits
    assert (limits.memory_mb, limits.processes, limits.disk_mb, limits.log_kb) == (0, 256, 2048, 1024)
    assert (config.gate.rule, config.gate.sigma, config.gate.measure_when_idle) == ("confirmed", None, True)
    early = config.early_stop
    assert (early.diverged, early.futility, early.margin, early.after_share) == (True, True, None, 0.3)
    assert config.wait.max_seconds == 45


def test_the_file_that_init_writes_says_the_defaults():
    assert parse(DEFAULT_CONFIG_TEXT) == LabConfig(corpus=CorpusConfig(name="wheels"))


def test_the_file_that_init_writes_names_every_key():
    for key in LabConfig.model_fields:
        assert f"[{key}]" in DEFAULT_CONFIG_TEXT or f"{key} = " in DEFAULT_CONFIG_TEXT
    for table in (LabConfig().budget, LabConfig().limits, LabConfig().gate, LabConfig().early_stop, LabConfig().wait):
        for key in type(table).model_fields:
            assert f"{key} = " in DEFAULT_CONFIG_TEXT


def test_a_rendered_file_parses_to_what_was_asked_and_stays_valid_when_uncommented():
    text = render_config(new_config(budget_seconds=20, profile="gpu"))
    config = parse(text)
    assert (config.budget.seconds, config.profile, config.corpus.name) == (20, "gpu", "climbmix")
    uncommented = parse(text.replace("# sigma", "sigma").replace("# python", "python").replace("# target", "target"))
    assert (uncommented.gate.sigma, uncommented.stop.target) == (0.02, 1.85)
    assert parse(render_config(uncommented)) == uncommented


def test_rendering_refuses_what_parsing_would():
    with pytest.raises(ConfigError, match=r"budget\.seconds = 0"):
        new_config(budget_seconds=0)


@pytest.mark.parametrize(
    ("text", "key", "value", "allowed"),
    [
        ('profile = "tpu"', "profile", '"tpu"', '"cpu" or "gpu"'),
        ("[budget]\nseconds = 0", "budget.seconds", "0", "from 1 to 86400"),
        ("[budget]\nseconds = 86401", "budget.seconds", "86401", "from 1 to 86400"),
        ('[budget]\nseconds = "300"', "budget.seconds", '"300"', "from 1 to 86400"),
        ("[budget]\nseconds = nan", "budget.seconds", "NaN", "from 1 to 86400"),
        ("[budget]\nseconds = inf", "budget.seconds", "Infinity", "from 1 to 86400"),
        ("[budget]\nseconds = true", "budget.seconds", "true", "from 1 to 86400"),
        ('[budget]\nclock = "sun"', "budget.clock", '"sun"', '"core_seconds"'),
        ("[trainer]\ngpus = [0, -1]", "trainer.gpus", "[0, -1]", "indexes of the GPUs"),
        ('[trainer]\npython = "python3"', "trainer.python", '"python3"', "absolute path"),
        ("[stop]\ntarget = 0.0", "stop.target", "0.0", "above 0"),
        ('[corpus]\nname = "../etc"', "corpus.name", '"../etc"', "lowercase"),
        ('[corpus]\nname = "a\\n"', "corpus.name", '"a\\\\n"', "lowercase"),
        ("[limits]\nmemory_mb = -1", "limits.memory_mb", "-1", "from 0 to"),
        ("[limits]\nprocesses = 1.5", "limits.processes", "1.5", "from 1 to"),
        ('[gate]\nrule = "hope"', "gate.rule", '"hope"', '"confirmed"'),
        ("[gate]\nsigma = 0.0", "gate.sigma", "0.0", "above 0"),
        ("[early_stop]\nmargin = 0.0", "early_stop.margin", "0.0", "above 0"),
        ("[early_stop]\nafter_share = 0.9", "early_stop.after_share", "0.9", "from 0.1 to 0.8"),
        ("[wait]\nmax_seconds = -1", "wait.max_seconds", "-1", "from 0 to 3600"),
        ("budget = 300", "budget", "300", "a table"),
        ("[[budget]]\nseconds = 1", "budget", '[{"seconds": 1}]', "a table"),
        ("[budget.seconds]\nx = 1", "budget.seconds", '{"x": 1}', "from 1 to 86400"),
        ("profile = 2026-01-01", "profile", "2026-01-01", '"cpu" or "gpu"'),
    ],
)
def test_a_wrong_value_is_refused_with_file_key_value_and_what_is_allowed(text, key, value, allowed):
    with pytest.raises(ConfigError) as caught:
        parse(text)
    message = str(caught.value)
    assert message.startswith(FILE)
    assert f"{key} = " in message
    assert value.replace("\\\\", "\\") in message.replace("\\\\", "\\")
    assert allowed in message


def test_every_wrong_key_is_named_in_one_answer():
    with pytest.raises(ConfigError, match=r"budget\.seconds = -5.*limits\.disk_mb = 0"):
        parse("[budget]\nseconds = -5\n[limits]\ndisk_mb = 0")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[budget]\nsecond = 300", ["budget.second = 300", "did you mean seconds?", "startup_seconds"]),
        ("[budgets]\nseconds = 300", ["unknown key budgets", "did you mean budget?", "limits"]),
        ("seed = 42", ["unknown key seed = 42", "the top level allows profile"]),
    ],
)
def test_an_unknown_key_is_refused_with_the_known_ones(text, words):
    with pytest.raises(ConfigError) as caught:
        parse(text)
    for word in [FILE, *words]:
        assert word in str(caught.value)


def test_broken_toml_is_refused_with_file_and_line():
    with pytest.raises(ConfigError, match=rf"{FILE} is not valid TOML.*line 3"):
        parse("[budget]\nseconds = 300\nclock = wall\n")


def test_deeply_nested_toml_is_refused():
    with pytest.raises(ConfigError, match=r"TOML|nested"):
        parse("x = " + "[" * 20_000)


def test_a_file_is_loaded_from_disk(tmp_path):
    path = tmp_path / "autoresearch.toml"
    path.write_text("[budget]\nseconds = 20\n")
    assert load_config(path).budget.seconds == 20


def test_a_missing_unreadable_or_undecodable_file_is_a_config_error_that_names_it(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml does not exist: run `autoresearch init`"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b'profile = "\xff"')
    with pytest.raises(ConfigError, match=r"binary\.toml is not UTF-8 text \(byte 11\)"):
        load_config(binary)


@pytest.mark.parametrize(
    ("profile", "clock", "kind"),
    [
        ("cpu", "auto", "core_seconds"),
        ("gpu", "auto", "wall"),
        ("cpu", "wall", "wall"),
        ("gpu", "core_seconds", "core_seconds"),
    ],
)
def test_the_automatic_clock_follows_the_profile(profile, clock, kind):
    assert parse(f'profile = "{profile}"\n[budget]\nclock = "{clock}"').clock_kind == kind


def test_memory_zero_means_sixty_percent_of_the_machine():
    assert parse("").resolved_memory_mb(10_000) == 6_000
    assert parse("[limits]\nmemory_mb = 512").resolved_memory_mb(10_000) == 512


def test_with_budget_changes_the_copy_alone():
    config = parse('[corpus]\nname = "mine"')
    shorter = config.with_budget(20)
    assert (shorter.budget.seconds, shorter.corpus_name) == (20, "mine")
    assert config.budget.seconds == 300
    with pytest.raises(ConfigError, match=r"budget\.seconds = 0 is not allowed"):
        config.with_budget(0)


def test_the_config_cannot_be_changed():
    config = parse("")
    with pytest.raises(ValidationError):
        config.profile = "gpu"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValidationError):
        config.budget.seconds = 1.0  # pyright: ignore[reportAttributeAccessIssue]


def test_canonical_json_is_equal_for_equal_content_and_differs_otherwise():
    first = parse("[wait]\nmax_seconds = 5\n[budget]\nseconds = 20")
    second = parse("[budget]\nseconds = 20.0\n[wait]\nmax_seconds = 5.0")
    assert first.canonical_json() == second.canonical_json()
    assert first.canonical_json() != parse("").canonical_json()
    assert LabConfig.model_validate(json.loads(first.canonical_json())) == first


def test_the_profiles_are_a_fixed_table():
    assert set(PROFILES) == {"cpu", "gpu"}
    assert (PROFILES["cpu"].context_length, PROFILES["cpu"].vocab_size, PROFILES["cpu"].audits) == (256, 2048, 40)
    assert (PROFILES["gpu"].context_length, PROFILES["gpu"].vocab_size, PROFILES["gpu"].audits) == (2048, 8192, 1000)
    assert (PROFILES["cpu"].audits_before_keep, PROFILES["gpu"].audits_before_keep) == (1_000_000, 1000)
    with pytest.raises(TypeError):
        PROFILES["tpu"] = PROFILES["cpu"]  # pyright: ignore[reportIndexIssue]
