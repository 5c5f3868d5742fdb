"""Visual interpretability of convolutional networks."""
