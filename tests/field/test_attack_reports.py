"""What is shared says nothing of whose it is, and is made in a time that grows with its length."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import get_type_hints

import pytest

from unziplora.app.bug_report import report
from unziplora.app.redact import LONGEST_LINE, redact
from unziplora.errors import InvalidInput
from unziplora.host import ModelIdentity
from unziplora.training.run_folder import RunFolder, RunInfo
from unziplora.training.settings import Settings

PRIVATE = {
    "path with spaces": ("No file /home/zoe/My Pictures/holiday in Rome/img 1.png: gone", "Rome"),
    "path in quotes": ("[Errno 2] No such file or directory: '/mnt/Zoe's/a b/c.png'", "Zoe"),
    "path before a sentence": ("/srv/zoe x/holiday in rome.png cannot be read. Check it.", "rome"),
    "Windows path": (r"D:\Zoe Q\My Models\sd xl.safetensors is not whole", "Q"),
    "Windows share": (r"\\zoeserver\share\my folder\x.png", "folder"),
    "file URL": ("see file:///home/zoe/x y.html", "zoe"),
    "relative path": ("in ../zoe stuff/run.txt it says", "stuff"),
    "HF_TOKEN": ("HF_TOKEN=abcdefgh", "abcdefgh"),
    "quoted token": ("{'wandb_api_key': 'abcdefgh'}", "abcdefgh"),
    "AWS": ("key AKIAIOSFODNN7EXAMPLE used", "AKIA"),
    "GitHub": ("push with ghp_16C7e42F292c6912E7710c838347Ae178B4a", "16C7"),
    "GitHub, fine-grained": ("github_pat_11ABCDE0Y0abcdefghijkl", "11ABC"),
    "OpenAI": ("sk-proj-abcd1234efgh5678 refused", "abcd1234"),
    "Hugging Face": ("hf_abcdefghijklmnopqrstuvwx", "abcdef"),
    "bearer": ("Authorization: Bearer abcdef.ghij-123456", "ghij"),
    "basic": ("sent Basic em9lOnNlY3JldA==", "em9l"),
    "JWT": ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc", "eyJhbG"),
    "hash": ("digest 0123456789abcdef0123456789abcdef01234567", "89abcdef01"),
    "password": ("password: hunter2!", "hunter2"),
    "login": ("started with login=zoe:secretword", "secretword"),
    "private key": ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz\nzC1r\n-----END", "b3Bl"),
    "URL with password": ("from https://zoe:pw@example.org/x", "pw@"),
    "mail": ("tell zoe.q@example.org", "zoe.q"),
    "user@host": ("zoe@studio-17 said", "zoe"),
    "IPv4": ("refused by 192.168.1.20:7860", "192.168"),
    "IPv6": ("from [2001:db8::8a2e:370:7334]:7860", "370:7334"),
    "link-local": ("fe80::1ff:fe23:4567:890a%eth0 timed out", "fe23"),
    "MAC": ("on 00:1B:44:11:3A:B7", "3A:B7"),
}


@pytest.mark.parametrize("what", PRIVATE)
def test_it_is_removed(what: str) -> None:
    text, private = PRIVATE[what]
    assert private in text
    assert private not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "step 210 of 600 at 10:20:33, loss 0.123, torch: 2.13.0+cpu, python 3.11.4",
        "plan 8/16 and/or 512x512, rank 64, input_blocks.4.1",
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q has rank 64",
        "RuntimeError: mat1 and mat2 shapes cannot be multiplied (77x768 and 2048x640)",
        "architecture: sdxl, model family: SDXL base",
    ],
)
def test_what_helps_is_kept(text: str) -> None:
    assert redact(text) == text


def test_of_code_the_place_is_kept_and_the_installation_is_not() -> None:
    line = '  File "/home/zoe q/sd/extensions/unziplora/unziplora/training/run.py", line 20, in f'
    kept = '  File "extensions/unziplora/unziplora/training/run.py", line 20, in f'
    assert redact(line) == kept


def test_names_of_runs_are_removed_whatever_their_case() -> None:
    said = (
        "Run Zoe-Portrait ended, zoe-portrait_content too, old_zoe-portrait-000600; azoe-portrait"
    )
    assert redact(said, ["zoe-portrait"]) == (
        "Run <name> ended, <name>_content too, old_<name>-000600; azoe-portrait"
    )


def test_no_text_of_the_users_settings_is_in_a_report(tmp_path: Path) -> None:
    """Of every setting that takes any text: a new one is found here."""
    hints = get_type_hints(Settings)
    texts = {
        name: f"bruno {number}"
        for number, name in enumerate(hints)
        if hints[name] in (str, str | None) and name not in ("method", "preview_sampler")
    }
    assert {"subject", "prompt_style", "leak_prompt_content", "leak_prompt_style"} <= texts.keys()
    settings = Settings(**texts, leak_penalty=0.1)  # type: ignore[arg-type]
    folder = RunFolder(tmp_path / ".unziplora" / "Zoe-Portrait")
    folder.make()
    model = ModelIdentity("sdxl.safetensors", None, None)
    folder.write_info(RunInfo(settings.resolve(), model, "sdxl", "p", 0.0))
    folder.note("Zoe-Portrait_content.safetensors exists and is not this run's.")
    made = report({}, folder, ["Merged: Zoe-Portrait_style.safetensors"])
    assert "leak_prompt_style of" in made
    assert "<name>_content.safetensors exists" in made
    for private in ("bruno", "zoe"):
        assert private not in made.lower()


def test_the_machine_and_its_user_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "studio17.example.org")
    monkeypatch.setenv("LOGNAME", "zoequentin")
    assert redact("on studio17 by zoequentin") == "on <name> by <name>"


def test_without_a_home_there_is_a_report_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert redact("loss 0.5") == "loss 0.5"


@pytest.mark.parametrize(
    "letter", ["a", "/", "\\", "a/", "a@", ":", "1.", "token", '"/', " ", "a b/", "-----BEGIN KEY"]
)
def test_a_line_of_a_hundred_thousand_letters_costs_no_more_than_its_beginning(letter: str) -> None:
    """Counted in lines: what is longer than a line may be is cut before any pattern sees it."""
    short = redact((letter * LONGEST_LINE)[:LONGEST_LINE])
    long = redact(letter * (100_000 // len(letter)))
    assert len(long) < len(short) + 100


def test_a_files_name_cannot_move_the_cursor_or_turn_text_around() -> None:
    shown = str(InvalidInput("fox\x1b[2J\u202egnp.exe is empty. Choose another."))
    assert shown == "fox\\x1b[2J\\u202egnp.exe is empty. Choose another."
