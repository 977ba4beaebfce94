"""Damaged input for every parser. A case passes if it is read, or refused in our own words, and
nothing but the input lies in its folder afterwards; how much processor time the slowest took is
reported. The first case of each is whole, and must be read: what is refused whole, tests nothing
when it is damaged."""

from __future__ import annotations

import io
import json
import shutil
import struct
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TypeVar

import torch
from PIL import Image
from safetensors.torch import save

from benchmarks.reliability.damage import (
    damaged_bytes,
    damaged_json,
    damaged_safetensors,
    odd_word,
)
from benchmarks.reliability.small import begin, host_maker
from unziplora import files as atomic
from unziplora import python_api as api
from unziplora.checkpoints.identify import identify
from unziplora.errors import InvalidInput, UnZipLoRAError
from unziplora.host import ModelIdentity, SizeIds
from unziplora.images.load import fit, open_image
from unziplora.lora.inspect import inspect
from unziplora.lora.merge import merge
from unziplora.lora.tensor_file import read_metadata
from unziplora.method.methods import METHODS, table_for
from unziplora.testing.random_checkpoint import Widths, write_random_model
from unziplora.training.events import StepDone
from unziplora.training.inputs import TrainingInputs
from unziplora.training.run_folder import RunFolder, RunInfo, damaged
from unziplora.training.settings import Settings
from unziplora.training.trainer import Trainer
from unziplora.unet.attach import attach

_SIZES = SizeIds(original=(64, 64), crop=(0, 0), target=(64, 64))

Case = Callable[[Path], object]  # called with an empty folder
Cases = Callable[[Random], Iterator[Case]]
Data = TypeVar("Data")


@dataclass
class Result:
    """Of one parser. slowest: processor seconds of one case; findings: what was raised that is not
    ours, or went wrong otherwise."""

    cases: int = 0
    read: int = 0
    refused: int = 0
    slowest: float = 0.0
    findings: list[str] = field(default_factory=list)


def run(make: Cases, count: int, folder: Path, seed: int = 0) -> Result:
    """The first `count` cases of a parser."""
    result, cases = Result(), make(Random(seed))
    for number in range(count):
        case = next(cases)
        _clear(folder)
        began = time.process_time()
        try:
            case(folder)
            result.read += 1
        except UnZipLoRAError as error:
            result.refused += 1
            if number == 0:
                result.findings.append(f"the whole input is refused: {error}")
            if not _two_sentences(str(error)):
                result.findings.append(f"case {number}: refused with {str(error)!r}")
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {str(error)[:200]} ({where.name}, {where.line})"
            result.findings.append(f"case {number}: {text}")
        result.slowest = max(result.slowest, time.process_time() - began)
        left = [path.name for path in folder.iterdir() if not path.name.startswith("input")]
        if left:
            result.findings.append(f"case {number}: left {left}")
        result.cases += 1
    return result


def _one_whole(
    seeds: Sequence[Data], damage: Callable[[Data, Random], Data], rng: Random
) -> Iterator[Data]:
    """The first of the seeds as it is, then all of them damaged for ever."""
    yield seeds[0]
    while True:
        yield damage(rng.choice(seeds), rng)


def images(rng: Random) -> Iterator[Case]:
    for data in _one_whole(list(_good_images(rng)), damaged_bytes, rng):
        yield lambda folder, data=data: fit(open_image(data), 64, "aspect")


def lora_files(rng: Random) -> Iterator[Case]:
    seeds = [_good_lora(style) for style in ("kohya", "peft")]
    for data in _one_whole(seeds, damaged_safetensors, rng):

        def read(folder: Path, data: bytes = data) -> None:
            path = _written(folder, "input.safetensors", data)
            read_metadata(path)
            inspect(path).as_text()

        yield read


def merged_files(rng: Random) -> Iterator[Case]:
    good = _good_lora("kohya")
    weights = (0.0, 1.0, -2.0, float("nan"))
    for number, data in enumerate(_one_whole([good], damaged_safetensors, rng)):
        weight = rng.choice(weights) if number else 1.0

        def add(folder: Path, data: bytes = data, weight: float = weight) -> None:
            one = _written(folder, "input.safetensors", data)
            other = _written(folder, "input2.safetensors", good)
            merge(folder / "input-merged.safetensors", [(one, weight), (other, 1.0)])

        yield add


