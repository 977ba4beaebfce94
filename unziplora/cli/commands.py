"""The command line. Exit code 0; 2 and one line on stderr for bad input; 1 where a run failed;
130, 143 or 129 after Ctrl-C, SIGTERM or SIGHUP, with the run's state saved."""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unziplora.cli.arguments import PRECISIONS, parser_of, require, weighted
from unziplora.cli.batch import batch
from unziplora.cli.output import lasting, lasting_output, write_any_character
from unziplora.cli.packages import check_packages
from unziplora.cli.plain_text import plain_lines, too_long_a_name
from unziplora.cli.signals import Ended, end, handled
from unziplora.cli.split import split
from unziplora.cli.study import study
from unziplora.errors import InvalidInput, UnZipLoRAError
from unziplora.files import check_output_folder, check_regular_file, printable
from unziplora.method.methods import INSPIRATION_TREE

if TYPE_CHECKING:
    from unziplora.hosts.standalone.host import StandaloneHost

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    write_any_character()
    try:
        args = parser_of(COMMANDS).parse_args(arguments)
        with handled(end, interrupts=False):
            code: int = args.command(args)
        return code
    except InvalidInput as error:
        return _fail(error, 2)
    except UnZipLoRAError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        print("unziplora: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Ended as signal:
        return signal.code
    except BrokenPipeError:  # `unziplora inspect FILE | head`
        sys.stderr.close()
        return 0
    except Exception as error:
        return _fail_unforeseen(error)


@lasting
def train(args: argparse.Namespace) -> int:
    """`unziplora train`: a new run, or with --resume the rest of one."""
    if args.method == INSPIRATION_TREE:
        from unziplora.cli.inversion import train as invert

        return invert(args, lambda: _open_host(args))
    from unziplora import python_api as api
    from unziplora.cli.drive import drive
    from unziplora.images.load import open_image
    from unziplora.training.destination import check_destination
    from unziplora.training.run import Run
    from unziplora.training.run_folder import find_run
    from unziplora.training.settings import Settings

    if args.resume is not None:
        _refuse_with_resume(args)
        find_run(args.resume).read_info()  # before minutes are spent on the model
        return drive(api.resume(args.resume, host=_open_host(args)), args.model)
    require(args, "image", "subject", "style")
    settings = Settings(**_settings(args))
    image = open_image(args.image, args.mask)
    check_destination(settings, args.out, overwrite=args.overwrite)
    run = Run.start(image, _open_host(args), settings, args.out, overwrite=args.overwrite)
    return drive(run, args.model)


@lasting
def demo(args: argparse.Namespace) -> int:
    """`unziplora demo`: the whole job on the miniature and an image that ships with it."""
    from unziplora import mini
    from unziplora import python_api as api
    from unziplora.app.sheet import sheet as make
    from unziplora.app.sheet import sheet_prompts
    from unziplora.cli.drive import drive
    from unziplora.hosts.standalone.generate import drawing, save_image

    out: Path = args.out
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"The output folder {out} cannot be made ({error.strerror}). Name another with --out."
        ) from error
    check_output_folder(out)
    host = _standalone_host(mini.MODEL)
    print(f'The image: {mini.IMAGE.name}, "{mini.SUBJECT}" in "{mini.STYLE}" style')
    run = api.train(
        mini.IMAGE,
        subject=mini.SUBJECT,
        style=mini.STYLE,
        host=host,
        settings={"steps": args.steps, "name": "demo"},
        out=out,
        overwrite=True,
    )
    code = drive(run, "mini")
    if code:
        return code
    content, style = out / "demo_content.safetensors", out / "demo_style.safetensors"
    prompts = sheet_prompts(content, style, objects=mini.OBJECTS)
    draw = drawing(host, steps=args.image_steps)
    page = _with_bar(make, draw, content, style, prompts, image=_image(mini.IMAGE))
    save_image(page, out / "demo.png")
    print(f"The figure: {out / 'demo.png'}")
    return 0


