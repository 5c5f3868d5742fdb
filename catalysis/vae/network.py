"""The multi-channel PGH-VAE: coordination and ligands in a latent space of their own each, and an energy head on both.

After Wang, Zheng, Wu, Li, Pan, npj Comput. Mater. (2025), with what keeps it from collapsing: elements are
categories decoded by cross-entropy, the ligand latent is wide enough to hold them, and the network sees fresh random
decorations of real geometries in every epoch, labelled by a teacher that was trained on the same sites only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from catalysis.energies.protocol import EnergyModel
from catalysis.energies.training_data import check_training_data, group_folds, slab_groups
from catalysis.fingerprints import GRID, coordination_curves
from catalysis.structure.occupations import Occupations, occupations
from catalysis.structure.sites import Site
from catalysis.structure.templates import Geometry, Template, class_templates
from interpretkit.errors import InputError
from interpretkit.training import (
    History,
    derive_seed,
    fit,
    load_config,
    load_model,
    numpy_generator,
    resolve_device,
    save_model,
    seed_everything,
)
from interpretkit.training.schedules import one_cycle
from interpretkit.variational import draw_codes, mean_divergence, prior_divergence

ACTIVE_VARIANCE = 0.01
"""A latent dimension is active if the variance of its posterior mean over sites exceeds this (Burda et al. 2016)."""

_CURVE_NOISE = 0.1  # standard deviation of the decoded curves, in units of each curve's own
_ENERGY_NOISE = 0.05  # of the standardised energies


class Channels(NamedTuple):
    """Sites as the network sees them.

    `curves`: Betti curves, shape (n, 3, g); `site_class`: index of the class, (n,), -1 if unknown; `ligands`: element
    index by slot, (n, slots), -1 where empty.
    """

    curves: Tensor
    site_class: Tensor
    ligands: Tensor


class Latent(NamedTuple):
    """Posterior means and logarithms of variances: coordination (n, dc) and ligand (n, dl)."""

    coordination: Tensor
    coordination_log_variance: Tensor
    ligand: Tensor
    ligand_log_variance: Tensor


class Decoded(NamedTuple):
    """Betti curves (n, 3, g), logits over classes (n, classes) and over elements by slot (n, slots, elements)."""

    curves: Tensor
    class_logits: Tensor
    element_logits: Tensor


@dataclass(frozen=True)
class ClassEntry:
    """A class that a model knows: where its template is, and which of the model's slots it fills.

    `facet`, `site_class` and `variant` are those of the template; `slots[k]` is the model's slot of the template's
    slot k.
    """

    key: str
    facet: str
    site_class: str
    variant: int
    slots: tuple[int, ...]

    def template(self, adsorbate: str) -> Template | None:
        """Return the template of the class, None where its facet is unknown or has no such class."""
        found = class_templates(self.facet, self.site_class, adsorbate)
        return found[self.variant] if self.variant < len(found) else None


@dataclass(frozen=True)
class VAEConfig:
    """Everything but the weights.

    Attributes
    ----------
    elements, adsorbate, classes
        What the model knows.
    columns
        Which columns of `catalysis.structure.occupations.Occupations.table` are its slots.
    grid
        Thresholds of the Betti curves in Å.
    coordination_latent, ligand_latent, hidden
        Widths.
    """

    elements: tuple[str, ...]
    adsorbate: str
    classes: tuple[ClassEntry, ...]
    columns: tuple[int, ...]
    grid: tuple[float, ...]
    coordination_latent: int = 8
    ligand_latent: int = 128
    hidden: int = 384


@dataclass(frozen=True)
class VAEReport:
    """What a model does with given sites.

    Attributes
    ----------
    n_sites
        How many.
    active_coordination, active_ligand
        Latent dimensions whose posterior mean varies by more than 0.01 over the sites.
    variance_coordination, variance_ligand
        That variance by dimension.
    kl_coordination, kl_ligand
        Mean Kullback-Leibler divergence from the prior by dimension, in nats.
    element_recovery
        Share of all metals whose element is decoded correctly from the posterior mean.
    class_recovery
        Share of sites whose class is.
    betti_r2
        Share of the variance of all values of the Betti curves that the decoded ones explain; NaN if they do not
        vary.
    betti_r2_by_dimension
        The same for β0, β1, β2; NaN where the curves do not vary.
    mae_ev
        Mean absolute error of the energy head in eV; NaN without energies.
    """

    n_sites: int
    active_coordination: int
    active_ligand: int
    variance_coordination: tuple[float, ...]
    variance_ligand: tuple[float, ...]
    kl_coordination: tuple[float, ...]
    kl_ligand: tuple[float, ...]
    element_recovery: float
    class_recovery: float
    betti_r2: float
    betti_r2_by_dimension: tuple[float, float, float]
    mae_ev: float


def _mlp(*widths: int) -> nn.Sequential:
    """Return linear layers with a smooth activation between them, so that the output has all derivatives."""
    layers: list[nn.Module] = []
    for k, (a, b) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(a, b))
        if k < len(widths) - 2:
            layers.append(nn.SiLU())
    return nn.Sequential(*layers)


class _Direct(nn.Module):
    """A network beside a linear map: the sum of both."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.curved = _mlp(inputs, hidden, hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.curved(x)


