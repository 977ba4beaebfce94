"""The command line. Exit code 0; 2 and one line on stderr for bad input; 1 where a run failed;
130 when interrupted, with the run's state saved."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from unziplora.atomic import check_output_folder
from unziplora.errors import BadInput, UnZipLoRAError
from unziplora.version import __version__

if TYPE_CHECKING:
    from unziplora.hosts.standalone.host import StandaloneHost
    from unziplora.training.run import Run

INTERRUPTED = 130
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    try:
        given = _parser().parse_args(arguments)
        code: int = given.command(given)
        return code
    except BadInput as error:
        return _fail(error, 2)
    except UnZipLoRAError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        print("unziplora: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `unziplora inspect FILE | head`
        sys.stderr.close()
        return 0
    except Exception as error:
        return _fail_unforeseen(error)


def train(given: argparse.Namespace) -> int:
    """`unziplora train`: a new run, or with --resume the rest of one."""
    from unziplora import api
    from unziplora.training.picture import open_picture
    from unziplora.training.run import check_destination
    from unziplora.training.settings import Settings
    from unziplora.training.state import RunFolder

    if given.resume is not None:
        _refuse_with_resume(given)
        RunFolder(given.resume).read_info()  # before minutes are spent on the model
        return _drive(api.resume(given.resume, host=_open_host(given)), given.model)
    for needed in ("image", "subject", "style"):
        if getattr(given, needed) is None:
            name = "a picture" if needed == "image" else f"--{needed}"
            raise BadInput(f"train needs {name}. See: unziplora train --help")
    settings = Settings(**_settings(given))
    picture = open_picture(given.image)
    check_destination(settings, given.out, overwrite=given.overwrite)
    run = api.train(
        picture,
        subject=settings.subject,
        style=settings.style,
        host=_open_host(given),
        settings=settings,
        out=given.out,
        overwrite=given.overwrite,
    )
    return _drive(run, given.model)


def demo(given: argparse.Namespace) -> int:
    """`unziplora demo`: the whole job on the miniature and a picture that ships with it."""
    from unziplora import api, mini
    from unziplora.hosts.standalone.generate import drawing, save_picture
    from unziplora.sheet import sheet as make
    from unziplora.sheet import words_of

    out: Path = given.out
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"The output folder {out} cannot be made ({error.strerror}). Name another with --out."
        ) from error
    check_output_folder(out)
    host = _standalone_host(mini.MODEL)
    print(f'The picture: {mini.PICTURE.name}, "{mini.SUBJECT}" in "{mini.STYLE}" style')
    run = api.train(
        mini.PICTURE,
        subject=mini.SUBJECT,
        style=mini.STYLE,
        host=host,
        settings={"steps": given.steps, "name": "demo"},
        out=out,
        overwrite=True,
    )
    code = _drive(run, "mini")
    if code:
        return code
    content, style = out / "demo_content.safetensors", out / "demo_style.safetensors"
    words = words_of(content, style)
    page = _with_bar(make, drawing(host), content, style, words, picture=_picture(mini.PICTURE))
    save_picture(page, out / "demo.png")
    print(f"The figure: {out / 'demo.png'}")
    return 0


def sheet(given: argparse.Namespace) -> int:
    """`unziplora sheet`: content, style and both in new scenes, as one picture."""
    from unziplora.hosts.standalone.generate import check_picture_path, drawing, save_picture
    from unziplora.sheet import sheet as make
    from unziplora.sheet import words_of

    check_picture_path(given.out)
    words = words_of(
        given.content,
        given.style,
        {"content": given.content_trigger, "style": given.style_trigger},
        scenes=given.scene,
        objects=given.object,
    )
    draw = drawing(
        _open_host(given),
        size=given.size,
        steps=given.steps,
        guidance=given.guidance,
        note=lambda text: print(text, file=sys.stderr),
    )
    page = _with_bar(
        make,
        draw,
        given.content,
        given.style,
        words,
        picture=_picture_of(given),
        weights=given.weights,
        base=given.base,
        seed=given.seed,
    )
    save_picture(page, given.out)
    print(given.out)
    return 0


def app(given: argparse.Namespace) -> int:
    """`unziplora app`: the page without a WebUI, and the API."""
    try:
        from unziplora.app import make_app, serve
        from unziplora.hosts.standalone.generate import drawing
        from unziplora.hosts.standalone.host import unloaded

        served = make_app(
            lambda: _open_host(given),
            given.out.absolute(),
            given.login,
            draw_with=drawing,
            unloaded=lambda: unloaded(_model_path(given), _dtype(given.precision)),
        )
    except ImportError as error:
        raise BadInput(
            f"The package {error.name} is missing, which the page needs. "
            "Install it with: pip install 'unziplora[standalone,app]'"
        ) from error
    print(f"http://{given.address}:{given.port}")
    serve(served, given.address, given.port)
    return 0


def _with_bar(make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The sheet, with a progress bar of its pictures."""
    from tqdm import tqdm

    with tqdm(unit="picture") as bar:

        def show(made: int, total: int) -> None:
            bar.total = total
            bar.update(made - bar.n)

        return make(*arguments, on_picture=show, **options)


