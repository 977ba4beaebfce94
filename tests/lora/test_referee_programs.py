"""Other programs, run whole by their own Python, add to a model what our reader says of a file.

Referees, each where a variable of the environment names it:

    UNZIPLORA_DIFFUSERS=/a/python        with any diffusers and peft, such as 0.29.2
    UNZIPLORA_KOHYA=/sd-scripts UNZIPLORA_KOHYA_PYTHON=/a/python
    UNZIPLORA_LYCORIS=/a/python          with lycoris-lora

Both ways: our pairs and merges in their hands, and the files that they write in ours.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.lora.layouts import KINDS, Made, linears, pairs, sgm
from tests.lora.layouts import kohya as kohyas
from tests.lora.referees.write_with_lycoris import KINDS as LYCORIS
from tests.lora.test_pair_loads import trained, write
from unziplora.checkpoints.key_map import UNET
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.lora.algorithms import Difference
from unziplora.lora.merge import merge
from unziplora.lora.read import read_lora
from unziplora.testing.random_checkpoint import Widths, write_random_model

NARROW = Widths((32, 64, 128), (32, 32, 32, 32), (32, 32), (2, 2))
REFEREES = Path(__file__).with_name("referees")
CLOSE = 1e-3  # of a layer's change
KOHYA_APPLIES = ("apply", "merge", "bake")
KOHYA_WRITES = [("lora", 1.0), ("lora", 8.0), ("oft", 0.01)]
# layers outside the blocks, for which kohya's scripts have no modules
_OUTSIDE = ("time_embed", "label_emb", "out_", "input_blocks_0_")
OUTSIDE = tuple(f"lora_unet_{name}" for name in _OUTSIDE)
Files = Sequence[tuple[Path, float]]


def program(name: str) -> str:
    found = os.environ.get(name, "")
    if not found:
        pytest.skip(f"{name} names no program")
    return found


def run(python: str, script: str, *arguments: Path | str) -> None:
    command = [python, REFEREES / script, *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("referees") / "m.safetensors"
    return write_random_model(path, widths=NARROW, dtype=torch.float32)


@pytest.fixture(scope="module")
def host(model: Path) -> StandaloneHost:
    return StandaloneHost.open(model, device="cpu")


@pytest.fixture(scope="module")
def uses(host: StandaloneHost, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    """Ways to use our files: a trained pair, and merges of others' files."""
    folder = tmp_path_factory.mktemp("files")
    with trained(host, host.unet) as trainer:
        pair = write(trainer.attachment, host.unet, folder)
    ranks = pairs(linears(host.unet), rank=None)
    few = {n: p for n, p in pairs(linears(host.unet), rank=9, seed=1).items() if "up_blocks" in n}
    one = Made(kohyas(ranks, alpha=None), {}).write(folder / "one.safetensors")
    other = Made(kohyas(few, alpha=3.0), {}).write(folder / "other.safetensors")
    locon = KINDS["LoCon"](host.unet)
    inside = {k: t for k, t in locon.tensors.items() if not k.startswith(OUTSIDE)}
    conv = Made(inside, {}).write(folder / "conv.safetensors")
    merged = merge(folder / "merged.safetensors", [(one, 0.7), (other, -1.2)]).path
    whole = merge(folder / "whole.safetensors", [(conv, 0.5), (pair["style"], 1.0)]).path
    return {
        "content": [(pair["content"], 1.0)],
        "style": [(pair["style"], 0.8)],
        "both": [(pair["content"], 0.6), (pair["style"], -0.5)],
        "a merge of different ranks": [(merged, 1.0)],
        "a merge with convolutions": [(whole, 0.9)],
    }


def jobs_for(uses: Mapping[str, Files], folder: Path, **common: Any) -> list[dict[str, Any]]:
    return [
        {
            **common,
            "files": [str(path) for path, _ in files],
            "weights": [weight for _, weight in files],
            "out": str(folder / f"{name}.safetensors"),
        }
        for name, files in uses.items()
    ]