@lasting
def sheet(args: argparse.Namespace) -> int:
    """`unziplora sheet`: content, style and both in new scenes, as one image."""
    from unziplora.app.sheet import sheet as make
    from unziplora.app.sheet import sheet_prompts
    from unziplora.hosts.standalone.generate import check_image_path, drawing, save_image

    check_image_path(args.out)
    prompts = sheet_prompts(
        args.content,
        args.style,
        {"content": args.content_trigger, "style": args.style_trigger},
        scenes=args.scene,
        objects=args.object,
    )
    draw = drawing(
        _open_host(args),
        size=args.size,
        steps=args.steps,
        guidance=args.guidance,
        note=lambda text: print(text, file=sys.stderr),
    )
    page = _with_bar(
        make,
        draw,
        args.content,
        args.style,
        prompts,
        image=_image_of(args),
        weights=args.weights,
        base=args.base,
        seed=args.seed,
    )
    save_image(page, args.out)
    print(args.out)
    return 0


def app(args: argparse.Namespace) -> int:
    """`unziplora app`: the page without a WebUI, and the API."""
    check_packages()
    try:
        from unziplora.app.server import make_app
        from unziplora.app.serving import serve
        from unziplora.hosts.standalone.generate import drawing
        from unziplora.hosts.standalone.host import identity_of, unloaded

        served = make_app(
            lambda: _open_host(args),
            args.out.absolute(),
            args.login,
            draw_with=drawing,
            unloaded=lambda: unloaded(_model_path(args), _dtype(args.precision)),
            checkpoint=lambda: identity_of(_model_path(args)),
            address=args.address,
        )
    except ImportError as error:
        raise InvalidInput(
            f"The package {error.name} is missing, which the page needs. "
            "Install it with: pip install 'unziplora[standalone,app]'"
        ) from error
    serve(served, args.address, args.port, served.state.service.close)
    return 0


