"""What each command of the command line takes."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from unziplora.cli import batch, merge, score, split, study
from unziplora.cli.numbers import finite, image_steps, number, port, seed
from unziplora.errors import InvalidInput
from unziplora.inversion.settings import DEFAULT_STEPS
from unziplora.method.methods import INSPIRATION_TREE, METHODS
from unziplora.version import __version__

Command = Callable[[argparse.Namespace], int]
MOST_WEIGHT = 100
LARGEST_SIDE = 8192  # pixels
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class _Parser(argparse.ArgumentParser):
    """Bad arguments are one line too, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        raise InvalidInput(f"{message[0].upper()}{message[1:]}. See: {self.prog} --help")


def parser_of(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """For the commands, by name: each gets what its own arguments say."""
    parser = _Parser(prog="unziplora", description="One image in, two LoRAs out.")
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, summary: str) -> argparse.ArgumentParser:
        added = subparsers.add_parser(name, help=summary, description=summary)
        added.set_defaults(command=commands[name])
        return added

    _add_demo(command("demo", "the whole job on a small model and an image that ships"))
    _add_train(command("train", "train a content and a style LoRA on one image"))
    _add_generate(command("generate", "make an image with any number of LoRAs"))
    _add_sheet(command("sheet", "content, style and both in new scenes, one image"))
    added = command("app", "the page without a WebUI")
    _add_model(added)
    added.add_argument("--port", type=port, default=7860)
    added.add_argument("--address", default="127.0.0.1", help="0.0.0.0: the whole network")
    added.add_argument("--login", metavar="USER:PASSWORD", help="for page and API")
    added.add_argument("--out", type=Path, default=Path("loras"), metavar="DIR")
    added = command("plan", "show the memory that training needs, by plan")
    _add_model(added)
    added.add_argument("--rank", type=int, help="what train would take")
    added.add_argument("--resolution", type=int, metavar="PIXELS", help="the model's own")
    added.add_argument("--json", action="store_true", help="machine-readable")
    added = command("batch", "train on many images, over many workers")
    _add_model(added)
    batch.add_arguments(added)
    added = command("score", "measure how near a pair's images are to the one trained on")
    _add_model(added)
    score.add_arguments(added)
    study.add_arguments(command("study", "let people compare methods, blindly, in a browser"))
    added = command("merge", "make one LoRA file of several")
    _add_model(added)
    merge.add_arguments(added)
    split.add_arguments(command("split", "make a pair of one B-LoRA file"))
    added = command("inspect", "show what a LoRA file is")
    added.add_argument("file", type=Path)
    added.add_argument("--json", action="store_true", help="machine-readable")
    return parser


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("demo-output"), metavar="DIR")
    parser.add_argument("--steps", type=int, help="what suits the miniature")
    parser.add_argument("--image-steps", type=image_steps, default=25, help="of each image drawn")


