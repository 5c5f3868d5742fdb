"""A network with other modules in some places, beside the network that it was made from."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from interpretkit.errors import InputError
from interpretkit.networks.instrumentation import find_layer


def with_replaced(module: nn.Module, replacements: Mapping[str, nn.Module]) -> nn.Module:
    """Return a network in which other modules stand for some layers; the network given stays as it is.

    Only the modules that hold a replaced layer are made anew, as shallow copies; all weights are the same tensors as
    before, so that the second network needs no memory of its own. A layer that the network has under several names is
    replaced under all of them.

    Parameters
    ----------
    module : Module
        The network.
    replacements : mapping of str to Module
        From dotted names of layers to what stands there; it may hold the layer itself.

    Raises
    ------
    InputError
        If there is no layer of a name, two names are of one layer, or the network is compiled by TorchScript or by
        ``torch.compile``, which keep what they compiled.

    Notes
    -----
    A network whose forward pass does not go through its registered layers, but through what it has kept of them
    elsewhere, goes on as before. Whoever needs to be sure sees whether the replacement runs.
    """
    found: dict[int, nn.Module] = {}
    for name, other in replacements.items():
        layer = find_layer(module, name)
        if id(layer) in found:
            raise InputError(f"layer {name!r}: is replaced twice; expected different layers")
        found[id(layer)] = other
    for part in module.modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise InputError("model: is compiled by TorchScript; expected one whose layers can be replaced")
        if hasattr(part, "_orig_mod") or vars(part).get("_compiled_call_impl") is not None:
            raise InputError("model: is compiled by torch.compile; expected the module that it was made from")
    made: dict[int, nn.Module] = {}

    def rebuilt(part: nn.Module) -> nn.Module:
        if id(part) in found:
            return found[id(part)]
        if id(part) not in made:
            children = {name: None if one is None else rebuilt(one) for name, one in part._modules.items()}
            if all(other is part._modules[name] for name, other in children.items()):
                made[id(part)] = part
            else:
                made[id(part)] = _shallow(part, children)
        return made[id(part)]

    return rebuilt(module)


def _shallow(part: nn.Module, children: dict[str, nn.Module | None]) -> nn.Module:
    """Return a copy of a module that shares its tensors, with other children and hooks of its own."""
    other = copy.copy(part)
    for name, value in vars(part).items():
        # Parameters, buffers, hooks: a change of one module's must not be one of the other's.
        if name.startswith("_") and isinstance(value, (dict, set)):
            other.__dict__[name] = copy.copy(value)
    other._modules = children  # pyright: ignore[reportAttributeAccessIssue]
    return other
