"""What a worker's process opens: the base, and what draws on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unziplora.batch.manifest import BatchJob
from unziplora.batch.samples import Sampling
from unziplora.host import Host


@dataclass(frozen=True)
class HostOptions:
    """How a worker opens the base (StandaloneHost.open's arguments), and what it draws of each
    finished pair."""

    model: str
    vae: str | None = None
    prediction_type: str | None = None
    precision: str = "auto"
    sampling: Sampling | None = None


def open_host(options: HostOptions) -> Host:
    """Raises InvalidInput for what is no SDXL-family model."""
    import torch

    from unziplora import mini
    from unziplora.hosts.standalone.host import StandaloneHost

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return StandaloneHost.open(
        mini.MODEL if options.model == "mini" else options.model,
        vae=options.vae,
        prediction_type=options.prediction_type,
        dtype=dtypes.get(options.precision),
    )


def open_sampler(
    options: HostOptions, out: Path
) -> Callable[[Any, BatchJob], Mapping[str, float]] | None:
    """Worker's `sample`. Raises InvalidInput for an encoder that cannot be had."""
    sampling = options.sampling
    if sampling is None:
        return None
    from unziplora.batch.samples import Sampler
    from unziplora.hosts.standalone.generate import drawing

    sampler = Sampler(sampling, out)

    def sample(host: Any, job: BatchJob) -> Mapping[str, float]:
        draw = drawing(host, steps=sampling.steps, guidance=sampling.guidance)
        return sampler.sample(draw, job.name, job.image)

    return sample
