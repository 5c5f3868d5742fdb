"""A trained model as it is kept in a folder: teacher, PGH-VAE, the sites they learned from, and how well they do."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from catalysis.energies.teacher import Teacher
from catalysis.energies.training_data import check_training_data, group_folds, slab_groups
from catalysis.fingerprints import coordination_curves
from catalysis.models.measurement import measure, vae_numbers
from catalysis.models.staying import StayingClassifier, area_under_curve
from catalysis.structure.occupations import Occupations, filled, joined
from catalysis.structure.sites import Site
from catalysis.vae.channels import Channels
from catalysis.vae.network import PGHVAE, Latent
from catalysis.vae.training import one_class_note
from interpretkit.errors import InputError
from interpretkit.runs.folder import Run, load_arrays
from interpretkit.training.device import resolve_device
from interpretkit.training.distributed import process_group
from interpretkit.variational import Objective

SHIPPED = Path(__file__).parents[1] / "data" / "model"
"""The model that ships with the package, trained on the bundled data."""

_TEACHER, _VAE, _SITES, _NUMBERS = "teacher.safetensors", "vae.safetensors", "sites.npz", "numbers.json"
_STAYING = "staying.safetensors"
_SAME_PLACE = 0.05  # Å: a slot is where it was when the model was trained
_FEWEST_LOST = 20  # below, too little is known of what makes an adsorbate leave


@dataclass(frozen=True, eq=False)
class SiteTable:
    """The sites that a model learned from, as plain arrays.

    Attributes
    ----------
    site_id, slab_id, site_class, facet, contact_elements : ndarray
        Text, (n,) each.
    energy_ev : ndarray
        Known energies, (n,).
    held_out : ndarray
        Which sites neither the VAE nor the measured teacher has seen, (n,).
    teacher_ev, teacher_std_ev, vae_ev, baseline_ev : ndarray
        Predictions for the held-out sites, NaN for the others, (n,) each. The teacher's and the baseline's are by
        models fitted without the held-out slabs.
    curves, ligands, class_index : ndarray
        What the VAE is given: Betti curves (n, 3, g), element by slot (n, slots), class (n,).
    """

    site_id: np.ndarray
    slab_id: np.ndarray
    site_class: np.ndarray
    facet: np.ndarray
    contact_elements: np.ndarray
    energy_ev: np.ndarray
    held_out: np.ndarray
    teacher_ev: np.ndarray
    teacher_std_ev: np.ndarray
    vae_ev: np.ndarray
    baseline_ev: np.ndarray
    curves: np.ndarray
    ligands: np.ndarray
    class_index: np.ndarray

    def __len__(self) -> int:
        """Return the number of sites."""
        return len(self.site_id)


@dataclass(frozen=True, eq=False)
class SiteModel:
    """Teacher, VAE, and what they learned from.

    Attributes
    ----------
    teacher : Teacher
        Fitted on every site: it ranks designs.
    vae : PGHVAE
        Trained without the held-out slabs: it proposes designs.
    sites : SiteTable
        The data.
    staying : StayingClassifier or None
        Tells whether the adsorbate stays on such a site; None where nothing was known of sites that it left.
    numbers : dict of str to Any
        Measured on the held-out slabs: `mae_ev`, `vae_mae_ev`, `baseline_mae_ev`, `rmse_ev`, `r2`, `n_train`,
        `n_test`, `teacher_rms_z` (residual over predicted deviation), `active_coordination`, `active_ligand`,
        `element_recovery`, `class_recovery`, `betti_r2`; `staying_auc`, the area under the curve of `staying`, if there
        is one; `warnings`, such as that all sites are of one class.
    """

    teacher: Teacher
    vae: PGHVAE
    sites: SiteTable
    numbers: dict[str, Any]
    staying: StayingClassifier | None = None

    def stays(self, data: Occupations) -> np.ndarray:
        """Return the probability that the adsorbate stays on each site, (n,); ones if nothing is known of it."""
        return np.ones(len(data)) if self.staying is None else self.staying.predict_probability(data)

    def occupations(self) -> Occupations:
        """Return the sites of the data as occupied templates, class by class; what has no template is left out."""
        config = self.vae.config
        none = np.zeros(0, int)
        parts = [filled([], none, config.elements, none)]
        for k, template in enumerate(config.templates):
            if template is not None:
                rows = np.flatnonzero(self.sites.class_index == k)
                contents = self.sites.ligands[np.ix_(rows, np.array(config.classes[k].slots))]
                contents = contents[(contents >= 0).all(1)]
                which = np.zeros(len(contents), int)
                parts.append(filled([template.geometry], which, config.elements, contents.ravel()))
        return joined(parts)

    @property
    def adsorbate(self) -> str:
        """The adsorbate that the energies are of."""
        return self.vae.config.adsorbate

    @torch.no_grad()
    def latents(self) -> Latent:
        """Return the posterior of every site of the data."""
        device = self.vae.device
        return self.vae.encode(
            Channels(
                torch.as_tensor(self.sites.curves, dtype=torch.float32, device=device),
                torch.as_tensor(self.sites.class_index, dtype=torch.long, device=device),
                torch.as_tensor(self.sites.ligands, dtype=torch.long, device=device),
            )
        )

    def save(self, run: Run) -> None:
        """Write the model into a run's folder."""
        self.teacher.save(run.path(_TEACHER))
        self.vae.save(run.path(_VAE), half=True)
        run.save_arrays(_SITES, **self.sites.__dict__, **_slot_positions(self.vae))
        run.save_json(_NUMBERS, self.numbers)
        if self.staying is not None:
            self.staying.save(run.path(_STAYING))

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> SiteModel:
        """Read a model from a folder that `interpretkit catalyst train` wrote.

        Raises
        ------
        InputError
            If the folder, or a file in it, is missing, damaged or something else.
        """
        path = Path(folder)
        if not path.is_dir():
            raise InputError(
                f"model {path}: no such folder; expected what `interpretkit catalyst train` wrote"
            )
        for name in (_TEACHER, _VAE, _SITES, _NUMBERS):
            if not (path / name).is_file():
                raise InputError(f"model {path}: holds no {name}; expected what `catalyst train` wrote")
        arrays = load_arrays(path / _SITES)
        missing = set(SiteTable.__dataclass_fields__) - set(arrays)
        if missing:
            raise InputError(f"{path / _SITES}: lacks {', '.join(sorted(missing))}")
        try:
            numbers = json.loads((path / _NUMBERS).read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path / _NUMBERS}: not JSON ({error})") from None
        vae = PGHVAE.load(path / _VAE, device)
        _check_slots(vae, arrays, path)
        return cls(
            Teacher.load(path / _TEACHER),
            vae,
            SiteTable(**{name: arrays[name] for name in SiteTable.__dataclass_fields__}),
            numbers,
            StayingClassifier.load(path / _STAYING) if (path / _STAYING).is_file() else None,
        )


