"""From branches to the pair of files: NAME_content and NAME_style."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unziplora.errors import InvalidInput
from unziplora.host import Host
from unziplora.lora.algorithms import LoraLayer
from unziplora.lora.metadata import Header, read_info
from unziplora.lora.pair import pair_files
from unziplora.lora.sidecars import write_side_files
from unziplora.lora.write import save_lora
from unziplora.method.methods import METHODS
from unziplora.method.prompts import BRANCHES, BranchName
from unziplora.training.memory_plans import Plan
from unziplora.training.run_folder import RunInfo
from unziplora.unet.attach import Attachment, layer_shapes
from unziplora.unet.layer_names import group_of
from unziplora.version import __version__


@dataclass(frozen=True)
class TrainingInfo:
    """How a pair came about: steps done, (height, width) of the training image, the memory plan of
    the last steps, and of how many of them it is the mean (0: it is what the last one left)."""

    steps: int
    size: tuple[int, int]
    plan: Plan
    averaged: int = 0


def written_names(name: str) -> set[str]:
    """Of a pair's files and their side files."""
    return {
        f"{name}_{branch}.{ending}"
        for branch in BRANCHES
        for ending in ("safetensors", "json", "png")
    }


def check_free(folder: Path, name: str) -> None:
    """Raises InvalidInput where one of a pair's files, or of their side files, exists."""
    for taken in sorted(written_names(name)):
        if (folder / taken).exists():
            raise InvalidInput(f"{taken} exists already. Choose another name, or overwrite it.")


def check_own(folder: Path, name: str, pair: str) -> None:
    """Raises InvalidInput where a file of the pair's name exists and was not written by the
    pair."""
    for path in pair_files(folder, name).values():
        if path.exists() and read_info(path).pair != pair:
            raise InvalidInput(
                f"{path.name} exists and is not this run's. Move it away, and resume the run again."
            )


def lora_layers(
    attachment: Attachment, branch_name: BranchName, *, fold_mergers: bool
) -> dict[str, LoraLayer]:
    """A branch as plain LoRA layers: masks (and mergers) are multiplied into `up` exactly."""
    with torch.no_grad():
        return {
            layer: LoraLayer(
                branch.down.detach(), branch.folded_up(fold_mergers=fold_mergers), branch.alpha
            )
            for layer, name, branch in attachment.branches()
            if name == branch_name
        }


def write_pair(
    attachment: Attachment,
    info: RunInfo,
    host: Host,
    made: TrainingInfo,
    folder: Path,
    name: str,
    images: Mapping[BranchName, Image.Image],
) -> dict[BranchName, Path]:
    """Writes and checks both files. images: for the thumbnails in their headers.

    Raises UnZipLoRAError; a file is whole or not there.
    """
    files = pair_files(folder, name)
    for branch, path in files.items():
        header = _header(branch, path.stem, attachment, info, host, made, images.get(branch))
        layers = lora_layers(attachment, branch, fold_mergers=info.settings.fold == "h*m")
        save_lora(path, layers, header.metadata(), shapes=layer_shapes(host.unet))
    return files


def write_cards(
    attachment: Attachment,
    info: RunInfo,
    host: Host,
    made: TrainingInfo,
    files: Mapping[BranchName, Path],
    images: Mapping[BranchName, Image.Image],
) -> None:
    """A card beside each file, with an image where there is one. Raises WriteError."""
    for branch, path in files.items():
        image = images.get(branch)
        header = _header(branch, path.stem, attachment, info, host, made, image)
        write_side_files(path, header, image, replace=True)


def _header(
    branch: BranchName,
    name: str,
    attachment: Attachment,
    info: RunInfo,
    host: Host,
    made: TrainingInfo,
    image: Image.Image | None,
) -> Header:
    settings = info.settings
    dtype = next(host.unet.parameters()).dtype
    return Header(
        role=branch,
        name=name,
        pair=info.pair,
        trigger=settings.trigger(branch),
        prompts={p: settings.prompts.text(p) for p in ("combined", "content", "style")},
        method=settings.method,
        rank=settings.rank,
        alpha=settings.alpha,
        steps=made.steps,
        planned_steps=settings.steps,
        lr=settings.lr,
        lr_schedule=settings.lr_schedule,
        optimizer=_optimizer(made.plan),
        seed=settings.seed,
        resolution=(made.size[1], made.size[0]),
        model_name=info.model.name,
        model_sha256=info.model.sha256,
        family=info.model.family,
        prediction_type=settings.predicted(host.prediction_type),
        zero_terminal_snr=bool(host.alphas_cumprod[-1] < 1e-6),  # WebUIs put 5e-8 in 0's place
        architecture=info.architecture,
        started=info.started,
        finished=time.time(),
        mixed_precision=_mixed_precision(dtype, made.plan),
        plan=made.plan.name,
        fused_backward=made.plan.in_backward,
        checkpointing=made.plan.recompute == "blocks",
        max_grad_norm=settings.max_grad_norm,
        min_snr_gamma=settings.min_snr_gamma,
        software=f"unziplora {__version__}",
        open_columns=open_columns(attachment, branch),
        network=_how(info, made),
        thumbnail=image,
    )


def _optimizer(plan: Plan) -> str:
    """What updated A and B; mergers are torch's AdamW under every plan."""
    if plan.in_backward:
        return "unziplora.training.fused_backward.InBackward(AdamW with 8-bit moments)"
    if plan.eight_bit:
        return "unziplora.training.bucket_adam.BucketAdam(AdamW with 8-bit moments)"
    return "torch.optim.AdamW"


def _mixed_precision(dtype: torch.dtype, plan: Plan) -> str:
    """kohya's word for what the base computed in. The small plans differentiate an fp16 base in
    bf16; a base that is kept in fp8 computes in bf16 too."""
    narrow = dtype not in (torch.float32, torch.float64)
    if plan.in_backward and narrow:
        return "bf16"
    return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, "no")


def _how(info: RunInfo, made: TrainingInfo) -> dict[str, Any]:
    """The method's own numbers, for those who compare, and what is beyond the paper."""
    settings = info.settings
    how: dict[str, Any] = {
        "init": settings.init,
        "weight_decay": settings.weight_decay,
    }
    if METHODS[settings.method].columns:
        how |= {
            "columns_percent": settings.columns,
            "recalibrate_every": settings.recalibrate_every,
            "window": settings.window,
            "importance": settings.importance,
            "orthogonality": settings.orthogonality,
            "merger_lr": settings.merger_lr,
            "fold": settings.fold,
        }
    how |= settings.beyond_the_paper
    if made.averaged:
        how["averaged_steps"] = made.averaged
    if settings.blocks is not None:
        how["blocks"] = dict(settings.blocks)
    if info.started_from is not None:
        how["started_from"] = asdict(info.started_from)
    return how


def open_columns(attachment: Attachment, branch_name: BranchName) -> dict[str, float]:
    """Share of open columns by group, 0 to 1."""
    masks: dict[str, list[Tensor]] = {}
    for layer, name, branch in attachment.branches():
        if name == branch_name:
            masks.setdefault(group_of(layer), []).append(branch.mask)
    return {group: torch.cat(m).float().mean().item() for group, m in masks.items()}
