"""What a run will need of a device's memory, and which plan fits what is free.

Weights, LoRAs and moments are counted exactly; what else a step needs at its peak comes from
memory.json, which `python -m benchmarks.memory` writes by simulation. A simulation sees neither the
CUDA context nor fragmentation, so a margin is added: 5 % and 0.3 GB. GB are 1e9 bytes.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unziplora.errors import InvalidInput
from unziplora.method.methods import METHODS
from unziplora.method.prompts import BRANCHES
from unziplora.training.device import bytes_on
from unziplora.training.memory_plans import PLANS, Plan, is_small
from unziplora.training.settings import ResolvedSettings
from unziplora.unet.architectures import recognise
from unziplora.unet.attach import layer_shapes
from unziplora.unet.layer_names import group_of
from unziplora.unet.recompute import transformer_blocks
from unziplora.unet.weight_cast import fp8_bytes, in_fp16

TABLE = Path(__file__).with_name("memory.json")
MEMINFO = Path("/proc/meminfo")  # Linux
_MARGIN, _FIXED_MARGIN = 1.05, 0.3  # a factor, GB
_ALL_KEPT = 1.45  # of what "full" works with on a large UNet, where a small one keeps all


@dataclass(frozen=True)
class Forecast:
    """needs: GB of each plan, the margin included; free: GB that a run can have, the model's own
    included, or None where that is not known. plan: the one that will be taken. kept_share: of what
    "selective" keeps and "checkpoint" does not, the share that the plan keeps, 0 to 1. kind: of
    memory, "VRAM" or, without a GPU, "RAM". total: of the device's memory, in GB as it is sold
    (2^30 bytes), where that is known."""

    architecture: str
    resolution: int
    rank: int
    needs: Mapping[str, float]
    free: float | None
    plan: Plan
    kept_share: float = 0.0
    kind: str = "VRAM"
    total: int | None = None

    @property
    def need(self) -> float:
        """GB of the plan that will be taken."""
        least, share = self.needs[self.plan.name], self.kept_share
        return least + share * (self.needs["selective"] - least)

    @property
    def fits(self) -> bool:
        return self.free is None or self.need <= self.free

    @property
    def text(self) -> str:
        """ "VRAM: about 9.1 GB of 10.4 GB free (plan: checkpoint)" """
        free = "" if self.free is None else f" of {self.free:.1f} GB free"
        doubt = "" if self.fits else ", may not fit"
        return f"{self.kind}: about {self.need:.1f} GB{free} (plan: {self.plan.name}{doubt})"

    @property
    def percent_slower(self) -> int:
        """Than the fastest plan, in time of a step, as expected."""
        saved = PLANS["checkpoint"].slowdown - PLANS["selective"].slowdown
        return round(100 * (self.plan.slowdown - self.kept_share * saved))

    @property
    def choice(self) -> str:
        """ "Fits your 12 GB: about 20 % slower than the fastest plan" """
        slower = f"about {self.percent_slower} % slower than the fastest plan"
        pace = slower if self.percent_slower else "the fastest plan"
        if self.total is None:
            return pace[0].upper() + pace[1:]
        return f"{'Fits' if self.fits else 'May not fit'} your {self.total} GB: {pace}"

    def as_text(self) -> str:
        """A line for each plan, and what auto does."""
        lines = [f"{self.architecture}, {self.resolution} px, rank {self.rank}"]
        lines += [f"  {name:<10} {need:5.1f} GB" for name, need in self.needs.items()]
        margin = f"{100 * (_MARGIN - 1):.0f} % and {_FIXED_MARGIN} GB"
        lines.append(f"Simulated, with {margin} more for what a simulation does not see.")
        return "\n".join([*lines, self.text, self.choice])

    def as_json(self) -> dict[str, Any]:
        derived = {"plan": self.plan.name, "need": self.need, "fits": self.fits}
        return {**asdict(self), **derived, "text": self.text, "choice": self.choice}


def forecast(
    unet: nn.Module,
    device: torch.device,
    settings: ResolvedSettings,
    stated: str | None = None,
    freed: int = 0,
) -> Forecast:
    """The UNet may be on the meta device, to know before loading. stated: which architecture the
    model says it is, where it does. freed: bytes of the device that a run frees before its steps.

    Raises InvalidInput where the settings name a plan that this model or device cannot run.
    """
    architecture = recognise(unet, stated).name
    needs = {name: _need(unet, settings, plan, architecture) for name, plan in PLANS.items()}
    free = free_memory(device, unet)
    free = None if free is None else free + freed / 1e9
    plan, share = _chosen(settings.memory, needs, free, unet, device)
    kind = "RAM" if device.type == "cpu" else "VRAM"
    place = (architecture, settings.resolution, settings.rank)
    return Forecast(*place, needs, free, plan, share, kind, total_memory(device))


def _chosen(
    name: str,
    needs: Mapping[str, float],
    free: float | None,
    unet: nn.Module,
    device: torch.device,
) -> tuple[Plan, float]:
    """The plan of that name; for "auto" the fastest that fits, or the smallest where none does.
    Beside it the share of its blocks' activations that it keeps."""
    if name != "auto":
        if reason := _refusal(PLANS[name], unet, device):
            raise InvalidInput(reason)
        return PLANS[name], 0.0
    if free is None:
        return PLANS["full" if is_small(unet) else "checkpoint"], 0.0
    able = [plan for plan in PLANS.values() if _pays(plan, unet, device)]
    plan = next((plan for plan in able if needs[plan.name] <= free), able[-1])
    return _with_blocks_kept(plan, needs, free, unet) if plan.name == "checkpoint" else (plan, 0.0)


