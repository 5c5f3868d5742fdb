"""A class of planted parts, for the tests of the page; run as a program it is served until it is killed."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "disentangling"))
sys.path.insert(0, str(Path(__file__).parent))
from edited_networks import LAYER, NAMES, RED_CUE, colour_network, squares
from part_planted import IMAGE, planted_cells  # pyright: ignore[reportMissingImports]

from cnn_interp.disentangling.part_graph import PartSettings
from cnn_interp.images.planted_cue import cue_goes_with, plant_cue
from cnn_interp.images.sets import Images
from cnn_interp.middle_to_end.dialogue import Dialogue
from cnn_interp.middle_to_end.editing import EditingSession
from cnn_interp.middle_to_end.journal import open_journal
from cnn_interp.middle_to_end.network_edit import Base
from cnn_interp.middle_to_end.page.classroom import Classroom
from cnn_interp.middle_to_end.page.serving import serve
from cnn_interp.middle_to_end.selection import largest_gain

COUNT = 30
ABOUT = {"part": "nose"}


def planted():
    """Return cells of images and where the part is."""
    cells, part, _ = planted_cells(n=COUNT, seed=4, absent=6)
    return cells, part


def pictures(part):
    """Return images with a bright square where the part is."""

    def load(number):
        pixels = np.full((*IMAGE, 3), 60, dtype=np.uint8)
        pixels[:, :, 2] += np.uint8(4 * number)
        if not np.isnan(part[number, 0]):
            row, column = part[number].astype(int)
            pixels[row - 14 : row + 15, column - 14 : column + 15] = 240
        return pixels

    return Images(name="squares", ids=tuple(f"square {n}.png" for n in range(COUNT)), load=load)


def dialogue(log=None) -> Any:
    """Return a dialogue about the planted part."""
    cells, part = planted()
    features = np.random.default_rng(0).normal(size=(COUNT, 32)) / 32**0.5
    features[~np.isnan(part[:, 0]), 0] += 1.5
    return Dialogue(
        cells, features, part="nose", selection=largest_gain, log=log, learned_from=12,
        settings=PartSettings(near=1, reach=1, rounds=1),
    )  # fmt: skip


def room(journal=None, path=None):
    """Return the classroom of such a dialogue; any picture tried is taken for the first image."""
    talk = dialogue(journal)
    return Classroom(
        talk, pictures(planted()[1]), encode=lambda picture: talk.cells.subset([0]), journal=path
    )


def editing_session() -> EditingSession:
    """Return a session about the four colour filters of a small network; a red mark goes with one category."""
    network, images = colour_network(), squares(48)
    shown = cue_goes_with(images.categories, 0, within=1, elsewhere=0)
    cued = plant_cue(images, images.categories, shown, category_names=NAMES, seed=RED_CUE)
    return EditingSession.begin(network, Base.of(network), cued, [0, 1], LAYER, "filters")


if __name__ == "__main__":
    place = Path(sys.argv[1])
    with ExitStack() as stack:
        log = stack.enter_context(open_journal(place, ABOUT))
        serve(room(log, place), token=sys.argv[2], ready=lambda address: print(address, flush=True))