def _picture_of(given: argparse.Namespace) -> Any:
    """The picture trained on: the one named, or the copy in the run's folder beside the files."""
    from unziplora.training.state import RunFolder

    if given.image is not None:
        return _picture(given.image)
    name = given.content.stem.removesuffix("_content")
    copy = RunFolder(given.content.parent / name).picture
    return _picture(copy) if copy.is_file() else None


def _picture(path: Path) -> Any:
    from unziplora.training.picture import open_picture

    return open_picture(path).image


def generate(given: argparse.Namespace) -> int:
    """`unziplora generate`: a picture with any number of LoRAs."""
    from unziplora.hosts.standalone.generate import check_picture_path, save_picture
    from unziplora.hosts.standalone.generate import generate as make

    check_picture_path(given.out)  # before minutes are spent on the picture
    loras = [_weighted(text) for text in given.lora]
    picture = make(
        _open_host(given),
        given.prompt,
        loras=loras,
        negative=given.negative,
        steps=given.steps,
        size=given.size,
        seed=given.seed,
        guidance=given.guidance,
    )
    save_picture(picture, given.out)
    for note in picture.info["notes"]:
        print(note, file=sys.stderr)
    print(given.out)
    return 0


def inspect(given: argparse.Namespace) -> int:
    """`unziplora inspect`: what a LoRA file is."""
    from unziplora.lora.inspect import inspect as inspect_lora

    report = inspect_lora(given.file)
    print(json.dumps(report.as_json(), indent=2) if given.json else report.as_text())
    return 0


def plan(given: argparse.Namespace) -> int:
    """`unziplora plan`: memory by plan, and the one that auto picks; loads no weights."""
    from unziplora.training.memory import forecast
    from unziplora.training.run import with_model_defaults
    from unziplora.training.settings import Settings

    _check_packages()
    from unziplora.hosts.standalone.host import unloaded

    unet, device, defaults = unloaded(_model_path(given), _dtype(given.precision))
    settings = Settings("any", "any", rank=given.rank, resolution=given.resolution)
    report = forecast(unet, device, with_model_defaults(settings, unet, defaults))
    print(json.dumps(report.as_json(), indent=2) if given.json else report.as_text())
    return 0


@contextlib.contextmanager
def _telling_where(run: Run) -> Iterator[None]:
    """Where a run that failed has left its state, if not in its folder."""
    try:
        yield
    except BaseException:
        if run.kept_in != run.folder.path:
            print(f"The run's folder refused its state; it is in {run.kept_in}", file=sys.stderr)
        raise


def _drive(run: Run, model: str) -> int:
    """Reads a run's events into one progress bar; Ctrl-C stops it with its state saved."""
    from tqdm import tqdm

    from unziplora.training.events import (
        Finished,
        LorasSaved,
        Message,
        Previewed,
        Started,
        StepDone,
    )

    code = 0
    bar = tqdm(disable=True)
    with _stopping(run), _telling_where(run), contextlib.ExitStack() as closing:
        for event in run:
            match event:
                case Started():
                    bar.write(
                        f"{event.name}: {event.layers} layers of {event.architecture}, "
                        f"{event.memory}"
                    )
                    bar = tqdm(total=event.steps, initial=event.step, unit="step")
                    closing.callback(bar.close)  # also before an error's line
                case StepDone():
                    bar.set_postfix(loss=f"{event.loss:.4f}", refresh=False)
                    bar.update()
                case Message():
                    bar.write(event.text, file=sys.stderr)
                case Previewed():
                    bar.write(f"previews of step {event.step}: {event.pictures['both'].parent}")
                case LorasSaved():
                    for path in event.files.values():
                        bar.write(str(path))
                case Finished(outcome="stopped"):
                    bar.write(
                        f"Stopped at step {event.step}, state saved. Go on with: "
                        f"unziplora train --resume {run.kept_in} --model {model}"
                    )
                    code = INTERRUPTED
                case _:
                    pass
    return code


