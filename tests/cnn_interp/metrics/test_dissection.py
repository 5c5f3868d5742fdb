import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import nn

from cnn_interp.images.concept_images import Concept
from cnn_interp.metrics.dissection import Dissection, dissect
from cnn_interp.metrics.pictures import detectors_figure
from cnn_interp.units.positions import UnitGrid
from interpretkit.errors import InputError
from interpretkit.networks.receptive_fields import ReceptiveField

RED, GREEN, STRIPED = (
    Concept(3, "red", "color"),
    Concept(7, "green", "color"),
    Concept(12, "striped", "texture"),
)
CONCEPTS = (RED, GREEN, STRIPED)


class Looking(nn.Module):
    """Gives what a function makes of the image as the map of a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.units = nn.Identity()
        self.head = nn.Linear(1, 2)

    def forward(self, x):
        maps = self.units(self.function(x))
        return self.head(maps.mean(dim=(1, 2, 3))[:, None])


def planted(n=12, side=16, seed=0):
    """Return images whose first channel is what is red, second what is green, third what is striped, and labels."""
    rng = np.random.default_rng(seed)
    images, labels = np.zeros((n, 3, side, side), np.float32), np.zeros((n, 2, side, side), np.int64)
    for image in range(n):
        for channel in range(3):
            if rng.random() < 0.7:
                top, left = rng.integers(0, side - 4, 2)
                images[image, channel, top : top + 4, left : left + 4] = 1 + rng.random((4, 4))
        # Colours share a layer where they do not overlap, and stripes have their own.
        images[image, 1][images[image, 0] > 0] = 0
        for channel, concept in enumerate(CONCEPTS):
            labels[image, channel // 2][images[image, channel] > 0] = concept.number
    return torch.from_numpy(images), torch.from_numpy(labels)


def in_batches(*tensors, size=5):
    return list(zip(*(tensor.split(size) for tensor in tensors), strict=True))


def test_a_unit_that_is_a_concept_has_an_iou_of_one():
    images, labels = planted()
    share = float((images > 0).double().mean(dim=(0, 2, 3)).max())
    # Where colours or stripes are missing from an image, no unit fires there, so the whole area counts.
    found = dissect(Looking(lambda x: x), ["units"], in_batches(images, labels), CONCEPTS, share=share)[
        "units"
    ]
    columns, iou = found.best()
    assert columns.tolist() == [0, 1, 2]
    assert iou == pytest.approx([1, 1, 1])
    assert found.unique_detectors("best") == {"color": 2, "texture": 1}
    assert found.n_images == 12
    assert found.concept_area.tolist() == [int((images[:, c] > 0).sum()) for c in range(3)]


def test_hand_computed():
    # One image of 2 × 4 pixels: unit 0 fires on the left half, unit 1 in a corner, unit 2 never.
    maps = torch.zeros(1, 3, 2, 4)
    maps[0, 0, :, :2] = 1
    maps[0, 1, 0, 3] = 5
    labels = torch.zeros(1, 1, 2, 4, dtype=torch.int64)
    labels[0, 0, 0] = 3
    found = dissect(Looking(lambda x: x), ["units"], [(maps, labels)], [RED, GREEN, STRIPED], share=0.5)[
        "units"
    ]
    # Unit 0: 2 common of 4 + 4 − 2; unit 1: 1 of 1 + 4 − 1.
    assert found.iou.tolist() == [[2 / 6, 0, 0], [1 / 4, 0, 0], [0, 0, 0]]
    assert found.top_values[:, 0].tolist() == [1, 5, 0]
    # An image without colours leaves the IoU with colours alone; one without the unit's colour but another lowers it.
    bare = torch.zeros(1, 1, 2, 4, dtype=torch.int64)
    textured, green = bare + 12, bare + 7
    batches = [(maps, labels), (maps, bare), (maps, textured)]
    again = dissect(Looking(lambda x: x), ["units"], batches, CONCEPTS, share=0.5)["units"]
    assert again.iou[:, 0].tolist() == [2 / 6, 1 / 4, 0]
    assert again.iou[:, 2].tolist() == [4 / 8, 1 / 8, 0]
    lower = dissect(Looking(lambda x: x), ["units"], [(maps, labels), (maps, green)], CONCEPTS, share=0.5)[
        "units"
    ]
    assert lower.iou[0].tolist() == [2 / 10, 4 / 12, 0]


def dissect_by_loops(maps, labels, share, grid):
    """Return IoU by the definition, one unit, concept, image and pixel after another where it matters."""
    n, units = maps.shape[:2]
    height, width = labels.shape[-2:]
    y = ((np.arange(height) + 0.5) * grid.image[0] / height - 0.5 - grid.field.start[0]) / grid.field.stride[
        0
    ]
    x = ((np.arange(width) + 0.5) * grid.image[1] / width - 0.5 - grid.field.start[1]) / grid.field.stride[1]
    where = np.meshgrid(y, x, indexing="ij")
    iou = np.zeros((units, len(CONCEPTS)))
    for unit in range(units):
        values = np.sort(maps[:, unit].ravel())[::-1]
        threshold = values[int(share * len(values))]
        for column, concept in enumerate(CONCEPTS):
            common = union = 0
            for image in range(n):
                category = [c.number for c in CONCEPTS if c.category == concept.category]
                if not np.isin(labels[image], category).any():
                    continue
                mask = map_coordinates(maps[image, unit], where, order=1, mode="nearest") > threshold
                shown = (labels[image] == concept.number).any(axis=0)
                common += (mask & shown).sum()
                union += (mask | shown).sum()
            iou[unit, column] = common / union
    return iou


def test_agrees_with_plain_loops():
    generator = torch.Generator().manual_seed(0)
    images, labels = planted(n=20)
    convolution, pooling = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.MaxPool2d(2)
    network = nn.Sequential(convolution, nn.ReLU(), pooling, nn.Flatten(), nn.Linear(96, 2))
    with torch.no_grad():
        convolution.weight.normal_(generator=generator)
        plain = convolution(images)
        maps = {"0": plain.double().numpy(), "2": pooling(plain.relu()).double().numpy()}
    found = dissect(network, ["0", "2"], in_batches(images, labels, size=7), CONCEPTS, share=0.03)
    for layer in ("0", "2"):
        expected = dissect_by_loops(maps[layer], labels.numpy(), 0.03, found[layer].grid)
        assert np.allclose(found[layer].iou, expected, atol=1e-12)
        assert found[layer].iou.max() > 0.1


def test_batches_do_not_matter():
    images, labels = planted(n=11)
    results = [
        dissect(
            Looking(lambda x: x[:, :, ::2, ::2]), ["units"], in_batches(images, labels, size=size), CONCEPTS
        )
        for size in (1, 4, 11)
    ]
    for result in results[1:]:
        for name, array in results[0]["units"].arrays().items():
            assert np.array_equal(array, result["units"].arrays()[name]), name


def test_both_ways_of_counting():
    concepts = (*CONCEPTS, Concept(13, "dotted", "texture"))
    iou = np.array(
        [[0.3, 0.0, 0.2, 0.1], [0.05, 0.06, 0.0, 0.5], [0.03, 0.02, 0.04, 0.0], [0.2, 0.1, 0.0, 0.0]]
    )
    empty = np.zeros((4, 1))
    found = Dissection(
        layer="units",
        iou=iou,
        concepts=concepts,
        thresholds=empty[:, 0],
        threshold_error=empty[:, 0],
        top_images=empty.astype(int),
        top_values=empty,
        concept_area=np.ones(4, dtype=int),
        n_images=1,
        grid=UnitGrid(ReceptiveField("units", (1, 1), (1, 1), (0, 0), (1, 1)), (1, 1)),
    )
    # Unit 2 reaches .04 but does not exceed it; units 0 and 3 detect the same colour.
    assert [(u, c) for u, c, _ in found.detectors("summed")] == [(0, 0), (0, 2), (1, 1), (1, 3), (3, 0)]
    assert [(u, c) for u, c, _ in found.detectors("best")] == [(0, 0), (1, 3), (3, 0)]
    assert found.unique_detectors("summed") == {"color": 2, "texture": 2}
    assert found.unique_detectors("best") == {"color": 1, "texture": 1}
    rows = found.units_table()
    assert [row["concept"] for row in rows] == ["red", "dotted", "striped", "red"]
    assert [row["detector"] for row in rows] == [True, True, False, True]
    with pytest.raises(InputError, match="expected summed or best"):
        found.detectors("all")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected one of color, texture"):
        found.best("scene")


def test_the_legend_has_the_bars_colours():
    images, labels = planted()
    found = dissect(Looking(torch.clone), ["units"], in_batches(images, labels), CONCEPTS)["units"]
    # So few are drawn that a category has no bar.
    figure = detectors_figure(found, most=1)
    colours = [patch.get_facecolor() for patch in figure.legends[0].get_patches()]
    assert len(colours) == len(found.categories) == len(set(colours))
    (bar,) = figure.axes[0].patches
    assert bar.get_facecolor() in colours


def test_the_network_is_left_as_it_was():
    images, labels = planted(n=3)
    network = Looking(torch.clone)
    network.train()
    dissect(network, ["units"], in_batches(images, labels), CONCEPTS)
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not network.units._forward_hooks
    with pytest.raises(InputError, match="not finite"):
        dissect(network, ["units"], [(images / 0, labels)], CONCEPTS)
    assert not network.units._forward_hooks
    assert network.training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": ["nothing"]}, "none of that name"),
        ({"layers": ["head"]}, "gives no map"),
        ({"batches": []}, "expected at least one image"),
        ({"batches": iter([])}, "only once"),
        ({"concepts": ()}, "expected at least one"),
        ({"concepts": (RED, RED)}, "not distinct"),
        ({"concepts": (RED, STRIPED)}, "label 7: is the number of no concept"),
        ({"concepts": (RED, GREEN)}, "expected 0 to 7"),
        ({"share": 0.0}, "share 0"),
    ],
)
def test_bad_input_is_refused(change, message):
    images, labels = planted()
    given = {"layers": ["units"], "batches": in_batches(images, labels), "concepts": CONCEPTS, **change}
    layers, batches, concepts = given.pop("layers"), given.pop("batches"), given.pop("concepts")
    with pytest.raises(InputError, match=message):
        dissect(Looking(lambda x: x), layers, batches, concepts, **given)


def test_labels_must_be_whole_numbers():
    images, labels = planted(n=2)
    with pytest.raises(InputError, match="whole numbers"):
        dissect(Looking(lambda x: x), ["units"], [(images, labels.float())], CONCEPTS)
    with pytest.raises(InputError, match="whole numbers"):
        dissect(Looking(lambda x: x), ["units"], [(images, labels[:, 0])], CONCEPTS)


def test_images_of_several_sizes_are_refused():
    images, labels = planted(n=2)
    batches = [(images, labels), (images[:, :, :8], labels)]
    with pytest.raises(InputError, match="expected one size"):
        dissect(Looking(lambda x: x), ["units"], batches, CONCEPTS)
