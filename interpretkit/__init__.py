"""interpretkit: representations that people can read."""

from interpretkit import _torchvision

__version__ = "0.1.0"

_torchvision.install()
