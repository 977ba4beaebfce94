"""`unziplora score`: how near a pair's images are to the image trained on, as in Table 2."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unziplora.errors import InvalidInput
from unziplora.files import write_text

if TYPE_CHECKING:
    from unziplora.app.sheet import Draw

Similarities = Mapping[str, Sequence[float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "pairs",
        nargs="+",
        type=Path,
        metavar="PAIR",
        help="OUT/NAME of NAME_content and NAME_style",
    )
    add("--image", type=Path, required=True, help="the image trained on")
    add(
        "--encoders",
        default="efficientnet",
        metavar="LIST",
        help="efficientnet,clip=DIR,dino=DIR,csd=FILE",
    )
    add("--samples", type=int, default=16, metavar="N", help="images of each condition (16)")
    add("--steps", type=int, default=25)
    add("--guidance", type=float, default=6.0)
    add("--seed", type=int, default=0)
    add("--json", type=Path, metavar="FILE", help="everything, sample by sample")
    add("--csv", type=Path, metavar="FILE", help="the table")


def score(arguments: argparse.Namespace, draw: Draw) -> int:
    """draw: makes images on the model. Prints a table: a row a measure, a column a pair, and for
    the second pair on their paired differences to the first."""
    from unziplora.app.sheet import sheet_prompts
    from unziplora.batch.samples import draw_samples, score_images
    from unziplora.images.load import open_image
    from unziplora.scores.encoders import open_encoders

    if arguments.samples < 2:
        raise InvalidInput("One sample has no error. Take at least two with --samples.")
    encoders = open_encoders(arguments.encoders)
    image = open_image(arguments.image).image
    found: dict[str, Similarities] = {}
    for pair in arguments.pairs:
        content, style = (_file(pair, branch) for branch in ("content", "style"))
        prompts = sheet_prompts(content, style)
        images = draw_samples(draw, content, style, prompts, arguments.samples, arguments.seed)
        found[pair.name] = score_images(encoders, image, images)
    rows = table(found)
    for encoder in encoders:
        print(f"{encoder.name}: {encoder.layer}; {_shown(encoder.preprocess.as_json())}")
    print("\n".join("  ".join(f"{cell:<24}" for cell in row).rstrip() for row in rows))
    if arguments.csv is not None:
        write_text(arguments.csv, "".join(",".join(f'"{c}"' for c in row) + "\n" for row in rows))
    if arguments.json is not None:
        protocol = {
            "encoders": [encoder.protocol() for encoder in encoders],
            "samples": arguments.samples, "steps": arguments.steps,
            "guidance": arguments.guidance, "seed": arguments.seed, "model": arguments.model,
        }  # fmt: skip
        data = {"protocol": protocol, "scores": found}
        write_text(arguments.json, json.dumps(data, indent=2, default=str) + "\n")
    return 0


def table(found: Mapping[str, Similarities]) -> list[list[str]]:
    """A header, then a row a measure: each pair's mean and error, then the paired differences."""
    from unziplora.scores.measure import LEAKS, paired, summary

    first, *others = found
    rows = [["measure", *found, *(f"{name} - {first}" for name in others)]]
    for measure, values in found[first].items():
        leak = " (leak)" if measure.split()[-1] in LEAKS else ""
        means = [str(summary(scores[measure])) for scores in found.values()]
        less = [str(paired(found[name][measure], values)) for name in others]
        rows.append([measure + leak, *means, *less])
    return rows


def _file(pair: Path, branch: str) -> Path:
    path = pair.with_name(f"{pair.name}_{branch}.safetensors")
    if not path.is_file():
        raise InvalidInput(
            f"There is no {path.name} in {path.parent}. Name a pair as OUT/NAME, without "
            "_content and _style."
        )
    return path


def _shown(protocol: Mapping[str, Any]) -> str:
    return f"resize {protocol['resize']} {protocol['interpolation']}, crop {protocol['crop']}"
