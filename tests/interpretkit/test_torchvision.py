import subprocess
import sys

import pytest

CHECK = """
import torch, torchvision
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.transforms import v2
with torch.no_grad():
    features = create_feature_extractor(resnet18().eval(), ["layer1"])(torch.zeros(1, 3, 32, 32))
assert features["layer1"].shape == (1, 64, 8, 8)
boxes, scores = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1.9], [5, 5, 6, 6]]), torch.tensor([0.5, 0.9, 0.1])
try:
    kept = torchvision.ops.nms(boxes, scores, 0.5).tolist()
    assert kept == [1, 2], kept
except RuntimeError as error:
    assert not torchvision.extension._has_ops(), error
"""


@pytest.mark.parametrize(
    "start",
    [
        "import interpretkit, torchvision",
        "import torch, interpretkit, torchvision",
        "import interpretkit, importlib; importlib.reload(interpretkit); from torchvision.transforms import v2",
    ],
)
def test_torchvision_is_imported_in_any_order(start: str):
    subprocess.run([sys.executable, "-c", start + "\n" + CHECK], check=True, timeout=120)


def test_a_torchvision_whose_operators_load_is_left_alone():
    # Stand-ins for the two modules, for which the compiled library seems to be loaded.
    script = """
import importlib, sys, types
import interpretkit
from interpretkit import _torchvision
extension = types.ModuleType("torchvision.extension")
extension._has_ops = lambda: True
sys.modules["torchvision.extension"] = extension
finder = next(f for f in sys.meta_path if isinstance(f, _torchvision._Finder))
assert finder.find_spec("torchvision._meta_registrations") is None
assert finder not in sys.meta_path
assert "torch" not in sys.modules and not _torchvision._kept
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_nothing_is_done_after_torchvision():
    script = """
import sys, types
sys.modules["torchvision"] = types.ModuleType("torchvision")
before = list(sys.meta_path)
import interpretkit
assert sys.meta_path == before
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
