"""What a file or folder is, before any of its tensors is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import yaml

from unziplora.checkpoints.configs import HEAD_CHANNELS, VAE_SCALE, unet_shape
from unziplora.checkpoints.header import CheckpointHeader, read_header
from unziplora.checkpoints.hints import (
    DEFAULTS,
    SDXL_RESOLUTION,
    defaults_in,
    defaults_of,
    family_in,
)
from unziplora.checkpoints.key_map import UNET, VAE
from unziplora.checkpoints.load import read_json, weights_in
from unziplora.checkpoints.model_path import model_name, model_path
from unziplora.checkpoints.unsupported import refuse_file, refuse_folder
from unziplora.errors import InvalidInput
from unziplora.host import Defaults, PredictionType
from unziplora.unet.architectures import Architecture, architecture_of
from unziplora.unet.layer_names import sgm_name

_SCHEDULE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")


@dataclass(frozen=True)
class ModelFile:
    """An SDXL-family model on disk.

    folder: diffusers' layout, else one file in sgm's; zero_snr: its schedule ends in pure noise;
    family: what a hub calls its base model, where its name tells; defaults: what suits it in
    training; schedule: the betas' part of its scheduler's config;
    head_channels, vae_scale: what shapes do not say; the factor of the model's own latents.
    """

    path: Path
    folder: bool
    architecture: Architecture
    prediction_type: PredictionType
    zero_snr: bool
    family: str | None
    has_vae: bool
    defaults: Defaults = field(default_factory=Defaults)
    schedule: dict[str, Any] = field(default_factory=dict)
    head_channels: int = HEAD_CHANNELS
    vae_scale: float = VAE_SCALE

    @property
    def name(self) -> str:
        """What the user calls it (checkpoints/model_path.py)."""
        return model_name(self.path)


def identify(path: str | Path, prediction_type: str | None = None) -> ModelFile:
    """What lies at `path`, from names, shapes and configs alone.

    prediction_type: "epsilon" or "v_prediction", to say it in the model's place.
    Raises InvalidInput, saying what it is instead and what to do, for all but SDXL's family.
    """
    if prediction_type is not None and prediction_type not in get_args(PredictionType):
        raise InvalidInput(
            f"There is no prediction type {prediction_type!r}. Choose epsilon or v_prediction."
        )
    path = model_path(path)
    return (_folder if path.is_dir() else _file)(path, prediction_type)


def _file(path: Path, prediction_type: str | None) -> ModelFile:
    header = read_header(path)
    hints = _yaml(path.with_suffix(".yaml"))
    names = {name.removeprefix(UNET): shape for name, shape in header.shapes.items()
             if name.startswith(UNET)}  # fmt: skip
    try:
        refuse_file(header)
        layers = [name.removesuffix(".weight") for name in names]
        architecture_of(layers)  # before the shapes, to say which family it is not
        defaults = defaults_in(header.metadata, unet_shape(names).widths[0])
        architecture = architecture_of(layers, defaults.architecture)
    except (KeyError, IndexError):  # a layer is missing, or has fewer dimensions than it must
        raise InvalidInput(
            f"The UNet of {path.name} is damaged or of an unknown kind. Choose another checkpoint."
        ) from None
    prediction = (
        prediction_type or _prediction_in(header) or hints.get("prediction_type") or "epsilon"
    )
    return ModelFile(
        path=path,
        folder=False,
        architecture=architecture,
        prediction_type=_prediction(prediction, path),
        zero_snr="ztsnr" in header.shapes,
        family=family_in(path.name + header.metadata.get("modelspec.title", "")),
        has_vae=header.has(VAE),
        defaults=defaults,
        head_channels=hints.get("head_channels", HEAD_CHANNELS),
        vae_scale=hints.get("vae_scale", VAE_SCALE),
    )


def _prediction_in(header: CheckpointHeader) -> str | None:
    """From NoobAI's marker tensor or the ModelSpec header (kohya writes "v" or "epsilon")."""
    if "v_pred" in header.shapes:
        return "v_prediction"
    prediction = header.metadata.get("modelspec.prediction_type", "").lower()
    return {"v": "v_prediction", "epsilon": "epsilon"}.get(prediction, prediction or None)


def _defaults_in_folder(path: Path) -> str:
    index = path / "model_index.json"
    return str(read_json(index).get(f"_{DEFAULTS}", "{}")) if index.is_file() else "{}"


def _yaml(path: Path) -> dict[str, Any]:
    """What the WebUI's config beside a checkpoint says of it (sgm's format), all of it optional."""
    if not path.is_file():
        return {}
    try:
        params = yaml.safe_load(path.read_text("utf-8"))["model"]["params"]
        network = params.get("network_config", {}).get("params", {})
        denoiser = params.get("denoiser_config", {}).get("params", {})
        scaling = str(denoiser.get("scaling_config", {}).get("target", ""))
        hints: dict[str, Any] = {}
        if "num_head_channels" in network:
            hints["head_channels"] = int(network["num_head_channels"])
        if "scale_factor" in params:
            hints["vae_scale"] = float(params["scale_factor"])
        if scaling.endswith("VScaling"):
            hints["prediction_type"] = "v_prediction"
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError
    ):  # fmt: skip
        raise InvalidInput(
            f"{path.name}, the config beside the model, cannot be read. "
            "Repair it, or move it away if the model needs none."
        ) from None
    return hints


def _folder(path: Path, prediction_type: str | None) -> ModelFile:
    refuse_folder(path)
    config = read_json(path / "unet" / "config.json")
    scheduler_file = path / "scheduler" / "scheduler_config.json"
    scheduler = read_json(scheduler_file) if scheduler_file.is_file() else {}
    res_blocks = config.get("layers_per_block", 2)
    layers = [
        sgm_name(name.removesuffix(".weight"), res_blocks)
        for file in weights_in(path / "unet", "UNet")
        for name in read_header(file).shapes
    ]
    sample_size = config.get("sample_size") or SDXL_RESOLUTION // 8
    side = max(sample_size) if isinstance(sample_size, list) else sample_size
    prediction = prediction_type or scheduler.get("prediction_type", "epsilon")
    defaults = defaults_of(8 * side, _defaults_in_folder(path))
    return ModelFile(
        path=path,
        folder=True,
        architecture=architecture_of(layers, defaults.architecture),
        prediction_type=_prediction(prediction, path),
        zero_snr=bool(scheduler.get("rescale_betas_zero_snr")),
        family=family_in(model_name(path)),
        has_vae=(path / "vae" / "config.json").is_file(),
        defaults=defaults,
        schedule={key: scheduler[key] for key in _SCHEDULE if scheduler.get(key) is not None},
        vae_scale=_vae_scale(path / "vae" / "config.json"),
    )


def _vae_scale(config: Path) -> float:
    """Of a model's own VAE."""
    stated = read_json(config).get("scaling_factor") if config.is_file() else None
    return float(stated) if isinstance(stated, (int, float)) else VAE_SCALE


def _prediction(prediction: str, path: Path) -> PredictionType:
    for known in get_args(PredictionType):
        if prediction == known:
            return known  # type: ignore[no-any-return]
    raise InvalidInput(
        f"{path.name} predicts {prediction!r}, which cannot be trained here. Choose a model that "
        "predicts epsilon or v, or say with --prediction-type which of them it does."
    )
