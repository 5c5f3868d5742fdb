"""Methods of captum: one table says which there are, and one adapter runs them on a stand-in for the model."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interpretkit.attribution.captum_stand_in import DOUBLE, StandIn, as_drawn_anew
from interpretkit.attribution.deeplift import deeplift, layer_deeplift
from interpretkit.attribution.explained_model import Baseline, ExplainedModel, Result, prepared
from interpretkit.attribution.gradients import deconvnet, guided_backprop
from interpretkit.attribution.layer_values import (
    Layer,
    Neuron,
    Reshape,
    as_places,
    check_neuron,
    chosen_neuron,
    of_example,
    of_neuron,
    settled_layer,
)
from interpretkit.attribution.lrp import layer_relevance
from interpretkit.attribution.rules import Composite, Rule
from interpretkit.attribution.segments import segment_fills, segment_labels
from interpretkit.attribution.target import TargetScores
from interpretkit.errors import InputError, check_count

Images = Tensor | NDArray[np.floating]

# Of all orders of so many features, 5040, each takes as many steps.
MOST_IN_ALL_ORDERS = 7


# The options


@dataclass(frozen=True)
class Option:
    """An option of a method: its kind, its default, its name with captum, and a check of its values."""

    kind: Any
    default: Any
    captum: str = ""
    check: Callable[[str, Any], object] = lambda name, value: None


def _count(least: int) -> Callable[[str, Any], object]:
    return lambda name, value: check_count(name, value, least)


def _size(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise InputError(f"{name} {value!r}: expected a number of at least 0")


def _flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise InputError(f"{name} {value!r}: expected true or false")


def _word(kind: Any) -> Callable[[str, Any], object]:
    def check(name: str, value: Any) -> None:
        if value not in get_args(kind):
            raise InputError(f"{name} {value!r}: expected one of {', '.join(get_args(kind))}")

    return check


Quadrature = Literal["gausslegendre", "riemann_trapezoid", "riemann_middle", "riemann_left", "riemann_right"]
Features = Literal["positions", "channels"]
Tunnel = Literal["vargrad", "smoothgrad_sq", "smoothgrad"]
Inner = Literal["saliency", "input_x_gradient"]

_BASELINE = {"baseline": Option(Baseline, 0.0, "baselines")}
_BASELINES = {"baselines": Option(Baseline, 0.0, "baselines")}
_STEPS = {
    "steps": Option(int, 50, "n_steps", _count(2)),
    "quadrature": Option(Quadrature, "gausslegendre", "method", _word(Quadrature)),
}
_DRAWS = {
    "samples": Option(int, 25, "n_samples", _count(1)),
    "deviation": Option(float, 0.0, "stdevs", _size),
}
_SEGMENTS = {
    "segments": Option(NDArray[np.integer] | Tensor | None, None, "feature_mask"),
    "baseline": Option(Baseline | None, None, "baselines"),
}
_SAMPLES = {"samples": Option(int, 25, "n_samples", _count(1))}
_REFERENCE = {"reference": Option(Images | None, None)}
_NEURON = {"neuron": Option(Neuron, None, "", lambda name, value: check_neuron(value))}
_MAP = {
    "upsample": Option(bool, True, "", _flag),
    "reshape": Option(Reshape | None, None),
}
_FEATURES = {"features": Option(Features, "positions", "", _word(Features))}


# What is asked of captum


@dataclass(frozen=True)
class Asked:
    """One example's question.

    Attributes
    ----------
    entry : Entry
        The method.
    explained : ExplainedModel
        The model to be explained, of the example, or of its neuron.
    image : Tensor, (1, ...)
        In double precision.
    options : mapping
        With baselines and segments as tensors.
    layer : Layer or None
        That is explained, or holds the neuron.
    neuron : tuple of int or None
        That was chosen.
    """

    entry: Entry
    explained: ExplainedModel
    image: Tensor
    options: Mapping[str, Any]
    layer: Layer | None = None
    neuron: tuple[int, ...] | None = None

    def stand_in(self) -> StandIn:
        """Return what captum is given for the model."""
        made = StandIn(self.explained, self.layer if self.entry.layered else None)
        made.differentiates = self.entry.differentiates
        made.remembers = self.entry.captum == "ShapleyValues"
        return made

    def of_captum(self, name: str = "") -> Any:
        """Return a class of captum."""
        return getattr(importlib.import_module("captum.attr"), name or self.entry.captum)

    def arguments(self) -> dict[str, Any]:
        """Return the options by captum's names."""
        given = {
            option.captum: self.options[name] for name, option in self.entry.options.items() if option.captum
        }
        most = self.explained.chunks.size
        if "n_steps" in given:
            # So many hold captum's own tensors; the passes are bounded anyway.
            given["internal_batch_size"] = max(2, most)
        if "feature_mask" in given:
            given["perturbations_per_eval"] = most
        return given


