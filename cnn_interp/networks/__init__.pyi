from .loading import load_network as load_network
from .network import Network as Network
