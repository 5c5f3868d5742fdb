"""Objects with parts as feature maps, for the tests of part graphs: what a trunk would give for them is planted."""

import numpy as np

from cnn_interp.disentangling.features import LayerMaps, TrunkFeatures
from cnn_interp.disentangling.part_cells import part_cells
from cnn_interp.units.positions import UnitGrid
from interpretkit.networks.receptive_fields import ReceptiveField

IMAGE = (224, 224)
SIDE, STRIDE = 14, 16.0
# Unit 0 is at the part, unit 1 two cells above it, unit 2 two cells to its left; 3 and 4 are at another part.
PLACES = {0: (0, 0), 1: (-32, 0), 2: (0, -32)}
UNITS = 16


def grid(side=SIDE, stride=STRIDE, layer="maps"):
    field = ReceptiveField(
        layer, (40.0, 40.0), (stride, stride), ((stride - 1) / 2, (stride - 1) / 2), (side, side)
    )
    return UnitGrid(field, IMAGE)


def bumps(places, width=12.0):
    """Responses (n, h, w) about places (n, 2), px."""
    centres = grid().centres(np.arange(SIDE * SIDE))
    square = ((centres[None] - places[:, None]) ** 2).sum(axis=2)
    return np.exp(-square / (2 * width**2)).reshape(-1, SIDE, SIDE)


def planted(n=60, seed=0, noise=0.1, absent=0, flip=0.0):
    """Return maps of images and of their mirror images, and where the part is, px (n, 2).

    The part is anywhere, and another part that looks alike in one of its three units elsewhere. The last `absent`
    images have noise alone; a share `flip` of the others is mirrored, so that unit 2 is to the right.
    """
    rng = np.random.default_rng(seed)
    part = rng.uniform(60, 164, (n, 2))
    other = rng.uniform(30, 194, (n, 2))
    maps = noise * rng.random((n, UNITS, SIDE, SIDE))
    shown = np.arange(n) < n - absent
    for unit, place in PLACES.items():
        maps[:, unit] += bumps(part + place) * shown[:, None, None]
    for unit in (0, 3, 4):
        maps[:, unit] += 0.9 * bumps(other) * shown[:, None, None]
    turned = (rng.random(n) < flip) & shown
    maps[turned] = maps[turned, :, :, ::-1]
    part[turned, 1] = IMAGE[1] - 1 - part[turned, 1]
    part[~shown] = np.nan

    def features(values):
        layer = LayerMaps("maps", np.ascontiguousarray(values, dtype=np.float32), grid())
        return TrunkFeatures({"maps": layer}, IMAGE, f"planted {seed}")

    return (features(maps), features(maps[..., ::-1])), part, turned


def planted_cells(**options):
    features, part, turned = planted(**options)
    return part_cells(features, ["maps"]), part, turned
