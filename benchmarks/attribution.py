"""Attribution: what each method costs, in passes of the network, beside captum, pytorch-grad-cam and torchcam.

The unit is one forward and backward pass of ResNet-18 at 224 px with the gradients of its parameters; a forward
pass, the gradient of the input and that of the parameters take about a third of it each. All are timed in turns in
one process, each between two timings of the unit, so that a noisy machine disturbs both alike; a subject's cost is
the median of its ratios to them. What takes one pass or two is called once untimed right before, and so is the unit:
else each would pay for the memory that the one before it has given back.
"""

from __future__ import annotations

import importlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnn_interp.networks.loading import load_network
from interpretkit.attribution import attribute
from interpretkit.bench.evidence import Row
from interpretkit.errors import InputError
from interpretkit.networks.fast_passes import fast_layers
from interpretkit.runs.progress import track
from interpretkit.training import resolve_device

FLOOR = "docs/attribution.md, cost: a forward pass and the gradient of the input are a third of the unit each"
BAR = "docs/attribution.md, cost"
SIZE = 224
LAYER = "layer4"
STEPS, OCCLUSION, LIME_SAMPLES = 50, (32, 16), 200
OCCLUSION_FORWARDS = ((SIZE - OCCLUSION[0]) // OCCLUSION[1] + 1) ** 2 + 1
MEMORY_BAR_MB = 400.0
# From images in a batch to the turns of light and of heavy methods.
ROUNDS = {1: (9, 2), 8: (5, 1)}
QUICK_ROUNDS = {1: (9, 1), 8: (3, 0)}


@dataclass(frozen=True)
class Subject:
    """A way to attribute, from inputs ``(n, 3, 224, 224)``, by one package.

    Attributes
    ----------
    method : str
        What is computed.
    package : str
        By whom.
    call : callable
        From inputs to anything.
    reference : float or None
        The cost to reach, in units for an image.
    source : str
        Where that comes from.
    heavy : bool
        Whether it takes tens of units.
    """

    method: str
    package: str
    call: Callable[[Tensor], object]
    reference: float | None = None
    source: str = BAR
    heavy: bool = False


def run(
    quick: bool = True, data: Mapping[str, Path] | None = None, seed: int = 0, device: str = "cpu"
) -> list[Row]:
    """Return the rows of evidence on the cost of attribution.

    Parameters
    ----------
    quick : bool
        The heavy methods once, and one image at a time only.
    data : mapping of str to path, optional
        None is used: costs depend neither on the weights nor on the images.
    seed : int
        Of the weights and inputs.
    device : str
        Where to compute.
    """
    where = resolve_device(device)
    network = load_network("resnet18", weights="random", device=where, seed=seed).module
    generator = torch.Generator().manual_seed(seed)
    rows: list[Row] = []
    for batch, (rounds, heavy_rounds) in (QUICK_ROUNDS if quick else ROUNDS).items():
        inputs = torch.randn(batch, 3, SIZE, SIZE, generator=generator).to(where)
        rows += cost(network, inputs, rounds, heavy_rounds)
    if where.type == "cpu":
        rows += layers(20 if quick else 60, generator)
    if where.type == "cpu" and sys.platform == "linux":
        rows += memory(MEMORY_METHODS)
    if where.type == "cuda":
        rows += throughput(network, where)
    return rows


def cost(network: nn.Module, inputs: Tensor, rounds: int, heavy_rounds: int) -> list[Row]:
    """Time every subject on the same inputs, in turns; without heavy rounds, the light ones alone."""
    subjects = [
        subject
        for subject in (*ours(network), *captums(network), *torchcams(network), *grad_cams(network))
        if heavy_rounds or not subject.heavy
    ]
    ratios: dict[int, list[float]] = {index: [] for index in range(len(subjects))}
    for heavy, times in ((False, rounds), (True, heavy_rounds)):
        chosen = [(i, s) for i, s in enumerate(subjects) if s.heavy == heavy]
        for turn in track(range(times + 1), f"batch of {len(inputs)}, {'heavy' if heavy else 'light'}"):
            if heavy and turn == 0:
                continue  # warmed by the light ones
            before = unit(network, inputs, heavy)
            for index, subject in chosen:
                if not heavy:
                    subject.call(inputs)
                took = timed(lambda s=subject: s.call(inputs), inputs.device)
                after = unit(network, inputs, heavy)
                if turn:
                    ratios[index].append(2 * took / (before + after))
                before = after
    network.requires_grad_(True)
    in_units = {index: statistics.median(found) for index, found in ratios.items()}
    rows = []
    for index, subject in enumerate(subjects):
        if subject.package != "interpretkit":
            continue
        peers = {
            other.package: in_units[i]
            for i, other in enumerate(subjects)
            if other.method == subject.method and other.package != "interpretkit"
        }
        rows.append(
            Row(
                system=subject.method,
                data=f"ResNet-18, {SIZE} px, batch of {len(inputs)}, threads: {torch.get_num_threads()}, "
                f"{inputs.device.type}",
                name="cost",
                value=in_units[index],
                unit="passes",
                baseline=min(peers.values()) if peers else None,
                reference=subject.reference,
                source=subject.source if subject.reference is not None else "",
                notes="peers in the same run: " + ", ".join(f"{k} {v:.3g}" for k, v in sorted(peers.items()))
                if peers
                else "no peer at hand has it",
            )
        )
    return rows


def ours(network: nn.Module) -> list[Subject]:
    """Return the methods of this toolkit."""

    def call(method: str, **options: Any) -> Callable[[Tensor], object]:
        return lambda inputs: attribute(network, inputs, 0, method=method, **options)

    mine = "interpretkit"
    window, stride = OCCLUSION
    return [
        Subject("Grad-CAM", mine, call("gradcam", layer=LAYER), 0.36),
        Subject("saliency", mine, call("saliency"), 0.70),
        Subject("guided backprop", mine, call("guided_backprop"), 2 / 3, FLOOR),
        Subject("DeepLift", mine, call("deeplift"), 4 / 3, FLOOR),
        Subject(
            f"integrated gradients, {STEPS} steps",
            mine,
            call("integrated_gradients", steps=STEPS),
            34,
            heavy=True,
        ),
        Subject(
            f"SmoothGrad, {STEPS} samples",
            mine,
            call("smoothgrad", samples=STEPS),
            STEPS * 2 / 3,
            FLOOR,
            heavy=True,
        ),
        Subject(
            f"occlusion, {OCCLUSION_FORWARDS} forward passes",
            mine,
            call("occlusion", window=window, stride=stride),
            OCCLUSION_FORWARDS / 3,
            FLOOR,
            heavy=True,
        ),
        Subject(
            f"LIME, {LIME_SAMPLES} samples",
            mine,
            call("lime", samples=LIME_SAMPLES, segments=stripes()[0, 0]),
            LIME_SAMPLES / 3,
            FLOOR,
            heavy=True,
        ),
    ]


def captums(network: nn.Module) -> list[Subject]:
    """Return captum's, as its users are told to bound their memory: some images at a time."""
    from captum import attr

    layer = network.get_submodule(LAYER)
    window, stride = OCCLUSION

    def lime(inputs: Tensor) -> None:
        explainer = attr.Lime(network)
        mask = stripes().to(inputs.device)
        for image in inputs:  # captum explains one at a time
            explainer.attribute(
                image[None], target=0, feature_mask=mask, n_samples=LIME_SAMPLES, perturbations_per_eval=16
            )

    def gradient(explainer: Any, **options: Any) -> Callable[[Tensor], object]:
        return lambda inputs: explainer.attribute(
            inputs.detach().clone().requires_grad_(), target=0, **options
        )

    by = "captum"
    return [
        Subject("Grad-CAM", by, gradient(attr.LayerGradCam(network, layer))),
        Subject("saliency", by, gradient(attr.Saliency(network))),
        Subject("guided backprop", by, gradient(attr.GuidedBackprop(network))),
        Subject(
            f"integrated gradients, {STEPS} steps",
            by,
            gradient(attr.IntegratedGradients(network), n_steps=STEPS, internal_batch_size=8),
            heavy=True,
        ),
        Subject(
            f"occlusion, {OCCLUSION_FORWARDS} forward passes",
            by,
            gradient(
                attr.Occlusion(network),
                sliding_window_shapes=(3, window, window),
                strides=(3, stride, stride),
                perturbations_per_eval=16,
            ),
            heavy=True,
        ),
        Subject(f"LIME, {LIME_SAMPLES} samples", by, lime, heavy=True),
    ]


def stripes() -> Tensor:
    """Return fifty segments ``(1, 1, 224, 224)``, so that all packages leave out the same."""
    return torch.arange(SIZE * SIZE).reshape(1, 1, SIZE, SIZE) // (SIZE * SIZE // 50)


def torchcams(network: nn.Module) -> list[Subject]:
    """Return torchcam's, if it is installed."""
    try:
        methods = importlib.import_module("torchcam.methods")
    except ImportError:
        return []

    def call(inputs: Tensor) -> None:
        with methods.GradCAM(network, LAYER) as extractor:
            extractor([0] * len(inputs), network(inputs))

    return [Subject("Grad-CAM", "torchcam", call)]


def grad_cams(network: nn.Module) -> list[Subject]:
    """Return pytorch-grad-cam's, if it is installed."""
    try:
        package = importlib.import_module("pytorch_grad_cam")
        targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")
    except ImportError:
        return []

    def call(inputs: Tensor) -> None:
        with package.GradCAM(model=network, target_layers=[network.get_submodule(LAYER)]) as extractor:
            extractor(inputs, targets=[targets.ClassifierOutputTarget(0)] * len(inputs))

    return [Subject("Grad-CAM", "pytorch-grad-cam", call)]


# From what is made cheaper for single images to a layer of that kind, and the shape of its input.
LAYERS: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "first convolution of ResNets, 7 x 7 by 2": (lambda: nn.Conv2d(3, 64, 7, 2, 3), (3, 224, 224)),
    "first convolution of ConvNeXt-T, 4 x 4 by 4": (lambda: nn.Conv2d(3, 96, 4, 4), (3, 224, 224)),
    "first convolution of ViT-B, 16 x 16 by 16": (lambda: nn.Conv2d(3, 768, 16, 16), (3, 224, 224)),
    "maximum pooling of ResNets, 3 x 3 by 2": (lambda: nn.MaxPool2d(3, 2, 1), (64, 112, 112)),
    "shortcut of ResNet-18, 1 x 1 by 2": (lambda: nn.Conv2d(64, 128, 1, 2), (64, 56, 56)),
    "shortcut of ResNet-50, 1 x 1 by 2": (lambda: nn.Conv2d(256, 512, 1, 2), (256, 56, 56)),
}


