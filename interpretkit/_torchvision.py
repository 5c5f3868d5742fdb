"""Lets torchvision be imported beside a torch for which its compiled operators were not built.

The torchvision wheel of the package index is built for CUDA. Beside a torch for the CPU its compiled library
does not load, and its import then fails, because it gives shapes to two operators that nothing has declared
("operator torchvision::nms does not exist", https://github.com/pytorch/vision/issues/9085). Models,
transforms and datasets need neither operator. Declaring the two, without an implementation, is enough for the
import; calling one of them still fails, as it must.

Nothing is imported here until torchvision is: a finder on ``sys.meta_path`` waits for the module that fails.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

# As in torchvision/csrc/ops/nms.cpp and quantized/cpu/qnms_kernel.cpp.
_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_WAITED_FOR = "torchvision._meta_registrations"

# A library's declarations live only as long as the object.
_kept: list[object] = []


class _Finder:
    """Finds no module ever, but sees torchvision's being looked for."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Declare the operators before the module that needs them is loaded by the next finder."""
        if fullname == _WAITED_FOR:
            sys.meta_path.remove(self)
            _declare_missing_operators()
        return None


def install() -> None:
    """Wait for torchvision's import; do nothing if it has been imported, or is waited for already."""
    if "torchvision" in sys.modules or any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder())


def _declare_missing_operators() -> None:
    # Whether the compiled library loads is torchvision's own finding; a working torchvision is left alone.
    if importlib.import_module("torchvision.extension")._has_ops():
        return
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    _kept.append(library)
