"""Take a trained network apart: graphs of parts, trees of its decisions, parts from few annotations, concepts."""
