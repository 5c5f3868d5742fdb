"""Networks by name, with what they want to be shown and what their outputs are called; and their weights."""

import lazy_loader

# Names are checked before torch is loaded, so the package itself does not bring it along.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
