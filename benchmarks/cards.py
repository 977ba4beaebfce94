"""python -m benchmarks.cards [--rank 64] [--resolution 1024] [--taken 1.0]

Which memory plan auto takes on cards of 6 to 24 GB, for each architecture: a base in fp16 or bf16
on a card that has bf16. A card's GB are 2^30 bytes; --taken: GB of it that desktop, CUDA context
and other programs have. Beside the plan stands how many percent slower than `full` a step is.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from unittest import mock

import torch

from benchmarks.memory import ARCHITECTURES
from unziplora.testing.random_checkpoint import FULL, meta_models
from unziplora.training import memory_forecast
from unziplora.training.memory_forecast import Forecast, forecast
from unziplora.training.settings import Settings

CARDS = (6, 8, 10, 11, 12, 16, 24)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[2])
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--resolution", type=int, default=1024)
    parser.add_argument("--taken", type=float, default=1.0, metavar="GB")
    args = parser.parse_args(arguments)
    settings = Settings("any", "any", rank=args.rank, resolution=args.resolution).resolve()
    print("| card | free | " + " | ".join(ARCHITECTURES) + " |")
    print("|---|---|" + "---|" * len(ARCHITECTURES))
    unets = [meta_models(a, FULL, 1024)["unet"].to(torch.bfloat16) for a in ARCHITECTURES]
    for card in CARDS:
        free = card * 2**30 / 1e9 - args.taken
        with (
            mock.patch.object(memory_forecast, "free_memory", return_value=free),
            mock.patch.object(memory_forecast, "total_memory", return_value=card),
        ):
            found = [forecast(unet, torch.device("cuda"), settings) for unet in unets]
        print(f"| {card} GB | {free:.1f} | " + " | ".join(map(cell, found)) + " |")
    return 0


def cell(of: Forecast) -> str:
    """ "selective, 20 %" """
    kept = f" ({of.plan.kept_blocks} blocks kept)" if of.plan.kept_blocks else ""
    doubt = "" if of.fits else ", may not fit"
    return f"{of.plan.name}{kept}, {of.percent_slower} %{doubt}"


if __name__ == "__main__":
    raise SystemExit(main())