def _by_arguments(asked: Asked) -> Tensor:
    model = asked.stand_in()
    layers = [model.layer] if asked.entry.layered else []
    return asked.of_captum()(model, *layers).attribute(asked.image, **asked.arguments())


def _gradient(asked: Asked) -> Tensor:
    return asked.of_captum("Saliency")(asked.stand_in()).attribute(asked.image, abs=False)


def _of_the_neuron(name: str) -> Callable[[Asked], Tensor]:
    """Ask the method for scores, where the score is the neuron."""
    return lambda asked: asked.of_captum(name)(asked.stand_in()).attribute(asked.image, **asked.arguments())


def _conductance_of_neuron(asked: Asked) -> Tensor:
    model = asked.stand_in()
    return asked.of_captum()(model, model.layer).attribute(
        asked.image, neuron_selector=asked.neuron, **asked.arguments()
    )


def _tunnel(asked: Asked) -> Tensor:
    inner = {"saliency": "Saliency", "input_x_gradient": "InputXGradient"}[asked.options["of"]]
    method = asked.of_captum(inner)(asked.stand_in())
    more = {"abs": False} if inner == "Saliency" else {}
    spread = float(asked.image.max() - asked.image.min())
    return asked.of_captum("NoiseTunnel")(method).attribute(
        asked.image,
        nt_type=asked.options["kind"],
        nt_samples=asked.options["samples"],
        stdevs=asked.options["deviation"] * spread,
        **more,
    )


def _permuted(asked: Asked) -> Tensor:
    reference = asked.options["reference"]
    return _with_others(asked, asked.stand_in(), asked.image, reference, asked.options["segments"])


