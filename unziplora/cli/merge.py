"""`unziplora merge`: one LoRA file of several."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unziplora.cli.numbers import finite, seed
from unziplora.errors import InvalidInput
from unziplora.files import printable
from unziplora.lora.merge_methods import DEFAULT_MU, find_merge_method, summaries

if TYPE_CHECKING:  # torch takes seconds to import
    from unziplora.host import Host
    from unziplora.lora.write import SavedLora
    from unziplora.ziplora.merging import ZipMerge

Parts = Sequence[tuple[Path, float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Beside those of a model, which zip learns on."""
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE[:WEIGHT]", help="of np and zip: the content, the style")
    add("--how", default="add", metavar="METHOD", help=f"{summaries()} (add)")
    mu = f"of np, from 0 (add): how far the content gives way ({DEFAULT_MU:g})"
    add("--mu", type=finite, default=DEFAULT_MU, help=mu)
    add("--zip-steps", type=int, default=100, metavar="N", help="of zip (100)")
    overlap = "of zip: lambda, the weight of columns that both keep (0.01)"
    add("--zip-overlap", type=finite, default=0.01, metavar="WEIGHT", help=overlap)
    add("--seed", type=seed, default=0, help="of zip (0)")
    for role in ("content", "style"):
        calls = f"of zip: what calls the {role}, where its file does not say it"
        add(f"--{role}-prompt", metavar="TEXT", help=calls)
    add("--out", type=Path, required=True, metavar="FILE")


def merge(parts: Parts, arguments: argparse.Namespace, open_host: Callable[[], Host]) -> int:
    """parts: files and their weights. open_host: the model that was named, for what learns."""
    from unziplora.lora.merge import merge as merge_files

    path: Path = arguments.out
    if path.suffix.lower() != ".safetensors":
        raise InvalidInput(f"{path.name} does not end in .safetensors. Name such a file.")
    if not path.absolute().parent.is_dir():
        raise InvalidInput(f"There is no folder {path.parent}. Make it, or name another.")
    if find_merge_method(arguments.how).learns:
        return _learn(parts, arguments, open_host)
    _show(merge_files(path, parts, how=arguments.how, mu=arguments.mu))
    return 0


def _show(saved: SavedLora) -> None:
    print(f"{saved.path} ({saved.layers} layers)")
    for note in saved.notes:
        print(note)


def _learn(parts: Parts, arguments: argparse.Namespace, open_host: Callable[[], Host]) -> int:
    """Ctrl-C writes what was learned so far, a second one nothing."""
    from unziplora.cli.signals import Ended, RunSignals, handled
    from unziplora.ziplora.learn import ZipSettings
    from unziplora.ziplora.merging import ZipMerge

    settings = ZipSettings(
        steps=arguments.zip_steps, overlap=arguments.zip_overlap, seed=arguments.seed
    )
    prompts = {"content": arguments.content_prompt, "style": arguments.style_prompt}
    merging = ZipMerge(arguments.out, parts, prompts=prompts, settings=settings)  # type: ignore[arg-type]
    host = open_host()
    signals = RunSignals(merging)
    with handled(signals, interrupts=True):
        try:
            _drive(merging, host)
        except (Ended, KeyboardInterrupt):
            print("Interrupted: nothing was written.", file=sys.stderr)
            return 128 + (signals.number or signal.SIGINT)
    if merging.saved is None:
        print("Interrupted before the first step: nothing was written.", file=sys.stderr)
    else:
        _show(merging.saved)
    return 128 + (signals.number or signal.SIGINT) if merging.stopped else 0


def _drive(merging: ZipMerge, host: Host) -> None:
    """With one bar for the steps, and lines above it."""
    from tqdm import tqdm

    from unziplora.ziplora.learn import DrawnForMerge, MergeMessage, MergeStep

    with (
        tqdm(total=merging.settings.steps, unit="step") as bar,
        contextlib.closing(merging.on(host)) as events,
    ):
        for event in events:
            match event:
                case DrawnForMerge():
                    bar.set_description(f"drawing image {event.number} of {event.count}")
                case MergeStep():
                    bar.set_description("")
                    loss = event.losses.content + event.losses.style
                    bar.set_postfix(loss=f"{loss:.4g}", overlap=f"{event.losses.overlap:.3f}",
                                    refresh=False)  # fmt: skip
                    bar.update()
                case MergeMessage():
                    bar.write(printable(event.text), file=sys.stderr)
