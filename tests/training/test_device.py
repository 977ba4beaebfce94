"""Which tensors lie in a device's memory."""

from __future__ import annotations

import pytest
import torch

from unziplora.training.device import bytes_on, same_device


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("cuda", "cuda:0", True),  # what programs choose, and where tensors say that they are
        ("cuda:0", "cuda:1", False),
        ("cpu", "cpu:0", True),
        ("cpu", "cuda", False),
        ("meta", "cpu", False),
    ],
)
def test_a_device_without_a_number_is_the_one_in_use(one: str, other: str, same: bool) -> None:
    assert same_device(torch.device(one), torch.device(other)) == same
    assert same_device(torch.device(other), torch.device(one)) == same


def test_only_what_lies_there_is_counted() -> None:
    there = [torch.zeros(3, 5), torch.zeros(7, dtype=torch.bfloat16)]
    elsewhere = torch.zeros(100, device="meta")
    assert bytes_on(torch.device("cpu"), [*there, elsewhere]) == 4 * 15 + 2 * 7
