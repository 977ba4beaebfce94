"""A folder that can be put on a model hub as it is: both files, images, and what hubs ask for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from unziplora import files as atomic
from unziplora.errors import InvalidInput
from unziplora.lora.metadata import read_info
from unziplora.method.prompts import BRANCHES

# Hugging Face names a base model by its repository; others are left to the user
_SDXL = "stabilityai/stable-diffusion-xl-base-1.0"


def publish(folder: Path, files: Mapping[str, Path], images: Mapping[str, Path]) -> Path:
    """Writes `folder` (which must not exist): the pair, the images (by any names), README.md with
    Hugging Face's metadata, and civitai.txt.

    files: content and style. Raises InvalidInput where the folder exists or a file is not of a
    pair.
    """
    if folder.exists():
        raise InvalidInput(
            f"{folder.name} exists already. Move that folder away, and publish once more."
        )
    heads: dict[str, dict[str, str]] = {role: _head(files[role]) for role in BRANCHES}
    folder.mkdir(parents=True)
    for path in files.values():
        shutil.copyfile(path, folder / path.name)
    (folder / "images").mkdir()
    shown = []
    for name, path in images.items():
        kept = folder / "images" / f"{name}.png"
        shutil.copyfile(path, kept)
        shown.append((name, kept.relative_to(folder).as_posix()))
    triggers = {role: head["trigger"] for role, head in heads.items()}
    atomic.write_text(folder / "README.md", _card(folder.name, files, heads, triggers, shown))
    atomic.write_text(folder / "civitai.txt", _civitai(folder.name, files, heads, triggers))
    return folder


def _head(path: Path) -> dict[str, str]:
    info = read_info(path)
    said = {
        "trigger": info.trigger,
        "combined": info.prompts.get("combined"),
        "method": info.method,
        "steps": info.steps,
        "rank": info.rank,
        "model": info.model_name,
    }
    if None in said.values():
        raise InvalidInput(
            f"{path.name} does not say how it was made. Only pairs that were trained here can be "
            "published."
        )
    return {key: str(value) for key, value in said.items()}


def _card(
    name: str,
    files: Mapping[str, Path],
    heads: Mapping[str, Mapping[str, str]],
    triggers: Mapping[str, str],
    shown: list[tuple[str, str]],
) -> str:
    """A Hugging Face model card; strings in its metadata are JSON, which YAML reads."""
    combined = heads["content"]["combined"]
    front = [
        "---",
        f"base_model: {_SDXL}",
        "library_name: diffusers",
        "pipeline_tag: text-to-image",
        "tags:",
        *(f"- {tag}" for tag in (
            "text-to-image", "stable-diffusion-xl", "stable-diffusion-xl-diffusers", "lora",
            "diffusers", "template:sd-lora", "unziplora",
        )),
        f"instance_prompt: {json.dumps(triggers['content'], ensure_ascii=False)}",
    ]  # fmt: skip
    if shown:
        front.append("widget:")
        for _, path in shown:
            front += [
                f"- text: {json.dumps(combined, ensure_ascii=False)}",
                "  output:",
                f"    url: {json.dumps(path)}",
            ]
    head = heads["content"]
    body = f"""---

# {_inline(name)}

Two LoRAs of one image: its content and its style, trained together by
[UnZipLoRA](https://unziplora.github.io) (method {_inline(head["method"])}, rank {head["rank"]},
{head["steps"]} steps, on {_inline(head["model"])}).

| file | what | in the prompt |
|---|---|---|
{_rows(files, triggers)}

Weight 1 is what they were trained for; 0.6 to 1.2 works. Both together:
`{_inline(combined)}`.

    pipeline.load_lora_weights(".", weight_name={json.dumps(files["content"].name)},
                               adapter_name="content")
    pipeline.load_lora_weights(".", weight_name={json.dumps(files["style"].name)},
                               adapter_name="style")
    pipeline.set_adapters(["content", "style"], [1.0, 1.0])

Say here under which licence you share them; a base model may ask for one.
"""
    return "\n".join([*front, body])


def _rows(files: Mapping[str, Path], triggers: Mapping[str, str]) -> str:
    return "\n".join(
        f"| `{_inline(path.name)}` | {role} | `{_inline(triggers[role])}` |"
        for role, path in files.items()
    )


def _inline(text: str) -> str:
    """Without what would end a code span, a table's cell or begin HTML."""
    return text.replace("`", "'").replace("|", "/").replace("<", "(").replace(">", ")")


def _civitai(
    name: str,
    files: Mapping[str, Path],
    heads: Mapping[str, Mapping[str, str]],
    triggers: Mapping[str, str],
) -> str:
    lines = [name, "", "Base model: SDXL 1.0", f"Trained on: {heads['content']['model']}", ""]
    for role, path in files.items():
        lines += [
            f"{path.name} ({role})",
            f"  Trigger words: {triggers[role]}",
            "  Recommended weight: 1.0 (0.6 to 1.2)",
        ]
    lines += ["", f"Both together: {heads['content']['combined']}", ""]
    return "\n".join(lines)
