"""Scenes: what is drawn is what the masks and the list of things say."""

from __future__ import annotations

import numpy as np
import pytest

from cnn_interp.images.scenes import COLOURS, SHAPES, TEXTURES, Thing, draw_scene, random_scene
from interpretkit.errors import InputError


@pytest.mark.parametrize("shape", SHAPES)
def test_a_thing_has_its_colour_where_its_mask_is(shape: str) -> None:
    scene = draw_scene([Thing(shape, "red", 20.0, 24.0, 8.0)], "noise", seed=1)
    inner = scene.masks[0]
    image = scene.image.astype(int)
    reddish = (image[..., 0] - image[..., 1:].max(-1)) > 60
    assert (reddish & inner).sum() >= 0.95 * inner.sum()
    assert not (reddish & ~inner).any() or (reddish & ~inner).sum() <= 0.15 * inner.sum()
    rows, columns = np.nonzero(inner)
    # Within the circle of its radius.
    assert np.hypot(rows - 20, columns - 24).max() <= 8.6


@pytest.mark.parametrize(
    ("shape", "area"),
    [("circle", np.pi), ("square", 2.0), ("triangle", 3 * np.sqrt(3) / 4), ("cross", 8 / 3.5 - 4 / 3.5**2)],
)
def test_areas_are_those_of_the_figures(shape: str, area: float) -> None:
    scene = draw_scene([Thing(shape, "blue", 31.7, 32.2, 25.0)], "plain", size=64)
    assert scene.masks[0].sum() == pytest.approx(area * 25**2, rel=0.04)


def test_later_things_hide_earlier_ones() -> None:
    below, above = Thing("square", "red", 20, 20, 8), Thing("circle", "green", 22, 22, 5)
    scene = draw_scene([below, above], "plain")
    assert not (scene.masks[0] & scene.masks[1]).any()
    assert tuple(scene.image[22, 22]) == COLOURS["green"]


def test_random_scenes_are_reproducible_and_apart() -> None:
    seen = set()
    for index in range(40):
        scene, again = random_scene(3, index), random_scene(3, index)
        assert scene.things == again.things
        np.testing.assert_array_equal(scene.image, again.image)
        assert 3 <= len(scene.things) <= 4
        assert scene.image.shape == (48, 48, 3)
        assert scene.masks.sum(0).max() == 1
        assert scene.masks.any((1, 2)).all()
        seen.add((scene.texture, scene.things[0].shape))
    assert {texture for texture, _ in seen} == set(TEXTURES)
    assert random_scene(4, 0).things != random_scene(3, 0).things


def test_backgrounds_are_grey() -> None:
    for texture in TEXTURES:
        scene = draw_scene([], texture, seed=2)
        assert (np.ptp(scene.image.astype(int), axis=2) == 0).all()


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(InputError, match="texture 'lace'"):
        draw_scene([], "lace")
    with pytest.raises(InputError, match="colour 'pink'"):
        draw_scene([Thing("circle", "pink", 5, 5, 3)], "plain")
    with pytest.raises(InputError, match="shape 'star'"):
        draw_scene([Thing("star", "red", 5, 5, 3)], "plain")
    with pytest.raises(InputError, match="do not fit"):
        random_scene(0, things=(60, 60))
