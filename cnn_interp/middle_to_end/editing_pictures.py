"""Pictures of patterns that are judged, and of what an edit changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from cnn_interp.diagnosis.pictures import BAD, GOOD, picture_grid
from cnn_interp.disentangling.explanatory_graph import crop
from cnn_interp.disentangling.pictures import side_by_side, strips_figure
from cnn_interp.images.batches import resized_to
from cnn_interp.images.sets import Picture
from cnn_interp.middle_to_end.editing import Candidate, EditingSession, Effect
from interpretkit.runs.files import atomic_path
from interpretkit.visualization import colour_of, new_figure, style

_SIDE, _THUMBNAIL = 64, 96


def pattern_strip(session: EditingSession, number: int, count: int = 8, side: int = _SIDE) -> Picture | None:
    """Return the patches in which a pattern is strongest, side by side; None if it is seen in no image."""
    patches = session.patches(number, count)
    frame = session.maps.grid.image
    return (
        side_by_side([crop(session.images, patch, frame, side) for patch in patches], count, side)
        if patches
        else None
    )


def write_strip(session: EditingSession, number: int, folder: Path) -> Path | None:
    """Write a pattern's patches to a picture in a folder, and return its path; None if it is seen in no image."""
    strip = pattern_strip(session, number, side=2 * _SIDE)
    if strip is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number}.png"
    with atomic_path(path) as hidden:
        Image.fromarray(strip).save(hidden, format="PNG")
    return path


def gallery(session: EditingSession, numbers: Sequence[int], *, count: int = 8) -> Figure | None:
    """Draw patterns by their patches, a row each with what it is called and what was said of it; None without any."""
    now = session.edit.standing
    rows = []
    for number in numbers:
        strip = pattern_strip(session, number, count)
        if strip is not None:
            said = now.judged.get(number, "")
            called = now.called(number)
            rows.append((f"{called if len(called) < 15 else called[:14] + '…'}\n{said}".rstrip(), strip))
    return strips_figure(rows) if rows else None


def changes_figure(session: EditingSession, effect: Effect, most: int = 12) -> Figure:
    """Draw images whose answer changes, those that are mended first, with both answers."""
    order = sorted(effect.changed.tolist(), key=lambda row: (effect.after[row] != effect.labels[row], row))[
        :most
    ]
    names = (*effect.names, "none")

    def caption(row: int) -> str:
        return f"{names[effect.before[row]]} → {names[effect.after[row]]}"

    return picture_grid(
        [resized_to(session.images.image(row), _THUMBNAIL) for row in order],
        [caption(row) for row in order],
        [GOOD if effect.after[row] == effect.labels[row] else BAD for row in order],
    )


def candidates_figure(session: EditingSession, candidates: Sequence[Candidate]) -> Figure:
    """Draw what patterns add to wrong answers against what they add apart from all else, with the suspicious named."""
    with style():
        figure = new_figure(5.4, 3.8)
        axes = figure.subplots()
        now = session.edit.standing
        for place, kind in enumerate(("", "keep", "drop")):
            some = [one for one in candidates if now.judged.get(one.number, "") == kind]
            if some:
                axes.scatter(
                    [one.apart for one in some], [one.blame for one in some], s=22, color=colour_of(place),
                    label=kind or "not judged",
                )  # fmt: skip
        for one in candidates[:8]:
            axes.annotate(
                now.called(one.number),
                (one.apart, one.blame),
                xytext=(4, 3),
                textcoords="offset points",
                fontsize=8,
            )
        axes.set(
            xlabel="added to a category, apart from all else (logits)",
            ylabel="added to wrong answers (logits per image)",
        )
        figure.legend(loc="outside lower left", ncols=3)
    return figure
