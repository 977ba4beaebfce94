"""The networks that judge: who is in an image, and how it is made.

    python -m mini_world.emoji.probes draw   --run-dir DIR     12,000 images of known individuals
    python -m mini_world.emoji.probes train  --run-dir DIR     about 45 minutes of one core
    python -m mini_world.emoji.probes report [--run-dir DIR]   held-out individuals and styles

Trained on training individuals in every style, also those that are held out from the UNet: a judge
has to know what it judges. What is held out from the judges are the individuals and the variants
of styles that the benchmark's images show. Half of their images went through the VAE, as
everything did that they judge (mini_world.probes). Their weights lie in DIR/probes until they
pass; the shipped ones lie in mini_world/probes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import AutoencoderKL
from torch import Tensor

from mini_world.emoji.styles import HELD_OUT_STYLES, STYLES, TRAINING_STYLES
from mini_world.emoji.things import (
    COLOURS,
    HELD_OUT_HUES,
    HUES,
    KINDS,
    VENDORS,
    Individual,
)
from mini_world.emoji.vae import through
from mini_world.emoji.world import Artwork, held_out_individuals, known_colour, portrait
from mini_world.probes import FOLDER, VARIANTS, VIEWS, Judge, Vocabulary, train
from mini_world.scenes import CONTEXTS, IMAGE_SIDE
from unziplora.files import write_text

INDIVIDUALS = 1500
JUDGED_STYLES = sorted([*TRAINING_STYLES, *HELD_OUT_STYLES])

Question = tuple[Artwork, list[Artwork]]


def vocabulary(folder: Path = FOLDER) -> Vocabulary:
    """What the networks in a folder can name; without one, the shipped ones."""
    return Vocabulary(folder, KINDS, COLOURS, JUDGED_STYLES)


def judge() -> Judge:
    """The shipped networks."""
    return Judge(vocabulary())


def individuals(rng: np.random.Generator, count: int = INDIVIDUALS) -> list[Individual]:
    """Training individuals, no two the same."""
    hues = [hue for hue in range(HUES) if hue not in HELD_OUT_HUES]
    every = [Individual(kind, who, hue) for kind in KINDS for who in VENDORS for hue in hues]
    chosen = rng.choice(len(every), min(count, len(every)), replace=False)
    return [every[i] for i in chosen]


def draw(run_dir: Path, count: int = INDIVIDUALS) -> None:
    """probes.npy, (count VIEWS, 128, 128, 3), and probes.json with what each image shows. Each
    individual is drawn from its own number, so that a drawing that was stopped goes on. Half of
    an individual's images went through the VAE of the run folder."""
    vae = AutoencoderKL.from_pretrained(run_dir / "vae").eval()
    shape = (count * VIEWS, IMAGE_SIDE, IMAGE_SIDE, 3)
    path, facts = run_dir / "probes.npy", run_dir / "probes.json"
    known: list[dict[str, int]] = json.loads(facts.read_text("utf-8")) if facts.exists() else []
    pixels = np.lib.format.open_memmap(path, "r+" if known else "w+", np.uint8, shape)
    who = individuals(np.random.default_rng(23), count)
    for number in range(len(known) // VIEWS, len(who)):
        views = _views(who[number], np.random.default_rng((23, number)))
        images = np.stack([artwork.draw() for artwork in views])
        images[::2] = through(vae, images[::2])
        pixels[len(known) : len(known) + VIEWS] = images
        known += [{"instance": number, **_facts(artwork)} for artwork in views]
        if number % 25 == 24 or number == len(who) - 1:
            pixels.flush()
            write_text(facts, json.dumps(known))


def _views(who: Individual, rng: np.random.Generator) -> list[Artwork]:
    """An individual in VIEWS styles."""
    views = []
    for _ in range(VIEWS):
        style, variant = str(rng.choice(JUDGED_STYLES)), int(rng.integers(VARIANTS))
        context = str(rng.choice(sorted(CONTEXTS))) if rng.random() < 0.4 else None
        views.append(portrait(who, style, variant, int(rng.integers(2**31)), context))
    return views


def _facts(artwork: Artwork) -> dict[str, int]:
    """What an image shows, in numbers of the vocabulary; colour -1 where none is promised."""
    colour = known_colour(artwork)
    return {
        "kind": KINDS.index(artwork.who.kind), "variant": artwork.variant,
        "colour": COLOURS.index(colour) if colour else -1,
        "style": JUDGED_STYLES.index(artwork.style),
    }  # fmt: skip


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
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--individuals", type=int, default=INDIVIDUALS, help="of draw")
    parser.add_argument("--only", choices=("content", "style"))
    args = parser.parse_args()
    run_dir: Path | None = args.run_dir
    if args.what == "report":
        words = vocabulary(FOLDER if run_dir is None else run_dir / "probes")
        for question, share in report(Judge(words)).items():
            print(f"{share:.2f}  {question}")
    elif run_dir is None:
        parser.error("--run-dir is needed")
    elif args.what == "draw":
        draw(run_dir, args.individuals)
    else:
        names = [args.only] if args.only else ["content", "style"]
        train(run_dir, args.steps, names, vocabulary(run_dir / "probes"))


if __name__ == "__main__":
    main()
