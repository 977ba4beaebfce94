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
from typing import TYPE_CHECKING, Any

from unziplora.cli.arguments import PRECISIONS, parser_of, weighted
from unziplora.errors import InvalidInput, UnZipLoRAError
from unziplora.files import check_output_folder

if TYPE_CHECKING:
    from unziplora.hosts.standalone.host import StandaloneHost
    from unziplora.training.run import Run

INTERRUPTED = 130
NARROW = 100_000_000  # parameters of a UNet; the smallest that is not a miniature has 780 million


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    try:
        given = parser_of(COMMANDS).parse_args(arguments)
        code: int = given.command(given)
        return code
    except InvalidInput as error:
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
    from unziplora import python_api as api
    from unziplora.images.load import open_image
    from unziplora.training.run import check_destination
    from unziplora.training.run_folder import find_run
    from unziplora.training.settings import Settings

    if given.resume is not None:
        _refuse_with_resume(given)
        find_run(given.resume).read_info()  # before minutes are spent on the model
        return _drive(api.resume(given.resume, host=_open_host(given)), given.model)
    for needed in ("image", "subject", "style"):
        if getattr(given, needed) is None:
            name = "an image" if needed == "image" else f"--{needed}"
            raise InvalidInput(f"train needs {name}. See: unziplora train --help")
    settings = Settings(**_settings(given))
    image = open_image(given.image)
    check_destination(settings, given.out, overwrite=given.overwrite)
    run = api.train(
        image,
        subject=settings.subject,
        style=settings.style,
        host=_open_host(given),
        settings=settings,
        out=given.out,
        overwrite=given.overwrite,
    )
    return _drive(run, given.model)


def demo(given: argparse.Namespace) -> int:
    """`unziplora demo`: the whole job on the miniature and an image that ships with it."""
    from unziplora import mini
    from unziplora import python_api as api
    from unziplora.app.sheet import sheet as make
    from unziplora.app.sheet import words_of
    from unziplora.hosts.standalone.generate import drawing, save_image

    out: Path = given.out
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
        settings={"steps": given.steps, "name": "demo"},
        out=out,
        overwrite=True,
    )
    code = _drive(run, "mini")
    if code:
        return code
    content, style = out / "demo_content.safetensors", out / "demo_style.safetensors"
    words = words_of(content, style)
    page = _with_bar(make, drawing(host), content, style, words, image=_image(mini.IMAGE))
    save_image(page, out / "demo.png")
    print(f"The figure: {out / 'demo.png'}")
    return 0


def sheet(given: argparse.Namespace) -> int:
    """`unziplora sheet`: content, style and both in new scenes, as one image."""
    from unziplora.app.sheet import sheet as make
    from unziplora.app.sheet import words_of
    from unziplora.hosts.standalone.generate import check_image_path, drawing, save_image

    check_image_path(given.out)
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
        image=_image_of(given),
        weights=given.weights,
        base=given.base,
        seed=given.seed,
    )
    save_image(page, given.out)
    print(given.out)
    return 0


def app(given: argparse.Namespace) -> int:
    """`unziplora app`: the page without a WebUI, and the API."""
    try:
        from unziplora.app.server import make_app
        from unziplora.app.serving import serve
        from unziplora.hosts.standalone.generate import drawing
        from unziplora.hosts.standalone.host import identity_of, unloaded

        served = make_app(
            lambda: _open_host(given),
            given.out.absolute(),
            given.login,
            draw_with=drawing,
            unloaded=lambda: unloaded(_model_path(given), _dtype(given.precision)),
            checkpoint=lambda: identity_of(_model_path(given)),
            address=given.address,
        )
    except ImportError as error:
        raise InvalidInput(
            f"The package {error.name} is missing, which the page needs. "
            "Install it with: pip install 'unziplora[standalone,app]'"
        ) from error
    serve(served, given.address, given.port, served.state.service.close)
    return 0


def _with_bar(make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """The sheet, with a progress bar of its images."""
    from tqdm import tqdm

    with tqdm(unit="image") as bar:

        def show(made: int, total: int) -> None:
            bar.total = total
            bar.update(made - bar.n)

        return make(*arguments, on_image=show, **options)


def _image_of(given: argparse.Namespace) -> Any:
    """The image trained on: the one named, or the copy in the run's folder beside the files."""
    from unziplora.training.run_folder import RunFolder, run_path

    if given.image is not None:
        return _image(given.image)
    name = given.content.stem.removesuffix("_content")
    copy = RunFolder(run_path(given.content.parent, name)).image
    return _image(copy) if copy.is_file() else None


def _image(path: Path) -> Any:
    from unziplora.images.load import open_image

    return open_image(path).image


def generate(given: argparse.Namespace) -> int:
    """`unziplora generate`: an image with any number of LoRAs."""
    from unziplora.hosts.standalone.generate import check_image_path, save_image
    from unziplora.hosts.standalone.generate import generate as make

    check_image_path(given.out)  # before minutes are spent on the image
    loras = [weighted(text) for text in given.lora]
    image = make(
        _open_host(given),
        given.prompt,
        loras=loras,
        negative=given.negative,
        steps=given.steps,
        size=given.size,
        seed=given.seed,
        guidance=given.guidance,
    )
    save_image(image, given.out)
    for note in image.info["notes"]:
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
    from unziplora.training.memory_forecast import forecast
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
                    bar.write(f"previews of step {event.step}: {event.images['both'].parent}")
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

    host = StandaloneHost.open(model, dtype=_dtype(precision), **options)
    _spare_threads(host)
    return host


def _spare_threads(host: StandaloneHost) -> None:
    """One thread for a narrow model on a CPU. A second one saves a tenth of the miniature's time
    while nothing else runs; where another program keeps a core busy, the two wait for each other
    in every small operation, and a step takes 20 s instead of 0.15 s."""
    import torch

    narrow = sum(p.numel() for p in host.unet.parameters()) < NARROW
    if host.device.type == "cpu" and narrow and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def _check_packages() -> None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns of image processors
    try:
        import diffusers  # noqa: F401
        import peft  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise InvalidInput(
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
            raise InvalidInput(
                f"The settings file {given.settings.name} is not readable as a JSON object. "
                "Check its path and its commas."
            ) from error
        if unknown:
            raise InvalidInput(
                f"The settings file names {unknown[0]!r}, which is no setting. "
                f"The settings are {', '.join(sorted(known))}."
            )
    settings.update({k: v for k, v in vars(given).items() if k in known and v is not None})
    return settings


def _refuse_with_resume(given: argparse.Namespace) -> None:
    if given.image is not None or _settings(given):
        raise InvalidInput(
            "A resumed run keeps the image and the settings that it began with. "
            "Name only --resume and --model."
        )


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


COMMANDS = {
    "demo": demo,
    "train": train,
    "generate": generate,
    "sheet": sheet,
    "app": app,
    "plan": plan,
    "inspect": inspect,
}
