"""Drawn objects: what is annotated is what is painted."""

from __future__ import annotations

import numpy as np
import pytest

from cnn_interp.images import PartImages, articulated_images
from cnn_interp.images.articulated import CATEGORIES, Recipe, compose
from cnn_interp.images.articulated_objects import BLUEPRINTS, PART_NAMES
from cnn_interp.images.drawing import Capsule, Ellipse, Placement, Polygon, window_of
from interpretkit.errors import InputError


@pytest.fixture(scope="module")
def images() -> PartImages:
    return articulated_images(45, seed=3, side=96)


def test_every_image_depends_on_its_number_and_seed_alone(images: PartImages) -> None:
    few = articulated_images(7, seed=3, side=96)
    np.testing.assert_array_equal(few.image(6), images.image(6))
    np.testing.assert_array_equal(few.landmarks, images.landmarks[:7])
    np.testing.assert_array_equal(few.masks(5), images.masks(5))
    assert not np.array_equal(articulated_images(1, seed=4, side=96).image(0), images.image(0))


def test_global_random_numbers_are_left_alone() -> None:
    np.random.seed(0)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    articulated_images(2, side=48).image(1)
    assert np.random.random() == expected  # noqa: NPY002


def test_categories_and_negatives_are_spread_evenly(images: PartImages) -> None:
    counts = np.bincount(images.categories + 1, minlength=len(CATEGORIES) + 1)
    assert counts[0] == 9
    assert counts[1:].tolist() == [4] * len(CATEGORIES)


def test_parts_are_those_of_the_category(images: PartImages) -> None:
    for index in range(len(images)):
        category = int(images.categories[index])
        own = set(PART_NAMES[images.category_names[category]]) if category >= 0 else set()
        seen = {images.part_names[part] for part in np.flatnonzero(images.masks(index).any(axis=(1, 2)))}
        marked = {images.part_names[part] for part in np.flatnonzero(images.annotated[index])}
        assert marked <= seen <= own


def test_blueprints_name_their_parts() -> None:
    for name, blueprint in BLUEPRINTS.items():
        assert {piece.part for piece in blueprint(np.random.default_rng(0))} == set(PART_NAMES[name])


def test_masks_do_not_overlap_and_fill_the_box(images: PartImages) -> None:
    assert images.boxes is not None
    for index in np.flatnonzero(images.categories >= 0)[:12]:
        masks = images.masks(index)
        assert masks.sum(axis=0).max() == 1
        rows, columns = np.nonzero(masks.any(axis=0))
        assert images.boxes[index].tolist() == [rows.min(), columns.min(), rows.max(), columns.max()]
    negative = int(np.flatnonzero(images.categories < 0)[0])
    assert np.isnan(images.boxes[negative]).all()
    assert not images.masks(negative).any()


def test_landmarks_are_centres_of_parts_that_nothing_hides() -> None:
    images = articulated_images(9, seed=1, side=96, categories=["lamp"], negatives=0, occlusion=0)
    shade = images.part_names.index("shade")
    within = 0
    for index in range(9):
        mask = images.masks(index)[shade]
        rows, columns = np.nonzero(mask)
        touches = mask[:, [0, -1]].any() or mask[[0, -1]].any()
        # Nothing lies before the shade, so that what is seen is the whole part.
        if not touches:
            np.testing.assert_allclose(
                images.landmarks[index, shade], [rows.mean(), columns.mean()], atol=1e-9
            )
            within += 1
    assert within >= 5


def test_occluders_hide_parts_but_never_most_of_the_object() -> None:
    options = {"seed": 2, "side": 96, "negatives": 0.0}
    free = articulated_images(18, occlusion=0.0, **options)
    hidden = articulated_images(18, occlusion=1.0, **options)
    shares = []
    for index in range(18):
        all_of_it, rest = free.masks(index).any(axis=0), hidden.masks(index).any(axis=0)
        assert not (rest & ~all_of_it).any()
        shares.append(rest.sum() / all_of_it.sum())
    assert min(shares) >= 0.55
    assert np.mean(np.array(shares) < 0.99) > 0.5
    assert hidden.annotated.sum() < free.annotated.sum()


