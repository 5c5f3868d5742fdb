from .loading import Network as Network
from .loading import load_network as load_network
