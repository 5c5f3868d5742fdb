"""Disentangling a trained network: what its frozen layers hold, told as graphs, trees, part templates and concepts."""
