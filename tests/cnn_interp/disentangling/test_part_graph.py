import dataclasses
import itertools
import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from part_planted import IMAGE, STRIDE, grid, planted_cells

from cnn_interp.disentangling.features import LayerMaps, TrunkFeatures
from cnn_interp.disentangling.part_cells import PartCells, part_cells
from cnn_interp.disentangling.part_graph import (
    VERDICTS,
    Annotation,
    Answer,
    PartSettings,
    _best_near,
    expected_position,
    grow,
    infer,
    load_part_graph,
    refine,
    score_maps,
)
from cnn_interp.images.articulated import articulated_images
from interpretkit.errors import InputError

DIAGONAL = float(np.hypot(*IMAGE))
SMALL = PartSettings(near=2, reach=2, rounds=2)


def notes(part, images, **more):
    return [Annotation(int(image), tuple(part[image]), **more) for image in images]


def error(found, part, rows):
    return float(np.nanmean(np.linalg.norm(found[rows] - part[rows], axis=1)) / DIAGONAL)


def still(part, given, rows):
    return error(np.broadcast_to(part[given].mean(axis=0), part.shape), part, rows)


def test_a_part_is_found_where_it_is_planted():
    errors, constants, single = [], [], []
    for seed in range(4):
        cells, part, _ = planted_cells(seed=seed)
        graph = grow(cells, notes(part, [0, 1, 2]), settings=SMALL)
        rest = np.arange(3, 60)
        errors.append(error(infer(graph, cells).centres, part, rest))
        constants.append(still(part, [0, 1, 2], rest))
        alone = grow(cells, notes(part, [0]), settings=SMALL)
        single.append(error(infer(alone, cells).centres, part, rest))
    assert np.mean(errors) < 0.25 * np.mean(constants)
    # Less than a cell.
    assert np.mean(errors) < STRIDE / DIAGONAL
    assert np.mean(single) < 0.6 * np.mean(constants)


def test_articulated_objects_are_located_and_the_patterns_sit_on_the_part():
    """Maps are made of the exact parts: each unit answers to a mixture of them, with noise."""
    images = articulated_images(
        50, seed=3, side=224, negatives=0.0, occlusion=0.0, categories=("quadruped",)
    ).cropped()
    rng = np.random.default_rng(0)
    masks = np.stack([images.masks(row) for row in range(len(images))]).astype(np.float32)
    pooled = masks.reshape(50, 6, 14, 16, 14, 16).mean(axis=(3, 5))
    mixture = rng.random((24, 6)) ** 3
    maps = np.einsum("up,nphw->nuhw", mixture, pooled) + 0.1 * rng.random((50, 24, 14, 14))

    def features(values):
        layer = LayerMaps("maps", np.ascontiguousarray(values, dtype=np.float32), grid())
        return TrunkFeatures({"maps": layer}, IMAGE, "articulated")

    cells = part_cells((features(maps), features(maps[..., ::-1])), ["maps"])
    ratios, on_part, by_chance = [], [], []
    for name in ("head", "front legs", "tail"):
        number = images.part_names.index(name)
        part = images.landmarks[:, number]
        given = np.flatnonzero(~np.isnan(part[:, 0]))[:3]
        rest = np.setdiff1d(np.flatnonzero(~np.isnan(part[:, 0])), given)
        graph = grow(cells, notes(part, given), part=name)
        parses = infer(graph, cells)
        ratios.append(error(parses.centres, part, rest) / still(part, given, rest))
        # The pattern in the middle of the template is at the part itself, not elsewhere on the object.
        middle = int(np.flatnonzero((graph.templates[0].offsets == 0).all(axis=1))[0])
        near = np.linalg.norm(parses.patterns[rest, middle] - part[rest], axis=1)
        on_part.append((near < 2.5 * STRIDE).mean())
        away = np.linalg.norm(part[rest][:, None] - part[rest][None], axis=2)
        by_chance.append((away[~np.eye(len(rest), dtype=bool)] < 2.5 * STRIDE).mean())
    assert np.mean(ratios) < 0.5, ratios
    assert np.mean(on_part) > 0.75
    assert np.mean(on_part) > np.mean(by_chance) + 0.4


def test_patterns_are_the_units_that_were_planted():
    cells, part, _ = planted_cells(n=80, noise=0.05)
    # Without mirror images, for unit 2 is to the left in all of them.
    settings = dataclasses.replace(SMALL, facing="either", deformation=0, rounds=0)
    graph = grow(cells, notes(part, range(8)), settings=settings)
    offsets = [tuple(offset) for offset in graph.templates[0].offsets]
    for unit, place in ((1, (-2, 0)), (2, (0, -2))):
        layer, best, weight = graph.units(0, offsets.index(place))[0]
        assert (layer, best, weight) == ("maps", unit, 1.0)
    strengths = graph.templates[0].strengths.reshape(5, 5)
    assert strengths.sum() == pytest.approx(1)
    # Far corners tell nothing of the part: three quarters of what is said is said near the planted places.
    planted_at = [(2, 2), (0, 2), (2, 0)]
    assert min(strengths[place] for place in planted_at) > strengths[4, 4] * 1.5