def test_parts_are_painted_where_their_masks_are() -> None:
    """Within a part neighbouring pixels are alike; across the outline of the object they differ more."""
    images = articulated_images(12, seed=5, side=128, negatives=0, occlusion=0)
    within, across = [], []
    for index in range(12):
        picture = images.image(index).astype(float)
        solid = np.asarray(images.masks(index).any(axis=0))
        step = np.abs(picture[:, 1:] - picture[:, :-1]).mean(axis=2)
        across.append(step[solid[:, 1:] != solid[:, :-1]].mean())
        within.append(step[solid[:, 1:] & solid[:, :-1]].mean())
    assert np.mean(np.array(across) > np.array(within)) >= 0.9


def test_colours_do_not_tell_categories_apart() -> None:
    """The mean colour of an object is no better than chance for guessing its category by the nearest mean."""
    images = articulated_images(180, seed=6, side=32, negatives=0, occlusion=0)
    colours = np.array([images.image(i)[images.masks(i).any(axis=0)].mean(axis=0) for i in range(180)])
    halves = np.arange(180) < 90
    means = np.array(
        [colours[halves & (images.categories == c)].mean(axis=0) for c in range(len(CATEGORIES))]
    )
    guessed = np.linalg.norm(colours[~halves][:, None] - means, axis=2).argmin(axis=1)
    # Chance is 1/9 of 90; 22 lies above its 99.9 % quantile.
    assert (guessed == images.categories[~halves]).sum() < 22


def test_distances_of_shapes() -> None:
    columns, rows = np.meshgrid(np.arange(41, dtype=np.float32), np.arange(41, dtype=np.float32))
    disc = Capsule((20, 20), (20, 20), 8, 8).distance(columns, rows)
    np.testing.assert_allclose(disc, np.hypot(columns - 20, rows - 20) - 8, atol=1e-5)
    ellipse = Ellipse((20, 20), (8, 0), (0, 8)).distance(columns, rows)
    edge = np.abs(disc) < 2
    np.testing.assert_allclose(ellipse[edge], disc[edge], atol=0.4)
    square = Polygon(((10, 10), (30, 10), (30, 30), (10, 30))).distance(columns, rows)
    np.testing.assert_allclose(square[20], np.abs(columns[20] - 20) - 10, atol=1e-4)
    assert square[5, 5] == pytest.approx(np.hypot(5, 5), abs=1e-4)
    assert (square < 0).sum() == 19 * 19
    window = window_of([Polygon(((10, 10), (30, 10), (30, 30), (10, 30)))])
    np.testing.assert_allclose(window.centre(), (20, 20), atol=1e-3)


def test_placement_goes_there_and_back() -> None:
    placement = Placement(np.array([[3.0, 1.0], [-0.5, 2.0]]), np.array([7.0, 9.0]), 2.5)
    column, row = placement.point((0.4, -0.7))
    x, y = placement.back(np.array([[column]], dtype=np.float32), np.array([[row]], dtype=np.float32))
    assert (x.item(), y.item()) == pytest.approx((0.4, -0.7), abs=1e-5)


def test_scale_of_the_image_changes_no_layout() -> None:
    small = compose(Recipe(0, 64, CATEGORIES, 0.0, 0.0), 3)
    large = compose(Recipe(0, 256, CATEGORIES, 0.0, 0.0), 3)
    both = ~np.isnan(small.landmarks[:, 0]) & ~np.isnan(large.landmarks[:, 0])
    assert both.any()
    np.testing.assert_allclose(
        (small.landmarks[both] + 0.5) / 64, (large.landmarks[both] + 0.5) / 256, atol=1 / 64
    )


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n": 0}, "n 0"),
        ({"n": 1, "side": 8}, "side 8"),
        ({"n": 1, "categories": ["cow"]}, "categories cow"),
        ({"n": 1, "categories": ["car", "car"]}, "different ones"),
        ({"n": 1, "negatives": 1.5}, "negatives 1.5"),
    ],
)
def test_refuses(options: dict, match: str) -> None:
    with pytest.raises(InputError, match=match):
        articulated_images(**options)
