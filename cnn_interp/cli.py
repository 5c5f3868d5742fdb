"""Interpretation of convolutional networks: what they see, where they fail, what their parts stand for."""

from interpretkit.commandline.groups import Folder

app = Folder("cnn_interp.commands.cnn")
