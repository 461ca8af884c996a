"""The worst failures as one picture, for a chat, a ticket or a terminal far away."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from training.evaluation.failures import ANSWERS, THUMBNAIL_PX, Failure, Shot

COLOURS = {"query": "#94a3b8", "truth": "#2563eb", "right": "#15803d", "part": "#a16207", "wrong": "#dc2626"}
MARKS = {"query": "", "truth": "", "right": ": right", "part": ": part of the place", "wrong": ": wrong"}
PAPER, INK, FAINT = "#f6f7f9", "#1b2430", "#5d6b7c"
MARGIN, GAP, BORDER = 24, 14, 4
#: Heights in px of the title, a task's heading, a failure's heading, and the captions below a picture.
TITLE_PX, TASK_PX, HEADING_PX, CAPTION_PX = 52, 46, 26, 92
LINE_PX = 16


def draw_sheet(title: str, tasks: Sequence[tuple[str, list[Failure]]]) -> Image.Image:
    """Draw a row for each failure: query, truth, answers.

    Args:
        title: above everything.
        tasks: heading and failures of each task.
    """
    row_px = HEADING_PX + THUMBNAIL_PX + CAPTION_PX
    height = 2 * MARGIN + TITLE_PX + sum(TASK_PX + row_px * max(1, len(failures)) for _, failures in tasks)
    width = 2 * MARGIN + (2 + ANSWERS) * (THUMBNAIL_PX + GAP) + GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    _write(draw, (MARGIN, MARGIN), title, 26, INK, width - 2 * MARGIN)
    y = MARGIN + TITLE_PX
    for heading, failures in tasks:
        _write(draw, (MARGIN, y + 8), heading, 20, INK, width - 2 * MARGIN)
        y += TASK_PX
        if not failures:
            _write(draw, (MARGIN, y), "no failures", 15, FAINT, width - 2 * MARGIN)
            y += row_px
        for failure in failures:
            _write(draw, (MARGIN, y), f"right at rank {failure.rank}", 15, FAINT, width - 2 * MARGIN)
            for i, shot in enumerate(failure.shots):
                x = MARGIN + i * (THUMBNAIL_PX + GAP) + (GAP if i > 1 else 0)  # a wider gap before the answers
                _draw_shot(sheet, draw, x, y + HEADING_PX, shot)
            y += row_px
    return sheet


def _draw_shot(sheet: Image.Image, draw: ImageDraw.ImageDraw, x: int, y: int, shot: Shot) -> None:
    colour, side = COLOURS[shot.mark], THUMBNAIL_PX
    draw.rectangle((x, y, x + side - 1, y + side - 1), fill=colour)
    inner = side - 2 * BORDER
    sheet.paste(shot.picture.resize((inner, inner), Image.Resampling.LANCZOS), (x + BORDER, y + BORDER))
    y += side + 5
    _write(draw, (x, y), shot.title + MARKS[shot.mark], 14, INK if shot.mark == "query" else colour, side)
    place, *rest = shot.facts
    for i, line in enumerate((shot.name, place, ", ".join(rest)), start=1):
        _write(draw, (x, y + i * LINE_PX + 2), line, 12, FAINT, side)


def _write(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: str, width: int) -> None:
    """One line of text, cut to a width: the end stays, where file names differ."""
    font = ImageFont.load_default(size)
    text = "".join(c if c.isprintable() else "?" for c in text)
    if draw.textlength(text, font) > width:
        while text and draw.textlength("..." + text, font) > width:
            text = text[1:]
        text = "..." + text
    draw.text(at, text, colour, font)
