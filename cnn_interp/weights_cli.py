"""Pretrained weights of convolutional networks: which there are, and how to get them."""

from interpretkit.commandline.groups import Folder

app = Folder("cnn_interp.commands.weights")
