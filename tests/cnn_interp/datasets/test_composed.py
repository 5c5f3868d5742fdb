"""Composed concepts: labels that fit the pixels, deterministic images, the outlines of photographs."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2lab

from cnn_interp.images import ConceptImages, composed_concepts
from cnn_interp.images.colour_names import EXAMPLES, NAMES, colour_names
from cnn_interp.images.composed import CATEGORIES
from cnn_interp.images.photograph_regions import REGIONS, cutouts, label_planes
from cnn_interp.images.surfaces import SURFACES, surface
from interpretkit.errors import InputError


@pytest.fixture(scope="module")
def images() -> ConceptImages:
    return composed_concepts(60, seed=2, side=96)


def test_every_image_depends_on_its_number_and_seed_alone(images: ConceptImages) -> None:
    other = composed_concepts(10, seed=2, side=96)
    np.testing.assert_array_equal(other.image(9), images.image(9))
    assert other.masks(9).keys() == images.masks(9).keys()
    assert not np.array_equal(composed_concepts(1, seed=3, side=96).image(0), images.image(0))


def test_there_are_enough_concepts_of_every_category(images: ConceptImages) -> None:
    numbers = [concept.number for concept in images.labels]
    assert numbers == list(range(1, len(numbers) + 1))
    counts = {c: sum(concept.category == c for concept in images.labels) for c in CATEGORIES}
    assert sum(counts.values()) >= 80
    assert min(counts.values()) >= 8


def test_most_concepts_are_met_in_a_few_images(images: ConceptImages) -> None:
    met = {number for index in range(len(images)) for number in images.masks(index)}
    assert len(met) >= 0.9 * len(images.labels)


def test_maps_carry_labels_of_their_category(images: ConceptImages) -> None:
    for index in range(12):
        for category, maps in images.label_maps(index).items():
            assert maps.shape[1:] == (96, 96)
            for number in np.unique(maps[maps > 0]):
                assert images.by_number[int(number)].category == category
        # Every pixel has a colour; a part lies upon its object.
        maps = images.label_maps(index)
        assert (maps["color"] > 0).all()
        if len(maps["part"]):
            assert (maps["object"].max(axis=0)[maps["part"][0] > 0] > 0).mean() > 0.9


def test_materials_and_shapes_exclude_each_other(images: ConceptImages) -> None:
    for index in range(20):
        maps = images.label_maps(index)
        layers = [(maps[c][0] > 0).astype(int) for c in ("shape", "object", "texture") if len(maps[c])]
        assert not layers or np.sum(layers, axis=0).max() <= 1


def test_shapes_have_one_colour_within(images: ConceptImages) -> None:
    spreads = []
    for index in range(len(images)):
        picture = images.image(index).astype(float)
        for number, mask in images.masks(index).items():
            if images.by_number[number].category == "shape" and mask.sum() > 150:
                spreads.append(np.median(np.abs(picture[mask] - np.median(picture[mask], axis=0))))
    assert len(spreads) > 5
    assert np.median(spreads) < 8


def test_colour_names_are_the_nearest_in_cielab() -> None:
    for number, examples in enumerate(EXAMPLES.values()):
        assert (colour_names(np.array([examples], dtype=np.uint8)) == number).all()
    rng = np.random.default_rng(0)
    # Colours that six bits keep as they are: the middles of the steps.
    picture = (rng.integers(0, 64, (1, 300, 3)) * 4 + 2).astype(np.uint8)
    group = np.array([k for k, examples in enumerate(EXAMPLES.values()) for _ in examples])
    colours = np.array([colour for examples in EXAMPLES.values() for colour in examples])
    distances = np.linalg.norm(rgb2lab(picture / 255)[0][:, None] - rgb2lab(colours[None] / 255)[0], axis=2)
    agree = group[distances.argmin(axis=1)] == colour_names(picture)[0]
    assert agree.mean() > 0.97
    assert len(NAMES) == 11


def test_outlines_of_photographs_fit_them() -> None:
    for name in REGIONS:
        for names, plane in label_planes(name).values():
            assert plane.max() <= len(names)
    names, plane = label_planes("chelsea")["part"]
    assert names[plane[116, 170] - 1] == "eye"
    # The cat's eye is greener than its fur, the dahlia more orange than the leaves behind it.
    from cnn_interp.images.surfaces import photograph

    flower = photograph("flower").astype(float)
    inside = label_planes("flower")["object"][1] > 0
    assert flower[inside].mean(axis=0)[0] > 150 > 60 > flower[~inside].mean(axis=0)[0]


def test_cutouts_are_whole(images: ConceptImages) -> None:
    found = cutouts()
    assert len(found["coin"]) == 24
    assert len(found["person"]) == 3
    for pieces in found.values():
        for piece in pieces:
            assert piece.picture.shape[:2] == piece.cover.shape
            assert (piece.cover > 127).any(axis=1).mean() > 0.9
            assert "object" in piece.labels
            for _, plane in piece.labels.values():
                assert not plane[piece.cover <= 127].any()


def test_surfaces_lie_within_their_photographs() -> None:
    for name, (_, top, left, bottom, right) in SURFACES.items():
        assert surface(name).shape == (bottom - top, right - left, 3)


@pytest.mark.parametrize("options", [{"n": 0}, {"n": 1, "seed": -1}, {"n": 1, "side": 32}])
def test_refuses(options: dict) -> None:
    with pytest.raises(InputError, match="expected at least 1, 0 and 64"):
        composed_concepts(**options)
