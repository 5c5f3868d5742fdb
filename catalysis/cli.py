"""Inverse design of catalytic sites: from slabs and energies to sites with a wanted energy."""

from interpretkit.commandline.groups import Folder

app = Folder("catalysis.commands.catalyst")
