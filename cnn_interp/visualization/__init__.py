"""Section 2 of the survey: what the units and layers of a trained network respond to, as pictures."""
