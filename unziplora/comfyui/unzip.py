"""The node Unzip Image: one image in, two LoRAs out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from comfy_api.latest import io, ui
from PIL import Image
from torch import Tensor

from unziplora.comfyui import finished, folders, loras
from unziplora.comfyui.drive import drive
from unziplora.comfyui.fields import settings_of
from unziplora.comfyui.images import batch, source_image
from unziplora.comfyui.plot import loss_plot
from unziplora.errors import InvalidInput
from unziplora.hosts.comfyui.host import ComfyHost
from unziplora.hosts.comfyui.origin import model_file
from unziplora.images.load import SourceImage
from unziplora.lora.pair import Pair
from unziplora.method.methods import METHODS
from unziplora.python_api import train
from unziplora.training.model_traits import ModelTraits
from unziplora.training.run import Run
from unziplora.training.run_folder import RunFolder
from unziplora.training.settings import MOST_STEPS, Settings

CATEGORY = "UnZipLoRA"
NUMBER_IT, OVERWRITE = "add a number", "overwrite"
_PREVIEWED = ("base", "content", "style", "both")
_MEMORY = get_args(get_type_hints(Settings)["memory"])


class UnzipImage(io.ComfyNode):  # type: ignore[misc]
    """Trains, or gives what an earlier run of the same model, image and settings has made."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="UnZipLoRA_UnzipImage",
            display_name="Unzip Image",
            category=CATEGORY,
            description=(
                "Trains two LoRAs on one image, its content and its style, that work alone and "
                "added together. Both are written to models/loras. Queued again with the same "
                "model, image and settings it gives the same files at once."
            ),
            is_output_node=True,
            inputs=[*_model_inputs(), *_word_inputs(), *_setting_inputs()],
            outputs=[
                io.LoraModel.Output("content", display_name="content LoRA"),
                io.LoraModel.Output("style", display_name="style LoRA"),
                io.Image.Output("loss", display_name="loss plot"),
                io.Image.Output("preview", display_name="previews"),
                io.String.Output("content_trigger", display_name="content trigger"),
                io.String.Output("style_trigger", display_name="style trigger"),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def execute(
        cls, model: Any, clip: Any, vae: Any, image: Tensor, existing: str,
        mask: Tensor | None = None, **values: Any,
    ) -> Any:  # fmt: skip
        settings = settings_of(values)
        node = cls.hidden.unique_id
        host = ComfyHost(model, clip, vae, model_file(cls.hidden.prompt, node))
        source = source_image(image, mask)
        folder, pair = _trained(host, source, settings, node, overwrite=existing == OVERWRITE)
        drawn = batch(_previews(folder, source))
        rows = folder.read_progress()
        planned = folder.read_info().settings.steps
        plot = loss_plot([int(row["step"]) for row in rows], [row["loss"] for row in rows], planned)
        return io.NodeOutput(
            loras.read(pair.content),
            loras.read(pair.style),
            batch([plot]),
            drawn,
            pair.content_trigger,
            pair.style_trigger,
            ui=ui.PreviewImage(drawn, cls=cls),
        )


def _trained(
    host: ComfyHost, source: SourceImage, settings: Settings, node: str | None, *, overwrite: bool
) -> tuple[RunFolder, Pair]:
    """The run's folder and its files, from an earlier run where there is one."""
    out, runs = folders.loras(), folders.runs()
    resolved = settings.resolve(ModelTraits.of(host.unet, host.defaults))
    with host.borrow():
        digest = host.digest()
    key = finished.key_of(digest, source, resolved, settings.name)
    run = None
    for folder, info in finished.earlier_runs(runs, out, key):
        pair = finished.pair_of(folder, info)
        if pair is not None:
            return folder, pair
        if run is None and folder.saved_step(info.pair) is not None:
            run = Run.resume(folder.path, host, out)
    if run is None:
        run = _new(host, source, settings, out, runs, overwrite=overwrite)
    drive(run, host, node, key)
    pair = finished.pair_of(run.folder, run.info)
    if pair is None:
        raise InvalidInput(
            "The run's LoRAs are not in models/loras. See the run's messages for where they were "
            "written, and move them there."
        )
    return run.folder, pair


def _new(
    host: ComfyHost, source: SourceImage, settings: Settings, out: Path, runs: Path,
    *, overwrite: bool,
) -> Run:  # fmt: skip
    if not overwrite:
        settings = replace(settings, name=finished.free_name(out, runs, settings.file_name))
    return train(source, subject=settings.subject, style=settings.style, host=host,
                 settings=settings, out=out, overwrite=overwrite, runs=runs)  # fmt: skip


def _previews(folder: RunFolder, source: SourceImage) -> list[Image.Image]:
    """The last of the run, of the model alone and with each and both LoRAs; the image trained on
    where there are none."""
    steps = sorted(path.name.split("_")[0] for path in folder.previews.glob("*_both.png"))
    images = []
    for name in _PREVIEWED if steps else ():
        path = folder.previews / f"{steps[-1]}_{name}.png"
        if path.is_file():
            with Image.open(path, formats=("PNG",)) as image:
                images.append(image.convert("RGB"))
    return images or [source.image]


def _model_inputs() -> list[Any]:
    return [
        io.Model.Input("model", tooltip="An SDXL checkpoint, as its loader gives it."),
        io.Clip.Input("clip", tooltip="The checkpoint's own."),
        io.Vae.Input("vae", tooltip="The checkpoint's own, or another SDXL VAE."),
        io.Image.Input("image", tooltip="The one image to train on."),
        io.Mask.Input("mask", optional=True, tooltip="What of the image is not to be seen."),
    ]


def _word_inputs() -> list[Any]:
    return [
        io.String.Input("subject", default="cat", tooltip="One word for what is shown."),
        io.String.Input("style", default="watercolor painting", tooltip="Two or three words."),
        io.String.Input(
            "token", default="sks",
            tooltip="A rare token, for example sks: with the subject, it calls the content LoRA.",
        ),
        io.String.Input(
            "name", default="", tooltip="Of the files; empty: from subject and style."
        ),
        io.Combo.Input(
            "existing", options=[NUMBER_IT, OVERWRITE], default=NUMBER_IT,
            tooltip="What a new run does where files of its name exist.",
        ),
    ]  # fmt: skip


def _setting_inputs() -> list[Any]:
    return [
        io.Int.Input("steps", default=0, min=0, max=MOST_STEPS, tooltip="0: 600, as in the paper."),
        io.Int.Input("rank", default=0, min=0, max=1024, tooltip="0: 64, as in the paper."),
        io.Float.Input(
            "lr", display_name="learning rate", default=0.0, min=0.0, max=1.0, step=1e-6,
            round=False, tooltip="0: 0.00005, as in the paper.",
        ),
        io.Int.Input(
            "resolution", default=0, min=0, max=4096, step=64, tooltip="Pixels; 0: the model's own."
        ),
        io.Int.Input("seed", default=0, min=0, max=2**63 - 1, control_after_generate=False),
        io.Combo.Input("method", options=list(METHODS), default="unziplora"),
        io.Combo.Input(
            "memory", options=list(_MEMORY), default="auto",
            tooltip="Less memory takes more time. auto: what fits.",
        ),
        io.Int.Input(
            "preview_every", default=0, min=-1, max=MOST_STEPS,
            tooltip="Steps from preview to preview; 0: at the end only, -1: none.",
        ),
        io.Int.Input("preview_steps", default=20, min=1, max=1000),
        io.String.Input(
            "more_settings", default="", multiline=True, optional=True,
            tooltip='Any other setting of a run, as JSON: {"columns": 40, "flip": true}.',
        ),
    ]  # fmt: skip
