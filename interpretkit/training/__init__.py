"""Device, seeds, precision, the training loop, checkpoints and data-parallel training."""

from interpretkit.training.batches import TensorBatches
from interpretkit.training.checkpoints import load_config, load_model, save_model, state_digest
from interpretkit.training.device import describe_device, resolve_device, set_threads
from interpretkit.training.loop import History, NonFiniteLossError, fit
from interpretkit.training.precision import autocast
from interpretkit.training.seeds import (
    derive_seed,
    numpy_generator,
    own_draws,
    seed_everything,
    torch_generator,
)

__all__ = [
    "History",
    "NonFiniteLossError",
    "TensorBatches",
    "autocast",
    "derive_seed",
    "describe_device",
    "fit",
    "load_config",
    "load_model",
    "numpy_generator",
    "own_draws",
    "resolve_device",
    "save_model",
    "seed_everything",
    "set_threads",
    "state_digest",
    "torch_generator",
]
