"""What a LoRA file says of itself: kohya's ss_ keys and ModelSpec 1.0.1, all strings.

Sources: kohya-ss/sd-scripts train_network.py:1003-1065 and library/train_util.py:3455-3469 (ss_),
library/sai_model_spec.py:38-66 (ModelSpec). Base names only: no path of the user is ever written.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import PureWindowsPath
from typing import Any

from PIL import Image

from unziplora.method.prompts import BranchName


@dataclass(frozen=True)
class Header:
    """One file of a pair.

    role: content or style. name: the file's stem, different for every file. pair: an id that both
    files share. trigger: what calls it in a prompt. open_columns: share of open columns by group,
    0 to 1. model_sha256: of the base checkpoint. started, finished: seconds since 1970.
    resolution: (width, height) in pixels. network: whatever else says how it was made.
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
    checkpointing: bool
    max_grad_norm: float
    min_snr_gamma: float | None
    software: str
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
