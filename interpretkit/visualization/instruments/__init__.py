"""Parts of a page that are worked with: each a few lines of script of its own, all within the page."""

from interpretkit.visualization.instruments.explorer import AtomValues, Property, Structure, StructureExplorer
from interpretkit.visualization.instruments.frames import Frame, Frames
from interpretkit.visualization.instruments.gallery import Gallery, Item
from interpretkit.visualization.instruments.maps import Map, MappedImage, MapViewer
from interpretkit.visualization.instruments.parts import Instrument

__all__ = [
    "AtomValues",
    "Frame",
    "Frames",
    "Gallery",
    "Instrument",
    "Item",
    "Map",
    "MapViewer",
    "MappedImage",
    "Property",
    "Structure",
    "StructureExplorer",
]
