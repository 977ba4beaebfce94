"""The emoji world's own judges: who is in an image, and how it is made.

    python -m mini_world.emoji.probes draw   --run-dir DIR     12,000 images of known individuals
    python -m mini_world.emoji.probes train  --run-dir DIR     about 45 minutes of one core
    python -m mini_world.emoji.probes report --run-dir DIR     held-out individuals and styles

The same networks as the drawn world's (mini_world.probes), trained on training individuals in
training styles. The weights lie in DIR/probes until they pass and ship.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mini_world.emoji.styles import HELD_OUT_STYLES, STYLES, TRAINING_STYLES
from mini_world.emoji.things import (
    COLOURS,
    HELD_OUT_HUES,
    HUES,
    KINDS,
    VENDORS,
    Individual,
    colour_word,
)
from mini_world.emoji.world import Artwork, held_out_individuals, portrait
from mini_world.probes import VARIANTS, VIEWS, Judge, Vocabulary, train
from mini_world.scenes import CONTEXTS, IMAGE_SIDE

INDIVIDUALS = 1500

Question = tuple[Artwork, list[Artwork]]


def vocabulary(run_dir: Path) -> Vocabulary:
    return Vocabulary(run_dir / "probes", KINDS, COLOURS, TRAINING_STYLES)


def individuals(rng: np.random.Generator, count: int = INDIVIDUALS) -> list[Individual]:
    """Training individuals, no two the same."""
    hues = [hue for hue in range(HUES) if hue not in HELD_OUT_HUES]
    every = [Individual(kind, who, hue) for kind in KINDS for who in VENDORS for hue in hues]
    chosen = rng.choice(len(every), min(count, len(every)), replace=False)
    return [every[i] for i in chosen]


def draw(run_dir: Path, count: int = INDIVIDUALS) -> None:
    """probes.npy, (count VIEWS, 128, 128, 3), and probes.json with what each image shows."""
    rng = np.random.default_rng(23)
    pixels = np.zeros((count * VIEWS, IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8)
    known: list[dict[str, int]] = []
    for number, who in enumerate(individuals(rng, count)):
        for _ in range(VIEWS):
            style = str(rng.choice(TRAINING_STYLES))
            variant = int(rng.integers(VARIANTS))
            context = str(rng.choice(sorted(CONTEXTS))) if rng.random() < 0.4 else None
            seed = int(rng.integers(2**31))
            pixels[len(known)] = portrait(who, style, variant, seed, context).draw()
            colour = colour_word(who) if STYLES[style].keeps_colour else ""
            known.append({
                "instance": number, "kind": KINDS.index(who.kind), "variant": variant,
                "colour": COLOURS.index(colour) if colour else -1,
                "style": TRAINING_STYLES.index(style),
            })  # fmt: skip
    np.save(run_dir / "probes.npy", pixels)
    (run_dir / "probes.json").write_text(json.dumps(known))


def individual_questions(
    rng: np.random.Generator, styles: Sequence[str], count: int
) -> list[Question]:
    """Which of twelve images shows this held-out individual? Another style, another view."""
    held_out = held_out_individuals(KINDS)
    questions = []
    for _ in range(count):
        chosen = [held_out[i] for i in rng.choice(len(held_out), 12, replace=False)]
        question, *answers = (
            _view(rng, who, str(rng.choice(styles))) for who in [chosen[0], *chosen]
        )
        questions.append((question, answers))
    return questions


def style_questions(rng: np.random.Generator, styles: Sequence[str], count: int) -> list[Question]:
    """Which of these images, one a style, is in this one's style? Another individual each."""
    held_out = held_out_individuals(KINDS)
    questions = []
    for _ in range(count):
        names = [str(s) for s in rng.permutation(styles)][:12]
        question, *answers = (
            _view(rng, held_out[int(rng.integers(len(held_out)))], name)
            for name in [names[0], *names]
        )
        questions.append((question, answers))
    return questions


def fluent_questions(rng: np.random.Generator, vendor: str, count: int) -> list[Question]:
    """Which of twelve flat drawings shows what Fluent's designers drew in another of their styles?
    No renderer of ours is behind these: a check from outside."""
    questions = []
    for _ in range(count):
        kinds = [KINDS[i] for i in rng.choice(len(KINDS), 12, replace=False)]
        question = _view(rng, Individual(kinds[0], vendor), "")
        flat = [_view(rng, Individual(kind, "fluent-emoji-flat"), "") for kind in kinds]
        questions.append((question, flat))
    return questions


def _view(rng: np.random.Generator, who: Individual, style: str) -> Artwork:
    return portrait(who, style, 5000, int(rng.integers(2**31)))


def share_right(
    embed: Callable[[np.ndarray], Tensor],
    questions: Sequence[Question],
    change: Callable[[np.ndarray], np.ndarray] | None = None,
) -> float:
    """Of questions whose first answer is nearer than any other. change: done to every image
    before, such as encoding and decoding it."""
    right = 0
    for question, answers in questions:
        images = np.stack([artwork.draw() for artwork in (question, *answers)])
        vectors = embed(change(images) if change is not None else images)
        nearness = vectors[1:] @ vectors[0]
        right += bool(nearness[0] > nearness[1:].max())
    return right / len(questions)


def report(judge: Any, change: Any = None, count: int = 60) -> dict[str, float]:
    """How well held-out individuals and styles are distinguished; judge: content() and style()."""
    rng = np.random.default_rng(31)
    colourful = [name for name in TRAINING_STYLES if STYLES[name].keeps_colour]
    return {
        "individual among 12, styles that keep colours": share_right(
            judge.content, individual_questions(rng, ["", *colourful], count), change
        ),
        "individual among 12, any style": share_right(
            judge.content, individual_questions(rng, TRAINING_STYLES, count), change
        ),
        "Fluent's shaded drawing among 12 flat ones": share_right(
            judge.content, fluent_questions(rng, "fluent-emoji", count), change
        ),
        "Fluent's line drawing among 12 flat ones": share_right(
            judge.content, fluent_questions(rng, "fluent-emoji-high-contrast", count), change
        ),
        "training style among 12": share_right(
            judge.style, style_questions(rng, TRAINING_STYLES, count), change
        ),
        "held-out style among 10": share_right(
            judge.style, style_questions(rng, HELD_OUT_STYLES, count), change
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("draw", "train", "report"))
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--only", choices=("content", "style"))
    args = parser.parse_args()
    words = vocabulary(args.run_dir)
    if args.what == "draw":
        draw(args.run_dir)
    elif args.what == "train":
        train(args.run_dir, args.steps, [args.only] if args.only else ["content", "style"], words)
    else:
        for question, share in report(Judge(words)).items():
            print(f"{share:.2f}  {question}")


if __name__ == "__main__":
    main()
