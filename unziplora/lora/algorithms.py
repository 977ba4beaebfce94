"""What each kind of adapter adds to a weight: LoRA and its relatives, as formulas.

W: (out, in) or (out, in, h, w); all is computed in W's dtype. Sources: KohakuBlueleaf/LyCORIS
lycoris/functional; AUTOMATIC1111 extensions-builtin/Lora/network_*.py, which applies the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from unziplora.lora.product_size import factors_of_layer, parts_of_layer, with_core


class Adapter(Protocol):
    """One module's part of a LoRA file, at weight 1. needs_weight: whether what it adds depends on
    the weight that it is added to."""

    @property
    def kind(self) -> str: ...

    @property
    def needs_weight(self) -> bool: ...

    def delta(self, weight: Tensor) -> Tensor:
        """What is added to `weight`, in its shape. Raises ValueError where that cannot be."""


@dataclass(frozen=True)
class LoraLayer:
    """down: (r, in) or (r, in, h, w); up: (out, r) or (out, r, 1, 1); the scale is alpha / r."""

    down: Tensor
    up: Tensor
    alpha: float
    kind: ClassVar[str] = "LoRA"
    needs_weight: ClassVar[bool] = False

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        return self.alpha / self.down.shape[0]

    def delta(self, weight: Tensor) -> Tensor:
        up, down = self.up.flatten(1).to(weight), self.down.flatten(1).to(weight)
        return _shaped(self.scale * (up @ down), weight)


@dataclass(frozen=True)
class LoHa:
    """(A1 B1) * (A2 B2), element by element (arXiv 2108.06098); t: the cores of its form for
    convolutions."""

    w1_a: Tensor
    w1_b: Tensor
    w2_a: Tensor
    w2_b: Tensor
    t1: Tensor | None
    t2: Tensor | None
    scale: float
    kind: ClassVar[str] = "LoHa"
    needs_weight: ClassVar[bool] = False

    def delta(self, weight: Tensor) -> Tensor:
        one = _product(self.w1_a.to(weight), self.w1_b.to(weight), self.t1)
        other = _product(self.w2_a.to(weight), self.w2_b.to(weight), self.t2)
        return _shaped(self.scale * one * other, weight)


@dataclass(frozen=True)
class LoKr:
    """The Kronecker product of W1 and W2 (arXiv 2309.14859)."""

    w1: Tensor
    w2: Tensor
    scale: float
    kind: ClassVar[str] = "LoKr"
    needs_weight: ClassVar[bool] = False

    def delta(self, weight: Tensor) -> Tensor:
        w1, w2 = self.w1.to(weight), self.w2.to(weight).contiguous()
        w1 = w1.view(*w1.shape, *[1] * (w2.dim() - w1.dim()))
        return _shaped(self.scale * torch.kron(w1, w2), weight)


@dataclass(frozen=True)
class Difference:
    """The whole change of a weight and, where it has one, of a bias; of layers and of norms."""

    diff: Tensor | None
    bias: Tensor | None
    kind: ClassVar[str] = "full difference"
    needs_weight: ClassVar[bool] = False

    def delta(self, weight: Tensor) -> Tensor:
        if self.diff is None:
            return torch.zeros_like(weight)
        return _shaped(self.diff.to(weight), weight)


@dataclass(frozen=True)
class Glora:
    """W A + B, each a product of two (arXiv 2306.07967), in LyCORIS's earlier or later order."""

    a1: Tensor
    a2: Tensor
    b1: Tensor
    b2: Tensor
    alpha: float | None
    kind: ClassVar[str] = "GLoRA"
    needs_weight: ClassVar[bool] = True

    def delta(self, weight: Tensor) -> Tensor:
        a1, a2, b1, b2 = (t.flatten(1).to(weight) for t in (self.a1, self.a2, self.b1, self.b2))
        earlier = a2.shape[0] == a1.shape[1] == weight.shape[1] and b2.shape[1] == b1.shape[0]
        if earlier and b2.shape[0] == weight.shape[0]:
            rank, a, b = b1.shape[0], a2 @ a1, b2 @ b1
        else:
            rank, a, b = b2.shape[0], a1 @ a2, b1 @ b2
        # A mixes a convolution's input channels, at each place of its kernel alike
        mixed = (weight.movedim(1, -1) @ a).movedim(-1, 1)
        return _scale(self.alpha, rank) * (mixed + _shaped(b, weight))


