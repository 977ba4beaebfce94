"""The base of a worker."""

from __future__ import annotations

from unziplora.batch.local import HostOptions
from unziplora.host import Host


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
