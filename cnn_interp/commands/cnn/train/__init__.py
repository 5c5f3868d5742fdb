"""Train networks that are made to be read."""
