"""An SDXL checkpoint in ComfyUI, borrowed from its MODEL, CLIP and VAE: `Host` of host.py."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from unziplora.checkpoints.hints import defaults_in
from unziplora.errors import Interrupted, InvalidInput, UnZipLoRAError
from unziplora.host import Defaults, ModelIdentity, SizeIds
from unziplora.hosts.comfyui import origin, sampling
from unziplora.hosts.comfyui.attention import refuse_untrainable
from unziplora.hosts.comfyui.other_nodes import ATTENTION, SAMPLING, clean_clip, clean_model
from unziplora.hosts.comfyui.other_nodes import left_out as left_out_of
from unziplora.hosts.comfyui.program import comfy, load_whole, refuse_fp8
from unziplora.hosts.comfyui.schedule import alphas_cumprod, prediction_type
from unziplora.hosts.posterior import checked, latents_of
from unziplora.hosts.standalone.text import pad
from unziplora.hosts.webui.foreign_hooks import ForeignHooks
from unziplora.unet.changes import borrowed
from unziplora.unet.patches import frozen, in_eval_mode, normal_tensors

OTHER_VAE = "Load another VAE with Load VAE, such as the SDXL VAE fixed for fp16."
_LATENT_CHANNELS, _PIXELS_PER_LATENT = 4, 8
_SAMPLED_NUMBERS = 256  # of each weight, for `digest`
# SDXL does not use it: ComfyUI leaves in it what lay in memory (comfy/clip_model.py:164)
_NOT_IN_FILES = "clip_l.transformer.text_projection.weight"


class ComfyHost:
    """model, clip, vae: as a node is given them; file: the checkpoint, where it is known.

    Raises InvalidInput for what is not of SDXL's family, and for what other nodes did to it that
    training would go through.
    """

    def __init__(self, model: Any, clip: Any, vae: Any, file: Path | None = None) -> None:
        self._file = file
        self._name = origin.UNKNOWN if file is None else file.name
        self._check_kinds(model, clip, vae)
        left_out = left_out_of(model)
        self.notes = [] if left_out is None else [left_out]  # for the run's log
        self._patcher, self._clip, self._vae = (
            clean_model(model, self._name),
            clean_clip(clip),
            vae,
        )
        refuse_fp8(self.unet)
        self._sampling = model.get_model_object(SAMPLING)
        self.prediction_type = prediction_type(self._sampling, self._name)
        said = origin.header(file).get("modelspec.prediction_type")
        if said == "v" and self.prediction_type == "epsilon":
            raise InvalidInput(
                f"The model {self._name} says that it predicts v, and ComfyUI draws with it as "
                "with one that predicts epsilon. Put ModelSamplingDiscrete with v_prediction after "
                "its loader."
            )
        self._normal = contextlib.ExitStack()
        self.cancelled = False  # whether the user pressed Cancel while a preview was drawn

    def _check_kinds(self, model: Any, clip: Any, vae: Any) -> None:
        if not isinstance(model.model, comfy("model_base").SDXL):
            raise InvalidInput(
                f"The model {self._name} is not an SDXL checkpoint ({type(model.model).__name__}). "
                "Load one of SDXL's family."
            )
        channels = model.model.diffusion_model.input_blocks[0][0].in_channels
        if channels != _LATENT_CHANNELS:
            raise InvalidInput(
                f"The model {self._name} is an inpainting or editing model: it reads {channels} "
                "channels instead of 4. Load the model it was made from."
            )
        if not isinstance(clip.cond_stage_model, comfy("sdxl_clip").SDXLClipModel):
            raise InvalidInput(
                "The CLIP is not that of an SDXL checkpoint, which has two text encoders. "
                "Connect the CLIP of the checkpoint."
            )
        if vae.latent_channels != _LATENT_CHANNELS or vae.downscale_ratio != _PIXELS_PER_LATENT:
            raise InvalidInput(
                "The VAE is not one of SDXL: its latents have another shape. Connect the VAE of "
                "the checkpoint, or another SDXL VAE."
            )
        if not hasattr(vae.first_stage_model, "regularization"):
            raise InvalidInput(
                f"The VAE is an approximate one ({type(vae.first_stage_model).__name__}), which is "
                "too coarse to train on. Connect the VAE of the checkpoint."
            )

    @property
    def unet(self) -> nn.Module:
        unet: nn.Module = self._patcher.model.diffusion_model
        return unet

    @property
    def device(self) -> torch.device:
        return torch.device(self._patcher.load_device)

    @property
    def alphas_cumprod(self) -> Tensor:
        return alphas_cumprod(self._sampling, self.device)

    @cached_property
    def model(self) -> ModelIdentity:
        return origin.identity(self._file)

    @property
    def defaults(self) -> Defaults:
        first: Any = self.unet.get_submodule("input_blocks.0.0")
        return defaults_in(origin.header(self._file), int(first.out_channels))

    @contextlib.contextmanager
    def borrow(self) -> Iterator[None]:
        """Lends the UNet clean, whole on the device and frozen, and puts everything back in every
        outcome. A node has ComfyUI's queue to itself, so nothing is waited for."""
        folders = importlib.import_module("folder_paths").get_folder_paths("custom_nodes")
        hooks = ForeignHooks([Path(one) for one in folders], kind="custom node")
        kept = self.notes
        try:
            with (
                torch.inference_mode(False),
                torch.enable_grad(),
                borrowed(self.unet),
                hooks.off(self.unet) as found,
                in_eval_mode(self.unet),
                self._lent(),
            ):
                self.notes = [*kept, *found]
                yield
        finally:
            self.notes = kept

    @contextlib.contextmanager
    def _lent(self) -> Iterator[None]:
        load_whole(self._patcher)
        refuse_untrainable(
            comfy("ldm.modules.attention").optimized_attention,
            self._transformer_options().get(ATTENTION),
            self.device,
            self._dtype(),
        )
        with self._normal:
            self._normal.enter_context(normal_tensors(self.unet))
            with frozen(self.unet):
                yield

    @contextlib.contextmanager
    def _own_tensors(self) -> Iterator[None]:
        """ComfyUI's own tensors, which it moves and patches, in place of our stand-ins."""
        self._normal.close()
        try:
            yield
        finally:
            load_whole(self._patcher)
            self._normal.enter_context(normal_tensors(self.unet))

    def encode_prompts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """context (n, 77 k, width) and pooled (n, width), as ComfyUI reads prompts.

        Raises InvalidInput for a prompt that calls an embedding.
        """
        for prompt in prompts:
            if "embedding:" in prompt:
                raise InvalidInput(
                    f'The prompt "{prompt[:60]}" calls an embedding, which would be trained '
                    "through. Leave it out."
                )
        with self._own_tensors():
            found = [self._encoded(prompt) for prompt in [*prompts, ""]]
        *contexts, empty = [context for context, _ in found]
        with torch.no_grad():
            pooled = torch.cat([one for _, one in found[:-1]])
            return pad(contexts, empty), pooled

    def _encoded(self, prompt: str) -> tuple[Tensor, Tensor]:
        """Copies on the device: what comes from the CLIP are inference tensors."""
        with torch.inference_mode():
            tokens = self._clip.tokenize(prompt)
            context, pooled = self._clip.encode_from_tokens(tokens, return_pooled=True)
        with torch.no_grad():
            return context.clone().to(self.device), pooled.clone().to(self.device)

    def encode_image(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        """Latents (1, 4, h/8, w/8), fp32, by the VAE that is connected. Raises UnZipLoRAError
        where it makes NaN of the image."""
        shown = pixels.movedim(1, -1) * 0.5 + 0.5  # (1, h, w, 3) in [0, 1]
        with self._own_tensors(), torch.inference_mode():
            with _regulated(self._vae, lambda posterior: latents_of(posterior, generator)):
                encoded = self._vae.encode(shown)
            latents = self._patcher.model.process_latent_in(encoded)
        with torch.no_grad():
            return checked(latents.clone().float().to(self.device), OTHER_VAE)

    @torch.no_grad()
    def added_conditioning(self, pooled: Tensor, sizes: SizeIds) -> Tensor:
        """SDXL's vector (n, width + 6 * 256), as comfy/model_base.py:465 makes it."""
        embedder = self._patcher.model.embedder
        numbers = (*sizes.original, *sizes.crop, *sizes.target)
        flat = torch.cat([embedder(torch.tensor([float(number)])) for number in numbers]).flatten()
        return torch.cat([pooled, flat.to(pooled).expand(len(pooled), -1)], dim=1)

    def denoise(self, latents: Tensor, timesteps: Tensor, context: Tensor, added: Tensor) -> Tensor:
        """The UNet's prediction (n, 4, h, w), in ComfyUI's computation dtype."""
        dtype = self._dtype()
        prediction: Tensor = self.unet(
            latents.to(dtype),
            timesteps.float(),
            context=context.to(dtype),
            y=added.to(dtype),
            transformer_options=self._transformer_options(),
        )
        return prediction

    def preview(
        self, prompt: str, *, negative: str, size: tuple[int, int], steps: int, seed: int
    ) -> Image.Image:
        """By ComfyUI's own sampler, with the model's own guidance, and the VAE that is connected.
        Raises Interrupted."""
        guidance = self.defaults.usual_guidance
        with self._own_tensors():
            conditions = [
                [[context, {"pooled_output": pooled}]]
                for context, pooled in map(self._encoded, (prompt, negative))
            ]
            try:
                image = sampling.draw(
                    self._patcher, self._vae, conditions, size, steps, seed, guidance
                )
            except Interrupted:  # ComfyUI forgets it when it raises it
                self.cancelled = True
                raise
        return sampling.described(image, prompt, negative, steps, seed, guidance, self.model.name)

    def digest(self) -> str:
        """What tells this model, its CLIP and its VAE from others, by their weights; for a borrowed
        model."""
        digest = hashlib.sha256()
        layer = f"{self._clip.layer_idx} {self.prediction_type}"
        digest.update(layer.encode() + _bytes(self.alphas_cumprod))
        with self._own_tensors(), torch.inference_mode():
            self._clip.load_model()
            for module in (self.unet, self._clip.cond_stage_model, self._vae.first_stage_model):
                for name, tensor in sorted(module.state_dict().items()):
                    if name == _NOT_IN_FILES:
                        continue
                    digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
                    digest.update(_bytes(_sampled(tensor)))
        return digest.hexdigest()

    def _dtype(self) -> torch.dtype:
        model = self._patcher.model
        dtype: torch.dtype = model.manual_cast_dtype or model.get_dtype()
        return dtype

    def _transformer_options(self) -> dict[str, Any]:
        """A new one for each call: the UNet writes into it."""
        return dict(self._patcher.model_options["transformer_options"])


@contextlib.contextmanager
def _regulated(vae: Any, regulation: Callable[[Any], Tensor]) -> Iterator[None]:
    """`regulation` is what the VAE does with its posterior (it samples with the global generator,
    comfy/ldm/models/autoencoder.py:26)."""
    module = vae.first_stage_model.regularization
    distribution = comfy("ldm.modules.distributions.distributions").DiagonalGaussianDistribution
    calls = 0

    def regulated(moments: Tensor) -> tuple[Tensor, None]:
        nonlocal calls
        calls += 1
        return regulation(distribution(moments)), None

    module.forward = regulated
    try:
        yield
    finally:
        del module.forward
    if not calls:
        raise UnZipLoRAError(
            "This version of ComfyUI encodes images in a way that UnZipLoRA does not know, so a "
            "seed would not give the same result again. Update UnZipLoRA, or report it."
        )


def _sampled(tensor: Tensor) -> Tensor:
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // _SAMPLED_NUMBERS)]


def _bytes(tensor: Tensor) -> bytes:
    data: bytes = tensor.to("cpu", torch.float64).contiguous().numpy().tobytes()
    return data
