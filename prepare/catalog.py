"""The corpora that are known by name; any other name needs text of the user's own, as a folder.

    wheels       the text of nine pinned wheels, profile cpu's
    climbmix     shards of karpathy/climbmix-400b-shuffle from the Hugging Face hub, profile gpu's
    tinystories  karpathy/tinystories-gpt4-clean from the hub: much easier text, for small models

A corpus is known by its name alone: `climbmix` with another number of shards replaces the one before, under another corpus
id. Who needs both keeps two caches (AUTORESEARCH_CACHE); the shards themselves are fetched once for each cache.
"""

from __future__ import annotations

from .corpus import DEFAULT_CORPUS
from .hub import HubDataset, HubSource, Shard
from .sources import CorpusSource
from .wheels import WheelsSource

# As upstream has it: 6543 shards of about 250 million characters, the last one is validation, 10 are trained on unless
# somebody says otherwise. The shard before the last is kept for test, so train has at most 6541.
_CLIMBMIX_SHARDS = 6543
_CLIMBMIX_FILE = "shard_{:05d}.parquet"

_TINYSTORIES_FILE = "tinystories_gpt4_clean.parquet"
_USUAL_VOCAB_SIZE = 2048
_USUAL_VOCAB_SIZES = {"climbmix": 8192}


def _climbmix() -> HubDataset:
    return HubDataset(
        name="climbmix",
        repo="karpathy/climbmix-400b-shuffle",
        revision="915333b4f8b8684f39aeaafea600fea6f43fb703",
        train=tuple(Shard(file=_CLIMBMIX_FILE.format(index)) for index in range(_CLIMBMIX_SHARDS - 2)),
        default_shards=10,
        val=Shard(file=_CLIMBMIX_FILE.format(_CLIMBMIX_SHARDS - 1)),
        test=Shard(file=_CLIMBMIX_FILE.format(_CLIMBMIX_SHARDS - 2)),
    )


def _tinystories() -> HubDataset:
    # One file of 2.7 million stories in random order; the rows of each split are those that its card suggests.
    return HubDataset(
        name="tinystories",
        repo="karpathy/tinystories-gpt4-clean",
        revision="0397e27157956705a0260709da3095bb9c43d6a7",
        train=(Shard(file=_TINYSTORIES_FILE, first_row=20_000),),
        default_shards=1,
        val=Shard(file=_TINYSTORIES_FILE, first_row=10_000, stop_row=20_000),
        test=Shard(file=_TINYSTORIES_FILE, first_row=0, stop_row=10_000),
    )


_HUB_DATASETS = {"climbmix": _climbmix, "tinystories": _tinystories}
KNOWN_CORPORA = (DEFAULT_CORPUS, *_HUB_DATASETS)


def usual_vocab_size(name: str) -> int:
    """Return the vocabulary size that a corpus is first encoded with: that of the profile it belongs to."""
    return _USUAL_VOCAB_SIZES.get(name, _USUAL_VOCAB_SIZE)


def named_source(name: str, *, shards: int | None = None, prepared: str | None = None) -> CorpusSource:
    """Return the source that goes with a known name.

    Args:
        shards: how many training shards, for a corpus from the hub; by default those that are prepared, else its default.
        prepared: the source key of the corpus that is prepared under the name, if there is one.

    Raises:
        ValueError: the name is not known (the text lists those that are), or the corpus does not come in that many shards.
    """
    if name == DEFAULT_CORPUS and shards is None:
        return WheelsSource()
    if name in _HUB_DATASETS:
        dataset = _HUB_DATASETS[name]()
        if shards is None and prepared is not None:
            shards = dataset.shards_in(prepared)
        return HubSource(dataset, shards)
    if name == DEFAULT_CORPUS:
        raise ValueError(
            f"the corpus {name!r} does not come in shards: leave out --shards, or choose {', '.join(_HUB_DATASETS)}"
        )
    raise ValueError(
        f"no source is known for the corpus {name!r}: the known corpora are {', '.join(KNOWN_CORPORA)}; for text of your own, "
        f"run `autoresearch prepare --corpus {name} --from DIR`"
    )
