"""`unziplora score`: how near a pair's images are to the image trained on, as in Table 2."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unziplora.cli.numbers import count, finite, image_steps, seed
from unziplora.cli.output import print_aligned
from unziplora.errors import InvalidInput
from unziplora.files import write_text, writing

if TYPE_CHECKING:
    from unziplora.app.sheet import Draw
    from unziplora.scores.report import Similarities


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "pairs",
        nargs="+",
        type=Path,
        metavar="PAIR",
        help="OUT/NAME of NAME_content and NAME_style; or folders of `unziplora batch --score`",
    )
    add("--image", type=Path, help="the image trained on")
    add(
        "--encoders",
        default="efficientnet",
        metavar="LIST",
        help="efficientnet,clip=DIR,dino=DIR,csd=FILE",
    )
    add("--samples", type=count, default=16, metavar="N", help="images of each condition (16)")
    add("--steps", type=image_steps, default=25)
    add("--guidance", type=finite, help="the model's own, else 6")
    add("--seed", type=seed, default=0)
    add("--json", type=Path, metavar="FILE", help="everything, sample by sample")
    add("--csv", type=Path, metavar="FILE", help="the table")
    add("--plot", type=Path, metavar="FILE", help="the table as a .png")


def is_comparison(arguments: argparse.Namespace) -> bool:
    """Whether folders of batches are named, whose scores are compared without drawing anything."""
    return all(path.is_dir() and any(path.glob("batch*.jsonl")) for path in arguments.pairs)


def compare(arguments: argparse.Namespace) -> int:
    """Batches' stored scores: a row a measure, a column a batch, errors over images."""
    from unziplora.scores.protocol import as_text
    from unziplora.scores.report import read_batches

    batches = read_batches(arguments.pairs)
    print(f"Means and standard errors over {len(batches.images)} images.")
    if batches.left_out:
        print(f"Left out, because not all folders have them: {', '.join(batches.left_out)}.")
    if batches.protocol:
        print(as_text(batches.protocol))
    _write(arguments, batches.scores, {"images": batches.images, **batches.protocol})
    return 0


def score(arguments: argparse.Namespace, draw: Draw) -> int:
    """draw: makes images on the model. Prints a table: a row a measure, a column a pair, and for
    the second pair on their paired differences to the first."""
    from unziplora.app.sheet import sheet_prompts
    from unziplora.batch.samples import draw_samples, score_images
    from unziplora.images.load import open_image
    from unziplora.scores.encoders import open_encoders
    from unziplora.scores.protocol import as_text, protocol
    from unziplora.scores.report import labels

    if arguments.samples < 2:
        raise InvalidInput("One sample has no error. Take at least two with --samples.")
    encoders = open_encoders(arguments.encoders)
    image = open_image(arguments.image).image
    found: dict[str, Similarities] = {}
    for label, pair in zip(labels(arguments.pairs), arguments.pairs, strict=True):
        content, style = (_file(pair, branch) for branch in ("content", "style"))
        prompts = sheet_prompts(content, style)
        images = draw_samples(draw, content, style, prompts, arguments.samples, arguments.seed)
        found[label] = score_images(encoders, image, images)
    measured = protocol(
        encoders, str(arguments.model), samples=arguments.samples,
        steps=arguments.steps, guidance=arguments.guidance, seed=arguments.seed,
    )  # fmt: skip
    print(as_text(measured))
    print(f"Means and standard errors over {arguments.samples} samples.")
    _write(arguments, found, measured)
    return 0


def check(arguments: argparse.Namespace) -> None:
    """Before minutes are spent on the model. Raises InvalidInput."""
    if arguments.image is None:
        raise InvalidInput("Scoring a pair needs the image trained on. Name it with --image.")
    for pair in arguments.pairs:
        for branch in ("content", "style"):
            _file(pair, branch)
    _check_plot(arguments)


def _check_plot(arguments: argparse.Namespace) -> None:
    if arguments.plot is not None and arguments.plot.suffix.lower() != ".png":
        raise InvalidInput(f"{arguments.plot.name} does not end in .png. Name a .png file.")


def _write(
    arguments: argparse.Namespace, found: Mapping[str, Similarities], protocol: Mapping[str, Any]
) -> None:
    """The table on stdout, and what files were asked for."""
    from unziplora.scores.plot import plot
    from unziplora.scores.report import as_csv, means, table

    _check_plot(arguments)
    print()
    print_aligned(table(found))
    if arguments.csv is not None:
        write_text(arguments.csv, as_csv(found))
    if arguments.json is not None:
        data = {"protocol": protocol, "scores": found}
        write_text(arguments.json, json.dumps(data, indent=2, default=str) + "\n")
    if arguments.plot is not None:
        with writing(arguments.plot) as temporary:
            plot(means(found)).save(temporary, "PNG")


def _file(pair: Path, branch: str) -> Path:
    path = pair.with_name(f"{pair.name}_{branch}.safetensors")
    if not path.is_file():
        raise InvalidInput(
            f"There is no {path.name} in {path.parent}. Name a pair as OUT/NAME, without "
            "_content and _style."
        )
    return path
