"""Concepts that users show by examples, and how the score depends on them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interpretkit.attribution.captum_methods import Images
from interpretkit.attribution.captum_stand_in import StandIn, as_drawn_anew
from interpretkit.attribution.explained_model import ExplainedModel, Result, prepared
from interpretkit.attribution.layer_values import Reshape, as_places, of_example, settled_layer
from interpretkit.errors import InputError

# Fewer examples of a concept leave none to test its direction on.
LEAST_EXAMPLES = 3
_KEPT_FOR_TESTS = 1 / 3


def check(options: Mapping[str, Any]) -> None:
    """Raise InputError if the options lack the concepts or what they are told from."""
    concepts = options.get("concepts")
    if (
        not isinstance(concepts, Mapping)
        or not concepts
        or not all(isinstance(name, str) for name in concepts)
    ):
        raise InputError("concepts: are missing; expected a mapping of names to example inputs (m, ...)")
    if options.get("reference") is None:
        raise InputError(
            "reference: is missing; expected inputs (m, ...) of no concept, to tell concepts from"
        )


def tcav(
    explained: ExplainedModel,
    *,
    concepts: Mapping[str, Images] | None = None,
    reference: Images | None = None,
    upsample: bool = True,
    reshape: Reshape | None = None,
) -> Result:
    """Return how the score depends on concepts in a layer (TCAV; Kim et al., 2018, arXiv:1711.11279).

    A concept's direction is that of a linear classifier that tells the layer's values for the concept's examples from
    those for the reference (``captum.concept.TCAV``); the score's derivative along it is the concept's sensitivity.

    Parameters
    ----------
    explained : ExplainedModel
        With inputs ``(n, ...)`` and the layer's name.
    concepts : mapping of str to array (m, ...)
        Examples of each concept, of the inputs' kind; a few dozen of each are the least that tells much.
    reference : array, (m, ...)
        Inputs of no concept.
    upsample : bool
        Whether the parts that each place has in the sensitivity are brought to the inputs' size.
    reshape : callable, optional
        For layers that give tokens: from their output to ``(m, channels, height, width)``.

    Returns
    -------
    Result
        Values ``(n, concepts, height, width)``, or ``(n, concepts)`` without `upsample`: the sensitivities. In the
        details the ``scores`` ``(n,)``, the ``layer``, the ``sensitivities`` ``(n, concepts)``, the ``concepts``'
        names, and of each concept the ``tcav_scores``, the share of the examples with a positive sensitivity, and
        the ``accuracies`` with which its direction tells a third of the examples that it was not learned from.

    Raises
    ------
    InputError
        If concepts or reference are missing, of another shape, or too few.
    """
    check({"concepts": concepts, "reference": reference})
    assert concepts is not None
    assert reference is not None
    scores = explained.clean_scores()
    layer = settled_layer(explained)
    shown = {name: _examples(explained, f"concepts {name!r}", given) for name, given in concepts.items()}
    others = _examples(explained, "reference", reference)
    with as_drawn_anew(explained.seed, "tcav"):
        directions, accuracies = _directions(StandIn(of_example(explained, 0), layer), shown, others)
    values, sensitivities = [], []
    for row in range(len(explained)):
        model = StandIn(of_example(explained, row), layer)
        model.differentiates = True
        image = explained.inputs[row : row + 1].double()
        _, gradient = model.scores_at(image, model.values(image), True)
        assert gradient is not None
        parts = [gradient * direction.reshape(gradient.shape).to(gradient) for direction in directions]
        sensitivities.append(torch.stack([part.sum() for part in parts]))
        if upsample:
            size = explained.inputs.shape[2:]
            maps = [as_places(part, layer, size, reshape, upsample=True) for part in parts]
            values.append(torch.cat(maps, 1))
    found = torch.stack(sensitivities).to(explained.precise)
    details = {
        "scores": scores,
        "layer": layer.name,
        "concepts": list(shown),
        "sensitivities": found,
        "tcav_scores": (found > 0).double().mean(0).cpu().numpy(),
        "accuracies": np.array(accuracies),
    }
    return Result(torch.cat(values).to(explained.precise) if upsample else found, details)


def _examples(explained: ExplainedModel, name: str, given: Images) -> Tensor:
    found, _ = prepared(explained.model, given, name)
    shape = tuple(explained.inputs.shape[1:])
    if tuple(found.shape[1:]) != shape or len(found) < LEAST_EXAMPLES:
        raise InputError(
            f"{name}: have shape {tuple(found.shape)}; expected at least {LEAST_EXAMPLES} of {shape}"
        )
    return found.double()


def _directions(
    model: StandIn, shown: Mapping[str, Tensor], others: Tensor
) -> tuple[list[Tensor], list[float]]:
    """Return each concept's direction among the layer's values, flattened, and the accuracy of telling it."""
    from captum.concept import TCAV, Classifier, Concept

    class Separating(Classifier):
        """Logistic regression on values of the same spread."""

        def __init__(self) -> None:
            self._weights = np.zeros((0, 0))
            self._classes: list[int] = []

        def train_and_eval(self, dataloader: Any, **options: Any) -> dict[str, Any]:
            inputs, labels = (torch.cat(parts).cpu().numpy() for parts in zip(*dataloader, strict=True))
            self._weights, self._classes, accuracy = _separated(inputs, labels)
            return {"accs": torch.tensor(accuracy)}

        def weights(self) -> Tensor:
            return torch.from_numpy(self._weights)

        def classes(self) -> list[int]:
            return self._classes

    # File names are made of the concepts' names.
    made = [
        Concept(number, f"{number}-" + re.sub(r"\W", "_", name), [examples])  # type: ignore[arg-type]
        for number, (name, examples) in enumerate(shown.items(), start=1)
    ]
    reference = Concept(0, "reference", [others])  # type: ignore[arg-type]
    directions, accuracies = [], []
    with TemporaryDirectory() as folder:
        asked = TCAV(model, ["layer"], classifier=Separating(), save_path=folder)
        found = asked.compute_cavs([[concept, reference] for concept in made])
        for concept in made:
            stats = found[f"{concept.id}-0"]["layer"].stats
            assert stats is not None
            place = list(stats["classes"]).index(concept.id)
            directions.append(torch.as_tensor(stats["weights"])[place])
            accuracies.append(float(stats["accs"]))
    return directions, accuracies


def _separated(
    inputs: NDArray[np.floating], labels: NDArray[np.integer]
) -> tuple[NDArray[np.float64], list[int], float]:
    """Return directions ``(2, d)`` of unit length, the classes that they belong to, and the accuracy on others."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    kept = train_test_split(
        np.arange(len(inputs)), test_size=_KEPT_FOR_TESTS, stratify=labels, random_state=0
    )[0]
    spread = float(inputs.std()) or 1.0
    centre = inputs.mean(0)
    scaled = (inputs - centre) / spread
    model = LogisticRegression(max_iter=2000)
    tested = np.setdiff1d(np.arange(len(inputs)), kept)
    accuracy = float(model.fit(scaled[kept], labels[kept]).score(scaled[tested], labels[tested]))
    direction = model.fit(scaled, labels).coef_[0]
    direction = direction / (float(np.linalg.norm(direction)) or 1.0)
    first, second = (int(label) for label in model.classes_)
    return np.stack([-direction, direction]), [first, second], accuracy
