"""What the oldest torch that is supported (tools/floor.txt) cannot do, and tests need."""

from __future__ import annotations

import pytest
import torch

# 2.3.1 was tried with the tests of training, unet, method and hosts/standalone
OLD = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 4)

counts_storages = pytest.mark.skipif(
    OLD, reason="torch 2.1 makes a new object each time for the storage of a tensor"
)
half_on_cpu = pytest.mark.skipif(OLD, reason="torch 2.1 does not compute in fp16 on a CPU")
casts_fp64 = pytest.mark.skipif(
    OLD, reason="with torch 2.1 the mask of text encoders cannot be made in fp64"
)
hooks_in_backward = pytest.mark.skipif(
    OLD,
    reason="torch 2.1 does not call the hooks of a parameter within a second backward pass",
)
fuses_on_cpu = pytest.mark.skipif(OLD, reason="torch 2.1 has no fused Adam on a CPU")