def _with_others(asked: Asked, scores: Any, given: Tensor, others: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean drop of the scores where features come from others, drawn anew for each feature."""
    # A copy for each draw, for captum looks at features only where there are several examples.
    count = asked.options["samples"]
    copies = given.expand(count, *given.shape[1:])

    def drawn(x: Tensor, feature: Tensor) -> Tensor:
        other = others[torch.randint(len(others), (count,))]
        return torch.where(feature.to(x.device), other, x)

    method = asked.of_captum("FeaturePermutation")(scores, perm_func=drawn)
    return method.attribute(copies, feature_mask=mask).mean(0, keepdim=True)


def _layer_features(asked: Asked, values: Tensor) -> Tensor:
    """Return which numbers of a layer's values ``(1, ...)`` are changed together."""
    shape = values.shape[1:]
    if len(shape) > 1 and asked.options["features"] == "channels":
        return torch.arange(shape[0]).reshape(1, -1, *[1] * (len(shape) - 1)).expand(1, *shape)
    if len(shape) > 1:
        return torch.arange(math.prod(shape[1:])).reshape(1, 1, *shape[1:]).expand(1, *shape)
    return torch.arange(shape[0])[None]


def _layer_ablated(asked: Asked) -> Tensor:
    model = asked.stand_in()
    values = model.values(asked.image)
    baseline = torch.as_tensor(asked.options["fill"], dtype=DOUBLE)
    try:
        start = baseline.expand_as(values)
    except RuntimeError as error:
        raise InputError(
            f"fill: has shape {tuple(baseline.shape)}; expected a number, or values that broadcast to "
            f"{tuple(values.shape)}"
        ) from error
    return asked.of_captum()(model, model.layer).attribute(
        asked.image,
        layer_baselines=start,
        layer_mask=_layer_features(asked, values).to(values.device),
        perturbations_per_eval=asked.explained.chunks.size,
    )


def _layer_permuted(asked: Asked) -> Tensor:
    model = asked.stand_in()
    values = model.values(asked.image)
    others = asked.options["reference"].to(DOUBLE)
    others = torch.cat([model.values(other[None]) for other in others])

    def scores(replaced: Tensor) -> Tensor:
        return model.scores_at(asked.image.expand(len(replaced), *asked.image.shape[1:]), replaced, False)[0]

    mask = _layer_features(asked, values).to(values.device)
    return _with_others(asked, scores, values, others, mask)


def _copies(asked: Asked) -> tuple[ExplainedModel, Tensor]:
    """Return the example copied for each baseline, as a model to be explained, and the baselines."""
    baselines = asked.options["baselines"].to(asked.explained.inputs.dtype)
    inputs = asked.explained.inputs.expand(len(baselines), *asked.explained.inputs.shape[1:]).clone()
    indices = asked.explained.target.indices
    target = asked.explained.target.function if indices is None else int(indices[0])
    return replace(asked.explained, inputs=inputs, target=TargetScores(target, len(inputs))), baselines


def _deeplift_from_many(asked: Asked) -> Tensor:
    explained, baselines = _copies(asked)
    return deeplift(explained, baseline=baselines).values.mean(0, keepdim=True)


def _layer_deeplift_from_many(asked: Asked) -> Tensor:
    explained, baselines = _copies(asked)
    assert asked.layer is not None
    return layer_deeplift(explained, asked.layer, baselines).mean(0, keepdim=True)


def _guided(asked: Asked) -> Tensor:
    return guided_backprop(asked.explained).values


def _deconvolved(asked: Asked) -> Tensor:
    return deconvnet(asked.explained).values


def _relevance_of_layer(asked: Asked) -> Tensor:
    assert asked.layer is not None
    return layer_relevance(asked.explained, asked.layer, asked.options["rules"])


# The table


@dataclass(frozen=True)
class Entry:
    """A method.

    Attributes
    ----------
    captum : str
        The class in ``captum.attr`` that it stands for.
    summary : str
        What it returns, with its article.
    options : mapping of str to Option
        In the order in which they are listed.
    of : {"inputs", "layer", "neuron"}
        Whether it explains scores by the inputs, scores by a layer's values, or a neuron's value by the inputs.
    ask : callable
        From :class:`Asked` to the values ``(1, ...)``.
    differentiates : bool
        Whether it asks the model for gradients.
    watches : bool
        Whether it acts on the functions that the model calls. Then it is not captum's own, which acts on modules.
    requires : tuple of str
        The options that must be given.
    """

    captum: str
    summary: str
    options: Mapping[str, Option]
    of: Literal["inputs", "layer", "neuron"] = "inputs"
    ask: Callable[[Asked], Tensor] = _by_arguments
    differentiates: bool = True
    watches: bool = False
    requires: tuple[str, ...] = ()

    @property
    def layered(self) -> bool:
        """Whether captum itself reads a layer."""
        return self.of == "layer" or self.captum == "NeuronConductance"

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise InputError if a value cannot be used, as far as can be told without a model."""
        for name in self.requires:
            if options.get(name) is None:
                raise InputError(f"{name}: is missing; expected inputs of the same kind (m, ...)")
        for name, value in options.items():
            if name in self.options:
                self.options[name].check(name, value)


_FILL = {"fill": Option(Baseline, 0.0)}
_RULES = {"rules": Option(Composite | Rule | None, None)}
_TUNNEL = {
    "kind": Option(Tunnel, "vargrad", "", _word(Tunnel)),
    "of": Option(Inner, "saliency", "", _word(Inner)),
    "samples": Option(int, 25, "", _count(2)),
    "deviation": Option(float, 0.15, "", _size),
}
_COPIES = {"samples": Option(int, 8, "", _count(2))}

ENTRIES: Mapping[str, Entry] = {
    "gradient_shap": Entry(
        "GradientShap",
        "Gradients on the ways from random baselines, times the ways (Lundberg and Lee, 2017, arXiv:1705.07874)",
        {**_BASELINES, **_DRAWS},
    ),
    "deeplift_shap": Entry(
        "DeepLiftShap",
        "DeepLIFT, its mean over baselines (Lundberg and Lee, 2017, arXiv:1705.07874)",
        _BASELINES,
        ask=_deeplift_from_many,
        watches=True,
    ),
    "noise_tunnel": Entry(
        "NoiseTunnel",
        "Variance, mean square or mean over noisy copies (Adebayo et al., 2018, arXiv:1810.03307)",
        _TUNNEL,
        ask=_tunnel,
    ),
    "feature_ablation": Entry(
        "FeatureAblation", "Drops of the score when a segment is replaced", _SEGMENTS, differentiates=False
    ),
    "feature_permutation": Entry(
        "FeaturePermutation",
        "Mean drops of the score when a segment comes from another example (Molnar, 2019)",
        {**_REFERENCE, "segments": _SEGMENTS["segments"], **_COPIES},
        ask=_permuted,
        differentiates=False,
        requires=("reference",),
    ),
    "shapley_value_sampling": Entry(
        "ShapleyValueSampling",
        "Shapley values of segments from random orders (Castro et al., 2009, doi:10.1016/j.cor.2008.04.004)",
        {**_SEGMENTS, **_SAMPLES},
        differentiates=False,
    ),
    "shapley_values": Entry(
        "ShapleyValues", "Shapley values of few segments, from all orders", _SEGMENTS, differentiates=False
    ),
    "layer_activation": Entry("LayerActivation", "A layer's values", _MAP, "layer", differentiates=False),
    "layer_gradient_x_activation": Entry(
        "LayerGradientXActivation", "A layer's values times the score's gradient by them", _MAP, "layer"
    ),
    "layer_conductance": Entry(
        "LayerConductance",
        "What of integrated gradients passes a layer (Dhamdhere et al., 2018, arXiv:1805.12233)",
        {**_BASELINE, **_STEPS, **_MAP},
        "layer",
    ),
    "internal_influence": Entry(
        "InternalInfluence",
        "Mean gradient by a layer on the way from a baseline (Leino et al., 2018, arXiv:1802.03788)",
        {**_BASELINE, **_STEPS, **_MAP},
        "layer",
    ),
    "layer_integrated_gradients": Entry(
        "LayerIntegratedGradients",
        "Integrated gradients from a layer's values for a baseline to those for the input",
        {**_BASELINE, **_STEPS, **_MAP},
        "layer",
    ),
    "layer_gradient_shap": Entry(
        "LayerGradientShap",
        "GradientShap for a layer's values",
        {**_BASELINES, **_DRAWS, **_MAP},
        "layer",
    ),
    "layer_feature_ablation": Entry(
        "LayerFeatureAblation",
        "Drops of the score when a layer's values are replaced, position by position or channel by channel",
        {**_FILL, **_FEATURES, **_MAP},
        "layer",
        ask=_layer_ablated,
        differentiates=False,
    ),
    "layer_feature_permutation": Entry(
        "LayerFeaturePermutation",
        "Mean drops of the score when a layer's values come from another example",
        {**_REFERENCE, **_FEATURES, **_COPIES, **_MAP},
        "layer",
        ask=_layer_permuted,
        differentiates=False,
        requires=("reference",),
    ),
    "layer_deeplift": Entry(
        "LayerDeepLift",
        "DeepLIFT for a layer's values",
        {**_BASELINES, **_MAP},
        "layer",
        ask=_layer_deeplift_from_many,
        watches=True,
    ),
    "layer_deeplift_shap": Entry(
        "LayerDeepLiftShap",
        "DeepLIFT for a layer's values, its mean over baselines",
        {**_BASELINES, **_MAP},
        "layer",
        ask=_layer_deeplift_from_many,
        watches=True,
    ),
    "layer_lrp": Entry(
        "LayerLRP",
        "Relevance of a layer's values",
        {**_RULES, **_MAP},
        "layer",
        ask=_relevance_of_layer,
        watches=True,
    ),
    "neuron_gradient": Entry("NeuronGradient", "A neuron's gradient", _NEURON, "neuron", ask=_gradient),
    "neuron_integrated_gradients": Entry(
        "NeuronIntegratedGradients",
        "Integrated gradients of a neuron",
        {**_NEURON, **_BASELINE, **_STEPS},
        "neuron",
        ask=_of_the_neuron("IntegratedGradients"),
    ),
    "neuron_conductance": Entry(
        "NeuronConductance",
        "What of integrated gradients passes a neuron (Dhamdhere et al., 2018, arXiv:1805.12233)",
        {**_NEURON, **_BASELINE, **_STEPS},
        "neuron",
        ask=_conductance_of_neuron,
    ),
    "neuron_gradient_shap": Entry(
        "NeuronGradientShap",
        "GradientShap of a neuron",
        {**_NEURON, **_BASELINES, **_DRAWS},
        "neuron",
        ask=_of_the_neuron("GradientShap"),
    ),
    "neuron_feature_ablation": Entry(
        "NeuronFeatureAblation",
        "Drops of a neuron's value when a segment is replaced",
        {**_NEURON, **_SEGMENTS},
        "neuron",
        ask=_of_the_neuron("FeatureAblation"),
        differentiates=False,
    ),
    "neuron_deeplift": Entry(
        "NeuronDeepLift",
        "DeepLIFT of a neuron",
        {**_NEURON, **_BASELINES},
        "neuron",
        ask=_deeplift_from_many,
        watches=True,
    ),
    "neuron_deeplift_shap": Entry(
        "NeuronDeepLiftShap",
        "DeepLIFT of a neuron, its mean over baselines",
        {**_NEURON, **_BASELINES},
        "neuron",
        ask=_deeplift_from_many,
        watches=True,
    ),
    "neuron_guided_backprop": Entry(
        "NeuronGuidedBackprop",
        "Guided backpropagation of a neuron",
        _NEURON,
        "neuron",
        ask=_guided,
        watches=True,
    ),
    "neuron_deconvnet": Entry(
        "NeuronDeconvolution",
        "Deconvolved signal of a neuron",
        _NEURON,
        "neuron",
        ask=_deconvolved,
        watches=True,
    ),
}


# The adapter


def runner(name: str, entry: Entry) -> Callable[..., Result]:
    """Return a method's function, with its options as keyword-only parameters."""

    def run(explained: ExplainedModel, **options: Any) -> Result:
        return _solve(explained, name, entry, options)

    run.__name__ = name
    run.__doc__ = f"Return {entry.summary[0].lower() if entry.summary[1].islower() else entry.summary[0]}" + (
        f"{entry.summary[1:]}: ``captum.attr.{entry.captum}``."
    )
    parameters = [
        inspect.Parameter("explained", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=ExplainedModel)
    ]
    parameters += [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=option.kind)
        for key, option in entry.options.items()
    ]
    run.__signature__ = inspect.Signature(parameters, return_annotation=Result)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": Result}
    return run