def layers(rounds: int, generator: torch.Generator) -> list[Row]:
    """Time layers, forwards and back to the gradient of one image, as torch has them and faster, in turns."""
    rows = []
    for name, (make, shape) in LAYERS.items():
        layer = make().requires_grad_(False)
        inputs = torch.randn(1, *shape, generator=generator).requires_grad_()
        direction = torch.randn(layer(inputs).shape, generator=generator)
        took: dict[str, list[float]] = {"torch": [], "fast": []}

        def pass_through(
            layer: nn.Module = layer, inputs: Tensor = inputs, direction: Tensor = direction
        ) -> None:
            torch.autograd.grad(layer(inputs), inputs, direction)

        for turn in range(rounds + 2):
            for kind in took:
                with fast_layers(layer) if kind == "fast" else nullcontext():
                    pass_through()
                    seconds = timed(pass_through, inputs.device)
                if turn > 1:
                    took[kind].append(seconds)
        fast, plain = (1e3 * statistics.median(took[kind]) for kind in ("fast", "torch"))
        rows.append(
            Row(
                system=name,
                data=f"one image, forwards and back to its gradient, threads: {torch.get_num_threads()}, cpu",
                name="time",
                value=fast,
                unit="ms",
                baseline=plain,
                notes=f"the baseline is torch's own layer; {plain / fast:.2g} times faster",
            )
        )
    return rows


