"""Put a network to the test: what fools it, what its parts mean, what its training taught it."""

from __future__ import annotations

from cnn_interp.diagnosis.commands import (
    adversarial,
    bias,
    directions,
    features,
    influence,
    one_pixel,
    probe,
    rules,
    transferability,
    unknown_unknowns,
    vqa,
)
from interpretkit.command import application

app = application("Question a network: where it can be fooled, what its layers hold, what it was biased by.")
# In the order of the list: first what asks a network, then what goes back to its training and to questions.
for check in (
    adversarial, one_pixel, directions, transferability, probe, features, bias,
    influence, unknown_unknowns, rules, vqa,
):  # fmt: skip
    check.register(app)