def test_images_without_annotation_make_it_better():
    with_pool, without = [], []
    for seed in range(6):
        cells, part, _ = planted_cells(n=80, seed=seed, noise=0.8)
        rest = np.arange(40, 80)
        for rounds, found in ((3, with_pool), (0, without)):
            settings = dataclasses.replace(SMALL, rounds=rounds)
            graph = grow(cells, notes(part, [0, 1]), pool=np.arange(2, 40), settings=settings)
            found.append(error(infer(graph, cells).centres, part, rest))
    assert np.mean(with_pool) < 0.95 * np.mean(without)
    assert (np.array(with_pool) < np.array(without)).sum() >= 5


def test_scores_are_those_of_the_definition():
    cells, part, _ = planted_cells(n=12)
    for facing, deformation in itertools.product(("both", "either"), (0, 1)):
        settings = PartSettings(
            near=1, reach=3, step=3, rounds=1, deformation=deformation, facing=facing, expectation=0.7
        )
        graph = grow(cells, notes(part, [0, 1]), settings=settings)
        maps = score_maps(graph, cells, [5])[0, 0].numpy()
        template = graph.templates[0]
        centres = cells.centres.reshape(14, 14, 2)
        for way, (row, column) in itertools.product((0, 1), ((0, 0), (6, 9), (13, 4))):
            vectors = cells.vectors[5, way].numpy().reshape(14, 14, -1)
            total = 0.0
            for (down, across), weights in zip(template.offsets, template.weights, strict=True):
                y, x = row + down, column + across
                if 0 <= y < 14 and 0 <= x < 14:
                    window = vectors[
                        max(0, y - deformation) : y + deformation + 1,
                        max(0, x - deformation) : x + deformation + 1,
                    ]
                    total += (window @ weights).max()
            place = centres[row, column].copy()
            if way and facing == "both":
                place[1] = IMAGE[1] - 1 - place[1]
            total -= 0.35 * (((place - template.mean) / template.deviation) ** 2).sum()
            assert maps[way, 14 * row + column] == pytest.approx(total, abs=1e-4)


def test_the_mirror_image_is_parsed_as_the_mirror_image():
    cells, part, _ = planted_cells(n=20)
    graph = grow(cells, notes(part, [0, 1, 2]), settings=dataclasses.replace(SMALL, expectation=0.0))
    swapped = PartCells(cells.vectors.flip(1), cells.encoder)
    here, there = infer(graph, cells), infer(graph, swapped)
    assert np.allclose(there.centres[:, 0], here.centres[:, 0], atol=1e-3)
    assert np.allclose(there.centres[:, 1], IMAGE[1] - 1 - here.centres[:, 1], atol=1e-3)
    assert np.allclose(here.scores, there.scores, atol=1e-4)


def test_a_template_that_faces_one_way_tells_which_way_an_image_faces():
    right = []
    for seed in range(3):
        cells, part, turned = planted_cells(n=60, seed=seed, flip=0.5)
        given = [*np.flatnonzero(turned)[:2], *np.flatnonzero(~turned)[:3]]
        graph = grow(cells, notes(part, given), settings=dataclasses.replace(SMALL, facing="either"))
        # Annotated images are laid on each other: those that face the same way are turned alike.
        ways = dict(graph.templates[0].annotated)
        assert len({ways[i] ^ bool(turned[i]) for i in given}) == 1
        rest = np.setdiff1d(np.arange(60), given)
        parses = infer(graph, cells)
        same = ways[given[0]] ^ bool(turned[given[0]])
        right.append(((parses.flipped ^ turned)[rest] == same).mean())
    assert np.mean(right) > 0.9


def test_only_what_is_annotated_is_looked_at_and_nothing_is_changed():
    cells, part, _ = planted_cells()
    before = cells.vectors.clone()
    graph = grow(cells, notes(part, [0, 1]), settings=SMALL)
    weights = graph.templates[0].weights.copy()
    more = grow(cells, notes(part, [2]), graph=graph)
    assert [note.image for note in more.annotations] == [0, 1, 2]
    assert [note.image for note in graph.annotations] == [0, 1]
    assert np.array_equal(graph.templates[0].weights, weights)
    assert torch.equal(before, cells.vectors)
    # The same again is the same to the bit; an image annotated again has the new annotation alone.
    again = grow(cells, notes(part, [0, 1]), settings=SMALL)
    assert np.array_equal(again.templates[0].weights, weights)
    anew = grow(cells, [Annotation(1, (5.0, 5.0))], graph=graph)
    assert [note.position for note in anew.annotations][1] == (5.0, 5.0)