@dataclass(frozen=True)
class Oft:
    """Rotations of blocks of outputs (arXiv 2306.07280), or butterflies of them (BOFT): R W - W.

    blocks: (count, size, size), for BOFT (steps, count, size, size). constraint: the largest norm
    of what is rotated by, for each output; 0: none. rotations: blocks are R already (oft_diag).
    """

    blocks: Tensor
    constraint: float
    rescale: Tensor | None
    rotations: bool
    kind: ClassVar[str] = "OFT"
    needs_weight: ClassVar[bool] = True

    def delta(self, weight: Tensor) -> Tensor:
        rotation = self.blocks.to(weight)
        if not self.rotations:
            rotation = self._cayley(rotation, weight.shape[0])
        butterfly = rotation.dim() == 4
        changed = weight.flatten(1)
        for step, blocks in enumerate(rotation if butterfly else rotation[None]):
            stride = 2**step * blocks.shape[-1] // 2 if butterfly else 1
            changed = _rotated(changed, blocks, stride, transposed=not butterfly)
        if self.rescale is not None:
            changed = changed * self.rescale.to(weight).reshape(-1, 1)
        return _shaped(changed, weight) - weight

    def _cayley(self, blocks: Tensor, outputs: int) -> Tensor:
        """(I + Q) (I - Q)^-1, which is orthogonal for a skew-symmetric Q."""
        skew = blocks - blocks.transpose(-1, -2)
        if self.constraint:
            norm: Tensor = torch.linalg.vector_norm(skew)
            skew = skew * ((norm.clamp(max=self.constraint * outputs) + 1e-8) / (norm + 1e-8))
        eye = torch.eye(blocks.shape[-1], device=blocks.device, dtype=blocks.dtype)
        inverse: Tensor = torch.linalg.inv(eye - skew)
        return (eye + skew) @ inverse


@dataclass(frozen=True)
class Ia3:
    """A factor for each output or input (arXiv 2205.05638)."""

    factor: Tensor
    on_input: bool
    kind: ClassVar[str] = "(IA)^3"
    needs_weight: ClassVar[bool] = True

    def delta(self, weight: Tensor) -> Tensor:
        factor = self.factor.to(weight).flatten()
        shape = (1, -1) if self.on_input else (-1, 1)
        return weight * factor.reshape(*shape, *[1] * (weight.dim() - 2))


@dataclass(frozen=True)
class Dora:
    """m V / |V| - W with V = W + what another adapter adds (arXiv 2402.09353).

    by_output: the norm is that of each output's weights, as in the paper and in peft; LyCORIS and
    the WebUIs take each input's, unless the file says otherwise.
    """

    inner: Adapter
    magnitude: Tensor
    by_output: bool
    needs_weight: ClassVar[bool] = True

    @property
    def kind(self) -> str:
        return f"{self.inner.kind} with DoRA"

    def delta(self, weight: Tensor) -> Tensor:
        changed = weight + self.inner.delta(weight)
        kept = 0 if self.by_output else 1
        others = [d for d in range(weight.dim()) if d != kept]
        norm: Tensor = torch.linalg.vector_norm(changed, dim=others, keepdim=True)
        norm = norm.clamp(min=1e-30)
        if self.magnitude.numel() != norm.numel():
            raise ValueError("a DoRA magnitude of another size")
        return changed * (self.magnitude.to(weight).view(norm.shape) / norm) - weight


