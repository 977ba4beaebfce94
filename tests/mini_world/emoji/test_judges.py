"""The shipped networks: what they say of drawings whose truth is known. They can fail."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mini_world import probes
from mini_world.emoji import sets
from mini_world.emoji.probes import judge as shipped_judge
from mini_world.emoji.things import CORE_KINDS
from mini_world.emoji.world import CORE_STYLES, held_out_individual, portrait
from mini_world.probes import Judge, Vocabulary

needs_sets = pytest.mark.skipif(bool(sets.missing()), reason=sets.missing() or "all there")


@pytest.fixture(scope="module")
def judge() -> Judge:
    return shipped_judge()


def drawn(kinds: list[str], style: str, numbers: list[int], seed: int = 0) -> np.ndarray:
    return np.stack([
        portrait(held_out_individual(kind, n), style, 1, seed + i).draw()
        for i, (kind, n) in enumerate(zip(kinds, numbers, strict=True))
    ])  # fmt: skip


@needs_sets
def test_classes_of_held_out_individuals_are_named(judge: Judge) -> None:
    kinds = [kind for kind in CORE_KINDS for _ in range(2)]
    found = judge.kinds(drawn(kinds, "", [0, 1] * len(CORE_KINDS)), CORE_KINDS)
    assert np.mean([a == b for a, b in zip(found, kinds, strict=True)]) > 0.8


@needs_sets
def test_styles_are_named_whatever_they_show(judge: Judge) -> None:
    kinds = CORE_KINDS[::3]
    found = [judge.styles(drawn(kinds, style, list(range(len(kinds))))) for style in CORE_STYLES]
    right = [
        name == style for names, style in zip(found, CORE_STYLES, strict=True) for name in names
    ]
    assert np.mean(right) > 0.8


@needs_sets
def test_an_individual_is_nearer_to_itself_in_another_style_than_to_others(judge: Judge) -> None:
    numbers = list(range(8))
    one = judge.content(drawn(["mushroom"] * 8, "", numbers))
    other = judge.content(drawn(["mushroom"] * 8, "cartoon drawing", numbers, seed=100))
    alike = one @ other.T
    assert float((alike.argmax(1) == alike.diagonal().new_tensor(range(8))).float().mean()) > 0.5
    assert alike.diagonal().mean() > alike.mean() + 0.2


@needs_sets
def test_a_held_out_style_is_nearer_to_itself_on_another_thing(judge: Judge) -> None:
    styles = ["knitted textile", "pointillist painting", "gold engraving", "thermal photo"]
    one = judge.style(np.concatenate([drawn(["cat"], s, [1]) for s in styles]))
    other = judge.style(np.concatenate([drawn(["house"], s, [2], seed=9) for s in styles]))
    alike = one @ other.T
    assert alike.diagonal().mean() > alike.mean() + 0.3


@needs_sets
def test_the_content_probe_cares_little_for_style_and_the_style_probe_little_for_content(
    judge: Judge,
) -> None:
    car, house = held_out_individual("car", 1), held_out_individual("house", 1)
    images = np.stack([
        portrait(car, "", 1, 1).draw(), portrait(car, "pixel art", 1, 2).draw(),
        portrait(house, "", 1, 3).draw(), portrait(house, "pixel art", 1, 4).draw(),
    ])  # fmt: skip
    content, style = judge.content(images), judge.style(images)
    assert float(content[0] @ content[1]) > float(content[0] @ content[2])
    assert float(style[1] @ style[3]) > float(style[1] @ style[0])


class Stopped(Exception):
    pass


@pytest.mark.slow
def test_a_training_that_was_stopped_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes.ProbeTraining, "SAVE_STEPS", 1)
    rng = np.random.default_rng(5)
    facts = [
        {"instance": i // probes.VIEWS, "kind": i // probes.VIEWS % 6, "colour": -1,
         "style": i % 5, "variant": i % 2}
        for i in range(24 * probes.VIEWS)
    ]  # fmt: skip

    def trained(name: str, stop: int | None) -> bytes:
        run_dir = tmp_path / name
        run_dir.mkdir()
        np.save(run_dir / "probes.npy", images)
        (run_dir / "probes.json").write_text(json.dumps(facts), "utf-8")
        words = Vocabulary(run_dir / "probes", list("abcdef"), list("xy"), list("rstuv"))
        if stop is not None:
            save = probes.ProbeTraining.save

            def stopping(self: probes.ProbeTraining) -> None:
                save(self)
                if self.step == stop:
                    raise Stopped

            with monkeypatch.context() as patch:
                patch.setattr(probes.ProbeTraining, "save", stopping)
                with pytest.raises(Stopped):
                    probes.train(run_dir, 3, ["style"], words)
        probes.train(run_dir, 3, ["style"], words)
        return (run_dir / "probes" / "style.safetensors").read_bytes()

    images = rng.integers(0, 255, (len(facts), 128, 128, 3), np.uint8)
    assert trained("stopped", 2) == trained("whole", None)