def _solve(explained: ExplainedModel, name: str, entry: Entry, given: Mapping[str, Any]) -> Result:
    options = {key: option.default for key, option in entry.options.items()} | dict(given)
    entry.check(options)
    scores = explained.clean_scores()
    layer = None if entry.of == "inputs" else settled_layer(explained)
    mask, starts = _prepared_options(explained, name, options)
    values, neurons = [], []
    for row in range(len(explained)):
        own = of_example(explained, row)
        settled = dict(options)
        if "segments" in options:
            settled["segments"] = None if mask is None else mask[row]
        if "baseline" in options:
            settled["baseline"] = starts[row : row + 1]
        if "baselines" in options:
            settled["baselines"] = starts
        if "reference" in options:
            settled["reference"] = starts
        neuron = None
        if entry.of == "neuron":
            assert layer is not None
            neuron = _neuron(own, layer, options["neuron"])
            neurons.append(list(neuron))
            own = own if entry.layered else of_neuron(own, 0, layer, neuron)
        image = own.inputs.detach().to(DOUBLE)
        with as_drawn_anew(explained.seed, name):
            found = entry.ask(Asked(entry, own, image, settled, layer, neuron)).detach()
        values.append(_shown(found, entry, layer, explained, options).to(explained.precise))
    details: dict[str, Any] = {"scores": scores}
    if layer is not None:
        details["layer"] = layer.name
    if neurons:
        details["neuron"] = neurons
    if mask is not None and mask.ndim == 5:
        details["segments"] = mask[:, 0, 0]
    return Result(torch.cat(values), details)


