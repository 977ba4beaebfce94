"""The host without a WebUI: an SDXL-family model through diffusers, with nothing online."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from unziplora.checkpoints.checkpoint import Checkpoint, check_vae, load_vae, open_checkpoint
from unziplora.checkpoints.identify import ModelFile, identify
from unziplora.errors import InvalidInput, UnZipLoRAError
from unziplora.host import Defaults, ModelIdentity, PredictionType, SizeIds
from unziplora.hosts.posterior import checked, latents_of
from unziplora.hosts.standalone import sampling
from unziplora.hosts.standalone.learnable import LearnableWords
from unziplora.hosts.standalone.text import encode, pad
from unziplora.images.infotext import KEY, infotext
from unziplora.training.memory_forecast import has_bf16
from unziplora.training.model_traits import ModelInfo
from unziplora.unet.changes import borrowed
from unziplora.unet.patches import frozen, in_eval_mode

_OTHER_VAE = "Name a good one with --vae: an fp32 VAE, or the SDXL VAE fixed for fp16."
_KEPT_PROMPTS = 64  # embeddings of so many prompts are remembered, so that previews load no encoder


class StandaloneHost:
    """A model on disk, borrowed for a run: `Host` of host.py.

    The UNet stays in memory; text encoders and VAE are read for one call and dropped after it.
    """

    unet: nn.Module
    device: torch.device
    dtype: torch.dtype  # the UNet's and the text encoders'; the VAE is fp32
    prediction_type: PredictionType
    zero_snr: bool
    alphas_cumprod: Tensor
    defaults: Defaults

    def __init__(
        self,
        file: ModelFile,
        checkpoint: Checkpoint,
        *,
        vae: Path | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.file = file
        self.device, self.dtype = device, dtype
        self.prediction_type, self.zero_snr = file.prediction_type, file.zero_snr
        self.defaults = file.defaults
        self.alphas_cumprod = sampling.alphas_cumprod(file)
        self.checkpoint, self._vae_path = checkpoint, vae
        self._embeddings: dict[str, tuple[Tensor, Tensor]] = {}
        self._change_encoders: Callable[[Sequence[nn.Module]], AbstractContextManager[None]] | None
        self._change_encoders = None
        self._borrowed = threading.Lock()
        self.unet = checkpoint.unet(device, dtype)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        vae: str | Path | None = None,
        prediction_type: str | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> StandaloneHost:
        """Opens a single file or a diffusers folder.

        vae: a VAE to use instead of the model's own; prediction_type: "epsilon" or "v_prediction"
        instead of what the model says; device: a GPU where there is one; dtype: bf16 on a GPU
        (fp16 on one without bf16), else fp32. Raises InvalidInput for all that is no SDXL-family
        model.
        """
        file = identify(path, prediction_type)
        vae_path = None if vae is None else Path(vae).expanduser()
        if vae_path is not None and not vae_path.exists():
            raise InvalidInput(f"There is no VAE {vae_path}. Check the name.")
        if vae_path is not None:
            check_vae(vae_path, file.vae_scale)
        if vae_path is None and not file.has_vae:
            raise InvalidInput(f"{file.path.name} has no VAE in it. Name one with --vae.")
        chosen = torch.device(device) if device is not None else _device()
        if dtype is torch.float16 and not _computes_in_fp16(chosen):
            raise InvalidInput(
                f"torch {torch.__version__} does not compute in fp16 on a CPU. Choose fp32 or bf16."
            )
        return cls(
            file,
            open_checkpoint(file),
            vae=vae_path,
            device=chosen,
            dtype=dtype or chosen_dtype(chosen),
        )

    @cached_property
    def model(self) -> ModelIdentity:
        """Name and sha256 of the checkpoint; the hash (of a folder: of its UNet's weights) is
        taken when first asked for."""
        digest = _sha256(self.checkpoint.weight_files())
        return ModelIdentity(name=self.file.name, sha256=digest, family=self.file.family)

    @contextlib.contextmanager
    def borrow(self) -> Iterator[None]:
        """Lends the UNet frozen and in eval mode; flags and modes come back in every outcome.

        Raises UnZipLoRAError while it is in use already, ModelDamaged where an earlier run left it
        damaged.
        """
        if not self._borrowed.acquire(blocking=False):
            raise UnZipLoRAError("The model is in use by another run. Wait until that has ended.")
        try:
            with borrowed(self.unet), in_eval_mode(self.unet), frozen(self.unet):
                yield
        finally:
            self._borrowed.release()
            self._free()

    @property
    def borrowed(self) -> bool:
        """Whether a run has the model now."""
        return self._borrowed.locked()

    @contextlib.contextmanager
    def encoders_changed(
        self, change: Callable[[Sequence[nn.Module]], AbstractContextManager[None]]
    ) -> Iterator[None]:
        """Prompts are encoded with the two text encoders under `change` meanwhile; embeddings from
        before are kept for after."""
        before = self._embeddings, self._change_encoders
        self._embeddings, self._change_encoders = {}, change
        try:
            yield
        finally:
            self._embeddings, self._change_encoders = before

    @contextlib.contextmanager
    def learnable_encoders(self) -> Iterator[LearnableWords]:
        """`EncoderHost.learnable_encoders`: in the host's dtype, beside the UNet."""
        encoders = self.checkpoint.text_encoders(self.device, self.dtype)
        try:
            with frozen(encoders[0]), frozen(encoders[1]):
                yield LearnableWords(self.checkpoint.tokenizers(), encoders, self._embedded)
        finally:
            del encoders
            self._free()

    @contextlib.contextmanager
    def _embedded(self, embeddings: dict[str, tuple[Tensor, Tensor]]) -> Iterator[None]:
        before, self._embeddings = self._embeddings, embeddings
        try:
            yield
        finally:
            self._embeddings = before

    def encode_prompts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """context (n, 77 k, width) and pooled (n, width), in the host's dtype; k: of the longest
        prompt, in pieces of 75 tokens.

        Raises InvalidInput for a prompt of more than 750 tokens, and for one that calls a LoRA.
        """
        self._remember(prompts)
        found = [self._embeddings[prompt] for prompt in prompts]
        if len({context.shape for context, _ in found}) > 1:
            self._remember([""])  # what shorter prompts are filled up with
        empty, _ = self._embeddings.get("", found[0])
        while len(self._embeddings) > _KEPT_PROMPTS:
            del self._embeddings[next(iter(self._embeddings))]
        contexts, pooled = zip(*found, strict=True)
        return pad(contexts, empty), torch.cat(pooled)

    def _remember(self, prompts: Sequence[str]) -> None:
        """Encodes those that are not remembered yet."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._embeddings]
        if new:
            try:
                self._encode(new)
            finally:
                self._free()

    def _encode(self, prompts: Sequence[str]) -> None:
        tokenizers = self.checkpoint.tokenizers()
        encoders = self.checkpoint.text_encoders(self.device, self.dtype)
        # what is remembered must not depend on who asked first
        change = self._change_encoders
        changed = change(encoders) if change else contextlib.nullcontext()
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False), changed:
            encoded = encode(prompts, tokenizers, encoders)
        for prompt, (context, pooled) in zip(prompts, encoded, strict=True):
            self._embeddings[prompt] = context.clone(), pooled.clone()

    @torch.no_grad()
    def encode_image(self, pixels: Tensor, generator: torch.Generator | None) -> Tensor:
        """Scaled latents (1, 4, h/8, w/8), fp32, of pixels (1, 3, h, w) in [-1, 1].

        generator: a CPU generator to draw a sample with, or None for the posterior's mean.
        Raises UnZipLoRAError where the VAE makes NaN or infinity of the image.
        """

        def run(vae: Any) -> Tensor:
            posterior = vae.encode(pixels.to(vae.device, torch.float32)).latent_dist
            return sampling.scaled(latents_of(posterior, generator), vae.config)

        return checked(self._with_vae(run), _OTHER_VAE)

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Image.Image:
        """The image of scaled latents (1, 4, h, w). Raises as `encode_image`."""

        def run(vae: Any) -> Tensor:
            unscaled = sampling.unscaled(latents.to(vae.device, torch.float32), vae.config)
            pixels: Tensor = vae.decode(unscaled).sample
            return pixels

        pixels = self._with_vae(run)
        if not torch.isfinite(pixels).all():
            raise UnZipLoRAError(
                "The image came out as NaN, from the UNet or the VAE. Use another dtype for the "
                "model (bf16 or fp32), or name a good VAE with --vae."
            )
        return sampling.image(pixels)

    def _with_vae(self, run: Any) -> Tensor:
        """What `run` makes with the VAE, on the CPU where the device's memory is too small."""
        try:
            try:
                result: Tensor = run(self._load_vae(self.device))
            except torch.cuda.OutOfMemoryError:
                self._free()
                result = run(self._load_vae(torch.device("cpu")))
            return result.to(self.device)
        finally:
            self._free()

    def _load_vae(self, device: torch.device) -> nn.Module:
        if self._vae_path is not None:
            return load_vae(self._vae_path, device, self.file.vae_scale)
        return self.checkpoint.vae(device)

    def added_conditioning(self, pooled: Tensor, sizes: SizeIds) -> dict[str, Tensor]:
        """diffusers' `added_cond_kwargs` of pooled (n, width)."""
        ids = torch.tensor([*sizes.original, *sizes.crop, *sizes.target], dtype=torch.float32)
        time_ids = ids.to(pooled.device).expand(len(pooled), -1)
        return {"text_embeds": pooled.to(self.dtype), "time_ids": time_ids}

    def denoise(
        self, latents: Tensor, timesteps: Tensor, context: Tensor, added: dict[str, Tensor]
    ) -> Tensor:
        """The UNet's prediction (n, 4, h, w) for latents at timesteps (n,), grads enabled."""
        prediction: Tensor = self.unet(
            latents.to(self.dtype),
            timesteps,
            encoder_hidden_states=context.to(self.dtype),
            added_cond_kwargs=added,
        ).sample
        return prediction

    def preview(
        self,
        prompt: str,
        *,
        negative: str = "",
        size: tuple[int, int],
        steps: int = 20,
        seed: int = 0,
        sampler: str = sampling.SAMPLER,
        guidance: float | None = None,
    ) -> Image.Image:
        """An image of (height, width) = size by Euler, from the UNet as it is now; its
        `info["parameters"]` says how it was made, in the words in which WebUIs write it.

        The same for the same seed, on any device up to rounding. Under no_grad, never
        inference_mode, so that training continues after it. guidance: None for the model's own.
        Raises InvalidInput for another sampler.
        """
        guidance = self.defaults.usual_guidance if guidance is None else guidance
        if sampler != sampling.SAMPLER:
            raise InvalidInput(
                f"There is no sampler {sampler!r} here. Leave it empty: {sampling.SAMPLER} is the "
                "only one."
            )
        latents = sampling.sample(
            self.unet,
            self.encode_prompts([prompt, negative]),
            file=self.file,
            dtype=self.dtype,
            size=size,
            steps=steps,
            seed=seed,
            guidance=guidance,
        )
        image = self.decode_latents(latents)
        words = {
            "Steps": steps,
            "Sampler": sampling.SAMPLER,
            "CFG scale": f"{guidance:g}",
            "Seed": seed,
            "Size": f"{size[1]}x{size[0]}",
            "Model hash": (self.model.sha256 or "")[:10],
            "Model": Path(self.model.name).stem,
        }
        image.info[KEY] = infotext(prompt, negative, words)
        return image

    def _free(self) -> None:
        if self.device.type == "cuda":  # elsewhere memory goes back with the last reference
            gc.collect()
            torch.cuda.empty_cache()


def unloaded(path: str | Path, dtype: torch.dtype | None = None) -> ModelInfo:
    """Enough to plan a run, with no weight read. Raises InvalidInput as `StandaloneHost.open`."""
    file, device = identify(path, None), _device()
    unet = open_checkpoint(file).unet("meta", dtype or chosen_dtype(device))
    return ModelInfo(unet, device, file.defaults)


def identity_of(path: str | Path) -> ModelIdentity:
    """Name and family of a model, without its hash, which takes seconds to compute. Raises
    InvalidInput as `StandaloneHost.open`."""
    file = identify(path, None)
    return ModelIdentity(file.name, family=file.family)


def _device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _computes_in_fp16(device: torch.device) -> bool:
    if device.type != "cpu":
        return True
    number = torch.ones(1, 1, dtype=torch.float16)
    try:
        number @ number
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with torch.autocast("cpu", torch.float16):
                number @ number
    except RuntimeError:  # torch 2.1
        return False
    return True


def chosen_dtype(device: torch.device) -> torch.dtype:
    """The base's, where nobody asks for another."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if has_bf16(device) else torch.float16


def _sha256(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
