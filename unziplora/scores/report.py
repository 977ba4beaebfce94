"""Scores of several pairs, or of several methods over many images, side by side."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from unziplora.errors import InvalidInput
from unziplora.scores.measure import LEAKS, Mean, paired, summary

# by measure: of one pair sample by sample, or of one method image by image
Similarities = Mapping[str, Sequence[float]]


def means(found: Mapping[str, Similarities]) -> list[tuple[str, dict[str, Mean]]]:
    """By measure, its mean by pair or method; leaks are named so."""
    first = next(iter(found.values()))
    return [
        (_shown(measure), {name: summary(scores[measure]) for name, scores in found.items()})
        for measure in first
    ]


def table(found: Mapping[str, Similarities]) -> list[list[str]]:
    """A header, then a row a measure: each one's mean and error, then from the second on the paired
    differences to the first."""
    first, *others = found
    rows = [["measure", *found, *(f"{name} - {first}" for name in others)]]
    for (shown, values), measure in zip(means(found), found[first], strict=True):
        less = [str(paired(found[name][measure], found[first][measure])) for name in others]
        rows.append([shown, *map(str, values.values()), *less])
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
            leak = "yes" if _is_leak(measure) else "no"
            row = [measure, leak, name, f"{mean.value:.6f}", f"{mean.error:.6f}", mean.n]
            writer.writerow([*row, *difference])
    return text.getvalue()


def read_batches(folders: Sequence[Path]) -> dict[str, Similarities]:
    """What `unziplora batch --score` stored in each folder, image by image, of the images that all
    of them have. Raises InvalidInput where there are fewer than two."""
    stored = {
        label: _latest(folder) for label, folder in zip(labels(folders), folders, strict=True)
    }
    shared = sorted(set.intersection(*(set(scores) for scores in stored.values())))
    if len(shared) < 2:
        raise InvalidInput(
            f"The folders have scores of {len(shared)} images in common, and two are needed. Run "
            "`unziplora batch MANIFEST --score` with one manifest for all."
        )
    first = next(iter(stored.values()))
    measures = [
        measure
        for measure in first[shared[0]]
        if all(measure in scores[name] for scores in stored.values() for name in shared)
    ]
    return {
        label: {measure: [scores[name][measure] for name in shared] for measure in measures}
        for label, scores in stored.items()
    }


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


def _latest(folder: Path) -> dict[str, Mapping[str, float]]:
    """The last scores of each image in a folder's batch.jsonl, or in those of its shards."""
    found: dict[str, Mapping[str, float]] = {}
    for path in sorted(folder.glob("batch*.jsonl")):
        for line in path.read_text("utf-8", "replace").splitlines():
            try:
                result = json.loads(line)
                name, scores = result["name"], result["scores"]
            except (ValueError, KeyError, TypeError):  # cut off, by a full disk
                continue
            if scores:
                found[name] = scores
    return found


def _is_leak(measure: str) -> bool:
    return measure.split()[-1] in LEAKS


def _shown(measure: str) -> str:
    return f"{measure} (leak)" if _is_leak(measure) else measure
