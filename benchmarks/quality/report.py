"""Tables, the figure of alignment against leak, and sheets of samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.quality.gates import capacity_text
from benchmarks.quality.runs import SECONDS, Job
from benchmarks.quality.scores import CONDITIONS, LEAKS, TOGETHER
from benchmarks.quality.targets import Target
from unziplora.images.figure import Cell, Row
from unziplora.images.figure import figure as page
from unziplora.method.prompts import BRANCHES

Scores = Mapping[str, float]
Cells = dict[str, dict[str, tuple[float, float]]]

MEASURES = {
    "content.subject": "subject alignment (content LoRA)",
    "style.style": "style alignment (style LoRA)",
    "content.style": "leak: style in content's images",
    "style.subject": "leak: subject in style's images",
    "style.obeyed": "style LoRA still draws the requested class",
    "both.subject": "both together: subject",
    "both.style": "both together: style",
    "cross.subject": "cross: subject of one image",
    "cross.style": "cross: style of another",
}

CHANGES = {"content.dW/W": "dW/W of the content LoRA", "style.dW/W": "dW/W of the style LoRA"}

# The paper's Table 3 asks people which of two methods' images they prefer, and of what.
ABLATIONS = (("m1", "dreambooth"), ("m2", "m1"), ("unziplora", "m2"))
QUESTIONS = {
    "subject": ("content.subject",),
    "style": ("style.style",),
    "combined": ("both.subject", "both.style"),
}
PAPER = {  # percent
    "m1 over dreambooth": (91.7, 12.4, 92.8),
    "m2 over m1": (55.7, 39.5, 93.6),
    "unziplora over m2": (55.4, 86.4, 61.9),
}


def table(by_method: Mapping[str, Sequence[Scores]], images: int) -> Cells:
    """Mean and standard error over images (seeds of one image averaged first).

    by_method: scores with all images of one seed after the other.
    """
    return {
        method: {
            name: _mean_error(_by_image(found, name, images))
            for name in found[0]
            if name != SECONDS
        }
        for method, found in by_method.items()
    }


def differences(by_name: Mapping[str, Sequence[Scores]], reference: str, images: int) -> Cells:
    """Each less the reference, paired by image and seed: mean and standard error, over images
    as in `table`."""
    base = by_name[reference]
    measures = [m for m in base[0] if not m.endswith((" lift", "dW/W", SECONDS))]
    less = {
        name: [
            {measure: ours[measure] - its[measure] for measure in measures}
            for ours, its in zip(found, base, strict=True)
        ]
        for name, found in by_name.items()
        if name != reference
    }
    return table(less, images)


def alone(scores: Scores) -> dict[str, float]:
    """What the model without LoRA scores."""
    return {
        name: scores[name] - scores[f"{name} lift"] for name in scores if f"{name} lift" in scores
    }


def referees(cells: Cells) -> list[str]:
    """What stands before the measures of each referee but the first, "NAME: "."""
    names = next(iter(cells.values()))
    return sorted({f"{name.split(': ')[0]}: " for name in names if ": " in name})


def disagreements(
    by_method: Mapping[str, Sequence[Scores]], reference: str, images: int
) -> list[str]:
    """Sentences on where two referees rank a method and the reference the other way round, each
    beyond two of its errors."""
    if reference not in by_method or len(by_method) < 2:
        return []
    found, lines = differences(by_method, reference, images), []
    for method, cells in found.items():
        for prefix in referees({method: cells}):
            for measure, meaning in MEASURES.items():
                if f"{prefix}{measure}" not in cells:
                    continue
                (one, error), (other, its_error) = cells[measure], cells[f"{prefix}{measure}"]
                if one * other < 0 and abs(one) > 2 * error and abs(other) > 2 * its_error:
                    lines.append(
                        f"{meaning}: {method} less {reference} is {one:+.2f} ± {error:.2f} by the "
                        f"world's own networks, {other:+.3f} ± {its_error:.3f} by "
                        f"{prefix.removesuffix(': ')}."
                    )
    return lines


def preferred(by_method: Mapping[str, Sequence[Scores]]) -> dict[str, dict[str, float]]:
    """In what share of trainings (an image with a seed) the later method's images are nearer to
    the truth: the probes in the place of Table 3's people."""
    shares = {}
    for later, earlier in ABLATIONS:
        if later in by_method and earlier in by_method:
            pairs = list(zip(by_method[later], by_method[earlier], strict=True))
            shares[f"{later} over {earlier}"] = {
                question: sum(sum(a[n] - b[n] for n in names) > 0 for a, b in pairs) / len(pairs)
                for question, names in QUESTIONS.items()
            }
    return shares