@dataclass(frozen=True)
class WithBias:
    """Another adapter, and what the file adds to the bias beside it, (out,)."""

    inner: Adapter
    bias: Tensor

    @property
    def kind(self) -> str:
        return f"{self.inner.kind} with bias"

    @property
    def needs_weight(self) -> bool:
        return self.inner.needs_weight

    def delta(self, weight: Tensor) -> Tensor:
        return self.inner.delta(weight)


Parts = dict[str, Tensor]


def build(parts: Parts, alpha: float | None) -> Adapter | None:
    """The adapter of one module's tensors by part, taken out of `parts`; what is left there was not
    understood. None where they are none, or do not fit each other.

    alpha: of the file's header, where no tensor has it.
    """
    for needed, make in _ALGORITHMS.items():
        if all(name in parts for name in needed):
            try:
                stored = parts.pop("alpha", None)
                alpha = alpha if stored is None else _scalar(stored)
                return _with_bias(_with_dora(make(parts, alpha), parts), parts)
            except (ValueError, RuntimeError, IndexError, ArithmeticError):  # shapes do not fit
                return None
    return None


def _with_dora(adapter: Adapter, parts: Parts) -> Adapter:
    if "magnitude" in parts:  # peft's: always by output
        return Dora(adapter, parts.pop("magnitude").flatten(), True)
    if "dora_scale" not in parts:
        return adapter
    magnitude = parts.pop("dora_scale")
    by_output = magnitude.dim() > 1 and magnitude.shape[0] == magnitude.numel() > 1
    return Dora(adapter, magnitude.flatten(), by_output)


def _with_bias(adapter: Adapter, parts: Parts) -> Adapter:
    if "up_bias" in parts and isinstance(adapter, LoraLayer):  # peft's, of lora_B: scaled as B is
        return WithBias(adapter, adapter.scale * parts.pop("up_bias").flatten())
    return WithBias(adapter, parts.pop("diff_b").flatten()) if "diff_b" in parts else adapter


def _lora(parts: Parts, alpha: float | None) -> LoraLayer:
    down, up, middle = parts.pop("down"), parts.pop("up"), parts.pop("mid", None)
    down = down if middle is None else with_core(down, middle)
    rank = down.shape[0]
    fits = up.dim() > 1 and up.flatten(1).shape[1] == rank > 0 and down.dim() > 1
    if not fits or not (down.is_floating_point() and up.is_floating_point()):
        raise ValueError("no pair of matrices")
    if down[0, 0].numel() == 1:
        down, up = down.flatten(1), up.flatten(1)
    scale = parts.pop("scale", None)
    if scale is not None:
        alpha = _scalar(scale) * rank
    return LoraLayer(down, up, float(rank) if alpha is None else alpha)


def _loha(parts: Parts, alpha: float | None) -> LoHa:
    a1, b1, a2, b2 = (parts.pop(f"hada_{name}") for name in ("w1_a", "w1_b", "w2_a", "w2_b"))
    t1, t2 = (parts.pop(f"hada_{name}", None) for name in ("t1", "t2"))
    return LoHa(a1, b1, a2, b2, t1, t2, _scale(alpha, b1.shape[0]))


def _lokr(parts: Parts, alpha: float | None) -> LoKr:
    rank = None
    factors = []
    for name in ("lokr_w1", "lokr_w2"):
        if name in parts:
            factors.append(parts.pop(name))
            continue
        a, b = parts.pop(f"{name}_a"), parts.pop(f"{name}_b")
        rank = b.shape[0]
        core = parts.pop("lokr_t2", None) if name == "lokr_w2" else None
        factors.append(_product(*factors_of_layer(a, b, core)))
    return LoKr(*parts_of_layer(*factors), 1.0 if rank is None else _scale(alpha, rank))


