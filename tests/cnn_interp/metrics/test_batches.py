import numpy as np
import pytest
import torch
from torch import nn

from cnn_interp.images.batches import ConceptBatches, InputBatches, PartMaskBatches, landmarks_in_inputs
from cnn_interp.images.concept_images import Concept, ConceptImages
from cnn_interp.images.part_images import PartImages
from cnn_interp.networks.network import Network


def network(size=16):
    return Network("own", nn.Identity(), size=size, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def picture(number, size=(16, 16)):
    return np.full((*size, 3), 10 * number, dtype=np.uint8)


def concept_images(n=5):
    def labels(number):
        colour = np.zeros((8, 8), dtype=np.int32)
        colour[:4] = 3
        return {"color": (colour,), "scene": (7,) if number % 2 else ()}

    return ConceptImages(
        name="planted",
        ids=tuple(map(str, range(n))),
        load=picture,
        labels=(Concept(3, "red", "color"), Concept(7, "street", "scene")),
        categories=("color", "scene"),
        load_concepts=labels,
        map_size=(8, 8),
    )


def part_images(size=(20, 40)):
    masks = np.zeros((2, *size), dtype=bool)
    masks[0, :10, :20] = True
    return PartImages(
        name="planted",
        ids=("a", "b", "c"),
        load=lambda number: picture(number, size),
        categories=np.zeros(3, dtype=np.intp),
        category_names=("cat",),
        part_names=("head", "tail"),
        landmarks=np.tile([[4.5, 9.5], [np.nan, np.nan]], (3, 1, 1)),
        absence_known=True,
        load_masks=lambda number: masks,
    )


def test_inputs_are_normalised_and_in_order():
    batches = InputBatches(network(), concept_images(), size=2)
    found = list(batches)
    assert [len(inputs) for inputs in found] == [2, 2, 1]
    assert len(batches) == 3
    every = torch.cat(found)
    assert every.shape == (5, 3, 16, 16)
    assert every[:, 0, 0, 0].tolist() == pytest.approx(
        [(10 * n / 255 - 0.5) / 0.25 for n in range(5)], abs=1e-6
    )
    # They can be gone through again.
    assert torch.equal(torch.cat(list(batches)), every)


def test_labels_come_as_maps_of_one_size():
    found = list(ConceptBatches(network(), concept_images(), size=4, side=4))
    inputs, labels = found[0]
    assert inputs.shape == (4, 3, 16, 16)
    assert labels.shape == (4, 2, 4, 4)
    assert labels[0, 0].tolist() == [[3] * 4] * 2 + [[0] * 4] * 2
    assert labels[1, 1].unique().tolist() == [7]
    assert labels[0, 1].unique().tolist() == [0]
    assert len(found[1][1]) == 1


def test_landmarks_and_masks_follow_the_image():
    images = part_images()
    landmarks = landmarks_in_inputs(images, 16)
    # The edge between pixels 4 and 5 of 20 rows is a quarter down; that of 9 and 10 of 40 columns too.
    assert landmarks[0, 0].tolist() == pytest.approx([3.5, 3.5])
    assert np.isnan(landmarks[:, 1]).all()
    ((inputs, masks),) = PartMaskBatches(network(), images, side=8)
    assert inputs.shape == (3, 3, 16, 16)
    assert masks.shape == (3, 2, 8, 8)
    assert masks.dtype == torch.bool
    assert masks[0, 0, :4, :4].all()
    assert masks[0, 0].sum() == 16
    assert not masks[:, 1].any()
