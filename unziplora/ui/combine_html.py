"""What the Combine tab shows, as HTML: pairs to pick from, merged files, overlapping columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from unziplora.app.merging import Merging
from unziplora.app.products import Merged
from unziplora.lora.overlap import GroupColumns, overlap_warning
from unziplora.lora.pair import Pair
from unziplora.ui.block_names import plain_names
from unziplora.ui.charts import bar
from unziplora.ui.html import button, duration, group_name, image, message, progress_bar

ROLES = ("content", "style")


def pick_cards(pairs: Sequence[Pair], content_of: str | None, style_of: str | None) -> str:
    """A small card for each pair, with a button for either role; the chosen ones are marked."""
    if not pairs:
        return '<div class="uz-quiet">No pair yet. What you train will be here.</div>'
    chosen = {"content": content_of, "style": style_of}
    cards = "".join(_pick_card(pair, chosen) for pair in pairs)
    return f'<div class="uz-cards uz-picks">{cards}</div>'


def _pick_card(pair: Pair, chosen: Mapping[str, str | None]) -> str:
    files: Mapping[str, Path] = {"content": pair.content, "style": pair.style}
    figures = ""
    for role in ROLES:
        marked = chosen[role] == pair.name
        pick = button(
            f"{role.capitalize()} ✓" if marked else role.capitalize(), "pick",
            {"role": role, "name": pair.name}, f"take the {role} of {pair.name}",
            kind="uz-chosen" if marked else "",
        )  # fmt: skip
        shown = image(files[role].with_suffix(".png"), f"{role} of {pair.name}")
        figures += f"<figure>{shown}{pick}</figure>"
    return (
        f'<article class="uz-card"><h4>{escape(pair.name)}</h4>'
        f'<div class="uz-two">{figures}</div></article>'
    )


def merged_cards(found: Sequence[Merged]) -> str:
    """A card for each merged file: its image, its words, and buttons to use and delete it."""
    if not found:
        return ""
    cards = "".join(_merged_card(merged) for merged in found)
    return (
        f'<div class="uz-title">Merged files <span>{len(found)}</span></div>'
        f'<div class="uz-cards uz-picks">{cards}</div>'
    )


def _merged_card(merged: Merged) -> str:
    name = merged.path.stem
    use = button("Use", "merged", {"do": "use", "name": name}, f"put {name} into the prompt")
    delete = button("Delete", "merged", {"do": "delete", "name": name}, f"delete the file {name}")
    return (
        f'<article class="uz-card"><h4>{escape(name)}</h4>'
        f"{image(merged.path.with_suffix('.png'), name)}"
        f'<p class="uz-aside">{escape(words_of(merged))}</p>'
        f'<div class="uz-buttons">{use}{delete}</div></article>'
    )


def words_of(merged: Merged) -> str:
    """The trigger words as a prompt has them: "sks cat in ink style"."""
    return merged.trigger.replace(", ", " in ", 1)


def merge_progress(merging: Merging | None) -> str:
    """A merge that learns: bar, steps, what it said and a button to stop it; nothing once it has
    ended. page.js asks for news while data-active is there."""
    if merging is None or merging.state != "running":
        return ""
    share = 100 * merging.step / merging.steps
    numbers = [f"{merging.step} of {merging.steps} steps"]
    if merging.drawing:
        numbers = [f"drawing image {merging.drawing} to learn on"]
    elif not merging.step:
        numbers = ["getting the model ready"]
    if merging.time_left is not None:
        numbers.append(f"{duration(merging.time_left)} left")
    stop = button("Stop and merge", "merged", {"do": "stop"}, f"stop learning {merging.name}")
    return (
        f'<div class="uz-run" data-active><div class="uz-head"><b>{escape(merging.name)}</b>{stop}'
        f"</div>{progress_bar(share, 'merging')}"
        f'<div class="uz-numbers">{escape(" · ".join(numbers))}</div></div>'
        + "".join(map(message, merging.messages))
    )


def merge_result(merging: Merging) -> str:
    """What a merge that has ended says."""
    if merging.failure is not None:
        return message(str(merging.failure), error=True)
    if merging.path is None:
        return message("Stopped before the first step: nothing was written.")
    notes = "".join(map(message, merging.messages))
    return message(merged_text(merging.path)) + notes


def merged_text(path: Path) -> str:
    """What is said of a file that was just merged."""
    return f"Merged into {path.name}. Use it as <lora:{path.stem}:1>."


def column_map(groups: Mapping[str, GroupColumns]) -> str:
    """By attention group, which of its columns each file has trained, as HTML."""
    if not groups:
        return message("The two share no attention group.")
    names = plain_names(list(groups))
    rows = "".join(_row(group, names[group], counts) for group, counts in groups.items())
    warning = overlap_warning(groups)
    return (
        (message(warning, error=True) if warning else "")
        + '<div class="uz-title">Trained columns '
        + '<span class="uz-key uz-content">content only</span>'
        + '<span class="uz-key uz-both">both</span>'
        + '<span class="uz-key uz-style">style only</span></div>'
        + '<table class="uz-table"><thead><tr><th>block</th><th>columns</th><th>overlap</th></tr>'
        + f"</thead><tbody>{rows}</tbody></table>"
    )


def _row(group: str, name: str, counts: GroupColumns) -> str:
    parts = {
        "content": counts.first - counts.both,
        "both": counts.both,
        "style": counts.second - counts.both,
    }
    shares = [(kind, count / counts.total) for kind, count in parts.items()]
    spoken = ", ".join(f"{kind} {share:.0%}" for kind, share in shares)
    return (
        f"<tr><th>{group_name(name, group)}</th><td>{bar(shares, spoken)}</td>"
        f'<td class="uz-number">{counts.overlap:.0%}</td></tr>'
    )