def _with_blocks_kept(
    plan: Plan, needs: Mapping[str, float], free: float, unet: nn.Module
) -> tuple[Plan, float]:
    """As many blocks as fit are not made again as a whole."""
    more = needs["selective"] - needs["checkpoint"]
    room = (free - needs["checkpoint"]) / more if more > 0 else 0.0
    kept, share = 0, 0.0
    for _, cost in transformer_blocks(unet):
        if share + cost > room:
            break
        kept, share = kept + 1, share + cost
    return (replace(plan, kept_blocks=kept), share) if kept else (plan, 0.0)


def smaller(plan: Plan, unet: nn.Module, device: torch.device) -> Plan | None:
    """The next plan that this model and device can run, or None."""
    if plan.kept_blocks:
        return PLANS[plan.name]
    for other in list(PLANS.values())[list(PLANS).index(plan.name) + 1 :]:
        if _pays(other, unet, device):
            return other
    return None


def smallest(unet: nn.Module, device: torch.device) -> Plan:
    """The plan that needs least of those that this model and device can run."""
    return [plan for plan in PLANS.values() if _pays(plan, unet, device)][-1]


def trained_weights(unet: nn.Module, settings: ResolvedSettings, architecture: str) -> int:
    """Numbers in all A and B of a run."""
    method, weights = METHODS[settings.method].on(architecture), 0
    for layer, (rows, columns) in layer_shapes(unet).items():
        for branch in BRANCHES:
            if method.trains(branch, group_of(layer)):
                weights += settings.rank_of(group_of(layer)) * (rows + columns)
    return weights


def free_memory(device: torch.device, unet: nn.Module) -> float | None:
    """GB that a run can have: what is free, what torch holds unused, and the model's own."""
    own = bytes_on(device, unet.parameters())
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (free + unused + own) / 1e9
    if device.type == "cpu":
        available = _memory_of_computer("MemAvailable")
        return None if available is None else (available + own) / 1e9
    return None


def total_memory(device: torch.device) -> int | None:
    """Of the device, in GB as it is sold; None where that is not known."""
    if device.type == "cuda":
        return round(torch.cuda.get_device_properties(device).total_memory / 2**30)
    total = _memory_of_computer("MemTotal") if device.type == "cpu" else None
    return None if total is None else round(total / 2**30)


def simulated(
    architecture: str, resolution: int, rank: int, plan: str, key: str = "peak_gb"
) -> float | None:
    """A figure of memory.json, in GB, between its ranks and resolutions too (it is linear in rank
    and in pixels); None for an architecture that is not in it."""
    rows = {
        (row["rank"], row["resolution"] ** 2): float(row[key])
        for row in _table()
        if row["architecture"] == architecture and row["plan"] == plan
    }
    if not rows:
        return None
    ranks, pixels = (sorted({place[axis] for place in rows}) for axis in (0, 1))
    r0, r1, r = _around(ranks, rank)
    p0, p1, p = _around(pixels, resolution**2)
    low = (1 - r) * rows[r0, p0] + r * rows[r1, p0]
    high = (1 - r) * rows[r0, p1] + r * rows[r1, p1]
    return (1 - p) * low + p * high