@contextlib.contextmanager
def _stopping(run: Run) -> Iterator[None]:
    """The first Ctrl-C asks the run to stop after its step; the second interrupts at once."""

    def ask(*_: object) -> None:
        print("\nStopping after this step (Ctrl-C again: at once).", file=sys.stderr)
        run.send("stop")
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        earlier = signal.signal(signal.SIGINT, ask)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, earlier)


def _open_host(given: argparse.Namespace) -> StandaloneHost:
    return _standalone_host(
        _model_path(given),
        vae=given.vae,
        prediction_type=given.prediction_type,
        precision=given.precision,
    )


def _model_path(given: argparse.Namespace) -> Path | str:
    """The model that was asked for; "mini" is the one that ships."""
    from unziplora import mini

    return mini.MODEL if given.model == "mini" else str(given.model)


def _standalone_host(model: Path | str, precision: str = "auto", **options: Any) -> StandaloneHost:
    _check_packages()
    from unziplora.hosts.standalone.host import StandaloneHost

    return StandaloneHost.open(model, dtype=_dtype(precision), **options)


def _check_packages() -> None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns of image processors
    try:
        import diffusers  # noqa: F401
        import peft  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise BadInput(
            f"The package {error.name} is missing, which is needed outside a WebUI. "
            "Install it with: pip install 'unziplora[standalone]'"
        ) from error


def _dtype(precision: str) -> Any:
    import torch

    return getattr(torch, PRECISIONS[precision]) if precision != "auto" else None


def _settings(given: argparse.Namespace) -> dict[str, Any]:
    """The --settings file's fields, and over them what was said on the command line."""
    from unziplora.training.settings import Settings

    known = {field.name for field in fields(Settings)}
    settings: dict[str, Any] = {}
    if given.settings is not None:
        try:
            settings = json.loads(given.settings.read_text(encoding="utf-8"))
            unknown = sorted(settings.keys() - known)
        except (OSError, ValueError, AttributeError) as error:
            raise BadInput(
                f"The settings file {given.settings.name} is not readable as a JSON object. "
                "Check its path and its commas."
            ) from error
        if unknown:
            raise BadInput(
                f"The settings file names {unknown[0]!r}, which is no setting. "
                f"The settings are {', '.join(sorted(known))}."
            )
    settings.update({k: v for k, v in vars(given).items() if k in known and v is not None})
    return settings


def _refuse_with_resume(given: argparse.Namespace) -> None:
    if given.image is not None or _settings(given):
        raise BadInput(
            "A resumed run keeps the picture and the settings that it began with. "
            "Name only --resume and --model."
        )


def _weighted(text: str) -> tuple[Path, float]:
    """FILE or FILE:WEIGHT; a drive letter's colon is not a weight's."""
    path, colon, weight = text.rpartition(":")
    if colon:
        with contextlib.suppress(ValueError):
            return Path(path), float(weight)
    return Path(text), 1.0