class _EnergyHead(nn.Module):
    """Energy from both latents: linear, plus a network in which coordination weighs what the ligands do."""

    def __init__(self, coordination: int, ligand: int, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(coordination + ligand, 1)
        self.from_coordination = _mlp(coordination, 128, 2 * hidden)
        self.from_ligand = nn.Linear(ligand, hidden)
        self.joint = _mlp(hidden, hidden // 2, 1)
        self.weighed = nn.Linear(hidden, 1)

    def forward(self, coordination: Tensor, ligand: Tensor) -> Tensor:
        weight, shift = self.from_coordination(coordination).chunk(2, dim=-1)
        effects = self.from_ligand(ligand) * (1 + weight) + shift
        total = self.linear(torch.cat([coordination, ligand], -1)) + self.weighed(effects)
        return (total + self.joint(functional.silu(effects))).squeeze(-1)


class PGHVAE(nn.Module):
    """Variational auto-encoder of active sites with two channels and an energy head.

    Parameters
    ----------
    config
        See `VAEConfig`.

    Notes
    -----
    `energy` is smooth in both latents, so that designs can be searched by gradient. All methods work on batches.
    """

    curve_mean: Tensor
    curve_scale: Tensor
    energy_mean: Tensor
    energy_scale: Tensor
    history: History | None = None
    """How the training went; not saved."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        kinds, slots, classes = len(config.elements), len(config.columns), len(config.classes)
        curve = 3 * len(config.grid)
        dc, dl, hidden = config.coordination_latent, config.ligand_latent, config.hidden
        self.coordination_encoder = _mlp(curve + classes, 128, 128, 2 * dc)
        self.ligand_encoder = _Direct(slots * kinds, hidden, 2 * dl)
        self.curve_decoder = _mlp(dc, 128, 128, curve)
        self.class_decoder = _mlp(dc, 64, classes)
        self.ligand_decoder = _Direct(dl, hidden, slots * kinds)
        self.head = _EnergyHead(dc, dl, 256)
        self.register_buffer("curve_mean", torch.zeros(3, len(config.grid)))
        self.register_buffer("curve_scale", torch.ones(3, 1))
        self.register_buffer("energy_mean", torch.zeros(()))
        self.register_buffer("energy_scale", torch.ones(()))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.curve_mean.device

    def channels(self, sites: Sequence[Site]) -> Channels:
        """Return sites as the network sees them.

        Raises
        ------
        InputError
            For an adsorbate or an element that the model does not know.
        """
        for site in sites:
            if site.adsorbate != self.config.adsorbate:
                raise InputError(
                    f"{site.site_id or 'site'}: adsorbate {site.adsorbate}; the model knows {self.config.adsorbate}"
                )
        filled = occupations(sites, self.config.elements)
        curves = coordination_curves(sites, np.array(self.config.grid))
        return self._channels(filled, curves)

    def _channels(self, filled: Occupations, curves: np.ndarray) -> Channels:
        index = {entry.key: k for k, entry in enumerate(self.config.classes)}
        numbers = np.array([index.get(geometry.key, -1) for geometry in filled.geometries])
        return Channels(
            torch.as_tensor(curves, dtype=torch.float32, device=self.device),
            torch.as_tensor(numbers[filled.geometry], dtype=torch.long, device=self.device),
            torch.as_tensor(
                filled.table[:, self.config.columns].astype(np.int64), dtype=torch.long, device=self.device
            ),
        )

    def encode(self, channels: Channels) -> Latent:
        """Return the posterior over both latents."""
        curves = ((channels.curves - self.curve_mean) / self.curve_scale).flatten(1)
        coordination, c = self.coordination_encoder(
            torch.cat([curves, _one_hot(channels.site_class, len(self.config.classes))], 1)
        ).chunk(2, dim=1)
        ligands = _one_hot(channels.ligands, len(self.config.elements)).flatten(1)
        ligand, v = self.ligand_encoder(ligands).chunk(2, dim=1)
        # Bounded log variances: the standard deviations stay between 0.002 and 3.
        return Latent(coordination, 7 * torch.tanh(c / 7) - 5, ligand, 7 * torch.tanh(v / 7) - 5)

    def decode(self, coordination: Tensor, ligand: Tensor) -> Decoded:
        """Return curves in counts, and logits over classes and over elements by slot."""
        shape = (len(coordination), 3, len(self.config.grid))
        curves = self.curve_decoder(coordination).reshape(shape) * self.curve_scale + self.curve_mean
        elements = self.ligand_decoder(ligand).reshape(len(ligand), -1, len(self.config.elements))
        return Decoded(curves, self.class_decoder(coordination), elements)

    def energy(self, coordination: Tensor, ligand: Tensor) -> Tensor:
        """Return the adsorption energy in eV, shape (n,): smooth in both latents."""
        return self.energy_mean + self.energy_scale * self.head(coordination, ligand)

    @torch.no_grad()
    def predict(self, sites: Sequence[Site]) -> np.ndarray:
        """Return the head's energies in eV at the posterior means, shape (n,)."""
        self.eval()
        latent = self.encode(self.channels(sites))
        return self.energy(latent.coordination, latent.ligand).double().cpu().numpy()

    @torch.no_grad()
    def likeliest(
        self,
        coordination: Tensor,
        ligand: Tensor,
        classes: Sequence[bool] | None = None,
        elements: Sequence[int] | None = None,
    ) -> list[tuple[int, tuple[str, ...]]]:
        """Return the likeliest class, by its index, and element in each of its slots for each pair of latents.

        Parameters
        ----------
        coordination, ligand
            Latents, (n, dc) and (n, dl).
        classes
            Which classes may be chosen, at least one; all by default.
        elements
            Which elements, by their index; all by default.
        """
        decoded = self.decode(coordination, ligand)
        logits = decoded.class_logits.cpu().numpy().copy()
        if classes is not None:
            logits[:, ~np.array(classes)] = -np.inf
        allowed = list(range(len(self.config.elements))) if elements is None else list(elements)
        best = decoded.element_logits.cpu().numpy()[..., allowed].argmax(-1)
        names = [self.config.elements[k] for k in allowed]
        return [
            (k, tuple(names[e] for e in best[row, list(self.config.classes[k].slots)]))
            for row, k in enumerate(logits.argmax(1).tolist())
        ]

    def decode_sites(self, coordination: Tensor, ligand: Tensor) -> list[Site]:
        """Return the most likely site for each pair of latents: ideal geometry, likeliest element in each slot.

        The class is the likeliest of those that have a template.
        """
        templates = [entry.template(self.config.adsorbate) for entry in self.config.classes]
        if not any(templates):
            raise InputError("model: none of its classes has a template; sites cannot be decoded")
        found = self.likeliest(coordination, ligand, [template is not None for template in templates])
        return [template.decorate(symbols) for k, symbols in found if (template := templates[k]) is not None]

    def save(self, path: str | Path, *, half: bool = False) -> None:
        """Write weights, on request in half precision, and configuration to one safetensors file."""
        save_model(path, self, {"model": _KIND, **asdict(self.config)}, half=half)

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> PGHVAE:
        """Read a model that `save` wrote.

        Raises
        ------
        InputError
            If the file is missing, damaged, or something else.
        """
        if load_config(path).get("model") != _KIND:
            raise InputError(f"{path}: not a PGH-VAE; expected a file that `PGHVAE.save` wrote")
        return load_model(path, lambda config: cls(_config(config)), resolve_device(device))


_KIND = "pgh-vae"


def _config(plain: dict[str, Any]) -> VAEConfig:
    values = {name: value for name, value in plain.items() if name != "model"}
    values["classes"] = tuple(
        ClassEntry(**{**entry, "slots": tuple(entry["slots"])}) for entry in values["classes"]
    )
    for name in ("elements", "columns", "grid"):
        values[name] = tuple(values[name])
    return VAEConfig(**values)


def _one_hot(index: Tensor, count: int) -> Tensor:
    """Return one-hot rows, zeros where the index is -1."""
    return functional.one_hot(index + 1, count + 1)[..., 1:].float()


class _Decorations:
    """Batches of an epoch: the real sites, and fresh random decorations of their geometries with the teacher's labels.

    The decorations keep the curves and the filled slots of a real site (or of the ideal one of its class) and draw
    elements from a random composition, so that the two channels are independent of each other and every mixture of
    elements is seen.
    """

    def __init__(
        self,
        model: PGHVAE,
        real: Channels,
        energies: np.ndarray,
        filled: Occupations,
        ideal: tuple[Occupations, np.ndarray],
        teacher: EnergyModel,
        *,
        n_decorations: int,
        batch_size: int,
        real_share: float,
        seed: int,
    ) -> None:
        self.model, self.real, self.teacher, self.seed = model, real, teacher, seed
        self.energies = torch.as_tensor(energies, dtype=torch.float32, device=model.device)
        self.bases = [filled, ideal[0]]
        self.base_curves = [real.curves.cpu().numpy(), ideal[1]]
        self.n_decorations, self.batch_size = n_decorations, batch_size
        self.n_real = max(1, round(real_share * batch_size))
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, which determines the decorations."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.n_decorations / self.batch_size)

    def decorate(self, epoch: int) -> tuple[Channels, Tensor]:
        """Return the decorations of an epoch and their energies."""
        generator = numpy_generator(self.seed, "decorations", epoch)
        parts, energies = [], []
        for base, curves, count in zip(
            self.bases,
            self.base_curves,
            (self.n_decorations - self.n_decorations // 4, self.n_decorations // 4),
            strict=True,
        ):
            if not len(base):
                continue
            # Half of them even over the classes, so that rare ones are learned as well.
            groups = [np.flatnonzero(base.geometry == g) for g in np.unique(base.geometry)]
            rows = generator.integers(0, len(base), count)
            even = generator.random(count) < 0.5
            picked = generator.integers(0, len(groups), count)
            rows = np.where(even, [groups[g][generator.integers(len(groups[g]))] for g in picked], rows)
            filled = base[rows]
            kinds = len(base.elements)
            shares = generator.dirichlet(np.full(kinds, 2.0), count)
            draws = (
                generator.random((count, filled.table.shape[1], 1)) > shares.cumsum(1)[:, None, :-1]
            ).sum(-1)
            table = np.where(filled.table >= 0, draws, -1).astype(np.int16)
            decorated = replace(filled, table=table).canonical()
            parts.append(self.model._channels(decorated, curves[rows]))
            energies.append(self.teacher.predict_mean(decorated))
        channels = Channels(*(torch.cat(part) for part in zip(*parts, strict=True)))
        labels = torch.as_tensor(np.concatenate(energies), dtype=torch.float32, device=self.model.device)
        return channels, labels

    def __iter__(self) -> Iterator[dict[str, Any]]:
        channels, labels = self.decorate(self.epoch)
        generator = numpy_generator(self.seed, "order", self.epoch)
        order = torch.from_numpy(generator.permutation(len(labels)))
        noise = torch.Generator().manual_seed(derive_seed(self.seed, "noise", self.epoch))
        for rows in order.split(self.batch_size):
            some = torch.from_numpy(generator.integers(0, len(self.energies), self.n_real))
            yield {
                "channels": Channels(
                    *(torch.cat([a[rows], b[some]]) for a, b in zip(channels, self.real, strict=True))
                ),
                "energies": torch.cat([labels[rows], self.energies[some]]),
                "noise": (
                    torch.randn(
                        len(rows) + len(some), self.model.config.coordination_latent, generator=noise
                    ),
                    torch.randn(len(rows) + len(some), self.model.config.ligand_latent, generator=noise),
                ),
                "progress": self.epoch,
            }


def one_class_note(sites: Sequence[Site]) -> str | None:
    """Return what to know if all sites are of one class on one facet, else None."""
    found = sorted({(site.facet, site.site_class) for site in sites})
    if len(found) != 1:
        return None
    return (
        f"all sites are {found[0][1] or 'of one class'}: the coordination channel has nothing to learn from one class "
        "of sites; energies and designs rest on the ligand channel, the elements in the slots"
    )


def train_vae(
    sites: Sequence[Site],
    energies_ev: np.ndarray | None,
    teacher: EnergyModel,
    *,
    groups: Sequence[str] | None = None,
    epochs: int = 50,
    decorations_per_epoch: int | None = None,
    batch_size: int = 256,
    learning_rate: float = 2e-3,
    divergence_weight: float = 0.01,
    validation_share: float = 0.1,
    coordination_latent: int = 8,
    ligand_latent: int = 128,
    hidden: int = 384,
    seed: int = 0,
    device: str = "cpu",
    quiet: bool = True,
) -> tuple[PGHVAE, VAEReport]:
    """Train a PGH-VAE.

    Parameters
    ----------
    sites, energies_ev
        At least 20 sites with one adsorbate; energies (n,) in eV, by default the sites' own.
    teacher
        Labels the decorations. Fit it on the same sites and no others.
    groups
        Sites of one group stay on one side of the split; by default the `slab_id`.
    epochs, decorations_per_epoch, batch_size, learning_rate
        Each epoch draws so many fresh decorations; by default 8192, of one class of sites half as many, which brought
        the same errors.
    divergence_weight
        Of the Kullback-Leibler term (β). A uniformly random element costs as many nats to store as it saves, so the
        weight has to be well below 1.
    validation_share
        Share of the groups that are kept out of the gradient and choose the epoch.
    coordination_latent, ligand_latent, hidden
        Widths.
    seed
        Of everything random.
    device, quiet
        As on the command line.

    Returns
    -------
    PGHVAE
        In evaluation mode.
    VAEReport
        For the sites that were kept out. The teacher has seen them, which flatters the head: judge it by other sites.

    Raises
    ------
    InputError
        As `catalysis.energies.training_data.check_training_data`; and if the teacher uses relaxed geometry, which
        random decorations do not have.

    Notes
    -----
    Sites of one class train the ligand channel and the head; the coordination channel then has nothing to learn, see
    `one_class_note`.
    """
    energies = check_training_data(sites, energies_ev)
    if teacher.geometry != "ideal":
        raise InputError(
            "teacher: it uses relaxed geometry; expected one of ideal geometry to label decorations"
        )
    names = slab_groups(sites) if groups is None else list(groups)
    n_folds = max(2, min(round(1 / validation_share), len(set(names))))
    held_out = group_folds(names, n_folds, derive_seed(seed, "validation") % 2**32) == 0
    if held_out.all():  # one group only: nothing can be kept out without emptying the training
        held_out = np.zeros(len(sites), bool)
        held_out[:: n_folds * 5] = True
    if decorations_per_epoch is None:
        decorations_per_epoch = 8192 if one_class_note(sites) is None else 4096
    seed_everything(seed)
    filled = occupations(sites, teacher.elements)
    config = _configuration(filled, sites[0].adsorbate, coordination_latent, ligand_latent, hidden)
    model = PGHVAE(config).to(resolve_device(device))
    curves = coordination_curves(sites)
    train, test = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    model.curve_mean.copy_(torch.as_tensor(curves[train].mean(0), dtype=torch.float32))
    spread = np.sqrt(curves[train].var(0).mean(1)) + 0.05
    model.curve_scale.copy_(torch.as_tensor(spread[:, None], dtype=torch.float32))
    model.energy_mean.fill_(float(energies[train].mean()))
    model.energy_scale.fill_(float(energies[train].std()))
    every = model._channels(filled, curves)
    real = Channels(*(part[train] for part in every))
    kept = Channels(*(part[test] for part in every))
    batches = _Decorations(
        model,
        real,
        energies[train],
        filled[train],
        _ideal(filled, config),
        teacher,
        n_decorations=decorations_per_epoch,
        batch_size=batch_size,
        real_share=0.25,
        seed=seed,
    )
    fresh, fresh_energies = batches.decorate(-1)
    fresh = Channels(*(part[:512] for part in fresh))
    fresh_energies = fresh_energies[:512].cpu().numpy()

    def loss(network: nn.Module, batch: dict[str, Any]) -> dict[str, Tensor]:
        assert isinstance(network, PGHVAE)
        warm = min(1.0, (batch["progress"] + 1) / (0.2 * epochs))
        return _loss(network, batch["channels"], batch["energies"], batch["noise"], divergence_weight * warm)

    def validate(network: nn.Module) -> dict[str, float]:
        assert isinstance(network, PGHVAE)
        measured = _measure(network, kept, energies[test])
        drawn = _measure(network, fresh, fresh_energies)
        return {
            "mae_ev": measured.mae_ev,
            "decorated_mae_ev": drawn.mae_ev,
            "element_recovery": measured.element_recovery,
            "decorated_recovery": drawn.element_recovery,
            "betti_r2": measured.betti_r2,
            # Energies in units of 0.1 eV; the head is judged by kept-out sites and by fresh decorations.
            "score": 10 * (measured.mae_ev + drawn.mae_ev)
            + 2 * (1 - min(measured.element_recovery, drawn.element_recovery))
            # Curves that do not vary, as on one class of ideal sites, have nothing to be explained.
            + (1 - max(measured.betti_r2, 0.0) if np.isfinite(measured.betti_r2) else 0.0),
        }

    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=1e-5)
    scheduler = one_cycle(optimizer, learning_rate, epochs * len(batches), rise=0.1)
    history = fit(
        model,
        batches,
        loss,
        optimizer=optimizer,
        epochs=epochs,
        scheduler=scheduler,
        scheduler_steps="batch",
        validate=validate,
        monitor="score",
        clip_norm=5.0,
        precision="float32",
        description="PGH-VAE",
        quiet=quiet,
    )
    model.history = history
    return model, _measure(model, kept, energies[test])


def _configuration(
    filled: Occupations, adsorbate: str, coordination_latent: int, ligand_latent: int, hidden: int
) -> VAEConfig:
    classes: dict[str, Geometry] = {}
    columns: set[int] = set()
    for k in np.unique(filled.geometry):
        geometry = filled.geometries[k]
        columns.update(int(c) for c in geometry.columns)
        # The geometry with the most slots speaks for a class without template.
        if geometry.key not in classes or len(geometry.columns) > len(classes[geometry.key].columns):
            classes[geometry.key] = geometry
    order = sorted(columns)
    entries = tuple(
        ClassEntry(key, g.facet, g.site_class, g.variant, tuple(order.index(int(c)) for c in g.columns))
        for key, g in sorted(classes.items())
    )
    return VAEConfig(
        filled.elements,
        adsorbate,
        entries,
        tuple(order),
        tuple(float(t) for t in GRID),
        coordination_latent,
        ligand_latent,
        hidden,
    )


def _ideal(filled: Occupations, config: VAEConfig) -> tuple[Occupations, np.ndarray]:
    """Return the ideal site of each class that has a template, and its curves, shape (k, 3, g)."""
    sites = []
    for entry in config.classes:
        template = entry.template(config.adsorbate)
        if template is not None:
            sites.append(template.decorate([config.elements[0]] * len(template)))
    if not sites:
        return filled[np.zeros(0, int)], np.zeros((0, 3, len(config.grid)), int)
    return occupations(sites, config.elements), coordination_curves(sites, np.array(config.grid))


def _loss(
    model: PGHVAE,
    channels: Channels,
    energies: Tensor,
    noise: tuple[Tensor, Tensor],
    divergence_weight: float,
) -> dict[str, Tensor]:
    """Return the negative evidence lower bound (β-weighted), in nats per site, and its parts."""
    latent = model.encode(channels)
    coordination = draw_codes(latent.coordination, latent.coordination_log_variance, noise[0])
    ligand = draw_codes(latent.ligand, latent.ligand_log_variance, noise[1])
    decoded = model.decode(coordination, ligand)
    error = (decoded.curves - channels.curves) / model.curve_scale / _CURVE_NOISE
    curves = 0.5 * (error**2).flatten(1).mean(1)
    elements = functional.cross_entropy(
        decoded.element_logits.flatten(0, 1), channels.ligands.flatten(), ignore_index=-1, reduction="sum"
    ) / len(energies)
    classes = functional.cross_entropy(decoded.class_logits, channels.site_class, ignore_index=-1)
    target = (energies - model.energy_mean) / model.energy_scale
    at_mean = model.head(latent.coordination, latent.ligand) - target
    at_sample = model.head(coordination, ligand) - target
    # Absolute beyond one noise width: DFT energies have outliers.
    energy = functional.huber_loss(at_mean / _ENERGY_NOISE, torch.zeros_like(target), delta=3.0)
    energy = energy + 0.2 * functional.huber_loss(
        at_sample / _ENERGY_NOISE, torch.zeros_like(target), delta=3.0
    )
    divergence = mean_divergence(latent.coordination, latent.coordination_log_variance) + mean_divergence(
        latent.ligand, latent.ligand_log_variance
    )
    total = curves.mean() + elements + 5 * classes + energy + divergence_weight * divergence
    return {
        "loss": total,
        "curves": curves.mean(),
        "elements": elements,
        "classes": classes,
        "energy": energy,
        "divergence": divergence,
    }


def report(model: PGHVAE, sites: Sequence[Site], energies_ev: np.ndarray | None = None) -> VAEReport:
    """Return what a model does with sites; without energies, `mae_ev` is NaN."""
    return _measure(model, model.channels(sites), energies_ev)


@torch.no_grad()
def _measure(model: PGHVAE, channels: Channels, energies: np.ndarray | None) -> VAEReport:
    latent = model.encode(channels)
    decoded = model.decode(latent.coordination, latent.ligand)
    present = channels.ligands >= 0
    right = (decoded.element_logits.argmax(-1) == channels.ligands)[present]
    true = channels.curves.double()
    gap = ((decoded.curves.double() - true) ** 2).sum((0, 2))
    total = ((true - true.mean(0)) ** 2).sum((0, 2))
    by_dimension = torch.where(total > 0, 1 - gap / total, torch.nan).tolist()
    predicted = model.energy(latent.coordination, latent.ligand).double().cpu().numpy()
    variances = [part.var(0, unbiased=False) for part in (latent.coordination, latent.ligand)]
    divergences = [
        prior_divergence(latent.coordination, latent.coordination_log_variance).mean(0),
        prior_divergence(latent.ligand, latent.ligand_log_variance).mean(0),
    ]
    return VAEReport(
        n_sites=len(predicted),
        active_coordination=int((variances[0] > ACTIVE_VARIANCE).sum()),
        active_ligand=int((variances[1] > ACTIVE_VARIANCE).sum()),
        variance_coordination=tuple(variances[0].tolist()),
        variance_ligand=tuple(variances[1].tolist()),
        kl_coordination=tuple(divergences[0].tolist()),
        kl_ligand=tuple(divergences[1].tolist()),
        element_recovery=float(right.double().mean()),
        class_recovery=float((decoded.class_logits.argmax(1) == channels.site_class).double().mean()),
        betti_r2=float(1 - gap.sum() / total.sum()) if total.sum() > 0 else float("nan"),
        betti_r2_by_dimension=(by_dimension[0], by_dimension[1], by_dimension[2]),
        mae_ev=float("nan") if energies is None else float(np.abs(predicted - energies).mean()),
    )