def ours(files: Files, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What our reader says that the files change, by sgm's name of the weight or bias."""
    changes: dict[str, Tensor] = {}
    for path, weight in files:
        for target, adapter in read_lora(path).adapters.items():
            name = f"{target.module}.weight"
            delta = weight * adapter.delta(weights[name])
            changes[name] = changes.get(name, torch.zeros(())) + delta
            if isinstance(adapter, Difference) and adapter.bias is not None:
                changes[f"{target.module}.bias"] = weight * adapter.bias
    return {name: change for name, change in changes.items() if change.any()}


def assert_close(theirs: Mapping[str, Tensor], mine: Mapping[str, Tensor]) -> None:
    assert theirs.keys() == mine.keys()
    assert theirs
    for name, change in theirs.items():
        error = (mine[name] - change).norm() / change.norm()
        assert error < CLOSE, f"{name}: {float(error):.3g}"


@pytest.fixture(scope="module")
def weights(model: Path) -> dict[str, Tensor]:
    """The UNet's, by sgm's names."""
    tensors = load_file(model)
    return {k.removeprefix(UNET): t for k, t in tensors.items() if k.startswith(UNET)}


def test_diffusers_adds_what_our_files_say(
    host: StandaloneHost,
    weights: Mapping[str, Tensor],
    uses: Mapping[str, Files],
    tmp_path: Path,
) -> None:
    python = program("UNZIPLORA_DIFFUSERS")
    # attention is what is asked of it; convolutions are asked of kohya's scripts
    uses = {name: files for name, files in uses.items() if "convolutions" not in name}
    save_file(host.unet.state_dict(), tmp_path / "unet.safetensors")
    wanted = {
        "config": {k: v for k, v in host.unet.config.items() if not k.startswith("_")},
        "unet": str(tmp_path / "unet.safetensors"),
        "jobs": jobs_for(uses, tmp_path),
    }
    (tmp_path / "wanted.json").write_text(json.dumps(wanted), "utf-8")
    run(python, "apply_with_diffusers.py", tmp_path / "wanted.json")
    attention = {f"{sgm(name)}.weight" for name in linears(host.unet)}
    for name, files in uses.items():
        theirs = load_file(tmp_path / f"{name}.safetensors")
        theirs = {f"{sgm(k.removesuffix('.weight'))}.weight": t for k, t in theirs.items()}
        mine = {k: t for k, t in ours(files, weights).items() if k in attention}
        assert_close(theirs, mine)


@pytest.fixture(scope="module")
def kohya(
    weights: Mapping[str, Tensor],
    uses: Mapping[str, Files],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with all that kohya's scripts were asked for, in one process."""
    scripts, python = program("UNZIPLORA_KOHYA"), program("UNZIPLORA_KOHYA_PYTHON")
    folder = tmp_path_factory.mktemp("kohya")
    jobs = []
    for how in KOHYA_APPLIES:
        (folder / how).mkdir()
        jobs += jobs_for(uses, folder / how, how=how)
    pair = [(path, 1.0) for path, _ in uses["both"]]
    jobs += jobs_for({"combined": pair}, folder, how="combine")
    jobs += jobs_for({"applied": [(folder / "combined.safetensors", 1.0)]}, folder, how="merge")
    for kind, alpha in KOHYA_WRITES:
        out = str(folder / f"{kind} {alpha}.safetensors")
        jobs.append({"how": f"write {kind}", "alpha": alpha, "out": out})
    save_file(dict(weights), folder / "unet.safetensors")
    wanted = {"unet": str(folder / "unet.safetensors"), "jobs": jobs}
    (folder / "wanted.json").write_text(json.dumps(wanted), "utf-8")
    run(python, "apply_with_kohya.py", scripts, folder / "wanted.json")
    return folder


@pytest.mark.parametrize("how", KOHYA_APPLIES)
def test_kohyas_scripts_add_what_our_files_say(
    how: str, weights: Mapping[str, Tensor], uses: Mapping[str, Files], kohya: Path
) -> None:
    for name, files in uses.items():
        mine = ours(files, weights)
        if how == "apply":  # seen through the linear layers
            mine = {k: t for k, t in mine.items() if t.dim() == 2 and "transformer_blocks" in k}
        assert_close(load_file(kohya / how / f"{name}.safetensors"), mine)


def test_we_read_what_kohyas_scripts_combined_of_our_pair_as_they_do(
    weights: Mapping[str, Tensor], kohya: Path
) -> None:
    theirs = load_file(kohya / "applied.safetensors")
    assert_close(theirs, ours([(kohya / "combined.safetensors", 1.0)], weights))


@pytest.mark.parametrize(("kind", "alpha"), KOHYA_WRITES)
def test_we_read_what_kohyas_scripts_write(
    kind: str, alpha: float, weights: Mapping[str, Tensor], kohya: Path
) -> None:
    path = kohya / f"{kind} {alpha}.safetensors"
    theirs = load_file(kohya / f"{kind} {alpha}.deltas.safetensors")
    assert_close(theirs, ours([(path, 1.0)], weights))


@pytest.fixture(scope="module")
def lycoris(
    weights: Mapping[str, Tensor], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Tensor]]:
    """LyCORIS's files of each kind for a few layers, and those layers' weights."""
    python, folder = program("UNZIPLORA_LYCORIS"), tmp_path_factory.mktemp("lycoris")
    block = "input_blocks.4.1.transformer_blocks.0"
    own = {
        name: weights[f"{name}.weight"]
        for name in (
            *(f"{block}.{layer}" for layer in ("attn1.to_q", "attn2.to_k", "ff.net.0.proj")),
            *(f"{block}.norm1", "input_blocks.4.0.in_layers.2", "input_blocks.4.0.skip_connection"),
            *("output_blocks.3.0.in_layers.2", "output_blocks.5.1.transformer_blocks.1.ff.net.2"),
        )
    }
    named = {f"lora_unet_{name.replace('.', '_')}": tensor for name, tensor in own.items()}
    save_file(named, folder / "weights.safetensors")
    run(python, "write_with_lycoris.py", folder / "weights.safetensors", folder)
    return folder, {f"{name}.weight": tensor for name, tensor in own.items()}


@pytest.mark.parametrize("kind", LYCORIS)
def test_we_read_what_lycoris_writes(kind: str, lycoris: tuple[Path, dict[str, Tensor]]) -> None:
    folder, weights = lycoris
    path = folder / f"{kind}.safetensors"
    theirs = load_file(path.with_suffix(".deltas.safetensors"))
    mine = ours([(path, 1.0)], weights)
    mine = {f"lora_unet_{flat(name)}": change for name, change in mine.items()}
    assert_close(theirs, mine)
    assert read_lora(path).left_out == {}


def flat(name: str) -> str:
    module, _, ending = name.rpartition(".")
    return f"{module.replace('.', '_')}.{ending}"