def test_more_annotations_added_one_by_one_are_the_same_as_all_at_once():
    errors = []
    for seed in range(3):
        cells, part, _ = planted_cells(seed=seed, noise=0.6)
        graph = grow(cells, notes(part, [3]), settings=SMALL)
        errors.append([error(infer(graph, cells).centres, part, np.arange(10, 60))])
        for image in (1, 4, 0, 2):
            graph = grow(cells, notes(part, [image]), graph=graph)
        whole = grow(cells, notes(part, range(5)), settings=SMALL)
        assert np.array_equal(graph.templates[0].weights, whole.templates[0].weights)
        errors[-1].append(error(infer(graph, cells).centres, part, np.arange(10, 60)))
    one, five = np.mean(errors, axis=0)
    assert five < one


def test_answers_refine_the_graph():
    cells, part, _ = planted_cells()
    graph = grow(cells, notes(part, [0], size=(30.0, 40.0)), settings=SMALL)
    parse = infer(graph, cells, [7])
    right = refine(graph, cells, Answer(7, "right")).annotations[-1]
    assert right.image == 7
    assert right.position == pytest.approx(tuple(parse.centres[0]))
    assert right.template == 0
    moved = refine(graph, cells, Answer(7, "wrong box", (50.0, 60.0), (20.0, 20.0)))
    assert moved.annotations[-1].position == (50.0, 60.0)
    assert moved.templates[0].size == pytest.approx((30 * 20, 40 * 20) ** np.array(0.5), rel=1e-6)
    grown = refine(graph, cells, Answer(7, "new template", (50.0, 60.0)))
    assert len(grown.templates) == 2
    assert grown.templates[1].annotated == ((7, False),)
    back = refine(grown, cells, Answer(8, "wrong template", (80.0, 60.0), template=0))
    assert [image for image, _ in back.templates[0].annotated] == [0, 8]
    assert len(back.templates) == 2
    # The only image of a template is said to be of a new one: the old one is no more.
    assert len(refine(graph, cells, Answer(0, "new template", (50.0, 60.0))).templates) == 1
    none = refine(graph, cells, Answer(9, "absent"))
    assert none.annotations[-1] == Annotation(9, None)
    assert np.isfinite(none.threshold)
    with pytest.raises(InputError, match="flipped"):
        refine(graph, cells, Answer(7, "flipped", (50.0, 60.0)))
    either = grow(cells, notes(part, [0]), settings=dataclasses.replace(SMALL, facing="either"))
    turned = refine(either, cells, Answer(7, "flipped", (50.0, 60.0)))
    was = bool(infer(either, cells, [7]).flipped[0])
    assert dict(turned.templates[0].annotated)[7] is not was
    assert set(VERDICTS) == {"right", "wrong box", "wrong template", "new template", "absent", "flipped"}


def test_absent_parts_are_told_from_present_ones():
    cells, part, _ = planted_cells(n=80, absent=30, noise=0.1)
    graph = grow(cells, notes(part, [0, 1, 2]), settings=SMALL)
    assert infer(graph, cells).present.all()
    graph = grow(cells, [Annotation(79, None), Annotation(78, None)], graph=graph)
    present = infer(graph, cells).present
    assert present[3:50].mean() > 0.9
    assert present[50:78].mean() < 0.1


def test_boxes_have_the_size_annotated_and_stay_in_the_image():
    cells, part, _ = planted_cells()
    graph = grow(
        cells, [Annotation(0, tuple(part[0]), (20, 45)), Annotation(1, tuple(part[1]), (80, 45))],
        settings=SMALL,
    )  # fmt: skip
    parses = infer(graph, cells)
    inner = ((parses.centres > 45) & (parses.centres < 178)).all(axis=1)
    assert inner.sum() > 20
    sides = parses.boxes[inner, 2:] - parses.boxes[inner, :2]
    assert np.allclose(sides, (40, 45), atol=1e-6)
    assert parses.boxes.min() >= 0
    assert parses.boxes.max() <= 223
    some = parses.subset([4, 2])
    assert np.array_equal(some.centres, parses.centres[[4, 2]])