MEMORY_METHODS = ("saliency", "integrated_gradients", "smoothgrad", "occlusion", "lime")
# The high-water mark of Linux is that of the process alone; the one of getrusage begins at the parent's.
_MEMORY = """
import pathlib, re, sys, torch
from cnn_interp.networks.loading import load_network
from interpretkit.attribution import attribute
torch.set_num_threads(1)
network = load_network("resnet18", weights="random").module
inputs = torch.zeros(8, 3, 224, 224)
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
with torch.no_grad():
    network(inputs)
before = peak()
options = {"lime": {"samples": 50}, "smoothgrad": {"samples": 9}, "integrated_gradients": {"steps": 9}}
attribute(network, inputs, 0, method=sys.argv[1], **options.get(sys.argv[1], {}))
print((peak() - before) / 1024)
"""


def memory(methods: Sequence[str]) -> list[Row]:
    """Measure by how much the peak memory of a new process grows when eight images are explained."""
    rows = []
    for method in track(methods, "memory"):
        done = subprocess.run(
            [sys.executable, "-c", _MEMORY, method], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise InputError(
                f"memory of {method}: the process failed ({done.stderr.strip().splitlines()[-1]})"
            )
        rows.append(
            Row(
                system=method,
                data=f"ResNet-18, {SIZE} px, batch of 8, default settings, cpu",
                name="growth of the peak memory",
                value=float(done.stdout.split()[-1]),
                unit="MB",
                reference=MEMORY_BAR_MB,
                source=BAR,
                notes="above that of a forward pass of the batch; it does not depend on the number of samples",
            )
        )
    return rows


def throughput(network: nn.Module, device: torch.device) -> list[Row]:
    """Count the images a second that the heavy methods explain on a GPU."""
    inputs = torch.randn(64, 3, SIZE, SIZE, device=device)
    rows = []
    heavy: tuple[tuple[str, dict[str, Any]], ...] = (
        ("integrated_gradients", {"steps": STEPS}),
        ("smoothgrad", {"samples": STEPS}),
        ("occlusion", {"window": OCCLUSION[0], "stride": OCCLUSION[1]}),
        ("rise", {"samples": 1000}),
        ("lime", {"samples": 1000}),
    )
    for method, options in heavy:

        def explain(method: str = method, options: dict[str, Any] = options) -> object:
            return attribute(network, inputs, 0, method=method, images_per_forward=256, **options)

        explain()
        took = timed(explain, device)
        rows.append(
            Row(
                system=method,
                data=f"ResNet-18, {SIZE} px, 64 images, {torch.cuda.get_device_name(device)}",
                name="throughput",
                value=len(inputs) / took,
                unit="images/s",
                notes=", ".join(f"{k} {v}" for k, v in options.items()) + ", 256 images a pass",
            )
        )
    return rows


def unit(network: nn.Module, inputs: Tensor, heavy: bool) -> float:
    """Time the unit of cost: once, after an untimed one; or, beside what takes many seconds, the mean of some."""
    times = [timed(lambda: full_pass(network, inputs), inputs.device) for _ in range(3 if heavy else 2)]
    return statistics.mean(times) if heavy else times[-1]


def full_pass(network: nn.Module, inputs: Tensor) -> None:
    """Run the network forwards and backwards, with the gradients of its parameters: the unit of cost."""
    network.requires_grad_(True)
    network.zero_grad(set_to_none=True)
    network(inputs)[:, 0].sum().backward()
    network.zero_grad(set_to_none=True)


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that a call takes, until the device is done with it."""
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
