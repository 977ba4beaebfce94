"""What a LoRA file is: header, layers, rank, open columns and norm by group."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unziplora.errors import InvalidInput
from unziplora.lora.metadata import info_of
from unziplora.lora.read import LoraFile, read_lora
from unziplora.lora.write import LoraLayer, tensor_hash
from unziplora.unet.architectures import architecture_of, family
from unziplora.unet.layer_names import group_of, reads_text


@dataclass(frozen=True)
class GroupReport:
    """One attention group. open_columns: share of the file's rows of lora_up that are not zero, 0
    to 1. norm: Frobenius norm of alpha/r * up @ down over the group's finite layers."""

    group: str
    layers: int
    open_columns: float
    norm: float


@dataclass(frozen=True)
class Report:
    """What `inspect` shows. header: the essentials, by a readable name. hash_matches: whether the
    stored sshs_model_hash is that of the tensors, or None where none is stored."""

    name: str
    kind: str
    architecture: str
    layers: int
    ranks: dict[int, int]
    parameters: int
    groups: list[GroupReport]
    others: dict[str, int]
    not_finite: list[str]
    hash_matches: bool | None
    header: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def as_text(self) -> str:
        """A page of plain text."""
        ranks = ", ".join(f"{rank} ({count} layers)" for rank, count in self.ranks.items())
        lines = [
            self.name,
            f"  format        {self.kind}",
            f"  model         {self.architecture}",
            f"  layers        {self.layers}, {self.parameters / 1e6:.1f} M parameters",
            f"  rank          {ranks or 'none'}",
        ]
        lines += [f"  {what:<13} {text}" for what, text in self.header.items()]
        if self.hash_matches is not None:
            lines.append(f"  hash          {'matches' if self.hash_matches else 'DOES NOT MATCH'}")
        lines += [f"  also          {count} {what}" for what, count in self.others.items()]
        lines += [f"  NOT FINITE    {layer}" for layer in self.not_finite]
        if self.groups:
            lines += ["", f"  {'group':<20}{'layers':>7}{'open columns':>15}{'norm':>11}"]
            lines += [
                f"  {g.group:<20}{g.layers:>7}{g.open_columns:>14.1%} {g.norm:>10.4g}"
                for g in self.groups
            ]
        return "\n".join(lines)


def inspect(path: str | Path) -> Report:
    """Reads a LoRA file, ours or another's. Raises InvalidInput for what is none."""
    file = read_lora(Path(path))
    ranks: dict[int, int] = {}
    for layer in file.layers.values():
        ranks[layer.down.shape[0]] = ranks.get(layer.down.shape[0], 0) + 1
    return Report(
        name=file.path.name,
        kind=file.kind,
        architecture=_architecture(file.layers),
        layers=len(file.layers),
        ranks=dict(sorted(ranks.items())),
        parameters=sum(lora.down.numel() + lora.up.numel() for lora in file.layers.values()),
        groups=_groups(file.layers),
        others=dict(file.others),
        not_finite=[name for name, lora in file.layers.items() if not _finite(lora)],
        hash_matches=_hash_matches(file),
        header=_header(file.metadata),
    )


def _finite(lora: LoraLayer) -> bool:
    finite = bool(lora.down.isfinite().all() and lora.up.isfinite().all())
    return finite and math.isfinite(lora.alpha)


def _architecture(layers: Mapping[str, LoraLayer]) -> str:
    """The family's member whose layers these are; a LoRA may leave some of them out."""
    if not layers:
        return "unknown: no attention layer of an SDXL-family UNet"
    try:
        return architecture_of(layers).name
    except InvalidInput:
        pass
    widths = {lora.down.shape[1] for layer, lora in layers.items() if reads_text(layer)}
    for width, older in ((768, "SD 1"), (1024, "SD 2")):
        if widths == {width}:
            return f"not SDXL: its text is {width} wide, as in {older}"
    used = {group_of(layer) for layer in layers}
    fitting = [name for name, member in family().items() if used <= member.groups.keys()]
    return f"a part of {' or '.join(fitting)}" if fitting else "unknown"


def _groups(layers: Mapping[str, LoraLayer]) -> list[GroupReport]:
    members: dict[str, list[LoraLayer]] = {}
    for name, lora in layers.items():
        members.setdefault(group_of(name), []).append(lora)
    order = list(family()["sdxl"].groups) + list(family()["koala-1b"].groups)
    reports = []
    for group in sorted(members, key=lambda g: order.index(g) if g in order else len(order)):
        loras = members[group]
        rows = torch.cat([lora.up.float().abs().amax(dim=1) for lora in loras])
        norm = sum(_squared_norm(lora) for lora in loras if _finite(lora)) ** 0.5
        opened = (rows > 0).float().mean().item()
        reports.append(GroupReport(group, len(loras), opened, norm))
    return reports


def _squared_norm(lora: LoraLayer) -> float:
    """|s B A|_F^2 = s^2 tr((B^T B)(A A^T)): the (out, in) product is never formed."""
    down, up = lora.down.double(), lora.up.double()
    scale = lora.alpha / down.shape[0]
    product: Tensor = (up.T @ up) * (down @ down.T)
    return max(0.0, scale**2 * product.sum().item())


def _hash_matches(file: LoraFile) -> bool | None:
    stored = file.metadata.get("sshs_model_hash")
    return None if stored is None else tensor_hash(file.path) == stored


def _header(metadata: Mapping[str, str]) -> dict[str, str]:
    """The essentials under readable names, ours first."""
    info = info_of(metadata)
    wanted = {
        "role": info.role,
        "pair": info.pair,
        "method": info.method,
        "trigger": info.trigger,
        "title": info.title,
        "base": info.model_name,
        "base family": info.family,
        "base sha256": info.model_sha256,
        "prediction": info.prediction_type,
        "steps": info.steps,
        "memory plan": info.plan,
        "made by": info.software,
        "date": info.date,
    }
    return {what: str(value)[:200] for what, value in wanted.items() if value is not None}