def _by_image(found: Sequence[Scores], name: str, images: int) -> list[float]:
    values = np.array([scores[name] for scores in found]).reshape(-1, images)
    return list(values.mean(0))


def _mean_error(values: Sequence[float]) -> tuple[float, float]:
    n = len(values)
    error = float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else float("nan")
    return float(np.mean(values)), error


def as_text(part: str, result: Mapping[str, Any]) -> str:
    if part == "choose":
        return _grid_text(result)
    if part == "decide":
        return _by_referee(result["variants"], list(MEASURES)) + _times_text(result["seconds"])
    if part == "fewer":
        return _grid_text(result) + "\n\n" + _by_referee(result["differences"], list(MEASURES))
    if part == "where":
        parts = []
        for role in BRANCHES:
            lifts = [f"{role}.{what} lift" for what in CONDITIONS[role]]
            parts += [f"What the {role} LoRA gains:", _by_referee(result[role], lifts)]
        return "\n\n".join(parts)
    if part == "merge":
        return "\n\n".join(
            [_by_referee(result["table"], list(TOGETHER)), "Less unziplora's pairs, paired:",
             _by_referee(result["differences"], list(TOGETHER))]
        )  # fmt: skip
    return "\n\n".join(_final_text(result))


def _by_referee(cells: Cells, measures: Sequence[str]) -> str:
    """A table by the world's own networks, and one by each other referee."""
    parts = [markdown(cells, measures)]
    for prefix in referees(cells):
        known = [f"{prefix}{name}" for name in measures if name != "style.obeyed"]
        parts.append(f"By {prefix.removesuffix(': ')}:\n\n" + markdown(cells, known))
    return "\n\n".join(parts)


def _times_text(seconds: Mapping[str, float | None]) -> str:
    known = {name: value for name, value in seconds.items() if value is not None}
    lines = [f"{name}: {1000 * value:.0f}" for name, value in known.items()]
    return "\n\nMilliseconds of the processor for each step:\n" + "\n".join(lines)


def _grid_text(result: Mapping[str, Any]) -> str:
    lines = []
    for row in result["grid"]:
        change = ", ".join(f"{name} {row['scores'][name]:.2f}" for name in CHANGES)
        leaks = ", ".join(f"{row['scores'][f'{n} lift']:+.2f}" for n in LEAKS)
        lines.append(
            f"{row['method']:11} lr {row['lr']:<8g} alignment {row['alignment']:+.3f}  {change}  "
            f"leaks (reported only) {leaks}"
        )
    for method in result["at_edge"]:
        lines.append(f"{method}: the best rate lies at the grid's edge. Widen RATES.")
    return "\n".join([*lines, f"chosen: {result['chosen']}"])


