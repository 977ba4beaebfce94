"""reForge and forge-classic as hosts: an older Forge, between Automatic1111's model and Forge's
memory management. Lines in comments are those of 3b56b268 and 1f95d717.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from unziplora.host import SizeIds
from unziplora.hosts.webui import conditioning as sgm
from unziplora.hosts.webui.base import zero_snr_chosen
from unziplora.hosts.webui.forge_base import ForgeObjectsHost, Regulation
from unziplora.hosts.webui.txt2img import webui
from unziplora.unet.patches import wrapped

_PREDICTIONS = {"EPS": "epsilon", "V_PREDICTION": "v_prediction"}


def _patched(name: str) -> Any:
    return importlib.import_module(f"ldm_patched.{name}")


class LdmPatchedHost(ForgeObjectsHost):
    """The loaded SDXL checkpoint: `Host` of host.py.

    prediction_type: instead of what the model says. Raises InvalidInput where no checkpoint of
    SDXL's family is loaded.
    """

    def _has_both_text_encoders(self) -> bool:
        return sgm.text_encoders(self._model) > 1

    def _stated_prediction(self) -> str:
        """By the checkpoint's markers, or by a .yaml beside it, which prevails
        (modules_forge/forge_loader.py:510 and 262)."""
        kind: str = self._kmodel.model_type.name
        if self._model.parameterization == "v":
            kind = "V_PREDICTION"
        return _PREDICTIONS.get(kind, kind)

    def _memory(self) -> Any:
        return _patched("modules.model_management")

    def _zero_snr(self) -> bool:
        """Whether images are sampled with zero terminal SNR: by the option, or for a checkpoint
        with the marker `ztsnr`."""
        return zero_snr_chosen() or bool(self._model.ztsnr)

    def _rescale(self) -> Callable[[Tensor], Tensor]:
        """The WebUI's function that gives a schedule zero terminal SNR."""
        raise NotImplementedError

    @property
    def alphas_cumprod(self) -> Tensor:
        """The schedule that images are sampled with. `alphas_cumprod` may hold what the last
        generation used (modules/sd_models.py:942, modules_forge/forge_loader.py:352)."""
        original = getattr(self._model, "alphas_cumprod_original", self._model.alphas_cumprod)
        alphas: Tensor = original.detach().float().to(self.device).clone()
        return self._rescale()(alphas) if self._zero_snr() else alphas

    @contextlib.contextmanager
    def _drawing(self, job: Any) -> Iterator[None]:
        # modules/processing.py:876 and 1019; 750 and 851
        job.override_settings = {"sd_model_checkpoint": self._model.sd_checkpoint_info.name}
        with super()._drawing(job):
            yield

    def encode_prompts(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """context (n, 77 k, width) and pooled (n, width), as the WebUI reads prompts.

        Raises InvalidInput for a word that is the name of an installed embedding.
        """
        self._refuse_embeddings(prompts, sgm.embeddings())
        with self._restored():
            context, pooled = sgm.encoded(self._model, prompts)
            return context.to(self.device), pooled.to(self.device)

    def added_conditioning(self, pooled: Tensor, sizes: SizeIds) -> Tensor:
        return sgm.vector(self._model, pooled, sizes)

    def _regulated(
        self, vae: Any, regulation: Regulation
    ) -> contextlib.AbstractContextManager[None]:
        """Its posterior is sampled in a module of its own (ldm_patched/ldm/models/autoencoder.py:22
        and 31)."""
        posterior = _patched("ldm.modules.distributions.distributions").DiagonalGaussianDistribution
        return wrapped(
            vae.first_stage_model,
            [vae.first_stage_model.regularization],
            lambda _: lambda moments: (regulation(posterior(moments)), {}),
        )

    def _scaled(self, vae: Any, latents: Tensor) -> Tensor:
        scaled: Tensor = self._kmodel.process_latent_in(latents)
        return scaled

    def _computation_dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._kmodel.manual_cast_dtype or self._kmodel.get_dtype()
        return dtype


class ReForgeHost(LdmPatchedHost):
    """reForge (1.0.0v2-v1.10.1RC)."""

    _overwritten = ()

    def _rescale(self) -> Callable[[Tensor], Tensor]:
        rescale: Callable[[Tensor], Tensor] = webui("sd_models").rescale_zero_terminal_snr_abar
        return rescale


class ClassicHost(LdmPatchedHost):
    """forge-classic (branch classic)."""

    def _zero_snr(self) -> bool:
        """Only for checkpoints that predict v: for others the option does nothing, as there is no
        `alphas_cumprod_original` (modules_forge/forge_loader.py:266 and 331)."""
        return super()._zero_snr() and hasattr(self._model, "alphas_cumprod_original")

    def _rescale(self) -> Callable[[Tensor], Tensor]:
        loader = importlib.import_module("modules_forge.forge_loader")
        rescale: Callable[[Tensor], Tensor] = loader.rescale_zero_terminal_snr_abar
        return rescale
