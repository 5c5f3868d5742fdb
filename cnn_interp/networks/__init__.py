"""Networks by name, with what they want to be shown and what their outputs are called; and their weights."""

# Names are checked before torch is loaded, so the package itself does not bring it along.

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnn_interp.networks.loading import Network, load_network

__all__ = ["Network", "load_network"]


def __getattr__(name: str) -> Any:
    """Return what the package offers under this name."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cnn_interp.networks import loading

    return getattr(loading, name)