def _slot_positions(vae: PGHVAE) -> dict[str, np.ndarray]:
    """Return where the slots of a model's classes lie (Å), as arrays to keep: a slot's number alone says nothing."""
    points = [
        np.zeros((0, 3)) if template is None else template.positions for template in vae.config.templates
    ]
    return {
        "slot_positions": np.concatenate(points).astype(np.float32),
        "slot_offsets": np.cumsum([0, *map(len, points)]),
    }


def _check_slots(vae: PGHVAE, arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Refuse a model whose slots are numbered otherwise than those of the templates that sites are matched to."""
    if not {"slot_positions", "slot_offsets"} <= set(arrays):
        raise InputError(
            f"{path / _SITES}: does not say where the model's slots lie; expected a model trained anew"
        )
    offsets = arrays["slot_offsets"].tolist()
    for k, (entry, template) in enumerate(zip(vae.config.classes, vae.config.templates, strict=True)):
        kept = arrays["slot_positions"][offsets[k] : offsets[k + 1]]
        present = np.zeros((0, 3)) if template is None else template.positions
        if kept.shape != present.shape or np.any(np.abs(kept - present) > _SAME_PLACE):
            raise InputError(
                f"model {path}: the slots of {entry.key} are numbered otherwise here; expected a model trained anew"
            )


def train_model(
    sites: Sequence[Site],
    lost: Sequence[Site] = (),
    *,
    held_out_share: float = 0.2,
    seed: int = 0,
    device: str = "cpu",
    objective: Objective | None = None,
    quick: bool = False,
    quiet: bool = False,
) -> SiteModel:
    """Train teacher and VAE, and measure both on slabs that neither has seen.

    Started by torchrun, the processes train the VAE together, each with its share of every batch on a device of its
    own; all of them return the model.

    Parameters
    ----------
    sites : sequence of Site
        With energies; at least 20 and from at least two slabs.
    lost : sequence of Site
        Sites that the adsorbate left when it was relaxed, if known: designs then avoid their like.
    held_out_share : float
        Share of the sites, in whole slabs, to measure on.
    seed : int
        Of the split and the training.
    device : str
        For the VAE.
    objective : Objective, optional
        Of the VAE, see `catalysis.vae.training.train_vae`.
    quick : bool
        Train the VAE for a few short epochs, to see that everything runs.
    quiet : bool
        No progress bar.

    Raises
    ------
    InputError
        If there are too few sites or slabs, an energy is missing or not finite, an element occurs in one slab only, or
        the lost sites hold another adsorbate; before anything is trained.
    """
    energies = check_training_data(sites, None)
    groups = slab_groups(sites)
    if len(set(groups)) < 2:
        raise InputError(f"all {len(sites)} sites have slab_id {groups[0]!r}; expected at least two slabs")
    folds = max(2, min(round(1 / held_out_share), len(set(groups))))
    held_out = group_folds(groups, folds, seed) == 0
    train, test = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    learned, unseen = [sites[int(i)] for i in train], [sites[int(i)] for i in test]
    check_training_data(learned, None)
    absent = sorted(
        {s for site in unseen for s in site.symbols} - {s for site in learned for s in site.symbols}
    )
    if absent:
        raise InputError(f"{absent[0]} occurs in one slab only; expected every element in several slabs")
    others = {site.adsorbate for site in lost} - {sites[0].adsorbate}
    if others:
        raise InputError(f"lost: sites with {min(others)}; expected {sites[0].adsorbate}, as in the data")
    if note := one_class_note(sites):
        warnings.warn(note, stacklevel=2)
    with process_group(resolve_device(device)) as (_, where):  # torchrun's, if it started several
        predictions, found, vae = measure(
            learned, unseen, seed=seed, objective=objective, quick=quick, device=str(where), quiet=quiet
        )
    numbers = {
        **predictions.numbers,
        "n_train": len(train),
        **vae_numbers([found]),
        "seed": seed,
        "warnings": [note] if note else [],
    }
    channels = vae.channels(sites)

    def spread(values: np.ndarray) -> np.ndarray:
        column = np.full(len(sites), np.nan)
        column[test] = values
        return column

    table = SiteTable(
        site_id=np.array([site.site_id for site in sites]),
        slab_id=np.array(groups),
        site_class=np.array([site.site_class for site in sites]),
        facet=np.array([site.facet for site in sites]),
        contact_elements=np.array([site.contact_elements for site in sites]),
        energy_ev=energies,
        held_out=held_out,
        teacher_ev=spread(predictions.teacher_ev),
        teacher_std_ev=spread(predictions.teacher_std_ev),
        vae_ev=spread(predictions.vae_ev),
        baseline_ev=spread(predictions.baseline_ev),
        curves=coordination_curves(sites, np.array(vae.config.grid)).astype(np.uint8),
        ligands=channels.ligands.cpu().numpy().astype(np.int8),
        class_index=channels.site_class.cpu().numpy().astype(np.int16),
    )
    staying = None
    if len(lost) >= _FEWEST_LOST:
        both, stayed = [*sites, *lost], np.arange(len(sites) + len(lost)) < len(sites)
        unseen_slabs = {groups[i] for i in test}
        of_unseen = np.array([site.slab_id in unseen_slabs for site in both])
        numbers["staying_auc"] = area_under_curve(both, stayed, ~of_unseen, of_unseen, seed)
        staying = StayingClassifier(seed).fit(both, stayed)
    return SiteModel(Teacher(seed=seed).fit(sites), vae, table, numbers, staying)