def _prepared_options(
    explained: ExplainedModel, name: str, options: Mapping[str, Any]
) -> tuple[Tensor | None, Tensor]:
    """Return segments ``(n, 1, 1, ...)`` and what stands in for inputs, as tensors."""
    shape = explained.inputs.shape
    mask = None
    if "segments" in options:
        mask = _masks(explained, name, options["segments"])
        if mask is None and name == "shapley_values" and math.prod(shape[1:]) > MOST_IN_ALL_ORDERS:
            raise _too_many(math.prod(shape[1:]))
    if "reference" in options:
        others, _ = prepared(explained.model, options["reference"], "reference")
        if others.shape[1:] != shape[1:]:
            raise InputError(
                f"reference: has shape {tuple(others.shape)}; expected (m, {', '.join(map(str, shape[1:]))})"
            )
        return mask, others.to(DOUBLE)
    if "baselines" in options:
        return mask, _many(explained, options["baselines"])
    baseline = options.get("baseline", 0.0)
    if baseline is None and mask is not None and mask.ndim == 5:
        return mask, segment_fills(explained, mask[:, 0, 0], None).to(DOUBLE)
    return mask, explained.baseline(0.0 if baseline is None else baseline).to(DOUBLE)


def _many(explained: ExplainedModel, given: Baseline) -> Tensor:
    """Return baselines ``(k, ...)`` that hold for every example."""
    shape = explained.inputs.shape[1:]
    array = torch.as_tensor(given if isinstance(given, Tensor) else np.asarray(given)).detach()
    array = array.to(explained.inputs.device, DOUBLE)
    count = len(array) if array.ndim == len(shape) + 1 else 1
    try:
        found = array.expand(count, *shape)
    except RuntimeError as error:
        raise InputError(
            f"baselines: have shape {tuple(array.shape)}; expected a number, or values that broadcast to "
            f"(k, {', '.join(map(str, shape))})"
        ) from error
    if not bool(found.isfinite().all()):
        raise InputError("baselines: hold NaN or infinite values; expected finite ones")
    return found


