"""One call for every method, and what it returns."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Hashable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from interpretkit.attribution import (
    cam,
    captum_methods,
    concepts,
    deeplift,
    gradients,
    lrp,
    patterns,
    perturbation,
    prediction_difference,
    shapley,
)
from interpretkit.attribution.explained_model import ExplainedModel, Result, prepared
from interpretkit.attribution.target import Target, TargetScores
from interpretkit.errors import InputError
from interpretkit.networks.batching import Chunks, out_of_memory
from interpretkit.networks.fast_passes import fast_passes
from interpretkit.networks.instrumentation import instrumented
from interpretkit.networks.memory_order import agree, forget, plain_structure, untouched_state
from interpretkit.runs.folder import run_folder


@dataclass(frozen=True)
class Method:
    """A way to attribute.

    Attributes
    ----------
    run : callable
        From a :class:`~interpretkit.attribution.explained_model.ExplainedModel` and the method's options to its result.
    takes_layer : bool
        Whether it explains by one layer.
    passes_singly : bool
        Whether a single image never goes through the model in company, perturbed or not.
    differentiates : bool
        Whether it asks the model for gradients.
    watches : bool
        Whether it acts on the functions that the model calls.
    requires : tuple of str
        The options that must be given.
    check : callable
        Raises InputError for options whose values cannot be used, as far as can be told without a model.
    """

    run: Callable[..., Result]
    takes_layer: bool = False
    passes_singly: bool = False
    differentiates: bool = True
    watches: bool = False
    requires: tuple[str, ...] = ()
    check: Callable[[Mapping[str, Any]], None] = lambda options: None

    @property
    def options(self) -> dict[str, Any]:
        """The options' names and defaults."""
        parameters = inspect.signature(self.run).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


METHODS: Mapping[str, Method] = {
    "saliency": Method(gradients.saliency, passes_singly=True),
    "input_x_gradient": Method(gradients.input_x_gradient, passes_singly=True),
    "guided_backprop": Method(gradients.guided_backprop, passes_singly=True, watches=True),
    "deconvnet": Method(gradients.deconvnet, passes_singly=True, watches=True),
    "integrated_gradients": Method(gradients.integrated_gradients),
    "clear": Method(gradients.clear, passes_singly=True, watches=True),
    "smoothgrad": Method(gradients.smoothgrad),
    "deeplift": Method(deeplift.deeplift, watches=True),
    "lrp": Method(lrp.lrp, watches=True, check=lrp.check),
    "patternnet": Method(patterns.patternnet, watches=True, requires=("patterns",)),
    "pattern_attribution": Method(patterns.pattern_attribution, watches=True, requires=("patterns",)),
    "gradcam": Method(cam.gradcam, takes_layer=True, passes_singly=True),
    "gradcam_plus_plus": Method(cam.gradcam_plus_plus, takes_layer=True, passes_singly=True),
    "layercam": Method(cam.layercam, takes_layer=True, passes_singly=True),
    "guided_gradcam": Method(cam.guided_gradcam, takes_layer=True, passes_singly=True, watches=True),
    "scorecam": Method(cam.scorecam, takes_layer=True, differentiates=False),
    "occlusion": Method(perturbation.occlusion, differentiates=False),
    "rise": Method(perturbation.rise, differentiates=False),
    "lime": Method(perturbation.lime, differentiates=False),
    "kernel_shap": Method(shapley.kernel_shap, differentiates=False),
    "prediction_difference": Method(prediction_difference.prediction_difference, differentiates=False),
    "meaningful_perturbation": Method(perturbation.meaningful_perturbation),
    **{
        name: Method(
            captum_methods.runner(name, entry),
            takes_layer=entry.of != "inputs",
            differentiates=entry.differentiates,
            watches=entry.watches,
            requires=entry.requires,
            check=entry.check,
        )
        for name, entry in captum_methods.ENTRIES.items()
    },
    "tcav": Method(concepts.tcav, takes_layer=True, requires=("concepts", "reference"), check=concepts.check),
}


