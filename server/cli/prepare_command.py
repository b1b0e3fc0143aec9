"""`autoresearch prepare`: fetch a corpus, or take a folder of text, and make everything that training and scoring read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import HERE, JsonOption, LabOption

if TYPE_CHECKING:
    from ...prepare.corpus import Corpus
    from ...prepare.manifest import OverlapRecord
    from ...prepare.sources import CorpusSource


def prepare(
    corpus: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The corpus: wheels, climbmix, tinystories, or a name for the text of --from.",
            show_default="the lab's; wheels outside of a lab",
        ),
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Training shards from the hub.", show_default="those prepared; climbmix 10"),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="A folder of text, JSONL or Parquet files to make it from.")
    ] = None,
    lab: LabOption = HERE,
    verify: Annotated[bool, typer.Option("--verify", help="Read every byte again; make it again if one differs.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch and prepare a corpus; does nothing when it is there.

    Another number of shards, or other text in the folder, makes the corpus again under its name and under a new id; numbers
    measured on the one before are not comparable.
    """
    from ...prepare.building import prepared_source
    from ...prepare.corpus import open_corpus
    from .preparing import prepare_with_progress

    name = _lab_corpus(lab) if corpus is None else corpus
    try:
        before = prepared_source(name)
        source = _source(name, shards, folder, before)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if source is None:
        prepared = open_corpus(name)
        if verify:
            prepared.verify()
        replaced = None
    else:
        replaced = None if before in (None, source.key) else open_corpus(name).corpus_id
        if replaced is not None:
            typer.echo(f"The corpus {name} ({replaced}) was made from {before}; making it again from {source.key}.", err=True)
        prepared = prepare_with_progress(name, source=source, verify=verify)
        summary = getattr(source, "summary", None)  # what became of the files of a folder, when it was read just now
        if summary is not None:
            typer.echo(str(summary), err=True)
    typer.echo(json.dumps(_facts(prepared, replaced)) if as_json else _text(prepared))


def _lab_corpus(lab: Path) -> str:
    from ...lab.config import CONFIG_NAME, load_config
    from ...lab.errors import NotReadyError
    from ...lab.lab import find_lab_root
    from ...prepare.corpus import DEFAULT_CORPUS

    try:
        return load_config(find_lab_root(lab) / CONFIG_NAME).corpus_name
    except NotReadyError:
        return DEFAULT_CORPUS


def _source(name: str, shards: int | None, folder: Path | None, prepared: str | None) -> CorpusSource | None:
    """Return what to make the corpus from, or None for one that is there and was made from a folder.

    Raises:
        ValueError: the options do not go together, or there is no such corpus.
    """
    from ...prepare.catalog import KNOWN_CORPORA, named_source

    if folder is not None:
        if name in KNOWN_CORPORA:
            raise ValueError(
                f"--from needs a name of its own, and {name!r} is the name of a known corpus: add `--corpus NAME` with another "
                f"name than {', '.join(KNOWN_CORPORA)}, and put it into autoresearch.toml as [corpus] name"
            )
        if shards is not None:
            raise ValueError(f"--shards {shards} is for corpora from the hub, and a folder is taken whole: leave it out")
        from ...prepare.folder import FolderSource

        return FolderSource(folder)
    if name not in KNOWN_CORPORA and prepared is not None and shards is None:
        return None
    return named_source(name, shards=shards, prepared=prepared)


def _text(corpus: Corpus) -> str:
    manifest = corpus.manifest
    lines = [f"The corpus {corpus.name} ({corpus.corpus_id}) is ready."]
    for split, record in manifest.splits.items():
        line = f"{split:<6}{record.text_bytes / 1e6:>9.1f} MB  {record.documents:>9} documents"
        overlap = manifest.overlap_with_train.get(split)
        lines.append(line if overlap is None else f"{line}  {_overlap(overlap)}")
    largest = manifest.vocab_sizes[-1]
    lines.append(f"vocabularies up to {largest} ({manifest.bytes_per_token[largest]:.2f} bytes per token)")
    lines.append(f"source {manifest.source}")
    return "\n".join([*lines, str(corpus.path)])


def _overlap(record: OverlapRecord) -> str:
    sampled = "" if record.sampled_share == 1.0 else f" (of one in {1 / record.sampled_share:.0f})"
    return f"{record.distinct_share:.2%} of its 13-token shingles occur in train{sampled}"


def _facts(corpus: Corpus, replaced: str | None) -> dict[str, object]:
    from dataclasses import asdict

    manifest = corpus.manifest
    return {
        "corpus": corpus.name,
        "id": corpus.corpus_id,
        "path": str(corpus.path),
        "source": manifest.source,
        "replaced": replaced,
        "splits": {
            split: {"documents": record.documents, "text_bytes": record.text_bytes} for split, record in manifest.splits.items()
        },
        "overlap_with_train": {split: asdict(record) for split, record in manifest.overlap_with_train.items()},
        "vocab_sizes": list(manifest.vocab_sizes),
    }