def _add_train(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("image", nargs="?", type=Path, metavar="IMAGE")
    add("--mask", type=Path, metavar="FILE", help="a mask image: white shows, black hides")
    add("--subject", help="what it is, one word: cat")
    add("--style", help='how it is made, two or three words: "watercolor painting"')
    add("--token", help="a rare token that becomes the subject's name (sks)")
    _add_model(parser)
    methods = f"one of {', '.join(METHODS)} ({next(iter(METHODS))})"
    add("--method", help=f"{methods}; or {INSPIRATION_TREE}: two embeddings instead of LoRAs")
    add("--steps", type=int, help=_steps_by_method())
    add("--rank", type=int, help="64")
    add("--resolution", type=int, metavar="PIXELS", help="the model's own")
    add("--seed", type=int)
    add("--lr", type=float, help="learning rate of the LoRAs (5e-5)")
    add("--out", type=Path, default=Path("."), metavar="DIR", help="where the files go")
    add("--name", help="of the files: NAME_content.safetensors, NAME_style.safetensors")
    add("--memory", metavar="PLAN", help="auto, or one that `unziplora plan` lists")
    add(
        "--resume",
        type=Path,
        metavar="RUN",
        help="continue a run: OUT/NAME",
    )
    add("--prompt-combined", metavar="TEXT", help='"a sks cat in watercolor painting style"')
    add("--prompt-content", metavar="TEXT", help='"a sks cat"')
    add("--prompt-style", metavar="TEXT", help='"an image in watercolor painting style"')
    add("--preview-every", type=int, metavar="STEPS", help="previews while it trains (off)")
    add("--snapshot-every", type=int, metavar="STEPS", help="keep the pair on the way (off)")
    add("--settings", type=Path, metavar="FILE", help="a JSON object of any settings")
    add("--overwrite", action="store_true", help="replace files and run of the same name")


def _steps_by_method() -> str:
    """ "600; b-lora 1000" """
    usual, *others = dict.fromkeys(method.steps for method in METHODS.values())
    own = [f"{m.name} {m.steps}" for m in METHODS.values() if m.steps in others]
    return "; ".join([str(usual), *own, f"{INSPIRATION_TREE} {DEFAULT_STEPS}"])


def _add_generate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_model(parser)
    add("--lora", action="append", default=[], metavar="FILE[:WEIGHT]")
    add("--prompt", required=True)
    add("--negative", default="")
    _add_sampling(parser)


def _add_sheet(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_model(parser)
    add("--content", type=Path, required=True, metavar="FILE")
    add("--style", type=Path, required=True, metavar="FILE")
    add("--image", type=Path, help="the image trained on (the copy in the run's folder)")
    add("--weights", type=_weights, default=(1.0,), metavar="W[,W...]", help="rows for each: 0.6,1")
    add("--base", action="store_true", help="also what the model alone makes")
    add("--content-trigger", metavar="TEXT", help='"sks cat", where the file does not say it')
    add("--style-trigger", metavar="TEXT", help='"watercolor painting style"')
    add("--scene", action="append", metavar="TEXT", help='a scene, again for more: "on a beach"')
    add("--object", action="append", metavar="TEXT", help='what the style is tried on: "a house"')
    _add_sampling(parser)


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    """How images are drawn, and where they go."""
    add = parser.add_argument
    add("--steps", type=image_steps, default=25)
    add("--size", type=size, metavar="WxH", help="of each image; the model's own")
    add("--guidance", type=finite, help="the model's own, else 6")
    add("--seed", type=seed, default=0)
    add("--out", type=Path, required=True, metavar="FILE")


def _add_model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--model",
        default="mini",
        metavar="mini|FILE|DIR",
        help="an SDXL checkpoint or diffusers folder (mini: the small one that ships)",
    )
    add("--vae", type=Path, metavar="FILE|DIR", help="another VAE")
    add("--prediction-type", choices=("epsilon", "v_prediction"), help="if detection is wrong")
    add("--precision", choices=("auto", *PRECISIONS), default="auto", help="the base's dtype")


def require(arguments: argparse.Namespace, *names: str) -> None:
    """Of `train`, what has no default. Raises InvalidInput for the first that is missing."""
    for needed in names:
        if getattr(arguments, needed) is None:
            name = "an image" if needed == "image" else f"--{needed}"
            raise InvalidInput(f"train needs {name}. See: unziplora train --help")


def weighted(text: str) -> tuple[Path, float]:
    """FILE or FILE:WEIGHT; a drive letter's colon is not a weight's."""
    path, colon, weight = text.rpartition(":")
    if colon:
        with contextlib.suppress(ValueError):
            number = float(weight)
            if not abs(number) <= MOST_WEIGHT:  # also where it is not a number
                raise InvalidInput(
                    f"The weight {weight} of {Path(path).name} is not from -{MOST_WEIGHT} to "
                    f"{MOST_WEIGHT}. Usual weights are from 0 to 1.5."
                )
            return Path(path), number
    return Path(text), 1.0


def _weights(text: str) -> tuple[float, ...]:
    return tuple(number(part, float, -MOST_WEIGHT, MOST_WEIGHT) for part in text.split(","))


def size(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT or one side, in pixels, as (height, width)."""
    width, _, height = text.lower().partition("x")
    low, high = 64, LARGEST_SIDE
    return int(number(height or width, int, low, high)), int(number(width, int, low, high))