def checkpoints(rng: Random) -> Iterator[Case]:
    for data in _one_whole([_checkpoint(), _good_lora("kohya")], damaged_safetensors, rng):
        yield lambda folder, data=data: identify(_written(folder, "input.safetensors", data))


def states(rng: Random) -> Iterator[Case]:
    """Read into a trainer, of which three layers are kept so that a case takes milliseconds."""
    host = host_maker()()
    settings = Settings(subject="cat", style="ink", rank=2, steps=6).resolve()
    method = METHODS[settings.method].on("sdxl")
    attached = attach(
        host.unet, method, table_for("sdxl"), rank=2, alpha=2.0, init="random",
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    for name in list(attached.pairs)[3:]:
        del attached.pairs[name]
    encoded = TrainingInputs(
        torch.zeros(1, 4, 8, 8), torch.zeros(3, 77, 32), torch.zeros(3, 16), _SIZES
    )
    trainer = Trainer(host, settings, attached, encoded)
    for _, _, branch in attached.branches():  # moments, as after a first step
        for parameter in (branch.down, branch.up, branch.merger):
            parameter.grad = torch.ones_like(parameter)
    trainer._optimizer._optimizer.step()
    with tempfile.TemporaryDirectory() as temporary:
        folder = RunFolder(Path(temporary))
        folder.save_state(trainer, "pair")
        good = folder.state.read_bytes()
    for data in _one_whole([good], _damaged_state, rng):

        def read(folder: Path, data: bytes = data) -> None:
            _written(folder / "input", "state.safetensors", data)
            found = RunFolder(folder / "input").read_state("pair")
            try:
                trainer.encoded = TrainingInputs.restore(*found, host.device)
                trainer.restore(*found)
            except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
                raise InvalidInput(damaged("state.safetensors")) from error  # as Run says it
            finally:
                trainer.encoded = encoded

        yield read


def resumes(rng: Random) -> Iterator[Case]:
    """A run is resumed from a damaged state, on a model, for a step."""
    host = host_maker()()
    before = {name: tensor.clone() for name, tensor in host.unet.state_dict().items()}
    with tempfile.TemporaryDirectory() as temporary:
        run = begin(host, Path(temporary) / "out")
        for event in run:
            if isinstance(event, StepDone) and event.step == 3:
                run.send("stop")
        good = run.folder.state.read_bytes()
        settings = (run.folder.path / "settings.json").read_bytes()
    for data in _one_whole([good], _damaged_state, rng):

        def resume(folder: Path, data: bytes = data) -> None:
            run_folder = folder / "input"
            _written(run_folder, "settings.json", settings)
            _written(run_folder, "state.safetensors", data)
            events = iter(api.resume(run_folder, host=host))
            try:
                for event in events:
                    if isinstance(event, StepDone):
                        return
            finally:
                events.close()  # type: ignore[attr-defined]
                now = host.unet.state_dict()
                assert now.keys() == before.keys()
                assert all(torch.equal(now[name], before[name]) for name in before)
                shutil.rmtree(run_folder)

        yield resume


def run_settings(rng: Random) -> Iterator[Case]:
    settings = Settings(subject="cat", style="ink", rank=2, resolution=64, steps=6).resolve()
    model = ModelIdentity("a")
    with tempfile.TemporaryDirectory() as temporary:
        RunFolder(Path(temporary)).write_info(RunInfo(settings, model, "sdxl", "x", 1.0))
        good = (Path(temporary) / "settings.json").read_text("utf-8")
    for text in _one_whole([good], damaged_json, rng):

        def read(folder: Path, text: str = text) -> None:
            path = _written(folder, "input.json", text.encode("utf-8", "surrogatepass"))
            path.rename(folder / "settings.json")
            try:
                RunFolder(folder).read_info()
            finally:
                (folder / "settings.json").unlink()

        yield read


def bodies(rng: Random) -> Iterator[Case]:
    """Settings as page, API and --settings bring them."""
    good = Settings(subject="cat", style="ink", blocks={"content": ("x",), "style": ()}).as_json()
    for text in _one_whole([good], damaged_json, rng):

        def use(folder: Path, text: str = text) -> None:
            settings = Settings.from_json(text)
            atomic.check_name(settings.file_name)
            _use(settings)

        yield use


def names_and_words(rng: Random) -> Iterator[Case]:
    def odd(_: list[str], rng: Random) -> list[str]:
        return [odd_word(rng) for _ in range(4)]

    for words in _one_whole([["pair", "cat", "ink", "sks"]], odd, rng):

        def use(folder: Path, words: list[str] = words) -> None:
            atomic.check_name(words[0])
            settings = Settings(subject=words[1], style=words[2], token=words[3])
            atomic.check_name(settings.file_name)
            _use(settings)

        yield use


PARSERS: dict[str, Cases] = {
    "images": images,
    "LoRA files": lora_files,
    "LoRA files, merged": merged_files,
    "checkpoint headers": checkpoints,
    "states": states,
    "states, resumed": resumes,
    "run settings": run_settings,
    "settings of page, API and command line": bodies,
    "names and words": names_and_words,
}


def _damaged_state(good: bytes, rng: Random) -> bytes:
    """Damaged as a file, or only in the numbers that its header holds."""
    if rng.random() < 0.6:
        return damaged_safetensors(good, rng)
    length = struct.unpack("<Q", good[:8])[0]
    header = json.loads(good[8 : 8 + length])
    metadata = header["__metadata__"]
    if rng.random() < 0.8:
        metadata["numbers"] = damaged_json(metadata["numbers"], rng)
    else:
        metadata[rng.choice(list(metadata))] = odd_word(rng)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + good[8 + length :]


def _use(settings: Settings) -> None:
    """What is accepted must be usable: in a prompt, in JSON and as a file's name."""
    settings.prompts  # noqa: B018
    Settings.from_json(settings.as_json())
    settings.as_json().encode("utf-8")


def _two_sentences(text: str) -> bool:
    return text.count(". ") >= 1 and text.endswith((".", ")")) and "\n" not in text


def _written(folder: Path, name: str, data: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(data)
    return path


def _clear(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()


def _good_images(rng: Random) -> Iterator[bytes]:
    for kind, modes in {
        "PNG": ("RGB", "RGBA", "L", "P", "1", "I;16"),
        "JPEG": ("RGB", "L", "CMYK"),
        "WEBP": ("RGB", "RGBA"),
        "GIF": ("P",),
        "BMP": ("RGB",),
        "TIFF": ("RGB", "F"),
    }.items():
        for mode in modes:
            image = Image.frombytes("RGB", (72, 66), rng.randbytes(72 * 66 * 3))
            file = io.BytesIO()
            image.convert("I").convert(mode).save(file, kind) if mode == "I;16" else image.convert(
                mode
            ).save(file, kind)
            yield file.getvalue()


def _good_lora(style: str) -> bytes:
    tensors = {}
    for n in range(2):
        kohya = f"lora_unet_output_blocks_{n}_1_transformer_blocks_0_attn2_to_k"
        peft = f"unet.up_blocks.0.attentions.{n}.transformer_blocks.0.attn2.to_k"
        names = {
            "kohya": (f"{kohya}.lora_down.weight", f"{kohya}.lora_up.weight"),
            "peft": (f"{peft}.lora_A.weight", f"{peft}.lora_B.weight"),
        }[style]
        tensors[names[0]], tensors[names[1]] = torch.randn(2, 12), torch.randn(8, 2)
        if style == "kohya":
            tensors[f"{kohya}.alpha"] = torch.tensor(2.0)
    arguments = json.dumps({"trigger": "sks cat", "pair": "x", "method": "unziplora"})
    return save(tensors, {"ss_network_args": arguments, "sshs_model_hash": "0" * 64})


def _checkpoint() -> bytes:
    """A random model of the family's smallest topology, a few numbers wide."""
    widths = Widths(unet=(32, 32, 32), text=(16, 16), layers=(1, 1))
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "model.safetensors"
        write_random_model(path, architecture="koala-700m", widths=widths, resolution=64)
        return path.read_bytes()