def _masks(explained: ExplainedModel, name: str, segments: Any) -> Tensor | None:
    """Return the segments ``(n, 1, 1, height, width)`` of images, or ``(n, 1, ...)`` of other inputs."""
    shape = explained.inputs.shape
    exact = name == "shapley_values"
    if len(shape) != 4:
        if segments is None:
            return None
        array = np.asarray(segments.cpu() if isinstance(segments, Tensor) else segments)
        if array.shape != tuple(shape[1:]) or not np.issubdtype(array.dtype, np.integer):
            raise InputError(
                f"segments: have shape {array.shape} and type {array.dtype}; expected whole numbers {tuple(shape[1:])}"
            )
        numbered = torch.from_numpy(
            np.unique(array, return_inverse=True)[1].reshape(array.shape).astype(np.int64)
        )
        mask = numbered.expand(len(explained), 1, *array.shape)
    else:
        if segments is None and exact:
            height, width = shape[2:]
            rows, columns = min(2, height), min(3, width)
            segments = (
                np.arange(height)[:, None] * rows // height * columns
                + np.arange(width)[None] * columns // width
            )
        mask = segment_labels(explained, segments)[:, None, None]
    most = int(mask.max()) + 1
    if exact and most > MOST_IN_ALL_ORDERS:
        raise _too_many(most)
    return mask.to(explained.inputs.device)


def _too_many(count: int) -> InputError:
    return InputError(
        f"segments: are {count}; shapley_values tries all their orders and takes at most {MOST_IN_ALL_ORDERS}; "
        "expected fewer, or the method shapley_value_sampling"
    )


def _neuron(explained: ExplainedModel, layer: Layer, neuron: Neuron) -> tuple[int, ...]:
    first = torch.zeros(1, dtype=torch.long)
    with layer.read() as output:
        explained.scores(explained.inputs.clone(), first)
        values = output()[0].detach()
    return chosen_neuron(values, neuron, layer.name)


def _shown(
    found: Tensor, entry: Entry, layer: Layer | None, explained: ExplainedModel, options: Mapping[str, Any]
) -> Tensor:
    if entry.of == "layer":
        assert layer is not None
        size = explained.inputs.shape[2:]
        return as_places(found, layer, size, options["reshape"], upsample=options["upsample"])
    # All channels of a segment have the same.
    return found[:, :1] if "segments" in entry.options and found.ndim == 4 else found