def _with_bar(make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The sheet, with a progress bar of its images."""
    from tqdm import tqdm

    with tqdm(unit="image") as bar:

        def show(drawn: int, total: int) -> None:
            bar.total = total
            bar.update(drawn - bar.n)

        return make(*arguments, on_image=show, **options)


def _image_of(args: argparse.Namespace) -> Any:
    """The image trained on: the one named, or the copy in the run's folder beside the files."""
    from unziplora.training.run_folder import RunFolder, run_path

    if args.image is not None:
        return _image(args.image)
    name = args.content.stem.removesuffix("_content")
    copy = RunFolder(run_path(args.content.parent, name)).image
    return _image(copy) if copy.is_file() else None


def _image(path: Path) -> Any:
    from unziplora.images.load import open_image

    return open_image(path).image


@lasting
def generate(args: argparse.Namespace) -> int:
    """`unziplora generate`: an image with any number of LoRAs."""
    from unziplora.hosts.standalone.generate import check_image_path, save_image
    from unziplora.hosts.standalone.generate import generate as make

    check_image_path(args.out)  # before minutes are spent on the image
    loras = [weighted(text) for text in args.lora]
    image = make(
        _open_host(args),
        args.prompt,
        loras=loras,
        negative=args.negative,
        steps=args.steps,
        size=args.size,
        seed=args.seed,
        guidance=args.guidance,
    )
    save_image(image, args.out)
    for note in image.info["notes"]:
        print(note, file=sys.stderr)
    print(args.out)
    return 0


def inspect(args: argparse.Namespace) -> int:
    """`unziplora inspect`: what a LoRA file is."""
    from unziplora.lora.inspect import inspect as inspect_lora

    report = inspect_lora(args.file)
    print(json.dumps(report.as_json(), indent=2) if args.json else plain_lines(report.as_text()))
    return 0


def plan(args: argparse.Namespace) -> int:
    """`unziplora plan`: memory by plan, and the one that auto picks; loads no weights."""
    from unziplora.training.memory_forecast import forecast
    from unziplora.training.model_traits import ModelTraits
    from unziplora.training.settings import Settings

    check_packages()
    from unziplora.hosts.standalone.host import unloaded

    unet, device, defaults, _ = unloaded(_model_path(args), _dtype(args.precision))
    settings = Settings("any", "any", rank=args.rank, resolution=args.resolution)
    resolved = settings.resolve(ModelTraits.of(unet, defaults))
    report = forecast(unet, device, resolved, defaults.architecture)
    print(json.dumps(report.as_json(), indent=2) if args.json else report.as_text())
    return 0


def _open_host(args: argparse.Namespace) -> StandaloneHost:
    return _standalone_host(
        _model_path(args),
        vae=args.vae,
        prediction_type=args.prediction_type,
        precision=args.precision,
    )


def _model_path(args: argparse.Namespace) -> Path | str:
    """The model as it was named; "mini" is the one that ships. Raises InvalidInput."""
    from unziplora import mini

    if args.model == "mini":
        return mini.MODEL
    return str(args.model)


def _standalone_host(model: Path | str, precision: str = "auto", **options: Any) -> StandaloneHost:
    check_packages()
    from unziplora.hosts.standalone.host import StandaloneHost
    from unziplora.hosts.standalone.threads import limit_threads

    host = StandaloneHost.open(model, dtype=_dtype(precision), **options)
    limit_threads(host.unet, host.device)
    return host


def _dtype(precision: str) -> Any:
    import torch

    return getattr(torch, PRECISIONS[precision]) if precision != "auto" else None


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """The --settings file's fields, and over them those of the command line."""
    from unziplora.training.settings import Settings

    known = {field.name for field in fields(Settings)}
    settings: dict[str, Any] = {}
    if args.settings is not None:
        check_regular_file(args.settings)
        try:
            settings = json.loads(args.settings.read_text(encoding="utf-8-sig"))
            unknown = sorted(settings.keys() - known)
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise InvalidInput(
                f"The settings file {args.settings.name} is not readable as a JSON object. "
                "Check its path and its commas."
            ) from error
        if unknown:
            raise InvalidInput(
                f"Unknown setting {unknown[0]!r} in the settings file. "
                f"The settings are {', '.join(sorted(known))}."
            )
    settings.update({k: v for k, v in vars(args).items() if k in known and v is not None})
    return settings


def _refuse_with_resume(args: argparse.Namespace) -> None:
    if args.image is not None or args.mask is not None or _settings(args):
        raise InvalidInput(
            "A resumed run keeps the image and the settings that it began with. "
            "Name only --resume and --model."
        )


def _fail(error: object, code: int) -> int:
    with lasting_output():
        print(f"unziplora: error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
    return code


def _fail_unforeseen(error: Exception) -> int:
    from torch.cuda import OutOfMemoryError

    if isinstance(error, (OutOfMemoryError, MemoryError)):
        full = "The memory is full. Try again with nothing else running, with --memory low, or with"
        return _fail(f"{full} a smaller --rank or --resolution.", 1)
    if long_name := too_long_a_name(error):
        return _fail(long_name, 2)
    traceback.print_exception(error)
    return _fail(
        f"Unexpected error ({type(error).__name__}: {error}). "
        "Please report it with the lines above.",
        1,
    )


def score(chosen: argparse.Namespace) -> int:
    """`unziplora score`: a pair's images against the one trained on."""
    from unziplora.cli.score import check, compare, is_comparison
    from unziplora.cli.score import score as run

    if is_comparison(chosen):
        return compare(chosen)
    check(chosen)
    check_packages()
    from unziplora.hosts.standalone.generate import drawing

    host = _open_host(chosen)
    if chosen.guidance is None:
        chosen.guidance = host.defaults.usual_guidance
    return run(chosen, drawing(host, steps=chosen.steps, guidance=chosen.guidance))


@lasting
def merge(chosen: argparse.Namespace) -> int:
    """`unziplora merge`: one file of several."""
    from unziplora.cli.merge import merge as run

    return run([weighted(text) for text in chosen.files], chosen, lambda: _open_host(chosen))


COMMANDS = {
    "demo": demo,
    "train": train,
    "generate": generate,
    "sheet": sheet,
    "app": app,
    "plan": plan,
    "merge": merge,
    "split": split,
    "inspect": inspect,
    "batch": batch,
    "score": score,
    "study": study,
}
