"""Question a convolutional network."""
