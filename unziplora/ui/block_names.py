"""Plain names of attention groups: "decoder, coarse 1" for output_blocks.0.1."""

from __future__ import annotations

from collections.abc import Mapping

# Coarse groups work at a 32nd of the image's side, fine ones at a 16th.
_SDXL: Mapping[str, str] = {
    "input_blocks.4.1": "encoder, fine 1",
    "input_blocks.5.1": "encoder, fine 2",
    "input_blocks.7.1": "encoder, coarse 1",
    "input_blocks.8.1": "encoder, coarse 2",
    "middle_block.1": "middle",
    "output_blocks.0.1": "decoder, coarse 1",
    "output_blocks.1.1": "decoder, coarse 2",
    "output_blocks.2.1": "decoder, coarse 3",
    "output_blocks.3.1": "decoder, fine 1",
    "output_blocks.4.1": "decoder, fine 2",
    "output_blocks.5.1": "decoder, fine 3",
}
_KOALA: Mapping[str, str] = {
    "input_blocks.3.1": "encoder, fine",
    "input_blocks.5.1": "encoder, coarse",
    "middle_block.1": "middle",
    "output_blocks.0.1": "decoder, coarse 1",
    "output_blocks.1.1": "decoder, coarse 2",
    "output_blocks.2.1": "decoder, fine 1",
    "output_blocks.3.1": "decoder, fine 2",
}


def plain_names(groups: list[str]) -> dict[str, str]:
    """By technical (sgm) name, the plain one; a group of an unknown layout keeps its own."""
    koala = "input_blocks.3.1" in groups  # which SDXL does not have
    names = _KOALA if koala else _SDXL
    return {group: names.get(group, group) for group in groups}
