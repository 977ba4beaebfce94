"""Workflows in the form that ComfyUI's API takes."""

from __future__ import annotations

from typing import Any

Workflow = dict[str, Any]
SETTINGS = {
    "subject": "cat", "style": "crayon drawing", "token": "sks", "name": "", "existing":
    "add a number", "steps": 4, "rank": 4, "lr": 0.001, "resolution": 128, "seed": 5,
    "method": "unziplora", "memory": "auto", "preview_every": -1, "preview_steps": 2,
    "more_settings": "",
}  # fmt: skip
LOADED = {"model": ["model", 0], "clip": ["model", 1], "vae": ["model", 2]}


def node(kind: str, /, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def loaded(checkpoint: str, image: str = "") -> Workflow:
    """A checkpoint as "model", and an image as "image" where one is named."""
    workflow = {"model": node("CheckpointLoaderSimple", ckpt_name=checkpoint)}
    if image:
        workflow["image"] = node("LoadImage", image=image)
    return workflow


def unzip(checkpoint: str, image: str, /, **changed: Any) -> Workflow:
    """Trains; changed: fields and links of the node that are other than usual."""
    inputs = {**LOADED, "image": ["image", 0], **SETTINGS, **changed}
    return {**loaded(checkpoint, image), "unzip": node("UnZipLoRA_UnzipImage", **inputs)}


def drawn(
    checkpoint: str, prompt: str, seed: int = 0, between: Workflow | None = None, model: Any = None
) -> Workflow:
    """Draws an image. between: nodes that change the model; model: the link to what they give."""
    text = {name: node("CLIPTextEncode", clip=["model", 1], text=words)
            for name, words in (("positive", prompt), ("negative", ""))}  # fmt: skip
    return {
        **loaded(checkpoint),
        **(between or {}),
        **text,
        "latent": node("EmptyLatentImage", width=128, height=128, batch_size=1),
        "sampled": node(
            "KSampler", model=model or ["model", 0], seed=seed, steps=2, cfg=5.0,
            sampler_name="euler", scheduler="normal", positive=["positive", 0],
            negative=["negative", 0], latent_image=["latent", 0], denoise=1.0,
        ),
        "decoded": node("VAEDecode", samples=["sampled", 0], vae=["model", 2]),
        "saved": node("SaveImage", images=["decoded", 0], filename_prefix="drawn"),
    }  # fmt: skip


def probe(checkpoint: str, tag: str) -> Workflow:
    """Writes down what the checkpoint's parts are made of; tag: one that was not used yet."""
    return {**loaded(checkpoint), "probe": node("TestProbe", **LOADED, tag=tag)}
