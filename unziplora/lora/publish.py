"""A folder that can be put on a model hub as it is: both files, images, and what hubs ask for.

NAME/ with README.md (Hugging Face's card), civitai.txt and images, and NAME.zip of it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unziplora import files as atomic
from unziplora.errors import InvalidInput, WriteError
from unziplora.lora.metadata import LoraInfo, read_info
from unziplora.method.prompts import BRANCHES

# Hugging Face's ids of licences, and their names.
LICENCES = {
    "openrail++": "CreativeML Open RAIL++-M, which SDXL has",
    "creativeml-openrail-m": "CreativeML Open RAIL-M",
    "cc0-1.0": "CC0 1.0, public domain",
    "cc-by-4.0": "CC BY 4.0",
    "cc-by-sa-4.0": "CC BY-SA 4.0",
    "cc-by-nc-4.0": "CC BY-NC 4.0",
    "mit": "MIT",
    "apache-2.0": "Apache 2.0",
}


@dataclass(frozen=True)
class Base:
    """A base model on the hubs. name: Civitai's word. repository: on Hugging Face, if it is there;
    in_diffusers: whether diffusers loads it from there."""

    name: str
    repository: str | None
    in_diffusers: bool = True


_SDXL = Base("SDXL 1.0", "stabilityai/stable-diffusion-xl-base-1.0")
_BASES = {  # by family, else by architecture
    "Pony": Base("Pony", "AstraliteHeart/pony-diffusion-v6", False),
    "Illustrious": Base("Illustrious", "OnomaAIResearch/Illustrious-xl-early-release-v0", False),
    "NoobAI": Base("NoobAI", "Laxhar/noobai-XL-1.1", False),
    "ssd-1b": Base("Other", "segmind/SSD-1B"),
    "vega": Base("Other", "segmind/Segmind-Vega"),
    "koala-1b": Base("Other", "etri-vilab/koala-1b"),
    "koala-700m": Base("Other", "etri-vilab/koala-700m"),
    "mini": Base("Other", None, False),
}


@dataclass(frozen=True)
class _Published:
    """What is published, as the texts need it. files and infos: by role. images: by what they show,
    paths below the folder. prompts: of content, style and both, as they were trained."""

    title: str
    licence: str | None
    base: Base
    files: Mapping[str, Path]
    infos: Mapping[str, LoraInfo]
    images: Mapping[str, str]
    prompts: Mapping[str, str]

    def trigger(self, role: str) -> str:
        return self.infos[role].trigger or ""

    def call(self, *roles: str) -> str:
        """A WebUI's prompt for these LoRAs."""
        prompt = self.prompts["both" if len(roles) > 1 else roles[0]]
        return " ".join([prompt, *(f"<lora:{self.files[role].stem}:1>" for role in roles)])


def publish(
    folder: Path,
    files: Mapping[str, Path],
    images: Mapping[str, Path],
    *,
    title: str | None = None,
    licence: str | None = None,
) -> Path:
    """Writes `folder` and, beside it, a zip of it (`zip_of`); neither may exist.

    files: content and style. images: of content, style, both, or of anything else. title: the
    folder's name where none is given. licence: one of LICENCES. Raises InvalidInput where
    either exists, a file is not of a pair or the licence is unknown, and WriteError, with nothing
    left behind, where the disk refuses.
    """
    _check_unused(folder)
    if licence is not None and licence not in LICENCES:
        raise InvalidInput(
            f"There is no licence {licence[:40]!r}. Choose one of {', '.join(LICENCES)}."
        )
    infos: dict[str, LoraInfo] = {role: _info(files[role]) for role in BRANCHES}
    content = infos["content"]
    pair = _Published(
        (title or "").strip() or folder.name,
        licence,
        _BASES.get(content.family or "", _BASES.get(content.architecture or "", _SDXL)),
        files,
        infos,
        {what: f"images/{what}.png" for what in images},
        {"both": content.prompts["combined"], **_own_prompts(infos)},
    )
    prefix = f".{folder.name[:40]}."
    try:
        with tempfile.TemporaryDirectory(
            prefix=prefix, dir=folder.parent, ignore_cleanup_errors=True
        ) as temporary:
            unfinished = Path(temporary) / folder.name
            unfinished.mkdir()
            _write(unfinished, pair, images)
            _zip(unfinished)
            with atomic.all_or_none() as undo:
                with atomic.writing(zip_of(folder), new=True) as packed:
                    os.replace(zip_of(unfinished), packed)
                undo.callback(atomic.remove, zip_of(folder))
                os.replace(unfinished, folder)
    except OSError as error:
        raise WriteError(
            f"{folder.name} could not be published ({error.strerror or error}). "
            "Make room on the disk, or allow writing there."
        ) from error
    return folder


def _check_unused(folder: Path) -> None:
    for path, kind in ((folder, "folder"), (zip_of(folder), "file")):
        if os.path.lexists(path):
            raise InvalidInput(
                f"{path.name} exists already. Move that {kind} away, and publish once more."
            )


def zip_of(folder: Path) -> Path:
    """Where the zip of a published folder is."""
    return folder.with_name(f"{folder.name}.zip")


