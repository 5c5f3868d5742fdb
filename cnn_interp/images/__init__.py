"""Images: one reader of files, published sets that are labelled or annotated, and sets that are drawn on demand."""

import lazy_loader

# A file is imported when a name of it is asked for: most bring large packages along, and help must not wait for them.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
