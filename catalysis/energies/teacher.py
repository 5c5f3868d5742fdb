"""The teacher: an ensemble of Gaussian processes of class and elements, with a calibrated uncertainty.

By default it looks at the class and at the element in each slot of its template only, never at relaxed positions,
because a design tool meets sites that nobody has relaxed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import safetensors
import safetensors.numpy
from scipy.optimize import nnls

from catalysis.energies.gaussian_process import CHUNK, AdditiveGaussianProcess, SlotEffects
from catalysis.energies.protocol import Prediction
from catalysis.energies.relaxed_geometry import relaxed_geometry
from catalysis.energies.training_data import check_training_data, group_folds, slab_groups
from catalysis.potentials.embeddings import embed, embedding_names
from catalysis.structure.occupations import Occupations, occupations
from catalysis.structure.sites import Site
from catalysis.structure.templates import Geometry
from interpretkit.errors import InputError
from interpretkit.runs.files import atomic_path

_EXACT_LIMIT = 3000  # sites; beyond, that many of them span the model (subset of regressors)
_SEARCH_LIMIT = 1000  # sites that determine the shares of the effects
_FEWEST_LEFT_OUT = 3  # classes or facets: of fewer, one left out leaves too few to tell how classes differ


class Teacher:
    """Ensemble of Bayesian linear models of class and elements, with a calibrated uncertainty.

    Each member is a Gaussian process whose covariance is a sum over the kinds of effects in `BLOCKS`; how much of
    the variance each explains is found by marginal likelihood, so that effects which the data do not support
    vanish. Effects of a slot are tied between symmetric slots of a class, and softly between similar slots of
    different classes and between elements near each other in the periodic table. The members differ in how
    finely they tell slots apart. The ensemble's variance is the members' mean variance plus the spread of their
    means, and is rescaled so that residuals of predictions for held-out groups, within the training sites, have
    the predicted size. Where several potentials describe the sites, each has members of its own; how much
    each counts is found by the same residuals.

    A class or element that training did not hold is predicted from those alike, with a wider uncertainty: the likeness
    of coordination says how much is left open, and where training holds three classes or facets, residuals of those
    left out in turn widen it further if they ask for it. Another adsorbate is refused.

    Parameters
    ----------
    slot_lengths : sequence of float
        In Å, one per member: slots closer than this have nearly the same effect.
    seed : int
        Of the folds that calibrate the uncertainty, and of the subsets taken of many sites.
    geometry : {"ideal", "relaxed"}
        `"ideal"`: class and elements only. `"relaxed"`: also `relaxed_geometry`, for sites that have been relaxed
        (with the same method as the training sites); such a model cannot judge ideal sites.
    embeddings : str or sequence of str
        Of `catalysis.potentials.embeddings.EMBEDDINGS`, one or several: what pretrained potentials know of the site at
        its given positions, besides `relaxed_geometry`. By default none; with one the geometry is `"relaxed"`.

    Notes
    -----
    Up to 3000 sites the posterior is exact; of more, 3000 span the solution to which all contribute (subset of
    regressors; Quiñonero-Candela & Rasmussen, J. Mach. Learn. Res. 6, 1939 (2005)). Beyond 1000 sites, so many
    chosen at random determine the shares of the effects.

    Betti curves were tried as one more kind of effect; on 919 relaxed *OH sites they left the error as it was, since
    class and elements by slot already tell what they tell.
    """

    def __init__(
        self,
        slot_lengths: Sequence[float] = (0.5, 1.0),
        seed: int = 0,
        geometry: Literal["ideal", "relaxed"] = "ideal",
        embeddings: str | Sequence[str] = (),
    ) -> None:
        if geometry not in ("ideal", "relaxed"):
            raise InputError(f"geometry: {geometry!r}; expected 'ideal' or 'relaxed'")
        self.embeddings = embedding_names(embeddings)
        if self.embeddings:
            geometry = "relaxed"
        self.slot_lengths = tuple(float(length) for length in slot_lengths)
        self.seed = seed
        self.geometry: Literal["ideal", "relaxed"] = geometry
        self.members: list[AdditiveGaussianProcess] = []
        self.weights = np.zeros(0)  # of the members

    def fit(
        self,
        sites: Sequence[Site],
        energies_ev: np.ndarray | None = None,
        groups: Sequence[str] | None = None,
    ) -> Self:
        """Train.

        Parameters
        ----------
        sites : sequence of Site
            At least 20, with one adsorbate.
        energies_ev : ndarray, optional
            Shape (n,); by default the sites' own.
        groups : sequence of str, optional
            Sites of one group are never on both sides of a split; by default the `slab_id`.

        Raises
        ------
        InputError
            As `check_training_data`.
        """
        energies = check_training_data(sites, energies_ev)
        names = slab_groups(sites) if groups is None else groups
        self.adsorbate = sites[0].adsorbate
        self._train(self.occupations(sites), energies, np.asarray(names, dtype=str))
        return self

    @property
    def elements(self) -> tuple[str, ...]:
        """The metals that it was trained on."""
        return self.data.elements

    def occupations(self, sites: Sequence[Site], jobs: int = 1) -> Occupations:
        """Return what the model looks at: elements by slot, and relaxed geometry and embeddings if it uses them.

        Parameters
        ----------
        sites : sequence of Site
        jobs : int
            Processes that describe sites; 0 for as many as there are cores.
        """
        data = occupations(sites)
        if self.geometry == "relaxed":
            data = replace(data, relaxed=relaxed_geometry(sites))
        return replace(data, embedded={name: embed(sites, name, jobs=jobs) for name in self.embeddings})

    def _train(self, data: Occupations, energies: np.ndarray, groups: np.ndarray) -> None:
        generator = np.random.default_rng(self.seed)
        self.data, self.energies, self.groups = data, energies, groups
        self.mean, self.std = float(energies.mean()), float(energies.std())
        y = (energies - self.mean) / self.std
        search = _subset(data, _SEARCH_LIMIT, generator)
        self.basis = _subset(data, _EXACT_LIMIT, generator)
        self.members = self._new_members()
        for member in self.members:
            member.fit(data, y, search, self.basis)
        self._of_left_out: dict[str, float] = {}
        self.weights = np.full(len(self.members), 1 / len(self.members))
        self.calibration = self._calibrate(data, y, groups)
        for member in self.members:
            member.condition(data, y, self.basis)

    def _new_members(self) -> list[AdditiveGaussianProcess]:
        # Potentials in members of their own, and the mean of these, err less than all of them in each member.
        return [
            AdditiveGaussianProcess(length, name)
            for name in self.embeddings or ("",)
            for length in self.slot_lengths
        ]

    @property
    def _blocks(self) -> list[str]:
        """The kinds of effects of all members, each once."""
        return list(dict.fromkeys(name for member in self.members for name in member.blocks))

    def _calibrate(self, data: Occupations, y: np.ndarray, groups: np.ndarray) -> float:
        """Return the factor on the standard deviation that held-out groups ask for; with it, weigh the potentials."""
        count = min(5, len(np.unique(groups)))
        if count < 2:
            return 1.0
        if len(y) > _EXACT_LIMIT:  # enough to know one number
            some = self.basis
            data, y, groups = data[some], y[some], groups[some]
        folds = group_folds(groups.tolist(), count, self.seed)
        means, variances = np.zeros((2, len(self.members), len(y)))
        for fold in range(count):
            train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            for k, member in enumerate(self.members):
                member.condition(data[train], y[train], np.arange(len(train)))
                means[k, test], variances[k, test] = member.predict(data[test])
        if len(self.embeddings) > 1:
            # Stacking (Wolpert, Neural Networks 5, 241 (1992)): what held-out groups are predicted best with.
            of_potential = means.reshape(len(self.embeddings), -1, len(y)).mean(1)
            shares = _shares_of_the_best_mixture(of_potential, y)
            self.weights = np.repeat(shares / len(self.slot_lengths), len(self.slot_lengths))
        mean, variance = self._mixture(means, variances)
        return float(np.sqrt(np.mean((y - mean) ** 2 / (variance + self._noise))))

    def calibration_of(self, geometry: Geometry) -> float:
        """Return the factor on the standard deviations of a geometry's sites.

        That which held-out groups of training sites ask for; for a class that training does not hold, the one that
        classes left out in turn ask for, and facets where its facet is new as well, if that is larger.
        """
        known = [self.data.geometries[k] for k in np.unique(self.data.geometry)]
        if geometry.site_class in {one.site_class for one in known}:
            return self.calibration
        facets = {one.facet for one in known}
        by_facet = geometry.facet not in facets and len(facets) >= _FEWEST_LEFT_OUT
        return max(self.calibration, self._left_out("facet" if by_facet else "site_class"))

    def _left_out(self, by: Literal["facet", "site_class"]) -> float:
        """Return residual over deviation, root mean square, of classes or facets left out; 0 if they are too few."""
        if by not in self._of_left_out:
            data = self.data[self.basis]
            groups = np.array([getattr(geometry, by) for geometry in data.geometries])[data.geometry]
            found = 0.0
            if len(np.unique(groups)) >= _FEWEST_LEFT_OUT:
                y = (self.energies[self.basis] - self.mean) / self.std
                means, variances = zip(*(member.left_out(y, groups) for member in self.members), strict=True)
                mean, variance = self._mixture(np.array(means), np.array(variances))
                found = float(np.sqrt(np.mean((y - mean) ** 2 / variance)))
            self._of_left_out[by] = found
        return self._of_left_out[by]

    def _combined(self, data: Occupations) -> tuple[np.ndarray, np.ndarray]:
        means, variances = zip(*(member.predict(data) for member in self.members), strict=True)
        mean, variance = self._mixture(np.array(means), np.array(variances))
        return mean, np.sqrt(variance + self._noise)

    def _mixture(self, means: np.ndarray, variances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and variance of the members' mixture, from (members, n) to (n,)."""
        mean = self.weights @ means
        return mean, self.weights @ (variances + (means - mean) ** 2)

    @property
    def _noise(self) -> float:
        return float(self.weights @ [member.noise for member in self.members])

    def predict(self, sites: Sequence[Site]) -> Prediction:
        """Return mean and standard deviation for each site, in eV.

        Raises
        ------
        InputError
            If the model is untrained, or a site holds another adsorbate than those that it was trained on.
        """
        if not self.members:
            raise InputError("energy model: not trained; call fit first")
        for site in sites:
            if site.adsorbate != self.adsorbate:
                raise InputError(
                    f"{site.site_id or 'site'}: adsorbate {site.adsorbate}; the energy model knows {self.adsorbate}"
                )
        if not len(sites):
            return Prediction(np.zeros(0), np.zeros(0))
        return self.predict_occupations(self.occupations(sites))

    def predict_occupations(self, data: Occupations) -> Prediction:
        """Return mean and standard deviation in eV for occupations of templates.

        Raises
        ------
        InputError
            If the model uses relaxed geometry and `data` holds none.
        """
        self._require_geometry(data)
        parts = [self._combined(data[start : start + CHUNK]) for start in range(0, len(data), CHUNK)]
        mean, std = (np.concatenate(part) for part in zip(*parts, strict=True))
        factors = np.zeros(len(data.geometries))
        for k in np.unique(data.geometry):
            factors[k] = self.calibration_of(data.geometries[k])
        return Prediction(self.mean + self.std * mean, self.std * factors[data.geometry] * std)

    def predict_mean(self, data: Occupations) -> np.ndarray:
        """Return the means alone, in eV, shape (n,): for ideal geometry a hundred times as fast."""
        self._require_geometry(data)
        if self.geometry == "relaxed":
            return self.predict_occupations(data).mean_ev
        mean = np.zeros(len(data))
        for rows, geometry in data.by_geometry():
            effect = self.slot_effects(geometry, data.elements)
            for part in np.array_split(rows, len(rows) // CHUNK + 1):
                mean[part] = effect(data.table[part[:, None], geometry.columns[None]], geometry)
        return self.mean + self.std * mean

    def slot_effects(self, geometry: Geometry, elements: Sequence[str]) -> SlotEffects:
        """Return the mean of the members for one geometry as tables over elements, in standardised units."""
        effects = [member.effects(geometry, elements) for member in self.members]
        return SlotEffects(*(np.mean(np.array(part), axis=0) for part in zip(*effects, strict=True)))

    def _require_geometry(self, data: Occupations) -> None:
        if self.geometry == "relaxed" and data.relaxed is None:
            raise InputError("energy model: it uses relaxed geometry; expected sites, or Occupations.relaxed")
        if self.embeddings and not data.embedded:
            raise InputError("energy model: it uses embeddings; expected sites, or Occupations.embedded")

    @property
    def shares(self) -> dict[str, float]:
        """Prior variance of each kind of effect, and of the noise, in eV²: the mean of the members, as they count."""
        found: dict[str, float] = {}
        for member, weight in zip(self.members, self.weights, strict=True):
            for name, value in zip((*member.blocks, "noise"), (*member.prior, member.noise), strict=True):
                found[name] = found.get(name, 0.0) + float(weight * value) * self.std**2
        return {**found, "noise": found.pop("noise")}  # the last, as whatever no effect explains

    def save(self, path: str | Path) -> None:
        """Write the model to one safetensors file: the occupations that span it and what was learned from them.

        About 120 kB for a thousand sites; beyond 3000 sites, some 70 MB.
        """
        if not self.members:
            raise InputError("energy model: not trained; call fit first")
        data = self.data[self.basis]
        arrays: dict[str, np.ndarray] = {
            "table": data.table.astype(np.int8),
            "geometry": data.geometry.astype(np.int32),
            "aligned": data.aligned.astype(np.uint8),
            "energies_ev": self.energies[self.basis],
        }
        if data.relaxed is not None:
            arrays["relaxed"] = data.relaxed
        for name, rows in data.embedded.items():
            arrays[f"embedded.{name}"] = rows.astype(np.float32)
        for k, geometry in enumerate(self.data.geometries):
            for name, (kept_as, _) in _GEOMETRY_ARRAYS.items():
                arrays[f"geometry.{k}.{name}"] = getattr(geometry, name).astype(kept_as)
        for k, member in enumerate(self.members):
            arrays[f"member.{k}.prior"] = member.prior
            arrays[f"member.{k}.scales"] = member.scales
            if member.left is not None:
                arrays[f"member.{k}.solution"], arrays[f"member.{k}.left"] = member.solution, member.left
        config = {
            "slot_lengths": self.slot_lengths,
            "seed": self.seed,
            "geometry": self.geometry,
            "embeddings": self.embeddings,
            "adsorbate": self.adsorbate,
            "elements": self.data.elements,
            "geometries": [(g.key, g.facet, g.site_class, g.variant) for g in self.data.geometries],
            "blocks": self._blocks,
            "noise": [member.noise for member in self.members],
            "mean": self.mean,
            "std": self.std,
            "calibration": self.calibration,
            "weights": self.weights.tolist(),
        }
        metadata = {"format": _FORMAT, "config": json.dumps(config)}
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        with atomic_path(path) as hidden:
            safetensors.numpy.save_file(arrays, str(hidden), metadata)

    @classmethod
    def load(cls, path: str | Path) -> Teacher:
        """Read a model that `save` wrote.

        Raises
        ------
        InputError
            If the file is missing, damaged, or something else.
        """
        arrays, config = _read(Path(path))
        model = cls(config["slot_lengths"], config["seed"], config["geometry"], config.get("embeddings", ()))
        geometries = tuple(
            Geometry(
                key=key,
                **{
                    n: arrays[f"geometry.{k}.{n}"].astype(used_as)
                    for n, (_, used_as) in _GEOMETRY_ARRAYS.items()
                },
                facet=facet,
                site_class=site_class,
                variant=variant,
            )
            for k, (key, facet, site_class, variant) in enumerate(config["geometries"])
        )
        if any(f"embedded.{name}" not in arrays for name in model.embeddings):
            raise InputError(f"{path}: knows other kinds of effects; expected a teacher trained anew")
        model.data = Occupations(
            geometries,
            arrays["geometry"].astype(int),
            tuple(config["elements"]),
            arrays["table"].astype(np.int16),
            arrays["aligned"].astype(bool),
            arrays.get("relaxed"),
            {name: arrays[f"embedded.{name}"] for name in model.embeddings},
        )
        model.energies = arrays["energies_ev"]
        model.basis = np.arange(len(model.energies))
        model.adsorbate = config["adsorbate"]
        model.mean, model.std, model.calibration = config["mean"], config["std"], config["calibration"]
        model._of_left_out = {}
        y = (model.energies - model.mean) / model.std
        model.members = model._new_members()
        alike = [1 / len(model.members)] * len(model.members)
        model.weights = np.array(config.get("weights", alike))
        for member in model.members:
            member.learn_space(model.data)
        if config.get("blocks") != model._blocks:
            raise InputError(f"{path}: knows other kinds of effects; expected a teacher trained anew")
        for k, (member, noise) in enumerate(zip(model.members, config["noise"], strict=True)):
            member.prior, member.scales = arrays[f"member.{k}.prior"], arrays[f"member.{k}.scales"]
            member.noise = noise
            if f"member.{k}.left" in arrays:
                member.restore(model.data, arrays[f"member.{k}.solution"], arrays[f"member.{k}.left"])
            else:
                member.condition(model.data, y, model.basis)
        return model


def _shares_of_the_best_mixture(means: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return shares of predictions (k, n), none negative and one in all, whose mixture errs least in squares, (k,)."""
    # The sum is asked for as one more residual, so heavy that it is kept.
    heavy = 1e3 * np.sqrt(len(y))
    shares = nnls(np.vstack([means.T, np.full(len(means), heavy)]), np.append(y, heavy))[0]
    return shares / shares.sum()


_FORMAT = "interpretkit-teacher"

# How the arrays of a geometry are kept in a file, and how they are used.
_GEOMETRY_ARRAYS: dict[str, tuple[type, type]] = {
    "columns": (np.int32, int), "orbits": (np.int32, int), "zones": (np.int32, int), "descriptors": (float, float),
    "touching": (np.uint8, bool), "permutations": (np.int16, int),
}  # fmt: skip


def _read(path: Path) -> tuple[dict[str, np.ndarray], Mapping[str, Any]]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a trained teacher (.safetensors)")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected a trained teacher") from error
    if metadata.get("format") != _FORMAT:
        raise InputError(f"{path}: not a teacher; expected 'format': '{_FORMAT}' in its header")
    return arrays, json.loads(metadata["config"])


def _subset(data: Occupations, count: int, generator: np.random.Generator) -> np.ndarray:
    """Return up to `count` sites at random, ascending, among them up to ten of every geometry."""
    order = generator.permutation(len(data))
    if len(data) <= count:
        return np.sort(order)
    by_geometry = np.argsort(data.geometry[order], kind="stable")
    sizes = np.unique(data.geometry[order], return_counts=True)[1]
    rank = np.empty(len(order), int)
    rank[by_geometry] = np.concatenate([np.arange(size) for size in sizes])
    return np.sort(order[np.argsort(np.maximum(rank, 10), kind="stable")[:count]])