def _difference(parts: Parts, alpha: float | None) -> Difference:
    return Difference(parts.pop("diff", None), parts.pop("diff_b", None))


def _norm(parts: Parts, alpha: float | None) -> Difference:
    return Difference(parts.pop("w_norm", None), parts.pop("b_norm", None))


def _glora(parts: Parts, alpha: float | None) -> Glora:
    a1, a2, b1, b2 = (parts.pop(name) for name in ("a1", "a2", "b1", "b2"))
    return Glora(a1, a2, b1, b2, alpha)


def _oft(parts: Parts, alpha: float | None) -> Oft:
    rotations = "oft_diag" in parts
    blocks = parts.pop("oft_diag" if rotations else "oft_blocks")
    if blocks.dim() not in (3, 4) or blocks.shape[-1] != blocks.shape[-2]:
        raise ValueError("no blocks")
    return Oft(blocks, alpha or 0.0, parts.pop("rescale", None), rotations)


def _ia3(parts: Parts, alpha: float | None) -> Ia3:
    return Ia3(parts.pop("weight"), bool(_scalar(parts.pop("on_input"))))


# By the parts that tell each: the first that has all of its own is taken.
_ALGORITHMS: Mapping[tuple[str, ...], Callable[[Parts, float | None], Adapter]] = {
    ("down", "up"): _lora,
    ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"): _loha,
    ("lokr_w1", "lokr_w2"): _lokr,
    ("lokr_w1", "lokr_w2_a", "lokr_w2_b"): _lokr,
    ("lokr_w1_a", "lokr_w1_b", "lokr_w2"): _lokr,
    ("lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"): _lokr,
    ("a1", "a2", "b1", "b2"): _glora,
    ("oft_blocks",): _oft,
    ("oft_diag",): _oft,
    ("weight", "on_input"): _ia3,
    ("diff",): _difference,
    ("diff_b",): _difference,
    ("w_norm",): _norm,
    ("b_norm",): _norm,
}


def _product(a: Tensor, b: Tensor, core: Tensor | None) -> Tensor:
    """A B; with a core t (i, j, h, w): sum over i and j of t A_i B_j."""
    if core is None:
        return a.flatten(1) @ b.flatten(1)
    return torch.einsum("i j h w, i p, j r -> p r h w", core.to(a), a, b)


def _rotated(weight: Tensor, blocks: Tensor, stride: int, *, transposed: bool) -> Tensor:
    """Blocks (count, size, size) applied to groups of a weight's outputs. OFT's blocks are applied
    transposed, as kohya's and LyCORIS's are. stride: BOFT mixes outputs that lie so far apart."""
    count, size, _ = blocks.shape
    if count * size != weight.shape[0]:
        raise ValueError("blocks of another size")
    if transposed:
        grouped = weight.view(count, size, -1)
        return torch.einsum("k n m, k n i -> k m i", blocks, grouped).reshape(weight.shape)
    # rows (c, g, k), g of 2 and k of stride, become (c, k, g), so that a block's outputs meet
    mixed = weight.view(-1, 2, stride, weight.shape[1]).transpose(1, 2)
    turned = torch.einsum("b i j, b j n -> b i n", blocks, mixed.reshape(count, size, -1))
    return turned.reshape(-1, stride, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def _shaped(change: Tensor, weight: Tensor) -> Tensor:
    """`change` in the weight's shape: a linear layer's matrix may come as a 1 x 1 convolution, a
    convolution's as a matrix. Raises ValueError where it is another layer's."""
    if change.shape[0] != weight.shape[0] or change.numel() != weight.numel():
        raise ValueError(f"{tuple(change.shape)} does not fit {tuple(weight.shape)}")
    return change.reshape(weight.shape)


def _scale(alpha: float | None, rank: int) -> float:
    return 1.0 if alpha is None else alpha / rank


def _scalar(value: Tensor) -> float:
    if value.numel() != 1:
        raise ValueError("more than one number")
    return float(value)