def _weights(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _size(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT or one side, in pixels, as (height, width)."""
    width, _, height = text.lower().partition("x")
    return int(height or width), int(width)


def _fail(error: object, code: int) -> int:
    print(f"unziplora: error: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def _fail_unforeseen(error: Exception) -> int:
    from torch.cuda import OutOfMemoryError

    if isinstance(error, (OutOfMemoryError, MemoryError)):
        return _fail(
            "The memory is full; a run's state is saved as of its last whole step. Resume it with "
            "nothing else running, or start anew with --memory low, or a smaller --rank or "
            "--resolution.",
            1,
        )
    traceback.print_exception(error)
    return _fail(
        f"This should not have happened ({type(error).__name__}: {error}). "
        "Please report it with the lines above.",
        1,
    )


class _Parser(argparse.ArgumentParser):
    """Bad arguments are one line too, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message[0].upper()}{message[1:]}. See: {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="unziplora", description="One picture in, two LoRAs out.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], summary: str
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=summary, description=summary)
        made.set_defaults(command=run)
        return made

    _add_demo(command("demo", demo, "the whole job on a small model and a picture that ships"))
    _add_train(command("train", train, "train a content and a style LoRA on one picture"))
    _add_generate(command("generate", generate, "make a picture with any number of LoRAs"))
    _add_sheet(command("sheet", sheet, "content, style and both in new scenes, one picture"))
    made = command("app", app, "the page without a WebUI")
    _add_model(made)
    made.add_argument("--port", type=int, default=7860)
    made.add_argument("--address", default="127.0.0.1", help="0.0.0.0: the whole network")
    made.add_argument("--login", metavar="USER:PASSWORD", help="asked for by page and API")
    made.add_argument("--out", type=Path, default=Path("loras"), metavar="DIR")
    made = command("plan", plan, "show the memory that training needs, by plan")
    _add_model(made)
    made.add_argument("--rank", type=int, help="what train would take")
    made.add_argument("--resolution", type=int, metavar="PIXELS", help="the model's own")
    made.add_argument("--json", action="store_true", help="machine-readable")
    made = command("inspect", inspect, "show what a LoRA file is")
    made.add_argument("file", type=Path)
    made.add_argument("--json", action="store_true", help="machine-readable")
    return parser


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("demo-output"), metavar="DIR")
    parser.add_argument("--steps", type=int, help="what suits the miniature")


def _add_train(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("image", nargs="?", type=Path, metavar="IMAGE")
    add("--subject", help="what it is, one word: cat")
    add("--style", help='how it is made, two or three words: "watercolor painting"')
    add("--token", help="a rare token that becomes the subject's name (sks)")
    _add_model(parser)
    add("--method", help="unziplora, or to compare: m1, m2, dreambooth, b-lora")
    add("--steps", type=int, help="600; b-lora 1000")
    add("--rank", type=int, help="64")
    add("--resolution", type=int, metavar="PIXELS", help="the model's own")
    add("--seed", type=int)
    add("--lr", type=float, help="learning rate of the LoRAs (5e-5)")
    add("--out", type=Path, default=Path("."), metavar="DIR", help="where the files go")
    add("--name", help="of the files: NAME_content.safetensors, NAME_style.safetensors")
    add("--memory", metavar="PLAN", help="auto, full, checkpoint, low or lowest")
    add("--resume", type=Path, metavar="RUN", help="go on with the run in this folder (OUT/NAME)")
    add("--prompt-combined", metavar="TEXT", help='"a sks cat in watercolor painting style"')
    add("--prompt-content", metavar="TEXT", help='"a sks cat"')
    add("--prompt-style", metavar="TEXT", help='"an image in watercolor painting style"')
    add("--preview-every", type=int, metavar="STEPS", help="previews while it trains (off)")
    add("--snapshot-every", type=int, metavar="STEPS", help="keep the pair on the way (off)")
    add("--settings", type=Path, metavar="FILE", help="a JSON object of any settings")
    add("--overwrite", action="store_true", help="replace files and run of the same name")


def _add_generate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_model(parser)
    add("--lora", action="append", default=[], metavar="FILE[:WEIGHT]")
    add("--prompt", required=True)
    add("--negative", default="")
    add("--steps", type=int, default=25)
    add("--size", type=_size, metavar="WxH", help="the model's own")
    add("--guidance", type=float, default=6.0)
    add("--seed", type=int, default=0)
    add("--out", type=Path, required=True, metavar="FILE")


def _add_sheet(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _add_model(parser)
    add("--content", type=Path, required=True, metavar="FILE")
    add("--style", type=Path, required=True, metavar="FILE")
    add("--image", type=Path, help="the picture trained on (the copy in the run's folder)")
    add("--weights", type=_weights, default=(1.0,), metavar="W[,W...]", help="rows for each: 0.6,1")
    add("--base", action="store_true", help="also what the model alone makes")
    add("--content-trigger", metavar="TEXT", help='"sks cat", where the file does not say it')
    add("--style-trigger", metavar="TEXT", help='"watercolor painting style"')
    add("--scene", action="append", metavar="TEXT", help='a scene, again for more: "on a beach"')
    add("--object", action="append", metavar="TEXT", help='what the style is tried on: "a house"')
    add("--steps", type=int, default=25)
    add("--size", type=_size, metavar="WxH", help="of each picture; the model's own")
    add("--guidance", type=float, default=6.0)
    add("--seed", type=int, default=0)
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