def _final_text(result: Mapping[str, Any]) -> list[str]:
    measures = list(MEASURES)
    lifts = [f"{name} lift" for name in measures]
    both = {**result["bounds"], **result["table"]}
    parts = [
        capacity_text(result["capacity"]),
        "Cosine with the truth, by the world's own networks:\n\n" + markdown(both, measures),
        "Size of the change:\n\n" + markdown(result["table"], list(CHANGES)),
        "The same less the model alone's:\n\n" + markdown(result["table"], lifts),
    ]
    if result["differences"]:
        parts.append("Less unziplora's, paired:\n\n" + markdown(result["differences"], measures))
    for prefix in referees(result["table"]):
        known = [f"{prefix}{name}" for name in measures if name != "style.obeyed"]
        name = prefix.removesuffix(": ")
        parts.append(f"Cosine with the truth, by {name}:\n\n" + markdown(both, known))
        if result["differences"]:
            parts.append(
                f"Less unziplora's, by {name}:\n\n" + markdown(result["differences"], known)
            )
    disagreements = result["disagreements"] or ["nowhere beyond two errors."]
    parts.append("Where the referees disagree: " + "\n".join(disagreements))
    if result["preferred"]:
        question = "The networks prefer (the paper's users):\n\n"
        parts.append(question + _preferences(result["preferred"]))
    return parts


def markdown(cells: Cells, names: Sequence[str]) -> str:
    lines = ["| | " + " | ".join(cells) + " |", "|---|" + "---|" * len(cells)]
    for name in names:
        plain = name.removesuffix(" lift").split(": ")[-1]
        meaning = {**MEASURES, **CHANGES}[plain]
        values = (cells[method].get(name) for method in cells)
        texts = ("" if v is None else f"{v[0]:.2f} ± {v[1]:.2f}" for v in values)
        lines.append(f"| {meaning} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def _preferences(shares: Mapping[str, Mapping[str, float]]) -> str:
    lines = ["| | " + " | ".join(QUESTIONS) + " |", "|---|" + "---|" * len(QUESTIONS)]
    for name, found in shares.items():
        values = (
            f"{100 * found[a]:.0f} % ({p:g} %)" for a, p in zip(QUESTIONS, PAPER[name], strict=True)
        )
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def figure(cells: Cells, path: Path) -> None:
    """Alignment gained against leak gained, content's and style's LoRA, with errors."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(9, 4.2), layout="constrained")
    panels = drawn.subplots(1, 2)
    for axes, (title, gain, leak) in zip(
        panels,
        (
            ("content LoRA", "content.subject lift", "content.style lift"),
            ("style LoRA", "style.style lift", "style.subject lift"),
        ),
        strict=True,
    ):
        for method, values in cells.items():
            (x, dx), (y, dy) = values[leak], values[gain]
            axes.errorbar(x, y, yerr=dy, xerr=dx, fmt="o", capsize=3, label=method)
        axes.axvline(0, color="#bbbbbb", linewidth=0.8)
        axes.axhline(0, color="#bbbbbb", linewidth=0.8)
        axes.set(title=title, xlabel="leak gained (less is better)", ylabel="alignment gained")
    # beside the points the names of two that do alike would lie on each other
    drawn.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(cells)
    )
    drawn.savefig(path, dpi=130)


def sheets(
    cache: Path,
    compared: Mapping[str, tuple[str, Mapping[str, Any]]],
    targets: Sequence[Target],
    out: Path,
) -> None:
    """One sheet an image: a row for each of the compared, two samples of each condition. compared:
    (method, settings) by name. Those whose samples were made elsewhere are left out."""
    for n, target in enumerate(targets):
        style_target = targets[(n + 1) % len(targets)]
        rows = []
        for label, (method, settings) in compared.items():
            folder = cache / "samples" / Job(method, target, 0, settings).key
            cross = Job(method, style_target, 0, settings)
            names = ("content", "style", "both", f"cross-{cross.key}")
            paths = [folder / f"{name}.npy" for name in names]
            if all(path.exists() for path in paths):
                cells = [
                    Cell(Image.fromarray(np.load(path)[i]), name.split("-")[0])
                    for name, path in zip(names, paths, strict=True)
                    for i in (0, 6)
                ]
                rows.append(Row(label, cells))
        if rows:
            own = Row(target.name, [Cell(Image.fromarray(target.image()), "trained on")])
            page([own, *rows], side=128).save(out / f"{target.name}.png")
