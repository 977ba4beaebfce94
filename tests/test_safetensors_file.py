"""What is written is what the safetensors library reads, and what it would have written."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import IO

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor

from unziplora.safetensors_file import DamagedHeader, read_header, read_tensor, write_tensors

TENSORS = {
    "b": torch.arange(6.0).reshape(2, 3),
    "a": torch.arange(4, dtype=torch.int64),
    "half": torch.randn(3, 5).to(torch.bfloat16),
    "fp8": torch.randn(7).to(torch.float8_e4m3fn),
    "mask": torch.tensor([True, False, True]),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "scalar": torch.tensor(2.5),
    "none": torch.zeros(0, 4),
    "turned": torch.arange(6.0).reshape(2, 3).T,
    "ümlaut": torch.ones(1),
}
METADATA = {"numbers": '{"step": 3}', "pair": "é"}


def written() -> bytes:
    file = io.BytesIO()
    write_tensors(file, TENSORS, METADATA)
    return file.getvalue()


def test_the_library_reads_every_dtype_and_shape(tmp_path: Path) -> None:
    found = load(written())
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(bytes_of(found[name]), bytes_of(tensor)), name
        assert found[name].shape == tensor.shape, name
    (tmp_path / "x.safetensors").write_bytes(written())
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == METADATA


def test_the_tensors_lie_where_the_library_puts_them() -> None:
    contiguous = {name: tensor.contiguous() for name, tensor in TENSORS.items()}
    ours, theirs = (read_header(on_disk(data)) for data in (written(), save(contiguous, METADATA)))
    kinds = {name: (e.dtype, e.shape, e.length) for name, e in ours.entries.items()}
    assert kinds == {name: (e.dtype, e.shape, e.length) for name, e in theirs.entries.items()}
    for read in (ours, theirs):  # the widest numbers first, so that all are aligned
        by_place = sorted(read.entries, key=lambda name: read.entries[name].start)
        widths = [TENSORS[name].element_size() for name in by_place]
        assert widths == sorted(widths, reverse=True)


def test_what_is_written_is_read_back_by_our_own_reader() -> None:
    file = on_disk(written())
    for name, entry in read_header(file).entries.items():
        assert torch.equal(bytes_of(read_tensor(file, entry)), bytes_of(TENSORS[name])), name


def test_a_dtype_that_the_format_lacks_is_refused_before_anything_is_written() -> None:
    file = io.BytesIO()
    with pytest.raises(ValueError, match="complex64"):
        write_tensors(file, {"x": torch.zeros(2, dtype=torch.complex64)}, {})
    assert file.getvalue() == b""


@pytest.mark.parametrize(
    "shape",
    [[0, 2**62, 2**62], [0, 2**63], [1] * 17, [9_999_999] * 50_000, [2**30, 2**31], [2**41], [-1]],
    ids=["overflow", "longer-than-int64", "17-sides", "50000-sides", "2^61", "2^41", "negative"],
)
def test_a_shape_that_no_tensor_can_have_is_damage(shape: list[int]) -> None:
    with pytest.raises(DamagedHeader, match="none that a tensor can have"):
        read_header(on_disk(with_header({"a": entry(shape)})))


@pytest.mark.parametrize("shape", [[], [0, 2**40], [1] * 16])
def test_odd_shapes_that_torch_has_are_read(shape: list[int]) -> None:
    numbers = 0 if 0 in shape else 1
    file = on_disk(with_header({"a": entry(shape, numbers)}) + b"\0\0" * numbers)
    (found,) = read_header(file).entries.values()
    assert read_tensor(file, found).shape == torch.Size(shape)


def test_a_header_of_millions_of_lists_is_damage() -> None:
    text = b'{"__metadata__":{"x":[' + b"[]," * 1_000_000 + b"[]]}}"
    with pytest.raises(DamagedHeader, match="more lists"):
        read_header(on_disk(len(text).to_bytes(8, "little") + text))


def test_half_a_character_in_the_metadata_does_not_spoil_the_file(tmp_path: Path) -> None:
    file = io.BytesIO()
    write_tensors(file, {"a": torch.ones(1)}, {"of": "fox\udce9.png"})
    (tmp_path / "x.safetensors").write_bytes(file.getvalue())
    with safe_open(tmp_path / "x.safetensors", "pt") as opened:
        assert opened.metadata() == {"of": "fox?.png"}


def entry(shape: list[int], numbers: int = 0) -> dict[str, object]:
    return {"dtype": "F16", "shape": shape, "data_offsets": [0, 2 * numbers]}


def with_header(header: object) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


def on_disk(data: bytes) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the last reference)
    file.write(data)
    file.seek(0)
    return file


def bytes_of(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(-1).view(torch.uint8)
