"""python -m benchmarks.products [--architecture sdxl] [--resolution 1024] [--rank 64] [--only PLAN]

How much arithmetic a step of each memory plan takes, counted without data: floating-point
operations of matrix products, convolutions and attention. On a GPU these are what a step's time
follows from; elementwise operations, and what an optimizer or a transfer takes, are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.flop_counter import FlopCounterMode

from benchmarks.simulate_memory import Live, at_rest, chosen_plans


def flops(architecture: str, resolution: int, rank: int, plan: str) -> int:
    """Of one step."""
    live, counter = Live(), FlopCounterMode(display=False)
    with at_rest(live, architecture, resolution, rank, plan) as trainer, live, counter:
        trainer.advance()
    return int(counter.get_total_flops())


def main(arguments: Sequence[str] | None = None) -> int:
    args = chosen_plans("The arithmetic of a step under each plan.", arguments)
    for plan in args.only:
        found = flops(args.architecture, args.resolution, args.rank, plan)
        print(f"{plan:<12} {found / 1e12:7.3f} TFLOP", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
