"""What a LoRA file is: header, layers, rank, open columns and norm by group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from unziplora.errors import InvalidInput
from unziplora.lora.adapter_values import all_finite, inputs, parameters
from unziplora.lora.algorithms import Adapter, LoraLayer, WithBias
from unziplora.lora.metadata import LoraInfo
from unziplora.lora.read import LoraFile, read_lora
from unziplora.lora.write import tensor_hash
from unziplora.unet.architectures import architecture_of, family
from unziplora.unet.layer_names import group_of, is_attention_layer, reads_text


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
    """What `inspect` shows. kind: whose way of naming. algorithms: modules by kind. header: the
    essentials, by a readable name. hash_matches: whether the stored sshs_model_hash is that of the
    tensors, or None where none is stored."""

    name: str
    kind: str
    algorithms: dict[str, int]
    architecture: str
    layers: int
    ranks: dict[int, int]
    parameters: int
    groups: list[GroupReport]
    others: dict[str, int]
    not_finite: list[str]
    hash_matches: bool | None
    header: dict[str, str]
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def as_text(self) -> str:
        """A page of plain text."""
        ranks = ", ".join(f"{rank} ({count} layers)" for rank, count in self.ranks.items())
        lines = [
            self.name,
            f"  format        {self.kind}",
            f"  kind          {', '.join(self.algorithms) or 'none that can be read'}",
            f"  model         {self.architecture}",
            f"  layers        {self.layers}, {self.parameters / 1e6:.1f} M parameters",
            f"  rank          {ranks or 'none'}",
        ]
        lines += [f"  {what:<13} {text}" for what, text in self.header.items()]
        if self.hash_matches is not None:
            lines.append(f"  hash          {'matches' if self.hash_matches else 'DOES NOT MATCH'}")
        lines += [f"  also          {count} {what}" for what, count in self.others.items()]
        lines += [f"  note          {note}" for note in self.notes]
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
    factors = {t: lora for t, a in file.adapters.items() if (lora := _lora(a)) is not None}
    attention = {
        t.module: lora
        for t, lora in factors.items()
        if t.network == "unet" and is_attention_layer(t.module)
    }
    return Report(
        name=file.path.name,
        kind=file.layout,
        algorithms=file.kinds,
        architecture=_architecture(file),
        layers=len(file.adapters),
        ranks=dict(sorted(Counter(lora.rank for lora in factors.values()).items())),
        parameters=sum(map(parameters, file.adapters.values())),
        groups=_groups(attention),
        others=_others(file),
        not_finite=[t.module for t, a in file.adapters.items() if not all_finite(a)],
        hash_matches=_hash_matches(file),
        header=_header(file.info),
        notes=list(file.notes),
    )


def _lora(adapter: Adapter) -> LoraLayer | None:
    """Its two factors, with or without a bias beside them."""
    if isinstance(adapter, WithBias):
        adapter = adapter.inner
    return adapter if isinstance(adapter, LoraLayer) else None


def _others(file: LoraFile) -> dict[str, int]:
    """What is not in the UNet's attention, and what could not be read."""
    found: Counter[str] = Counter()
    for target in file.adapters:
        if target.network != "unet":
            found["text encoder modules"] += 1
        elif not is_attention_layer(target.module):
            found["modules of the UNet beside attention"] += 1
    return {**found, **file.left_out}


def _architecture(file: LoraFile) -> str:
    """The family's member whose layers these are; a LoRA may leave some of them out."""
    layers = {
        target.module: adapter
        for target, adapter in file.adapters.items()
        if target.network == "unet" and is_attention_layer(target.module)
    }
    if file.model:
        return f"not SDXL: its layers are those of {file.model}"
    if not layers:
        return "unknown: no attention layer of an SDXL-family UNet"
    try:
        found = architecture_of(layers, file.info.architecture)
    except InvalidInput:
        return _older_model(layers) or _part_of(layers)
    if found.name in family():
        return found.name
    blocks, sdxls = (sum(one.groups.values()) for one in (found, family()["sdxl"]))
    return f"{found.name}: SDXL's groups with {blocks} transformer blocks instead of {sdxls}"


def _older_model(layers: Mapping[str, Adapter]) -> str | None:
    """By the width of the text that its layers read."""
    widths = {inputs(adapter) for layer, adapter in layers.items() if reads_text(layer)}
    for width, older in ((768, "SD 1"), (1024, "SD 2")):
        if widths == {width}:
            return f"not SDXL: its text is {width} wide, as in {older}"
    return None


def _part_of(layers: Iterable[str]) -> str:
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
        norm = sum(_squared_norm(lora) for lora in loras if all_finite(lora)) ** 0.5
        opened = (rows > 0).float().mean().item()
        reports.append(GroupReport(group, len(loras), opened, norm))
    return reports


def _squared_norm(lora: LoraLayer) -> float:
    """|s B A|_F^2 = s^2 tr((B^T B)(A A^T)), from matrices of the rank's size or, where that is the
    larger, from the product: never more memory than the file's own tensors take."""
    down, up = lora.down.flatten(1).double(), lora.up.flatten(1).double()
    if lora.rank <= min(up.shape[0], down.shape[1]):
        return max(0.0, lora.scale**2 * float(((up.T @ up) * (down @ down.T)).sum()))
    return float((lora.scale * (up @ down)).square().sum())


def _hash_matches(file: LoraFile) -> bool | None:
    stored = file.info.tensor_hash
    return None if stored is None else tensor_hash(file.path) == stored


def _header(info: LoraInfo) -> dict[str, str]:
    """The essentials under readable names, ours first."""
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
