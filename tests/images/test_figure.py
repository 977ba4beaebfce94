"""The figure of rows and captions."""

from __future__ import annotations

from PIL import Image

from unziplora.images.figure import Cell, Row, figure

RED, BLUE = (200, 30, 30), (30, 30, 200)


def cell(colour: tuple[int, int, int], size: tuple[int, int] = (64, 64), said: str = "") -> Cell:
    return Cell(Image.new("RGB", size, colour), said)


def colours_of(page: Image.Image) -> set[tuple[int, int, int]]:
    found = page.getcolors(1 << 24)
    assert found is not None
    return {colour for _, colour in found}  # type: ignore[misc]


def test_every_image_is_on_the_page_and_rows_of_different_length_fit() -> None:
    page = figure([Row("one", [cell(RED), cell(BLUE)]), Row("two", [cell((9, 99, 9))])], side=64)
    assert {RED, BLUE, (9, 99, 9)} <= colours_of(page)
    assert page.width == 10 + 2 * 74
    assert page.height > 2 * 64


def test_a_image_that_is_not_square_is_fitted_whole_and_not_stretched() -> None:
    page = figure([Row("", [cell(RED, (200, 100))])], side=100)
    red = page.convert("RGB").point(lambda v: v)
    box = Image.eval(red.split()[1], lambda v: 255 if v == RED[1] else 0).getbbox()
    assert box is not None
    left, top, right, bottom = box
    assert (right - left, bottom - top) == (100, 50)


def test_a_long_caption_is_wrapped_instead_of_cut_by_the_next_image() -> None:
    short = figure([Row("", [cell(RED, said="a cat")])], side=100)
    long = figure([Row("", [cell(RED, said="a sks cat in crayon drawing style " * 2)])], side=100)
    assert long.height > short.height
    assert long.width == short.width
