"""The command line as a user meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.torch_versions import OLD, half_on_cpu
from tests.waiting import until
from unziplora.app.sheet import SIDE
from unziplora.cli.arguments import size, weighted
from unziplora.cli.commands import _standalone_host, main
from unziplora.hosts.standalone.host import StandaloneHost
from unziplora.testing.random_checkpoint import Widths, write_random_model

RUN = Path(".unziplora") / "pair"  # in the output folder
TINY = Widths(unet=(32, 64, 64), text=(16, 16), layers=(1, 1))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """KOALA-700M's topology, the family's smallest."""
    path = tmp_path_factory.mktemp("model") / "koala.safetensors"
    return write_random_model(path, architecture="koala-700m", widths=TINY, resolution=128)


def arguments(image: Path, model: Path, out: Path, *more: str) -> list[str]:
    words = ["--subject", "tree", "--style", "flat vector"]
    small = ["--steps", "3", "--rank", "2", "--resolution", "64", "--name", "pair"]
    place = ["--model", str(model), "--out", str(out)]
    return ["train", str(image), *words, *small, *place, *more]


@pytest.mark.parametrize(("asked", "threads"), [(None, 1), ("2", 2)])
def test_a_narrow_model_takes_one_thread_unless_more_are_asked_for(
    model: Path, monkeypatch: pytest.MonkeyPatch, asked: str | None, threads: int
) -> None:
    if asked is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    earlier = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        _standalone_host(model)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(earlier)


def test_train_inspect_and_generate(
    image_file: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(image_file, model, tmp_path)) == 0
    content, style = (tmp_path / f"pair_{b}.safetensors" for b in ("content", "style"))
    assert content.exists()
    assert style.exists()
    card = json.loads((tmp_path / "pair_style.json").read_text())
    assert card["activation text"] == "flat vector style"

    capsys.readouterr()
    assert main(["inspect", str(content), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["architecture"] == "koala-700m"
    assert report["hash_matches"] is True
    assert report["header"]["trigger"] == "sks tree"
    assert report["header"]["base"] == "koala.safetensors"

    images = []
    for name, loras in (("base", []), ("off", [f"{content}:0"]), ("on", [f"{content}:40"])):
        chosen = [part for lora in loras for part in ("--lora", lora)]
        out = tmp_path / f"{name}.png"
        options = ["--prompt", "a sks tree", "--steps", "2", "--size", "64", "--out", str(out)]
        assert main(["generate", "--model", str(model), *chosen, *options]) == 0
        with Image.open(out) as image:
            images.append(image.tobytes())
            assert image.info["parameters"].startswith("a sks tree")
    base, off, on = images
    assert base == off
    assert base != on


def test_ctrl_c_saves_the_state_and_resume_goes_on(
    image_file: Path, model: Path, tmp_path: Path
) -> None:
    begin = arguments(image_file, model, tmp_path, "--steps", "2000")
    command = [sys.executable, "-m", "unziplora"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, *begin], stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        progress = tmp_path / RUN / "progress.csv"
        until(lambda: progress.exists() or process.poll() is not None)
        assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate()
    assert process.returncode == 130
    assert b"--resume" in out
    assert (tmp_path / RUN / "state.safetensors").exists()
    assert not list(tmp_path.glob("pair_*.safetensors"))


BAD: list[tuple[list[str], str]] = [
    (["--steps", "x"], "--steps"),
    (["--rank", "0"], "rank cannot be 0"),
    (["--rank", "600"], "above the size of the layer"),
    (["--subject", ""], "subject is empty"),
    (["--style", "x" * 300], "300 characters"),
    (["--name", "a/b"], "name"),
    (["--name", ".."], "name"),
    (["--name", "CON"], "name"),
    (["--name", "..."], "name"),
    (["--method", "magic"], "no method"),
    (["--model", "nowhere.safetensors"], "nowhere.safetensors"),
    (["--out", "no/such/folder"], "cannot be made"),
    (["--resume", "."], "Name only --resume and --model"),
    (["--vae", "nowhere.safetensors"], "no VAE"),
]


@pytest.mark.parametrize(("more", "message"), BAD, ids=lambda v: " ".join(v)[:30])
def test_bad_input_is_one_line_and_exit_code_2(
    more: list[str],
    message: str,
    image_file: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(arguments(image_file, model, tmp_path / "out", *more)) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("unziplora: error: ")]
    assert len(lines) == 1
    assert captured.err.strip() == lines[0]
    assert message in lines[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_image_that_is_none_is_refused_before_the_model_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = tmp_path / "words.png"
    words.write_text("not an image")
    begin = arguments(words, Path("nowhere.safetensors"), tmp_path / "out")
    assert main(begin) == 2
    assert "words.png is not an image" in capsys.readouterr().err


def test_an_existing_output_is_kept(
    image_file: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "pair_style.safetensors"
    mine.write_bytes(b"mine")
    assert main(arguments(image_file, model, tmp_path)) == 2
    assert "pair_style.safetensors exists already" in capsys.readouterr().err
    assert mine.read_bytes() == b"mine"
    assert not (tmp_path / RUN).exists()


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=half_on_cpu)])
def test_a_base_in_half_precision_trains_in_its_own_dtype(
    precision: str, image_file: Path, model: Path, tmp_path: Path
) -> None:
    more = ["--steps", "6", "--precision", precision]
    assert main(arguments(image_file, model, tmp_path, *more)) == 0
    with safe_open(tmp_path / "pair_content.safetensors", framework="pt") as file:
        assert file.metadata()["ss_mixed_precision"] == precision
        assert all(file.get_tensor(key).isfinite().all() for key in file.keys())  # noqa: SIM118


@pytest.mark.skipif(not OLD, reason="this torch computes in fp16 on a CPU")
def test_fp16_on_a_cpu_is_refused_where_torch_cannot(
    image_file: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(image_file, model, tmp_path, "--precision", "fp16")) == 2
    assert "does not compute in fp16 on a CPU. Choose fp32 or bf16" in capsys.readouterr().err
    assert not (tmp_path / RUN).exists()


def test_full_memory_and_the_unforeseen_are_told_in_two_sentences(
    image_file: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for error, words in (
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "The memory is full"),
        (
            ZeroDivisionError("by zero"),
            "Unexpected error (Zero",
        ),
    ):

        def fail(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(StandaloneHost, "denoise", fail)
        out = tmp_path / type(error).__name__
        assert main(arguments(image_file, model, out)) == 1
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith(f"unziplora: error: {words}")
        assert type(error).__name__ in (out / RUN / "log.txt").read_text()


def test_a_demo_that_is_stopped_shows_no_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    denoise = StandaloneHost.denoise

    def interrupted(*inputs: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return denoise(*inputs)

    monkeypatch.setattr(StandaloneHost, "denoise", interrupted)
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 130
    captured = capsys.readouterr()
    assert "--resume" in captured.out + captured.err
    assert "error" not in captured.err
    assert not list((tmp_path / "demo").glob("demo_*"))


def test_the_demo_ends_with_two_files_and_a_figure_and_sheet_makes_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), "--steps", "3", "--image-steps", "1"]) == 0
    content, style = (out / f"demo_{branch}.safetensors" for branch in ("content", "style"))
    with Image.open(out / "demo.png") as figure:
        size = figure.size
    assert size[0] > 5 * SIDE  # the image and four others
    assert str(out / "demo.png") in capsys.readouterr().out

    again = tmp_path / "again.png"
    small = ["--steps", "1", "--size", "64", "--scene", "at night", "--object", "a house"]
    options = ["--weights", "0.5,1", "--base", *small, "--out", str(again)]
    assert main(["sheet", "--content", str(content), "--style", str(style), *options]) == 0
    with Image.open(again) as figure:
        assert 2 * SIDE < figure.size[0] < size[0]  # the image and one other
        assert figure.size[1] > 2 * size[1]  # 7 rows instead of 3


def test_a_sheet_asks_for_the_trigger_that_a_file_does_not_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for file in files:
        save_file({"x.lora_up.weight": torch.zeros(1, 1)}, file)
    options = [
        "--content",
        str(files[0]),
        "--style",
        str(files[1]),
        "--out",
        str(tmp_path / "p.png"),
    ]
    assert main(["sheet", *options]) == 2
    assert "--content-trigger" in capsys.readouterr().err


def test_a_image_that_cannot_be_written_is_refused_before_it_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--prompt", "a cat", "--out", str(tmp_path / "cat.xyz")]
    assert main(["generate", "--model", "nowhere.safetensors", *options]) == 2
    assert "cat.xyz does not end like an image" in capsys.readouterr().err


def test_settings_come_from_a_file_and_the_command_line_wins(
    image_file: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.json"
    file.write_text('{"seed": 3, "columns": 40, "name": "other"}')
    assert main(arguments(image_file, model, tmp_path, "--settings", str(file))) == 0
    kept = json.loads((tmp_path / RUN / "settings.json").read_text())["settings"]
    assert (kept["seed"], kept["columns"], kept["name"]) == (3, 40, "pair")
    file.write_text('{"colums": 40}')
    assert main(arguments(image_file, model, tmp_path, "--settings", str(file))) == 2
    assert "'colums'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.safetensors", ("a.safetensors", 1.0)),
        ("a.safetensors:0.7", ("a.safetensors", 0.7)),
        ("a.safetensors:-1", ("a.safetensors", -1.0)),
        (r"C:\loras\a.safetensors", (r"C:\loras\a.safetensors", 1.0)),
        (r"C:\loras\a.safetensors:0.5", (r"C:\loras\a.safetensors", 0.5)),
    ],
)
def test_a_loras_weight_follows_its_name(text: str, expected: tuple[Any, float]) -> None:
    assert weighted(text) == (Path(expected[0]), expected[1])


def test_merge_makes_one_file_of_two_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = []
    for number, name in enumerate(("one", "two")):
        generator = torch.Generator().manual_seed(number)
        layer = "lora_unet_output_blocks_0_1_transformer_blocks_0_attn1_to_q"
        tensors = {
            f"{layer}.lora_down.weight": torch.randn(2, 8, generator=generator),
            f"{layer}.lora_up.weight": torch.randn(8, 2, generator=generator),
        }
        save_file(tensors, tmp_path / f"{name}.safetensors")
        parts.append(f"{tmp_path / name}.safetensors:0.5")
    made = {}
    for how in ("add", "np"):
        path = tmp_path / f"{how}.safetensors"
        assert main(["merge", *parts, "--how", how, "--out", str(path)]) == 0
        assert f"{how}.safetensors (1 layers)" in capsys.readouterr().out
        made[how] = load_file(path)
    assert made["add"].keys() == made["np"].keys()
    downs = [next(t for name, t in one.items() if "down" in name) for one in made.values()]
    assert not torch.equal(downs[0][:2], downs[1][:2])  # the first file's gave way
    assert torch.equal(downs[0][2:], downs[1][2:])
    for bad, message in {
        (*parts, "--out", "merged.txt"): "does not end in .safetensors",
        (*parts, "--out", "no-folder/merged.safetensors"): "There is no folder no-folder",
        (*parts, "--how", "zop", "--out", str(tmp_path / "x.safetensors")): "Choose one of add, np",
        (*parts, "--how", "zip", "--out", str(tmp_path / "x.safetensors")): "--content-prompt",
    }.items():
        assert main(["merge", *bad]) == 2
        assert message in capsys.readouterr().err


def test_a_size_is_width_by_height() -> None:
    assert size("640x480") == (480, 640)
    assert size("512") == (512, 512)


@pytest.mark.parametrize(
    "words",
    [
        ["score", "x", "--image", "a.png", "--guidance", "nan"],
        ["score", "x", "--image", "a.png", "--steps", "0"],
        ["score", "x", "--image", "a.png", "--seed", "-1"],
        ["batch", "jobs.csv", "--samples", "-2"],
        ["batch", "jobs.csv", "--retry", "-1"],
        ["study", "a", "b", "--port", "70000"],
        ["merge", "a", "b", "--out", "c.safetensors", "--mu", "nan"],
        ["merge", "a", "b", "--out", "c.safetensors", "--seed", "-1"],
    ],
)
def test_numbers_that_mean_nothing_are_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert "is not a number from 0 to" in capsys.readouterr().err.replace("from 1 to", "from 0 to")


@pytest.mark.parametrize(
    "words",
    [
        ["plan", "--model", "{name}"],
        ["score", "{name}", "--image", "a.png"],
        ["train", "{image}", "--subject", "cat", "--style", "ink", "--out", "{name}"],
    ],
)
def test_a_name_longer_than_a_disk_takes_is_no_unexpected_error(
    words: list[str], image_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.format(name="a" * 300, image=image_file) for word in words]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert len(said.splitlines()) == 1


def test_what_a_files_name_holds_cannot_move_the_cursor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    tensors = {f"{name}.lora_up.weight": torch.ones(8, 2),
               f"{name}.lora_down.weight": torch.ones(2, 8)}  # fmt: skip
    save_file(tensors, tmp_path / "x\x1b[2J.safetensors")
    assert main(["inspect", str(tmp_path / "x\x1b[2J.safetensors")]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "x?[2J.safetensors" in shown
    assert len(shown.splitlines()) > 3
