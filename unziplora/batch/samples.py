"""Images of a finished pair: content alone, style alone, both; kept, and scored where wanted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from unziplora import files
from unziplora.app.sheet import Draw, SheetPrompts, sheet_prompts
from unziplora.host import USUAL_GUIDANCE
from unziplora.images.load import open_image
from unziplora.lora.metadata import read_info
from unziplora.lora.pair import pair_files
from unziplora.scores.encoders import Encoder, open_encoders
from unziplora.scores.measure import similarities, summary


@dataclass(frozen=True)
class Sampling:
    """samples: images of each condition. encoders: as in open_encoders, or nothing to score."""

    samples: int
    encoders: str = ""
    steps: int = 25
    guidance: float = USUAL_GUIDANCE
    seed: int = 0


def draw_samples(
    draw: Draw, content: Path, style: Path, prompts: SheetPrompts, samples: int, seed: int
) -> dict[str, list[Image.Image]]:
    """As many images of each condition, over all scenes and objects in turn; the same prompts and
    seeds for every pair, so that differences are paired."""
    loras = {"content": [content], "style": [style], "both": [content, style]}
    images = {}
    for condition, row in prompts.by_row().items():
        texts = [row[number % len(row)] for number in range(samples)]
        images[condition] = list(draw(texts, [(path, 1.0) for path in loras[condition]], seed))
    return images


def score_images(
    encoders: Sequence[Encoder],
    reference: Image.Image,
    images: Mapping[str, Sequence[Image.Image]],
) -> dict[str, list[float]]:
    """All encoders' similarities with the image trained on, sample by sample, by measure."""
    found: dict[str, list[float]] = {}
    for encoder in encoders:
        found.update(similarities(encoder, reference, images))
    return found


class Sampler:
    """Draws, keeps and scores the samples of pairs in `out`, below out/samples/NAME."""

    def __init__(self, sampling: Sampling, out: Path) -> None:
        self._sampling, self._out = sampling, out
        self._encoders = open_encoders(sampling.encoders) if sampling.encoders else []

    def sample(self, draw: Draw, name: str, image: Path) -> dict[str, float]:
        """Mean scores by measure; images that were drawn before, of this pair in this way, are not
        drawn again. Raises UnZipLoRAError."""
        folder = self._out / "samples" / name
        content, style = pair_files(self._out, name).values()
        protocol = {"pair": read_info(content).pair, **asdict(self._sampling)}
        protocol.pop("encoders")
        images = self._kept(folder, protocol)
        if images is None:
            sampling = self._sampling
            prompts = sheet_prompts(content, style)
            images = draw_samples(draw, content, style, prompts, sampling.samples, sampling.seed)
            _keep(folder, images, image, protocol)
        scores = score_images(self._encoders, open_image(image).image, images)
        return {measure: summary(values).value for measure, values in scores.items()}

    def _kept(
        self, folder: Path, protocol: Mapping[str, object]
    ) -> dict[str, list[Image.Image]] | None:
        try:
            if json.loads((folder / "samples.json").read_text("utf-8")) != protocol:
                return None
            return {
                condition: [
                    Image.open(folder / condition / f"{n:02}.png").convert("RGB")
                    for n in range(self._sampling.samples)
                ]
                for condition in ("content", "style", "both")
            }
        except (OSError, ValueError, RecursionError):
            return None


def _keep(
    folder: Path,
    images: Mapping[str, Sequence[Image.Image]],
    image: Path,
    protocol: Mapping[str, object],
) -> None:
    """Last of all samples.json, which says that they are whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "samples.json").unlink(missing_ok=True)
    for condition, drawn in images.items():
        (folder / condition).mkdir(exist_ok=True)
        for number, sample in enumerate(drawn):
            with files.writing(folder / condition / f"{number:02}.png") as temporary:
                sample.save(temporary, "PNG")
    with files.writing(folder / "image.png") as temporary:
        open_image(image).image.save(temporary, "PNG")
    files.write_text(folder / "samples.json", json.dumps(protocol, indent=2) + "\n")