def _info(path: Path) -> LoraInfo:
    info = read_info(path)
    needed = (info.trigger, info.method, info.steps, info.rank, info.model_name)
    if None in needed or "combined" not in info.prompts:
        raise InvalidInput(
            f"{path.name} does not say how it was made. Only pairs that were trained here can be "
            "published."
        )
    return info


def _own_prompts(infos: Mapping[str, LoraInfo]) -> dict[str, str]:
    return {role: info.prompts.get(role) or info.trigger or "" for role, info in infos.items()}


def _write(folder: Path, pair: _Published, images: Mapping[str, Path]) -> None:
    for path in pair.files.values():
        shutil.copyfile(path, folder / path.name)
    (folder / "images").mkdir()
    for what, path in images.items():
        shutil.copyfile(path, folder / pair.images[what])
    atomic.write_text(folder / "README.md", _card(pair))
    atomic.write_text(folder / "civitai.txt", _civitai(pair))


def _zip(folder: Path) -> None:
    """Stored, not compressed: tensors and PNGs do not get smaller."""
    with zipfile.ZipFile(zip_of(folder), "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder.parent))


def _card(pair: _Published) -> str:
    """A Hugging Face model card; strings in its metadata are JSON, which YAML reads."""
    front = ["---"]
    if pair.licence:
        front.append(f"license: {pair.licence}")
    if pair.base.repository:
        front += [f"base_model: {pair.base.repository}", "base_model_relation: adapter"]
    front += ["library_name: diffusers", "pipeline_tag: text-to-image", "tags:"]
    front += [
        f"- {tag}"
        for tag in (
            *("text-to-image", "stable-diffusion-xl", "stable-diffusion-xl-diffusers", "lora"),
            *("diffusers", "template:sd-lora", "unziplora"),
        )
    ]
    front.append(f"instance_prompt: {_json(pair.trigger('content'))}")
    if pair.images:
        front.append("widget:")
        for what, path in pair.images.items():
            prompt = pair.prompts.get(what, pair.prompts["both"])
            front += [f"- text: {_json(prompt)}", "  output:", f"    url: {_json(path)}"]
    return "\n".join([*front, "---", "", _body(pair)])


def _body(pair: _Published) -> str:
    info = pair.infos["content"]
    licence = f"Licence: {LICENCES[pair.licence]}." if pair.licence else "No licence was chosen."
    gallery = "\n<Gallery />\n" if pair.images else ""
    return f"""# {_inline(pair.title)}
{gallery}
Two LoRAs of one image: its content and its style, trained together by
[UnZipLoRA](https://unziplora.github.io) (method {_inline(info.method)}, rank {info.rank},
{info.steps} steps, on {_inline(info.model_name)}).

| file | what | trigger words |
|---|---|---|
{_rows(pair)}

Weight 1 is what they were trained for; 0.6 to 1.2 works. In a WebUI:

```
{pair.call("content")}
{pair.call("style")}
{pair.call("content", "style")}
```

With diffusers, in a folder with these files:

```python
{_code(pair)}
```

{licence}
"""


def _code(pair: _Published) -> str:
    content, style = pair.files["content"].name, pair.files["style"].name
    if pair.base.repository and pair.base.in_diffusers:
        load = f"from_pretrained({_json(pair.base.repository)}, torch_dtype=dtype)"
    else:
        name = _json(pair.infos["content"].model_name or "")
        load = f"from_single_file({name}, torch_dtype=dtype)"
    return f"""import torch
from diffusers import StableDiffusionXLPipeline

device = "cuda" if torch.cuda.is_available() else "cpu"
dtype = torch.float16 if device == "cuda" else torch.float32
pipeline = StableDiffusionXLPipeline.{load}
pipeline.load_lora_weights(".", weight_name={_json(content)}, adapter_name="content")
pipeline.load_lora_weights(".", weight_name={_json(style)}, adapter_name="style")
pipeline.set_adapters(["content", "style"], [1.0, 1.0])
image = pipeline.to(device)({_json(pair.prompts["both"])}).images[0]
image.save("both.png")"""


def _rows(pair: _Published) -> str:
    return "\n".join(
        f"| `{_inline(path.name)}` | {role} | `{_inline(pair.trigger(role))}` |"
        for role, path in pair.files.items()
    )


def _json(text: str) -> str:
    """In double quotes, as YAML and Python read them."""
    return json.dumps(text, ensure_ascii=False)


def _inline(text: str | None) -> str:
    """Without what would end a code span, a table's cell or begin HTML."""
    marks = {"`": "'", "|": "/", "<": "(", ">": ")"}
    return "".join(marks.get(character, character) for character in text or "")


def _civitai(pair: _Published) -> str:
    info = pair.infos["content"]
    lines = [
        pair.title,
        "",
        "Type: LoRA",
        f"Base model: {pair.base.name}",
        f"Trained on: {info.model_name}",
    ]
    if pair.licence:
        lines.append(f"Licence: {LICENCES[pair.licence]}")
    for role, path in pair.files.items():
        lines += [
            "",
            f"{path.name} ({role})",
            f"  Trigger words: {pair.trigger(role)}",
            "  Recommended weight: 1.0 (0.6 to 1.2)",
            f"  Prompt: {pair.call(role)}",
        ]
    lines += ["", f"Both together: {pair.call('content', 'style')}", ""]
    return "\n".join(lines)
