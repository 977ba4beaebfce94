"""What a participant sees: an image, and two methods' results on random sides."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

from unziplora.errors import InvalidInput

Question = Literal["subject", "style", "both"]
Side = Literal["left", "right"]
# question -> the folder of the images that answer it
QUESTIONS: Mapping[Question, str] = {"subject": "content", "style": "style", "both": "both"}
_ENDINGS = {".png", ".jpg", ".jpeg", ".webp"}
_CHECK_EVERY = 8  # trials to an attention check


@dataclass(frozen=True)
class Results:
    """One method's folder: samples/NAME/image.*, and content/, style/, both/ with images."""

    method: str
    folder: Path

    def names(self) -> set[str]:
        found = (self.folder / "samples").glob("*/content")
        return {path.parent.name for path in found if self.trained_on(path.parent.name)}

    def trained_on(self, name: str) -> Path | None:
        files = sorted((self.folder / "samples" / name).glob("image.*"))
        return next((path for path in files if path.suffix.lower() in _ENDINGS), None)

    def images(self, name: str, question: Question) -> list[Path]:
        folder = self.folder / "samples" / name / QUESTIONS[question]
        return sorted(path for path in folder.glob("*") if path.suffix.lower() in _ENDINGS)


@dataclass(frozen=True)
class Trial:
    """left and right: (method, image's name); a check shows results of another image on one side,
    and `expected` is the side that any attentive person takes."""

    number: int
    name: str
    left: tuple[str, str]
    right: tuple[str, str]
    expected: Side | None = None


def open_results(folders: Sequence[Path]) -> list[Results]:
    """Raises InvalidInput for fewer than two, two of one name, or nothing in common."""
    if len(folders) < 2:
        raise InvalidInput("A comparison needs two folders. Name one for each method.")
    results = [Results(folder.resolve().name, folder.resolve()) for folder in folders]
    methods = [result.method for result in results]
    for method in methods:
        if methods.count(method) > 1:
            raise InvalidInput(f"Two folders are named {method}. Rename one to its method's name.")
    if not shared_names(results):
        raise InvalidInput(
            "The folders have no image in common below samples/. Make them with `unziplora batch "
            "MANIFEST --samples N`, with one manifest for all."
        )
    return results


def shared_names(results: Sequence[Results]) -> list[str]:
    """Images that every method has results of."""
    return sorted(set.intersection(*(result.names() for result in results)))


def trials_for(names: Sequence[str], methods: Sequence[str], seed: int) -> list[Trial]:
    """Every image with every pair of methods once, in an order and on sides of the seed's own;
    after each eighth an attention check. The same names and methods in another order give other
    trials, so that a study keeps both (Store.keep_comparison)."""
    rng = random.Random(seed)
    compared = [(name, *pair) for name in names for pair in combinations(methods, 2)]
    rng.shuffle(compared)
    trials: list[Trial] = []
    for name, one, other in compared:
        sides = [(one, name), (other, name)]
        rng.shuffle(sides)
        trials.append(Trial(len(trials), name, sides[0], sides[1]))
        if len(names) > 1 and (len(trials) + 1) % (_CHECK_EVERY + 1) == 0:
            trials.append(_check(len(trials), names, methods, rng))
    return trials


def _check(number: int, names: Sequence[str], methods: Sequence[str], rng: random.Random) -> Trial:
    name = rng.choice(names)
    wrong = rng.choice([other for other in names if other != name])
    method = rng.choice(methods)
    if rng.random() < 0.5:
        return Trial(number, name, (method, name), (method, wrong), "left")
    return Trial(number, name, (method, wrong), (method, name), "right")