@dataclass(frozen=True)
class Attribution:
    """Which parts of the inputs made the outputs.

    Attributes
    ----------
    values : Tensor, (n, ...)
        Values of the inputs' shape, or ``(n, 1, height, width)`` for methods that tell places but not channels. On the
        inputs' device, at least in single precision.
    target : ndarray of int, (n,), or None
        The output explained, of each example; None if a function chose the score.
    method : str
        The method's name.
    details : mapping
        How the values came about: the model's ``scores`` ``(n,)``, the ``seed``, the ``images_per_forward`` that
        memory allowed in the end, and what the method's docstring names.
    """

    values: Tensor
    target: NDArray[np.int64] | None
    method: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def layer(self) -> str | None:
        """The layer that a class activation map looked at; None for other methods."""
        return self.details.get("layer")

    def numpy(self) -> NDArray[np.floating]:
        """Return the values as an array ``(n, ...)``."""
        return self.values.cpu().numpy()

    def save(self, out: Path | str) -> Path:
        """Write the attribution as a run's folder, whole or not at all.

        Parameters
        ----------
        out : path
            The folder; it holds ``attribution.npz`` with the arrays ``values``, ``target`` and those of the
            details, and ``manifest.json`` with the rest of the details as its summary.

        Raises
        ------
        InputError
            If `out` is in use by something else, or cannot be written to.
        """
        arrays: dict[str, np.ndarray] = {"values": self.numpy()}
        if self.target is not None:
            arrays["target"] = self.target
        summary: dict[str, Any] = {}
        for name, value in self.details.items():
            if isinstance(value, Tensor):
                arrays[name] = value.cpu().numpy()
            elif isinstance(value, np.ndarray):
                arrays[name] = value
            else:
                summary[name] = value
        with run_folder(out, "attribute", {"method": self.method}, self.details.get("seed")) as run:
            run.save_arrays("attribution.npz", **arrays)
            run.summary.update(summary)
        return Path(out)


def attribute(
    model: nn.Module,
    inputs: Tensor | NDArray[np.floating],
    target: Target = None,
    *,
    method: str,
    layer: str | None = None,
    seed: int = 0,
    images_per_forward: int | None = None,
    **options: Any,
) -> Attribution:
    """Tell which parts of the inputs made a model's outputs.

    The model is used as it is, in evaluation mode and without a copy, and is left as it was found, also after an
    exception: its ``training`` and ``requires_grad`` flags, its ``.grad``, its hooks, and the global random
    numbers. It may be frozen, reuse modules, work in place; the caller may be under ``torch.no_grad``. Other
    threads may not use it meanwhile.

    Parameters
    ----------
    model : Module
        From inputs ``(n, ...)`` to outputs ``(n, classes)``; ``(n,)`` for a single output; or anything of ``n``
        rows, if `target` is a function.
    inputs : Tensor or ndarray of float, (n, ...)
        As the model takes them; brought to its device and precision.
    target : None, int, sequence of int or callable
        The output to explain: the largest of each example, the same index for all, one for each example ``(n,)``,
        or a function from outputs ``(m, ...)`` to scores ``(m,)`` that treats all rows alike.
    method : str
        A name in ``METHODS``.
    layer : str, optional
        The dotted name of a layer, for the methods that take one; by default the last that holds places, as
        :func:`~interpretkit.attribution.last_map.last_map` tells. The result names it.
    seed : int
        The same seed gives the same bits on a CPU.
    images_per_forward : int, optional
        The most images that go through the model at once, which bounds the memory; by default 8 on a CPU, 64
        elsewhere. Halved when memory runs out.
    **options
        The method's own; see its docstring.

    Returns
    -------
    Attribution
        An example's values do not depend on the others in the batch.

    Raises
    ------
    InputError
        If the method, an option, the layer, the target or the inputs cannot be used.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 5))
    >>> found = attribute(model, torch.ones(2, 3, 8, 8), target=4, method="saliency")
    >>> tuple(found.values.shape)
    (2, 3, 8, 8)
    """
    chosen = _checked_method(method, layer, options)
    if not isinstance(model, nn.Module):
        raise InputError(f"model: is a {type(model).__name__}; expected a torch.nn.Module")
    explained, result, home = _solved(
        chosen, model, inputs, target, layer, seed, images_per_forward, options, fast=True
    )
    details: dict[str, Any] = {
        name: value.detach().to(home) if isinstance(value, Tensor) else value
        for name, value in result.details.items()
    }
    details |= {"seed": seed, "images_per_forward": explained.chunks.size}
    values = result.values.detach().to(home, explained.precise).contiguous()
    return Attribution(values, explained.target.indices, method, details)


