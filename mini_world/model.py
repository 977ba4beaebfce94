"""The miniature's parts: SDXL's own classes, connected as in SDXL, only narrow.

UNet: the eleven attention groups with SDXL's names. Context is the concatenation of both text
encoders' penultimate hidden states; the pooled projection of the second and six size numbers
go into the added conditioning.

No level is narrower than 64 channels. Group norms have 32 groups, as sgm's code has them fixed;
with 32 channels they would normalise every channel by itself, and an image's overall colour could
not pass: a VAE trained so drew everything in grey.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

RESOLUTION = 128
TEXT_WIDTHS = (32, 64)  # of the two encoders; their sum is the context's width
TIME_ID_WIDTH = 256  # of each of the six size numbers
VAE_SCALE = 0.13025  # SDXL's own: vae.py makes the latents fit it
VOCABULARY, TOKENS = 49408, 77
END = 49407  # end-of-text token, also the first tokenizer's padding
TOKENIZER = Path(__file__).parents[1] / "unziplora" / "checkpoints" / "clip_tokenizer"


def new_vae() -> AutoencoderKL:
    """64 to 128 channels; residual branches start at zero, so that colours pass from step one."""
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(64, 64, 128, 128),
        layers_per_block=1,
        sample_size=RESOLUTION,
        scaling_factor=VAE_SCALE,
        force_upcast=False,
    )
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
    return vae


def new_unet(
    widths: tuple[int, int, int] = (64, 128, 128), depths: tuple[int, int] = (1, 1)
) -> UNet2DConditionModel:
    """SDXL's UNet with other widths and transformer depths.

    Residual branches start at zero, as in sgm's own code (diffusers leaves that to loading).
    """
    unet = UNet2DConditionModel(
        sample_size=RESOLUTION // 8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=widths,
        layers_per_block=2,
        transformer_layers_per_block=(1, *depths),
        attention_head_dim=tuple(w // 64 for w in widths),  # as in SDXL's file: number of heads
        cross_attention_dim=sum(TEXT_WIDTHS),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_ID_WIDTH,
        projection_class_embeddings_input_dim=TEXT_WIDTHS[1] + 6 * TIME_ID_WIDTH,
    )
    for name, module in unet.named_modules():
        if name.endswith((".conv2", ".proj_out")) or name == "conv_out":
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return unet


def _text_config(width: int, activation: str, padding: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=1,
        max_position_embeddings=TOKENS,
        hidden_act=activation,
        bos_token_id=49406,
        eos_token_id=END,
        pad_token_id=padding,
    )


class TextEncoders(nn.Module):
    """Both text encoders, used as SDXL uses them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = CLIPTextModel(_text_config(TEXT_WIDTHS[0], "quick_gelu", END))
        self.second = CLIPTextModelWithProjection(_text_config(TEXT_WIDTHS[1], "gelu", 0))
        self.tokenizers = tokenizers()

    def tokens(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Token ids for each encoder, (n, 77)."""
        first, second = (
            t(
                captions,
                padding="max_length",
                max_length=TOKENS,
                truncation=True,
                return_tensors="pt",
            ).input_ids
            for t in self.tokenizers
        )
        return first, second

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids, (n, 77) each, to context (n, 77, 96) and pooled (n, 64)."""
        one = self.first(first, output_hidden_states=True)
        two = self.second(second, output_hidden_states=True)
        return torch.cat([one.hidden_states[-2], two.hidden_states[-2]], -1), two.text_embeds


def tokenizers() -> tuple[CLIPTokenizer, CLIPTokenizer]:
    """SDXL's two: the same words, padded with end-of-text or with "!"."""
    first = CLIPTokenizer.from_pretrained(str(TOKENIZER))
    second = CLIPTokenizer.from_pretrained(str(TOKENIZER), pad_token="!")
    return first, second


def time_ids(count: int) -> Tensor:
    """(count, 6): original height, width, crop top, left, target height, width."""
    return torch.tensor([[RESOLUTION, RESOLUTION, 0, 0, RESOLUTION, RESOLUTION]]).repeat(count, 1)
