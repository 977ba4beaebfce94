"""What a worker's process opens: the base, and what draws on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from unziplora.app.sheet import Draw, WeightedLora
from unziplora.batch.samples import Sampling
from unziplora.errors import Interrupted
from unziplora.host import Host
from unziplora.training.manifest import BatchJob

# host, job, whether to stop -> a finished job's scores, of images drawn on the host. Raises
# Interrupted where it is stopped.
Sample = Callable[[Any, BatchJob, Callable[[], bool]], Mapping[str, float]]


class Base(Protocol):
    """A model as an object that can be sent to another process; opened there."""

    def open(self, threads: int) -> Host:
        """threads: this worker's share of the CPU. Raises InvalidInput."""

    def sampler(self, out: Path) -> Sample | None:
        """What draws and scores finished pairs in `out`, if anything does. Raises InvalidInput."""


@dataclass(frozen=True)
class StandaloneBase:
    """A checkpoint on disk: StandaloneHost.open's arguments, and what is drawn of each pair."""

    model: str
    vae: str | None = None
    prediction_type: str | None = None
    precision: str = "auto"
    sampling: Sampling | None = None

    def open(self, threads: int) -> Host:
        import torch

        from unziplora import mini
        from unziplora.hosts.standalone.host import StandaloneHost
        from unziplora.hosts.standalone.threads import limit_threads

        dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        host = StandaloneHost.open(
            mini.MODEL if self.model == "mini" else self.model,
            vae=self.vae,
            prediction_type=self.prediction_type,
            dtype=dtypes.get(self.precision),
        )
        limit_threads(host.unet, host.device, threads)
        return host

    def sampler(self, out: Path) -> Sample | None:
        sampling = self.sampling
        if sampling is None:
            return None
        from unziplora.batch.samples import Sampler
        from unziplora.hosts.standalone.generate import drawing

        sampler = Sampler(sampling, out)

        def sample(host: Any, job: BatchJob, stopping: Callable[[], bool]) -> Mapping[str, float]:
            draw = drawing(host, steps=sampling.steps, guidance=sampling.guidance)
            return sampler.sample(until(stopping, draw), job.name, job.image)

        return sample


def until(stopping: Callable[[], bool], draw: Draw) -> Draw:
    """`draw`, which raises Interrupted instead of another image once it should stop."""

    def drawn(
        prompts: Sequence[str], loras: Sequence[WeightedLora], seed: int
    ) -> Iterator[Image.Image]:
        for image in draw(prompts, loras, seed):
            if stopping():
                raise Interrupted("Its samples are drawn when the batch is run again.")
            yield image

    return drawn