def _solved(
    chosen: Method,
    model: nn.Module,
    inputs: Tensor | NDArray[np.floating],
    target: Target,
    layer: str | None,
    seed: int,
    images_per_forward: int | None,
    options: Mapping[str, Any],
    *,
    fast: bool,
) -> tuple[ExplainedModel, Result, torch.device]:
    """Run a method, at first with faster passes where they are known to be harmless.

    If a pass meets what it should not, all begins anew with plain ones, from the same seed.
    """
    with instrumented(model, seed):
        # Made within, because a caller's inference mode would mark the tensors for good.
        images, home = prepared(model, inputs)
        alone = chosen.passes_singly and len(images) == 1
        _check_model(chosen, model, alone)
        with fast_passes(model, images, single=alone) if fast else nullcontext(False) as any_order:
            explained = ExplainedModel(
                model,
                images,
                TargetScores(target, len(images)),
                Chunks(images_per_forward, images.device),
                seed,
                layer,
                any_order,
            )
            try:
                result = chosen.run(explained, **options)
            except RuntimeError as error:
                # Either the model minds the order of memory after all, or it fails in any.
                if not any_order or out_of_memory(error):
                    raise
                result = None
        if result is not None:
            if chosen.watches:
                _check_score(chosen, explained)
            return explained, result, home
        forget(model, images)
    return _solved(chosen, model, inputs, target, layer, seed, images_per_forward, options, fast=False)


def _check_model(chosen: Method, model: nn.Module, alone: bool) -> None:
    """Raise InputError for a model that a method would explain wrongly; `alone` if single examples pass once."""
    for name, module in model.named_modules():
        where = f"model: its layer {name!r}" if name else "model: it"
        if (chosen.watches or (chosen.takes_layer and not name)) and isinstance(
            module, torch.jit.ScriptModule
        ):
            raise InputError(
                f"{where} is compiled by TorchScript, where the method cannot follow what is computed; expected the "
                "module that it was made from, or a method such as integrated_gradients"
            )
        if chosen.differentiates and _is_quantized(module):
            raise InputError(
                f"{where} is quantized ({type(module).__name__}), which no gradient passes; expected the model in "
                "floating-point numbers, or a method without gradients, such as occlusion"
            )
        # All that is without kept statistics takes those of the examples that pass together.
        if not alone and isinstance(module, _BatchNorm) and module.running_mean is None:
            raise InputError(
                f"{where} normalises by the statistics of the batch, so that examples depend on each other; expected "
                "running statistics"
            )


def _is_quantized(module: nn.Module) -> bool:
    home = type(module).__module__
    return home.startswith("torch.") and ".quantized" in home


# Of models that have been found to give the same while they are watched, the structures.
_SAME_SCORE: weakref.WeakKeyDictionary[nn.Module, set[Hashable]] = weakref.WeakKeyDictionary()


def _check_score(chosen: Method, explained: ExplainedModel) -> None:
    """Compare the output that a method has met with that of a plain pass, once for a model's structure.

    Raises
    ------
    InputError
        If they are not the same.
    """
    structure = plain_structure(explained.model)
    checked = _SAME_SCORE.setdefault(explained.model, set())
    found = explained.target.first
    if found is None or (structure, chosen.run) in checked:
        return
    random = torch.get_rng_state()
    with untouched_state(explained.model), torch.no_grad():
        expected = explained.model(explained.inputs[:1].clone())[0]
        drawn = not torch.equal(random, torch.get_rng_state())
    if not drawn and not agree(expected, found):
        raise InputError(
            "model: gives another output while its functions are watched, or in company with other examples; expected "
            "a fixed computation, or a method such as integrated_gradients"
        )
    checked.add((structure, chosen.run))


def _checked_method(method: str, layer: str | None, options: Mapping[str, Any]) -> Method:
    if method not in METHODS:
        raise InputError(f"method {method!r}: expected one of {', '.join(METHODS)}")
    chosen = METHODS[method]
    if layer is not None and not isinstance(layer, str):
        raise InputError(
            f"layer: is a {type(layer).__name__}; expected a dotted name, such as layer4.1.conv2"
        )
    if layer is not None and not chosen.takes_layer:
        able = [name for name, other in METHODS.items() if other.takes_layer]
        raise InputError(f"layer {layer!r}: {method} takes none; expected one of {', '.join(able)}")
    for name in options:
        if name not in chosen.options:
            known = ", ".join(chosen.options) or "none"
            raise InputError(f"option {name!r}: {method} does not have it; expected {known}")
    chosen.check(options)
    return chosen