def test_saved_and_read_again(tmp_path):
    cells, part, _ = planted_cells()
    given = [*notes(part, [0, 1], size=(20.0, 30.0)), Annotation(5, None), *notes(part, [3], template=1)]
    graph = grow(cells, given, part="beak", settings=SMALL)
    graph.save(tmp_path / "graph")
    again = load_part_graph(tmp_path / "graph")
    assert again.annotations == graph.annotations
    assert (again.part, again.settings, again.threshold) == ("beak", SMALL, graph.threshold)
    for one, other in zip(
        dataclasses.asdict(infer(graph, cells)).values(),
        dataclasses.asdict(infer(again, cells)).values(),
        strict=True,
    ):
        assert np.array_equal(one, other, equal_nan=True)
    # It can be grown on.
    assert len(grow(cells, notes(part, [9]), graph=again).annotations) == 5
    drawn = nx.read_graphml(tmp_path / "graph" / "part.graphml")
    kinds = nx.get_node_attributes(drawn, "level")
    assert sum(kind == "template" for kind in kinds.values()) == 2
    assert sum(kind == "pattern" for kind in kinds.values()) == 50
    assert nx.is_directed_acyclic_graph(drawn)
    assert set(nx.descendants(drawn, "beak")) == set(drawn) - {"beak"}


@pytest.mark.parametrize("file", ["part.json", "part.npz"])
def test_damaged_files_are_one_line(tmp_path, file):
    cells, part, _ = planted_cells(n=10)
    grow(cells, notes(part, [0]), settings=SMALL).save(tmp_path)
    whole = (tmp_path / file).read_bytes()
    for damage in (whole[: len(whole) // 2], b"{}", b""):
        (tmp_path / file).write_bytes(damage)
        with pytest.raises(InputError, match="damaged") as caught:
            load_part_graph(tmp_path)
        assert "\n" not in str(caught.value)
    (tmp_path / file).unlink()
    with pytest.raises(InputError, match="no part graph"):
        load_part_graph(tmp_path)


def test_expectation_by_hand():
    # One position counts for two thirds against the middle.
    mean, deviation = expected_position([[0.5, 111.5]], IMAGE)
    assert mean == pytest.approx(((0.5 + 0.5 * 111.5) / 1.5, 111.5))
    assert deviation[1] == pytest.approx(0.27 * 224)
    mean, deviation = expected_position(
        np.random.default_rng(0).normal((80, 120), (10, 30), (4000, 2)), IMAGE
    )
    assert mean == pytest.approx((80, 120), abs=2)
    assert deviation == pytest.approx((10, 30), rel=0.1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"annotations": []}, "annotations"),
        ({"annotations": [Annotation(0, None)]}, "none shows"),
        ({"annotations": [Annotation(99, (1, 1))]}, "image 99"),
        ({"annotations": [Annotation(0, (np.nan, 1))]}, "position"),
        ({"annotations": [Annotation(0, (1, 1), (0, 1))]}, "size"),
        ({"annotations": [Annotation(0, (1, 1), template=2)]}, "template"),
        ({"annotations": [Annotation(0, (1, 1), template=-1)]}, "template"),
    ],
)
def test_bad_input_in_one_line(change, said):
    cells, _, _ = planted_cells(n=10)
    with pytest.raises(InputError, match=said) as caught:
        grow(cells, **({"annotations": [Annotation(0, (5.0, 5.0))]} | change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"near": -1}, "near"),
        ({"step": 0}, "step"),
        ({"decline": 0}, "decline"),
        ({"share": 0}, "share"),
        ({"expectation": -1}, "expectation"),
        ({"facing": "up"}, "facing"),
    ],
)
def test_bad_settings_in_one_line(options, said):
    with pytest.raises(InputError, match=said):
        PartSettings(**options)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((0, "perhaps"), "verdict"),
        ((0, "wrong box"), "position"),
        ((0, "wrong template", (1.0, 1.0)), "template"),
        ((0, "right", None, None, 1), "template"),
    ],
)
def test_bad_answers_in_one_line(answer, said):
    with pytest.raises(InputError, match=said):
        Answer(*answer)


def test_answers_to_what_is_not_there():
    cells, part, _ = planted_cells(n=10)
    graph = grow(cells, notes(part, [0]), settings=SMALL)
    with pytest.raises(InputError, match="image 10"):
        refine(graph, cells, Answer(10, "right"))
    with pytest.raises(InputError, match="template 1"):
        refine(graph, cells, Answer(1, "wrong template", (5.0, 5.0), template=1))
    with pytest.raises(InputError, match="cells"):
        infer(graph, PartCells(cells.vectors[..., :2], cells.encoder))


def test_the_best_near_a_cell_is_what_pooling_finds():
    maps = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 5, 7)))
    for reach in (0, 1, 2, 9):
        padded = torch.nn.functional.pad(maps, [reach] * 4, value=-torch.inf)
        windows = padded.unfold(2, 2 * reach + 1, 1).unfold(3, 2 * reach + 1, 1)
        assert torch.equal(_best_near(maps, reach), windows.amax(dim=(4, 5)))
