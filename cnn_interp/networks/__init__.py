"""Networks by name, with what they want to be shown and what their outputs are called; and their weights."""

from cnn_interp.networks.loading import Network, load_network

__all__ = ["Network", "load_network"]