class SpillWatch:
    """Tells a step that ran in shared memory: five times slower than the median of those before it
    while the GPU is full. Windows' driver does that instead of reporting a full GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._reported = False

    def message(self, seconds: float, median: float | None) -> str | None:
        """What to tell the user after a step, once a run."""
        if self._reported or self._device.type != "cuda" or median is None or seconds < 5 * median:
            return None
        free, total = torch.cuda.mem_get_info(self._device)
        if free > 0.03 * total:
            return None
        self._reported = True
        return (
            f"A step took {seconds:.0f} s instead of {median:.0f}, because the GPU is full and its "
            "driver moves memory to the computer's. Close other programs that use the GPU, or "
            "resume the run with a smaller memory plan or resolution."
        )


def is_full(error: BaseException) -> bool:
    """Whether an exception says that a device's memory is full."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    # torch has no class of its own for these on a CPU and on Apple's GPUs
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _need(unet: nn.Module, settings: ResolvedSettings, plan: Plan, architecture: str) -> float:
    """GB of a plan at its peak, the margin included."""
    base = sum(p.numel() * p.element_size() for p in unet.parameters())
    moments = 2 if plan.eight_bit else 8  # bytes a weight; scales are a 32nd of them
    sums = 4 if settings.average_last else 0  # in fp32
    # a leak's gradients wait for the step's others; elsewhere they lie in the same place
    waiting = plan.lora_dtype.itemsize if plan.in_backward and settings.leak_penalty else 0
    per_weight = plan.lora_dtype.itemsize + moments + sums + waiting
    loras = trained_weights(unet, settings, architecture) * per_weight / 1e9
    working = _working(unet, settings, plan.name, architecture)
    held = (fp8_bytes(unet) if plan.fp8_base else base) / 1e9 + loras
    return _MARGIN * (held + working) + _FIXED_MARGIN


def _working(unet: nn.Module, settings: ResolvedSettings, plan: str, architecture: str) -> float:
    """GB of activations, gradients and temporaries at the peak, in the base's own precision."""
    scale = 1.0
    size = (settings.resolution, max(settings.rank, *(settings.rank_by_group or {}).values(), 1))
    found = _measured(architecture, *size, plan)
    if found is None:  # another size of the same shape
        found = _measured("sdxl", *size, plan) or 0.0
        scale = sum(p.numel() for p in unet.parameters()) / 2.567e9
    if plan == "full" and is_small(unet):
        scale *= _ALL_KEPT
    width = max(2, next(unet.parameters()).element_size())  # the table's is 2 bytes
    return max(0.0, found) * scale * width / 2


def _measured(architecture: str, resolution: int, rank: int, plan: str) -> float | None:
    """What a plan works with by the table, or, where it has no rows, what `full` does: no plan
    needs more."""
    for known in (plan, "full"):
        found = simulated(architecture, resolution, rank, known, "working_gb")
        if found is not None:
            return found
    return None


def _pays(plan: Plan, unet: nn.Module, device: torch.device) -> bool:
    """Whether a plan can run and saves memory: on a CPU, originals and fp8 copies would lie in the
    same."""
    return not _refusal(plan, unet, device) and not (plan.fp8_base and device.type == "cpu")


def _refusal(plan: Plan, unet: nn.Module, device: torch.device) -> str | None:
    """Why this plan cannot run, in two sentences."""
    if plan.in_backward and in_fp16(unet) and not has_bf16(device):
        return (
            f"The memory plan {plan.name} computes in bf16, which this GPU does not do here. "
            "Choose checkpoint, with a lower rank or resolution if the memory is small."
        )
    if plan.fp8_base and device.type not in ("cuda", "cpu", "xpu"):
        return (
            f"The memory plan {plan.name} needs fp8, which {device.type} does not have. Choose low."
        )
    return None


def has_bf16(device: torch.device) -> bool:
    """NVIDIA's cards have it from the RTX 30 series on; torch only emulates it on older ones. On
    Apple's and Intel's, A1111 casts layers to fp16 by hand (modules/devices.py:240)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu"


def _memory_of_computer(what: str) -> int | None:
    """Bytes of all its memory ("MemTotal"), or of what programs can have without swapping
    ("MemAvailable"); Linux says."""
    try:
        text = MEMINFO.read_text("ascii")
    except OSError:
        return None
    found = re.search(rf"^{what}:\s+(\d+) kB", text, re.MULTILINE)
    return 1024 * int(found[1]) if found else None


def _around(places: Sequence[int], x: int) -> tuple[int, int, float]:
    """The two neighbours of x, or the two nearest, and where x lies between them (0 to 1)."""
    low, high = places[0], places[1]
    for nearer, further in itertools.pairwise(places):
        if x >= nearer:
            low, high = nearer, further
    return low, high, (x - low) / (high - low)


@lru_cache(maxsize=1)
def _table() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(TABLE.read_text("utf-8"))["rows"]
    return rows
