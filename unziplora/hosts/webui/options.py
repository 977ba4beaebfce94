"""Options of a WebUI: our section of its settings, and where its folders are.

A WebUI's relatives leave out options and arguments of Automatic1111's, so each has a default here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unziplora.hosts.webui.txt2img import webui

if TYPE_CHECKING:
    from unziplora.host import PredictionType

SECTION = ("unziplora", "UnZipLoRA")
FOLDER, PREDICTION = "unziplora_folder", "unziplora_prediction_type"
PREVIEW_EVERY, PREVIEW_STEPS = "unziplora_preview_every", "unziplora_preview_steps"
PREVIEW_NEGATIVE = "unziplora_preview_negative"
IMAGES_FIRST = "unziplora_images_first"
_AUTOMATIC = "automatic"


def option(name: str, default: Any) -> Any:
    """Of the WebUI's settings page; the default where it has none or an empty one."""
    value = getattr(getattr(webui("shared"), "opts", None), name, None)
    return default if value is None else value


def argument(name: str, default: Any = None) -> Any:
    """Of the command line with which the WebUI was started."""
    return getattr(getattr(webui("shared"), "cmd_opts", None), name, default)


def prediction_type() -> PredictionType | None:
    """None: as the WebUI says."""
    chosen = option(PREDICTION, _AUTOMATIC)
    return None if chosen == _AUTOMATIC else chosen


def preview_every() -> int:
    """Steps; 0 for never. What the tab proposes."""
    return int(option(PREVIEW_EVERY, 100))


def images_first() -> bool:
    """Whether an image that is asked for while a run trains is drawn between two steps."""
    return bool(option(IMAGES_FIRST, True))


def previews() -> dict[str, Any]:
    """Settings for runs that say nothing else."""
    return {
        "preview_steps": int(option(PREVIEW_STEPS, 20)),
        "preview_negative": str(option(PREVIEW_NEGATIVE, "")),
    }


def lora_folder() -> Path:
    """Where the WebUI looks for LoRAs."""
    chosen = argument("lora_dir")
    return Path(chosen or Path(webui("paths").models_path) / "Lora").absolute()


def pair_folder() -> Path:
    """Where pairs go: our option, else the WebUI's Lora folder."""
    chosen = str(option(FOLDER, "")).strip()
    return Path(chosen).absolute() if chosen else lora_folder()


def runs_folder() -> Path:
    """Where runs go. Not below the Lora folder: WebUIs list hidden folders of it too, unless two
    options say otherwise (Automatic1111's modules/util.py:48, modules/ui_extra_networks.py:536)."""
    from unziplora.training.run_folder import HIDDEN  # imports torch

    return (Path(webui("paths").models_path) / HIDDEN).absolute()


def publish_folder() -> Path:
    """Below the folder of the WebUI's images, where no WebUI looks for LoRAs."""
    paths = webui("paths_internal")
    images = getattr(paths, "default_output_dir", None) or Path(paths.data_path) / "outputs"
    return Path(images).absolute() / "unziplora-published"


def extension_folders() -> list[Path]:
    """Those below which extensions lie, the WebUI's own and installed ones."""
    paths = webui("paths_internal")
    names = ("extensions_dir", "extensions_builtin_dir")
    return [Path(folder) for name in names if (folder := getattr(paths, name, None))]


def add_to_settings_page() -> None:
    import gradio as gr

    shared = webui("shared")
    predictions = [_AUTOMATIC, "epsilon", "v_prediction"]
    steps = {"minimum": 1, "maximum": 100, "step": 1}

    def info(*arguments: Any) -> Any:
        return shared.OptionInfo(*arguments, section=SECTION)

    options = {
        FOLDER: info("", "Output directory (leave empty for the Lora folder)"),
        PREDICTION: info(
            _AUTOMATIC, "Prediction type override", gr.Radio, {"choices": predictions}
        ),
        PREVIEW_EVERY: info(
            100,
            "Default preview interval (steps; 0 = off; needs Reload UI)",
            gr.Number,
            {"precision": 0, "minimum": 0},
        ),
        PREVIEW_STEPS: info(20, "Sampling steps of a preview", gr.Slider, steps),
        PREVIEW_NEGATIVE: info("", "Negative prompt of previews"),
        IMAGES_FIRST: info(
            True, "Images go first (a run waits between two steps while an image is drawn)"
        ),
    }
    for name, value in options.items():
        shared.opts.add_option(name, value)
