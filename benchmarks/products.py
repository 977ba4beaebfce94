"""python -m benchmarks.products [--architecture sdxl] [--resolution 1024] [--rank 64] [--only PLAN]
                                 [--plain] [--speed]

How much arithmetic an ordinary step of each memory plan takes, counted without data: floating-point
operations of matrix products, convolutions and attention. On a GPU these are what a step's time
follows from; elementwise operations, and what an optimizer or a transfer takes, are not counted.
--plain counts a bare forward pass and a step that trains one LoRA with peft, too, without and with
checkpointing; --speed counts at the size of benchmarks.speed instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from benchmarks.simulate_memory import Live, at_rest, plans_parser, real_trainer, without_data
from benchmarks.speed import RANK, RESOLUTION, WIDTHS, inputs, same_unet, with_lora
from unziplora.testing.random_checkpoint import FULL, Widths
from unziplora.unet.recompute import recomputed

Shape = Sequence[int]


def _attention(q: Shape, k: Shape, v: Shape, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(q, k, v))


def _attention_backward(grad: Shape, q: Shape, k: Shape, v: Shape, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(grad, q, k, v))


# the fused attention of tensors without data, which torch's counter does not know
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def counted() -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping=ATTENTION)


def flops(architecture: str, resolution: int, rank: int, plan: str, widths: Widths) -> int:
    """Of one ordinary step, after that of the measuring window."""
    live, counter = Live(), counted()
    with at_rest(live, architecture, resolution, rank, plan, widths=widths) as trainer, live:
        trainer.advance()
        with counter:
            trainer.advance()
    return int(counter.get_total_flops())


def plain_flops(architecture: str, resolution: int, rank: int, widths: Widths) -> dict[str, int]:
    """Of a bare forward pass, and of a step that trains one LoRA with peft on diffusers' UNet."""
    found = {}
    with without_data():
        fp32 = torch.float32  # peft trains in it, and shapes are all that counts
        trainer = real_trainer(architecture, resolution, rank, "full", widths=widths, dtype=fp32)
        unet = same_unet(trainer.host.unet, architecture, widths)
        args, named = inputs(trainer)
        with Live(), torch.no_grad(), counted() as counter:
            unet(*args, **named)
        found["bare forward"] = counter.get_total_flops()
        with_lora(unet, rank)
        for what, how in (("plain", None), ("plain, checkpointing", "blocks")):
            again = recomputed(unet, how) if how else contextlib.nullcontext()
            with again, Live(), counted() as counter:
                unet(*args, **named).sample.float().square().mean().backward()
            found[what] = counter.get_total_flops()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = plans_parser("The arithmetic of a step under each plan.")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--speed", action="store_true")
    args = parser.parse_args(arguments)
    of = (args.architecture, args.resolution, args.rank)
    of, widths = (("sdxl", RESOLUTION, RANK), WIDTHS) if args.speed else (of, FULL)
    for what, found in plain_flops(*of, widths).items() if args.plain else ():
        print(f"{what:<22} {found / 1e12:7.3f} TFLOP", flush=True)
    for plan in args.only:
        print(f"{plan:<22} {flops(*of, plan, widths) / 1e12:7.3f} TFLOP", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
