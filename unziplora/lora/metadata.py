"""What a LoRA file says of itself, written and read: kohya's ss_ keys and ModelSpec 1.0.1.

Sources: kohya-ss/sd-scripts train_network.py:1003-1065 and library/train_util.py:3455-3469 (ss_),
library/sai_model_spec.py:38-66 (ModelSpec). Base names only: no path of the user is ever written.
What others wrote is never trusted: a value that cannot be read is missing, and a note says so.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path, PureWindowsPath
from typing import Any

from PIL import Image

from unziplora.lora.tensor_file import read_metadata
from unziplora.method.prompts import BranchName

_LONGEST = 1000  # characters of a value that is shown


@dataclass(frozen=True)
class Header:
    """One file of a pair.

    role: content or style. name: the file's stem, different for every file. pair: an id that both
    files share. trigger: what calls it in a prompt. open_columns: share of open columns by group,
    0 to 1. model_sha256: of the base checkpoint. started, finished: seconds since 1970.
    resolution: (width, height) in pixels. family: what a hub calls the base model, where known.
    plan: the memory plan of the last steps; optimizer: what updated A and B under it, and
    fused_backward: whether it did so while the backward pass ran. network: whatever else says how
    it was made.
    """

    role: BranchName
    name: str
    pair: str
    trigger: str
    prompts: Mapping[str, str]
    method: str
    rank: int
    alpha: float
    steps: int
    planned_steps: int
    lr: float
    lr_schedule: str
    optimizer: str
    seed: int
    resolution: tuple[int, int]
    model_name: str
    model_sha256: str | None
    prediction_type: str
    zero_terminal_snr: bool
    architecture: str
    started: float
    finished: float
    mixed_precision: str
    plan: str
    fused_backward: bool
    checkpointing: bool
    max_grad_norm: float
    min_snr_gamma: float | None
    software: str
    family: str | None = None
    open_columns: Mapping[str, float] = field(default_factory=dict)
    network: Mapping[str, Any] = field(default_factory=dict)
    thumbnail: Image.Image | None = None

    def metadata(self) -> dict[str, str]:
        """Every key of the header but the hashes, which save_lora adds."""
        return {**self._kohya(), **self._modelspec()}

    @property
    def title(self) -> str:
        return f"{self.name} ({self.role})"

    @property
    def description(self) -> str:
        """One sentence for cards and hubs."""
        what = "The subject" if self.role == "content" else "The style"
        return (
            f"{what} of one image, learned together with its {self._other}. Trigger: "
            f'"{self.trigger}". Works alone or added to the {self._other} LoRA of the same pair.'
        )

    @property
    def _other(self) -> str:
        return "style" if self.role == "content" else "content"

    def _kohya(self) -> dict[str, str]:
        width, height = self.resolution
        arguments = {
            "role": self.role,
            "pair": self.pair,
            "method": self.method,
            "architecture": self.architecture,
            "family": self.family,
            "memory_plan": self.plan,
            "fused_backward": self.fused_backward,
            "trigger": self.trigger,
            "prompts": dict(self.prompts),
            "open_columns": {group: round(share, 4) for group, share in self.open_columns.items()},
            "software": self.software,
            **self.network,
        }
        values: dict[str, Any] = {
            "ss_v2": False,
            "ss_base_model_version": "sdxl_base_v1-0",
            "ss_network_module": "networks.lora",
            "ss_network_dim": self.rank,
            "ss_network_alpha": self.alpha,
            "ss_network_args": arguments,
            "ss_output_name": self.name,
            "ss_session_id": self.pair,
            "ss_training_comment": self.description,
            "ss_training_started_at": self.started,
            "ss_training_finished_at": self.finished,
            "ss_steps": self.steps,
            "ss_max_train_steps": self.planned_steps,
            "ss_epoch": 1,
            "ss_num_epochs": 1,
            "ss_num_train_images": 1,
            "ss_num_reg_images": 0,
            "ss_batch_size_per_device": 1,
            "ss_total_batch_size": 1,
            "ss_learning_rate": self.lr,
            "ss_unet_lr": self.lr,
            "ss_lr_scheduler": self.lr_schedule,
            "ss_optimizer": self.optimizer,
            "ss_max_grad_norm": self.max_grad_norm,
            "ss_min_snr_gamma": self.min_snr_gamma,
            "ss_zero_terminal_snr": self.zero_terminal_snr,
            "ss_seed": self.seed,
            "ss_mixed_precision": self.mixed_precision,
            "ss_gradient_checkpointing": self.checkpointing,
            "ss_resolution": f"({width}, {height})",
            "ss_enable_bucket": False,
            "ss_bucket_info": {"buckets": {"0": {"resolution": [width, height], "count": 1}}},
            "ss_dataset_dirs": {self.role: {"n_repeats": 1, "img_count": 1}},
            "ss_tag_frequency": {self.role: {self.trigger: 1}},
            "ss_sd_model_name": PureWindowsPath(self.model_name).name,  # it knows both slashes
        }
        if self.model_sha256 is not None:
            values["ss_new_sd_model_hash"] = self.model_sha256
        return {key: _text(value) for key, value in values.items()}

    def _modelspec(self) -> dict[str, str]:
        width, height = self.resolution
        finished = datetime.fromtimestamp(self.finished, timezone.utc)
        values = {
            "sai_model_spec": "1.0.1",
            "architecture": "stable-diffusion-xl-v1-base/lora",
            "implementation": "https://github.com/Stability-AI/generative-models",
            "title": self.title,
            "description": self.description,
            "date": finished.replace(microsecond=0, tzinfo=None).isoformat(),
            "resolution": f"{width}x{height}",
            "trigger_phrase": self.trigger,
            "usage_hint": f'Weight 1, with "{self.trigger}" in the prompt.',
            "tags": "Object" if self.role == "content" else "Style",
            "prediction_type": "v" if self.prediction_type == "v_prediction" else "epsilon",
        }
        if self.thumbnail is not None:
            values["thumbnail"] = _data_url(self.thumbnail)
        return {f"modelspec.{key}": value for key, value in values.items()}


@dataclass(frozen=True)
class LoraInfo:
    """What a file's header says of it; None or empty where it does not say.

    role: content, style or merged. pair: an id that the two files of a pair share. trigger: what
    calls it in a prompt. rank: of most layers. alpha: of most layers, as kohya writes it. date:
    ISO 8601. tensor_hash: sshs_model_hash. notes: what could not be read, a sentence each.
    """

    role: str | None = None
    pair: str | None = None
    method: str | None = None
    trigger: str | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    architecture: str | None = None
    family: str | None = None
    plan: str | None = None
    software: str | None = None
    title: str | None = None
    model_name: str | None = None
    model_sha256: str | None = None
    prediction_type: str | None = None
    steps: int | None = None
    rank: int | None = None
    date: str | None = None
    tensor_hash: str | None = None
    notes: tuple[str, ...] = ()


def read_info(path: Path) -> LoraInfo:
    """What a file says of itself; nothing where it is no .safetensors file."""
    return info_of(read_metadata(path))


def info_of(metadata: Mapping[str, str]) -> LoraInfo:
    """The typed form of a header."""
    notes: list[str] = []
    ours = json_object(metadata, "ss_network_args", notes)
    prompts = ours.get("prompts")
    texts = prompts.items() if isinstance(prompts, dict) else ()
    return LoraInfo(
        role=_word(ours.get("role")),
        pair=_word(ours.get("pair")),
        method=_word(ours.get("method")),
        trigger=_word(ours.get("trigger")) or _word(metadata.get("modelspec.trigger_phrase")),
        prompts={str(key): text for key, value in texts if (text := _word(value)) is not None},
        architecture=_word(ours.get("architecture")),
        family=_word(ours.get("family")),
        plan=_word(ours.get("memory_plan")),
        software=_word(ours.get("software")) or _word(metadata.get("ss_network_module")),
        title=_word(metadata.get("modelspec.title")) or _word(metadata.get("ss_output_name")),
        model_name=_word(metadata.get("ss_sd_model_name")),
        model_sha256=_word(metadata.get("ss_new_sd_model_hash")),
        prediction_type=_word(metadata.get("modelspec.prediction_type")),
        steps=_number(metadata.get("ss_steps")),
        rank=_number(metadata.get("ss_network_dim")),
        date=_word(metadata.get("modelspec.date")),
        tensor_hash=_word(metadata.get("sshs_model_hash")),
        notes=tuple(notes),
    )


def merged_metadata(
    name: str,
    rank: int,
    parts: Sequence[tuple[str, float, str, Mapping[str, str]]],
    description: str,
    made_by: Mapping[str, object],
) -> dict[str, str]:
    """The header of a merged file: the first part's, with what is no longer true replaced.

    parts: name, weight, tensor hash and header of each. description: a sentence. made_by: the
    method of merging, and its number.
    """
    infos = [info_of(metadata) for *_, metadata in parts]
    trigger = ", ".join(dict.fromkeys(info.trigger for info in infos if info.trigger))
    arguments = {
        "role": "merged",
        "trigger": trigger,
        **made_by,
        "of": [{"name": one, "weight": w, "hash": digest[:12]} for one, w, digest, _ in parts],
        "family": _common([info.family for info in infos]),
        "architecture": _common([info.architecture for info in infos]),
    }
    kept = {
        key: value
        for key, value in parts[0][3].items()
        if key.startswith(("ss_", "modelspec.")) and "hash" not in key and "thumbnail" not in key
    }
    return {
        **kept,
        "ss_base_model_version": kept.get("ss_base_model_version", "sdxl_base_v1-0"),
        "ss_output_name": name,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(float(rank)),
        "ss_network_args": json.dumps(arguments, ensure_ascii=False),
        "ss_training_comment": description,
        "ss_tag_frequency": json.dumps({"merged": {trigger: 1}}, ensure_ascii=False),
        "modelspec.title": name,
        "modelspec.trigger_phrase": trigger,
        "modelspec.usage_hint": f'Weight 1, with "{trigger}" in the prompt.',
    }


def _common(words: Sequence[str | None]) -> str | None:
    """What all say, or None where they differ."""
    return words[0] if len(set(words)) == 1 else None


def part_metadata(
    metadata: Mapping[str, str], path: Path, role: BranchName, pair: str, trigger: str, method: str
) -> dict[str, str]:
    """The header of a part of somebody's file, as one of a pair: its own header with what is no
    longer true replaced. path: of the part."""
    arguments = json_object(metadata, "ss_network_args", [])
    kept = {k: v for k, v in metadata.items() if "hash" not in k and "thumbnail" not in k}
    # diffusers' own scales, which it refuses beside the alphas that are written
    kept = {k: v for k, v in kept.items() if k not in ("lora_adapter_metadata", "format")}
    made = {"role": role, "method": method, "trigger": trigger}
    return renamed(
        {
            **kept,
            "ss_base_model_version": kept.get("ss_base_model_version", "sdxl_base_v1-0"),
            "ss_network_module": "networks.lora",
            "ss_network_args": json.dumps({**arguments, **made}, ensure_ascii=False),
            "ss_tag_frequency": json.dumps({role: {trigger: 1}}, ensure_ascii=False),
            "modelspec.trigger_phrase": trigger,
        },
        path.stem,
        pair,
    )


def renamed(metadata: Mapping[str, str], name: str, pair: str) -> dict[str, str]:
    """The header of one of our files as that of a copy: its file's stem and the id of its pair."""
    arguments = {**json_object(metadata, "ss_network_args", []), "pair": pair}
    return {
        **metadata,
        "ss_output_name": name,
        "ss_session_id": pair,
        "ss_network_args": json.dumps(arguments, ensure_ascii=False),
        "modelspec.title": f"{name} ({arguments.get('role')})",
    }


def json_object(metadata: Mapping[str, str], key: str, notes: list[str]) -> dict[str, Any]:
    """A value that is a JSON object; empty, with a note, where it should be one and is not."""
    text = metadata.get(key)
    if not text or text == "None":  # kohya's way to say that there are no arguments
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        notes.append(f"{key} in its header cannot be read.")
        return {}
    return value if isinstance(value, dict) else {}


def _word(value: Any) -> str | None:
    """Text as it can be shown on one line; None for what says nothing."""
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        return None
    text = "".join(c if c.isprintable() else " " for c in str(value)[:_LONGEST]).strip()
    return text if text not in ("", "None") else None


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _text(value: Any) -> str:
    """As kohya writes values: JSON for objects, Python's words for the rest."""
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _data_url(image: Image.Image) -> str:
    """A JPEG of at most 256 x 256 pixels, as ModelSpec wants thumbnails."""
    small = image.convert("RGB")
    small.thumbnail((256, 256))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
