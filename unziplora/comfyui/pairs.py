"""The nodes Load Pair, Combine Pairs and Save Pair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from unziplora import files
from unziplora.comfyui import folders, loras
from unziplora.comfyui.apply import apply
from unziplora.errors import NotFound
from unziplora.lora.merge_methods import MERGE_METHODS, summaries
from unziplora.lora.pair import Pair, find_pair, find_pairs

CATEGORY = "UnZipLoRA"
NONE = "(no pair in models/loras)"


def _strength(name: str, label: str) -> Any:
    return io.Float.Input(name, display_name=label, default=1.0, min=-10.0, max=10.0, step=0.05)


class LoadPair(io.ComfyNode):  # type: ignore[misc]
    """A pair of models/loras, by its name; on a model, where one is connected."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="UnZipLoRA_LoadPair",
            display_name="Load Pair",
            category=CATEGORY,
            description=(
                "Loads both LoRAs of a pair, and puts them on the model with these strengths where "
                "one is connected. The triggers are what calls them in a prompt."
            ),
            inputs=[
                io.Combo.Input("pair", options=pair_names() or [NONE]),
                _strength("content_strength", "content strength"),
                _strength("style_strength", "style strength"),
                io.Model.Input("model", optional=True),
            ],
            outputs=[
                io.Model.Output("out", display_name="MODEL"),
                io.LoraModel.Output("content", display_name="content LoRA"),
                io.LoraModel.Output("style", display_name="style LoRA"),
                io.String.Output("content_trigger", display_name="content trigger"),
                io.String.Output("style_trigger", display_name="style trigger"),
            ],
        )

    @classmethod
    def validate_inputs(cls, pair: str) -> bool | str:
        """The list may be older than a pair that a run has written since."""
        return True if _find(pair) is not None else _missing(pair)

    @classmethod
    def fingerprint_inputs(cls, pair: str, **_: Any) -> str:
        """Changes when the files do."""
        found = _find(pair)
        paths = [] if found is None else found.files.values()
        return " ".join(str(path.stat().st_mtime_ns) for path in paths)

    @classmethod
    def execute(
        cls, pair: str, content_strength: float, style_strength: float, model: Any = None
    ) -> Any:
        found = _find(pair)
        if found is None:
            raise NotFound(_missing(pair))
        content, style = loras.read(found.content), loras.read(found.style)
        if model is not None:
            model = apply(model, content, content_strength)
            model = apply(model, style, style_strength)
        triggers = found.content_trigger, found.style_trigger
        return io.NodeOutput(model, content, style, *triggers)


class CombinePairs(io.ComfyNode):  # type: ignore[misc]
    """The content of one pair and the style of another as one LoRA."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="UnZipLoRA_CombinePairs",
            display_name="Combine Pairs",
            category=CATEGORY,
            description=(
                "Makes one LoRA of two: the content of one pair and the style of another, or of "
                "the same. With a file name it is also written to models/loras."
            ),
            inputs=[
                io.LoraModel.Input("content"),
                io.LoraModel.Input("style"),
                _strength("content_weight", "content weight"),
                _strength("style_weight", "style weight"),
                io.Combo.Input(
                    "how", options=[m.name for m in MERGE_METHODS.values() if not m.learns],
                    tooltip=summaries(learning=False),
                ),
                io.String.Input(
                    "file_name", display_name="file name", default="",
                    tooltip="Empty: no file is written.",
                ),
            ],
            outputs=[io.LoraModel.Output("lora", display_name="combined LoRA")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, content: Mapping[str, Tensor], style: Mapping[str, Tensor], content_weight: float,
        style_weight: float, how: str, file_name: str,
    ) -> Any:  # fmt: skip
        one, other = (content, content_weight), (style, style_weight)
        name = file_name.strip()
        if not name:
            return io.NodeOutput(loras.merge(one, other, how))
        path = folders.loras() / f"{files.check_name(name)}.safetensors"
        return io.NodeOutput(loras.merge_to(path, one, other, how))


class SavePair(io.ComfyNode):  # type: ignore[misc]
    """A pair under another name, or the content and style of two pairs as a new one."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="UnZipLoRA_SavePair",
            display_name="Save Pair",
            category=CATEGORY,
            description=(
                "Writes NAME_content and NAME_style to models/loras, as one pair that Load Pair "
                "finds. Unzip Image has saved its own already."
            ),
            is_output_node=True,
            inputs=[
                io.LoraModel.Input("content"),
                io.LoraModel.Input("style"),
                io.String.Input("name", default="pair"),
                io.Boolean.Input("overwrite", default=False),
            ],
            outputs=[],
        )

    @classmethod
    def execute(
        cls, content: Mapping[str, Tensor], style: Mapping[str, Tensor], name: str, overwrite: bool
    ) -> Any:
        paths = loras.save_pair(content, style, folders.loras(), name.strip(), overwrite=overwrite)
        return io.NodeOutput(ui={"text": [path.name for path in paths.values()]})


def pair_names() -> list[str]:
    """Of all folders of LoRAs, the newest of each first."""
    found = (pair.name for folder in folders.lora_folders() for pair in find_pairs(folder))
    return list(dict.fromkeys(found))


def _find(name: str) -> Pair | None:
    found = (find_pair(folder, name) for folder in folders.lora_folders())
    return next((pair for pair in found if pair is not None), None)


def _missing(name: str) -> str:
    if name == NONE:
        return "There is no pair in models/loras yet. Train one with Unzip Image first."
    return (
        f"There is no pair {name} in models/loras. Choose another one, or press R to read the list "
        "again."
    )
