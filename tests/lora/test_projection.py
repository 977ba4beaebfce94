"""NP-LoRA's projection: what content does where the style reads is damped, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.lora.test_merge import LAYERS, change, lora
from unziplora.errors import InvalidInput
from unziplora.lora.algorithms import LoraLayer
from unziplora.lora.merge import merge
from unziplora.lora.metadata import read_info
from unziplora.lora.projection import input_directions, projected
from unziplora.lora.read import read_lora
from unziplora.lora.write import save_lora


def layer(rank: int, seed: int, *inputs: int) -> LoraLayer:
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, *inputs, generator=generator)
    up = torch.randn(12, rank, *[1 for _ in inputs[1:]], generator=generator)
    return LoraLayer(down, up, rank / 2)


def dense(one: LoraLayer) -> Tensor:
    return one.scale * one.up.flatten(1).double() @ one.down.flatten(1).double()


def dense_projection(style: Tensor) -> Tensor:
    """(in, in): onto what a change of weights reads, in float64."""
    _, values, rows = torch.linalg.svd(style)
    found = rows[: int((values > 1e-6 * values.max()).sum())]
    return found.T @ found


@pytest.mark.parametrize("ranks", [(2, 2), (5, 2), (2, 5)], ids=["same", "larger", "smaller"])
@pytest.mark.parametrize("mu", [0.5, 1.0, 9.0])
def test_along_the_styles_input_directions_the_content_does_a_share_and_elsewhere_all(
    ranks: tuple[int, int], mu: float
) -> None:
    content, style = layer(ranks[0], 1, 10), layer(ranks[1], 2, 10)
    made = projected(content, style, mu)
    reads = dense_projection(dense(style))
    torch.testing.assert_close(dense(made) @ reads, dense(content) @ reads / (1 + mu),
                               rtol=1e-4, atol=1e-4)  # fmt: skip
    left = torch.eye(10, dtype=torch.float64) - reads
    torch.testing.assert_close(dense(made) @ left, dense(content) @ left, rtol=1e-4, atol=1e-4)
    assert made.down.shape == content.down.shape
    assert made.up is content.up


def test_a_convolutions_window_is_one_input() -> None:
    content, style = layer(3, 1, 4, 3, 3), layer(2, 2, 4, 3, 3)
    made = projected(content, style, 1.0)
    reads = dense_projection(dense(style))
    assert made.down.shape == content.down.shape
    torch.testing.assert_close(
        dense(made) @ reads, dense(content) @ reads / 2, rtol=1e-4, atol=1e-4
    )


def test_only_what_reaches_an_output_is_a_direction_of_the_style() -> None:
    style = layer(3, 1, 10)
    style.up[:, 2] = 0  # its third row of A reads in vain
    found = input_directions(style)
    assert found.shape == (10, 2)
    torch.testing.assert_close(found.T @ found, torch.eye(2))
    empty = LoraLayer(style.down, torch.zeros_like(style.up), 1.0)
    assert input_directions(empty).shape == (10, 0)
    content = layer(2, 2, 10)
    assert torch.equal(projected(content, empty, 1.0).down, content.down)


def test_the_merged_file_has_the_projected_content_and_the_whole_style(tmp_path: Path) -> None:
    a = lora(tmp_path / "a.safetensors", 2, seed=1)
    b = lora(tmp_path / "b.safetensors", 3, seed=2)
    parts = [(a, 0.7), (b, 1.2)]
    made = merge(tmp_path / "np.safetensors", parts, how="np", mu=3.0)
    added = merge(tmp_path / "add.safetensors", parts)
    for name in LAYERS:
        content, style = change(a, name).double(), change(b, name).double()
        kept = torch.eye(8, dtype=torch.float64) - 0.75 * dense_projection(style)
        expected = 0.7 * content @ kept + 1.2 * style
        assert torch.allclose(change(made.path, name).double(), expected, atol=2e-2)  # fp16 file
    shapes = [
        {key: tensor.shape for key, tensor in load_file(saved.path).items()}
        for saved in (made, added)
    ]
    assert shapes[0] == shapes[1]
    assert made.model_hash != added.model_hash
    assert "projected against b" in read_lora(made.path).metadata["ss_training_comment"]
    assert read_info(made.path).role == "merged"


def test_mu_0_and_a_style_of_weight_0_are_the_plain_sum(tmp_path: Path) -> None:
    a = lora(tmp_path / "a.safetensors", 2, seed=1)
    b = lora(tmp_path / "b.safetensors", 3, seed=2)

    def hash_of(name: str, weight: float, **options: object) -> str:
        path = tmp_path / f"{name}.safetensors"
        return merge(path, [(a, 1.0), (b, weight)], **options).model_hash  # type: ignore[arg-type]

    assert hash_of("zero", 1.0, how="np", mu=0.0) == hash_of("add", 1.0)
    assert hash_of("alone", 0.0, how="np") == hash_of("added-alone", 0.0)


def test_a_layer_that_one_of_them_lacks_is_as_it_was(tmp_path: Path) -> None:
    a = lora(tmp_path / "a.safetensors", 2, seed=1)
    style = {name: read_lora(a).layers[name] for name in LAYERS[:1]}
    b = tmp_path / "b.safetensors"
    save_lora(b, style, {}, shapes={LAYERS[0]: (12, 8)}, dtype=torch.float32)
    made = merge(tmp_path / "np.safetensors", [(a, 1.0), (b, 1.0)], how="np")
    for name in LAYERS[1:]:
        assert torch.allclose(change(made.path, name), change(a, name), atol=2e-2)


@pytest.mark.parametrize(
    ("names", "how", "mu", "message"),
    [
        (["style", "content"], "np", 1.0, "the first file is a style"),
        (["content"], "np", 1.0, "takes two files, not 1"),
        (["content", "style", "style"], "np", 1.0, "takes two files, not 3"),
        (["content", "style"], "np", -0.5, "mu is -0.5"),
        (["content", "style"], "np", float("nan"), "mu is nan"),
        (["content", "style"], "zop", 1.0, "Choose one of add, np, zip"),
        (["content", "style"], "zip", 1.0, "learns on a model, and there is none here"),
        (["style", "content"], "zip", 1.0, "the first file is a style"),
    ],
)
def test_what_cannot_be_projected_is_refused_and_writes_nothing(
    tmp_path: Path, names: list[str], how: str, mu: float, message: str
) -> None:
    said = '{"role": "%s"}'
    for name in names:
        lora(tmp_path / f"{name}.safetensors", 2, ss_network_args=said % name)
    parts = [(tmp_path / f"{name}.safetensors", 1.0) for name in names]
    with pytest.raises(InvalidInput, match=message):
        merge(tmp_path / "made.safetensors", parts, how=how, mu=mu)
    assert not list(tmp_path.glob("made*"))
