import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import nn

from cnn_interp.networks.loading import load_network
from cnn_interp.units.positions import UnitGrid, unit_grids
from interpretkit.errors import InputError
from interpretkit.networks.receptive_fields import ReceptiveField


def grid(start, stride, shape, image):
    return UnitGrid(ReceptiveField("units", (1.0, 1.0), stride, start, shape), image)


def centre_by_gradient(module, layer, side, unit):
    """Return the middle of the pixels that one position of a layer's map depends on; all weights are positive."""
    kept = {}
    handle = module.get_submodule(layer).register_forward_hook(lambda *a: kept.update(output=a[2]))
    image = torch.rand(1, 3, side, side, requires_grad=True)
    module(image)
    handle.remove()
    (gradient,) = torch.autograd.grad(kept["output"][0, :, unit[0], unit[1]].sum(), image)
    rows, columns = np.nonzero(gradient.abs().sum(dim=(0, 1)).numpy())
    return (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2


def without_maxima(module):
    """Return a copy that takes the mean where a maximum would depend on one pixel only."""
    layers = [
        nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding)
        if isinstance(layer, nn.MaxPool2d)
        else layer
        for layer in module
    ]
    return nn.Sequential(*layers)


def positive(module):
    for parameter in module.parameters():
        nn.init.uniform_(parameter, 0.1, 1.0)
    return module.eval()


NETWORKS = {
    "strides and paddings": nn.Sequential(
        nn.Conv2d(3, 4, 7, stride=2, padding=3), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 4, 3), nn.AvgPool2d(2)
    ),
    "no padding": nn.Sequential(nn.Conv2d(3, 4, 11, stride=4), nn.MaxPool2d(3, 2), nn.Conv2d(4, 4, 5)),
    "dilation and odd shapes": nn.Sequential(
        nn.Conv2d(3, 4, (3, 5), stride=(1, 2), padding=(1, 0), dilation=(2, 1)),
        nn.Conv2d(4, 4, 2, stride=2),
    ),
    "padding on one side": nn.Sequential(nn.ZeroPad2d((0, 1, 2, 0)), nn.Conv2d(3, 4, 3, stride=2), nn.ReLU()),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_centres_are_where_the_gradient_has_its_middle(name):
    module = positive(NETWORKS[name])
    layer = str(len(module) - 1)
    found = unit_grids(module, [layer], torch.zeros(1, 3, 96, 96))[layer]
    height, width = found.field.shape
    for unit in [(height // 2, width // 2), (height // 2 - 1, width // 2 + 1)]:
        expected = centre_by_gradient(without_maxima(module), layer, 96, unit)
        assert found.centres(unit[0] * width + unit[1]).tolist() == pytest.approx(list(expected))


def test_mobilenet_has_its_known_strides():
    network = load_network("mobilenet_v2", weights="random")
    grids = unit_grids(network.module, ["features.3", "features.6"], torch.zeros(1, 3, 224, 224))
    assert [found.field.stride for found in grids.values()] == [(4.0, 4.0), (8.0, 8.0)]
    assert grids["features.6"].centres([0, 29, 783]).tolist() == [[0, 0], [8, 8], [216, 216]]


def test_interpolation_is_linear_between_centres():
    values = np.random.default_rng(0).standard_normal((4, 6))
    rows, columns = grid((3.0, -1.0), (8.0, 5.0), (4, 6), (32, 30)).interpolation((16, 10))
    found = rows.double().numpy() @ values @ columns.double().numpy().T
    y = ((np.arange(16) + 0.5) * 2 - 0.5 - 3) / 8
    x = ((np.arange(10) + 0.5) * 3 - 0.5 + 1) / 5
    expected = map_coordinates(values, np.meshgrid(y, x, indexing="ij"), order=1, mode="nearest")
    assert np.allclose(found, expected, atol=1e-6)


def test_a_map_as_large_as_the_image_stays_as_it_is():
    rows, columns = grid((0.0, 0.0), (1.0, 1.0), (7, 9), (7, 9)).interpolation((7, 9))
    assert torch.equal(rows, torch.eye(7))
    assert torch.equal(columns, torch.eye(9))


def test_a_single_position_fills_the_image():
    rows, columns = grid((3.5, 3.5), (8.0, 8.0), (1, 1), (8, 8)).interpolation((4, 4))
    assert torch.equal(rows, torch.ones(4, 1))
    assert torch.equal(columns, torch.ones(4, 1))


def test_a_layer_without_a_map_is_refused():
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())
    with pytest.raises(InputError, match="maps"):
        unit_grids(module, ["1"], torch.zeros(1, 3, 8, 8))
    with pytest.raises(InputError, match="none of that name"):
        unit_grids(module, ["2"], torch.zeros(1, 3, 8, 8))
