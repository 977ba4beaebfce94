"""`unziplora split`: the content and the style of one B-LoRA file as a pair."""

from __future__ import annotations

import argparse
from pathlib import Path

from unziplora.errors import InvalidInput
from unziplora.method.prompts import BRANCHES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", type=Path, help="a B-LoRA, or any LoRA of SDXL's attention")
    for role, example in (("content", "a v45 dog"), ("style", "v45 watercolor style")):
        add(f"--{role}-trigger", metavar="TEXT", help=f'what calls the {role}: "{example}"')
    add("--name", help="of the files: NAME_content, NAME_style (the file's own)")
    add("--out", type=Path, default=Path("."), metavar="DIR", help="where the files go")


def split(arguments: argparse.Namespace) -> int:
    from unziplora.lora.metadata import read_info
    from unziplora.lora.split import split as split_file

    own = read_info(arguments.file).trigger
    triggers = {}
    for role in BRANCHES:
        trigger = getattr(arguments, f"{role}_trigger") or own
        if not trigger:
            raise InvalidInput(
                f"{arguments.file.name} does not say which words trigger it in a prompt. "
                f"Name them with --{role}-trigger."
            )
        triggers[role] = trigger
    if not arguments.out.is_dir():
        raise InvalidInput(f"There is no folder {arguments.out}. Make it, or name another.")
    made = split_file(
        arguments.file, arguments.out, arguments.name or arguments.file.stem, triggers
    )
    for role, path in made.files.items():
        print(f"{path} ({made.layers[role]} layers)")
    if made.left_out:
        print(f"{made.left_out} layers belong to neither, and are left out.")
    return 0
