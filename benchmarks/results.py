"""What benchmarks share: where and with what they ran, resident memory, and hashes to compare
runs and models by."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import peft
import torch

from unziplora.lora.tensor_file import read_metadata


def machine() -> dict[str, Any]:
    """Date, processor, threads and versions."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "peft": peft.__version__,
    }


def write(path: Path | None, result: Mapping[str, Any]) -> None:
    """The result with its machine as JSON, where a file is named."""
    if path is not None:
        path.write_text(json.dumps({"machine": machine(), **result}, indent=1) + "\n", "utf-8")


def described() -> str:
    """The machine on one line."""
    return ", ".join(f"{key} {value}" for key, value in machine().items() if value is not None)


def resident() -> int:
    """Bytes of this process that lie in memory; 0 where the system does not say (not Linux)."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def pair_hashes(out: Path, name: str = "pair") -> tuple[str, ...]:
    """Of the tensors in a pair's two files; "missing" where a header has none."""
    return tuple(
        read_metadata(out / f"{name}_{role}.safetensors").get("sshs_model_hash", "missing")
        for role in ("content", "style")
    )


def model_checksum(host: Any) -> str:
    """Of the UNet's weights, of what asks for gradients, and of forwards that lie on instances."""
    digest = hashlib.sha256()
    for name, tensor in sorted(host.unet.state_dict(keep_vars=True).items()):
        digest.update(f"{name} {tensor.requires_grad} {tensor.grad is None}".encode())
        digest.update(tensor.detach().numpy().tobytes())
    for name, module in host.unet.named_modules():
        hooks = len(module._forward_hooks) + len(module._forward_pre_hooks)
        digest.update(f"{name} {module.training} {'forward' in module.__dict__} {hooks}".encode())
    return digest.hexdigest()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
