"""python -m benchmarks.kept [--architecture sdxl] [--resolution 1024] [--rank 64] [--only PLAN ...]

What each memory plan keeps between a step's forward and backward pass, in GB, by the operation that
made it: a simulation as in benchmarks/memory.py, each storage counted once.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter
from collections.abc import Sequence
from typing import Any
from unittest import mock

from torch import Tensor

from benchmarks.simulate_memory import Live, at_rest, plans_parser
from unziplora.training.optimizer import LoraOptimizer

_SMALLEST = 0.01e9  # bytes of a line of its own


class LiveByMaker(Live):
    """Also knows which operation made a storage, and for a tensor of what width."""

    def __init__(self) -> None:
        super().__init__()
        self._operation = ""
        self._makers: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._operation = func._schema.name.removeprefix("aten::")
        return super().__torch_dispatch__(func, types, args, kwargs)

    def added(self, tensor: Tensor) -> None:
        if self._operation:  # what is held all the time came without one
            axis = 1 if tensor.ndim == 4 else -1  # channels, or the width of tokens
            width = tensor.shape[axis] if tensor.ndim else 1
            self._makers[tensor.untyped_storage()] = f"{self._operation} {width}"

    def by_maker(self) -> Counter[str]:
        """Bytes."""
        found: Counter[str] = Counter()
        for storage, maker in self._makers.items():
            found[maker] += storage.nbytes()
        return found


class _ForwardDone(Exception):
    pass


def kept(architecture: str, resolution: int, rank: int, plan: str) -> Counter[str]:
    """Bytes that wait for the backward pass, by the operation that made them."""
    found: Counter[str] = Counter()
    live = LiveByMaker()
    with at_rest(live, architecture, resolution, rank, plan) as trainer, live:

        def backward(*_: Any) -> None:
            found.update(live.by_maker())
            raise _ForwardDone

        instead = mock.patch.object(LoraOptimizer, "backward", backward)
        with instead, contextlib.suppress(_ForwardDone):
            trainer.advance()
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    args = plans_parser("What each memory plan keeps of a forward pass.").parse_args(arguments)
    for plan in args.only:
        found = kept(args.architecture, args.resolution, args.rank, plan)
        print(f"{plan:<12} {sum(found.values()) / 1e9:6.3f} GB", flush=True)
        for maker, size in found.most_common():
            if size > _SMALLEST:
                print(f"  {maker:<44} {size / 1e9:6.3f}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
