"""Scores of several pairs, or of several methods over many images, side by side."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unziplora.errors import InvalidInput
from unziplora.scores.measure import Mean, is_leak, paired, shown, summary
from unziplora.scores.protocol import Protocol, difference

# by measure: of one pair sample by sample, or of one method image by image
Similarities = Mapping[str, Sequence[float]]


def means(found: Mapping[str, Similarities]) -> list[tuple[str, dict[str, Mean]]]:
    """By measure, its mean by pair or method; leaks are named so."""
    first = next(iter(found.values()))
    return [
        (shown(measure), {name: summary(scores[measure]) for name, scores in found.items()})
        for measure in first
    ]


def table(found: Mapping[str, Similarities]) -> list[list[str]]:
    """A header, then a row a measure: each one's mean and error, then from the second on the paired
    differences to the first."""
    first, *others = found
    rows = [["measure", *found, *(f"{name} - {first}" for name in others)]]
    for (name_shown, values), measure in zip(means(found), found[first], strict=True):
        less = [str(paired(found[name][measure], found[first][measure])) for name in others]
        rows.append([name_shown, *map(str, values.values()), *less])
    return rows


def as_csv(found: Mapping[str, Similarities]) -> str:
    """A row for each measure and pair: mean, standard error, n, and the paired difference to the
    first with its error."""
    first = next(iter(found))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["measure", "leak", "pair", "mean", "error", "n", f"minus {first}", "error of difference"]
    )
    for measure, reference in found[first].items():
        for name, scores in found.items():
            mean, less = summary(scores[measure]), paired(scores[measure], reference)
            difference = ["", ""] if name == first else [f"{less.value:.6f}", f"{less.error:.6f}"]
            leak = "yes" if is_leak(measure) else "no"
            row = [measure, leak, name, f"{mean.value:.6f}", f"{mean.error:.6f}", mean.n]
            writer.writerow([*row, *difference])
    return text.getvalue()


@dataclass(frozen=True)
class Batches:
    """scores: by folder's label, image by image. images: those that all folders have; left_out:
    those that some have. protocol: of all scores; empty where none is stored."""

    scores: Mapping[str, Similarities]
    images: Sequence[str]
    left_out: Sequence[str]
    protocol: Protocol


def read_batches(folders: Sequence[Path]) -> Batches:
    """What `unziplora batch --score` stored in each folder, of the images that all of them have.
    Raises InvalidInput where there are fewer than two, or they were measured in two ways."""
    stored = {
        label: _latest(folder) for label, folder in zip(labels(folders), folders, strict=True)
    }
    shared = sorted(set.intersection(*(set(scores) for scores in stored.values())))
    if len(shared) < 2:
        raise InvalidInput(
            f"The folders have scores of {len(shared)} images in common, and two are needed. Run "
            "`unziplora batch MANIFEST --score` with one manifest for all."
        )
    protocols = {
        f"{name} in {label}": found[name].protocol
        for label, found in stored.items()
        for name in shared
    }
    return Batches(
        {label: _by_measure(found, stored, shared) for label, found in stored.items()},
        shared,
        sorted(set().union(*stored.values()) - set(shared)),
        _one_protocol(protocols),
    )


def _by_measure(
    found: Mapping[str, _Stored], stored: Mapping[str, Mapping[str, _Stored]], names: Sequence[str]
) -> Similarities:
    """One folder's scores of these images; of the measures that all of `stored` have."""
    of_all = [one[name].scores for one in stored.values() for name in names]
    measures = [m for m in of_all[0] if all(m in scores for scores in of_all)]
    return {measure: [found[name].scores[measure] for name in names] for measure in measures}


def _one_protocol(protocols: Mapping[str, Protocol]) -> Protocol:
    """The one that all have. protocols: by what was measured; empty ones are of older batches.
    Raises InvalidInput."""
    known = {what: protocol for what, protocol in protocols.items() if protocol}
    if not known:
        return {}
    first, *others = known
    for what in others:
        if differs := difference(known[first], known[what]):
            raise InvalidInput(
                f"The scores of {first} and of {what} were measured in two ways ({differs}), so "
                "they cannot be compared. Run `unziplora batch MANIFEST --score` again for one, "
                "with the same --model, --samples and --encoders."
            )
    return known[first]


def labels(paths: Sequence[Path]) -> list[str]:
    """A name for each, with as much of its folder as tells it from the others. Raises InvalidInput
    where one is named twice."""
    full = [path.expanduser().resolve() for path in paths]
    for path in full:
        if full.count(path) > 1:
            raise InvalidInput(f"{path.name} is named twice. Name each once.")
    depth = 1
    while len({path.parts[-depth:] for path in full}) < len(full):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in full]


@dataclass(frozen=True)
class _Stored:
    scores: Mapping[str, float]
    protocol: Protocol


def _latest(folder: Path) -> dict[str, _Stored]:
    """The last scores of each image in a folder's batch.jsonl, or in those of its shards."""
    found: dict[str, _Stored] = {}
    for path in sorted(folder.glob("batch*.jsonl")):
        for line in path.read_text("utf-8", "replace").splitlines():
            try:
                result = json.loads(line)
                name, scores = result["name"], result["scores"]
                protocol = result.get("protocol", {})  # older lines have none
            except (ValueError, KeyError, TypeError, RecursionError):  # cut off, by a full disk
                continue
            if scores:
                found[name] = _Stored(scores, protocol)
    return found
