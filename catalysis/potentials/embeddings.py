"""What a pretrained potential knows of a site: its vectors and energies of atoms, gathered into one row per site.

A universal potential describes every atom by a vector, learned from many more calculations than any set of sites
holds. The vectors of the adsorbate's atoms and of the contacts, with the adsorbate and without it, are a channel of
their own for energy models, besides class and elements.
"""

# Nothing heavy is imported here, for names are checked before anything is loaded.

from __future__ import annotations

import contextlib
import hashlib
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from interpretkit.errors import InputError
from interpretkit.runs.cache import RowCache, cache_folder
from interpretkit.runs.environment import install_command, is_installed
from interpretkit.runs.progress import progress

if TYPE_CHECKING:
    import numpy as np
    import torch
    from ase import Atoms

    from catalysis.structure.sites import Site

VECTOR_PARTS = (
    "binding", "rest", "contacts", "contacts_spread", "bare", "bare_spread", "change", "change_spread",
)  # fmt: skip
"""The parts of a row that are vectors of the potential."""

ENERGY_PARTS = (
    "binding", "rest", "contacts", "contacts_spread", "common", "shell", "second", "total", "bare",
)  # fmt: skip
"""Its last numbers, in eV."""

CHUNK = 32
"""So many sites are computed and kept at a time."""

_VACUUM = 14.0  # Å between images where nothing repeats: beyond the reach of every potential of the table
_SAME_PLACE = 1e-3  # Å: a metal of the site is where the structure has it


class AtomicDescription(NamedTuple):
    """What a potential says of the atoms of a structure.

    Attributes
    ----------
    vectors : ndarray
        Of each atom, (n, width).
    energies_ev : ndarray
        The part of the energy that it gives each atom, (n,).
    """

    vectors: np.ndarray
    energies_ev: np.ndarray


@dataclass(frozen=True)
class Embedding:
    """A potential that describes atoms by vectors.

    Attributes
    ----------
    make : callable
        From a device, such as ``"cpu"``, to what describes the atoms of a structure, in their order. Nothing may
        depend on how the structure is turned, shifted or numbered.
    layers : mapping
        What an atom's vector is made of, by name: how many numbers, in their order. Models weigh each by itself.
    source : str
        Which potential, for people.
    version : callable
        What tells its weights from those of others.
    seconds : float
        That a site takes on one core, about.
    package, extra : str
        The module that it needs, and the extra of this project that brings it.
    """

    make: Callable[[str], Callable[[Atoms], AtomicDescription]]
    layers: Mapping[str, int]
    source: str
    version: Callable[[], str]
    seconds: float
    package: str = ""
    extra: str = ""

    @property
    def blocks(self) -> dict[str, slice]:
        """The columns of a row by what they tell: each part of `VECTOR_PARTS` by layer, and the energies."""
        found, start = {}, 0
        for part in VECTOR_PARTS:
            for layer, width in self.layers.items():
                found[f"{part}_{layer}"] = slice(start, start + width)
                start += width
        return {**found, "energies": slice(start, start + len(ENERGY_PARTS))}

    @property
    def width(self) -> int:
        """Length of a row."""
        return self.blocks["energies"].stop


def _chgnet(device: str) -> Callable[[Atoms], AtomicDescription]:
    import torch
    from chgnet.model.model import CHGNet
    from pymatgen.core import Lattice, Structure

    with contextlib.redirect_stdout(io.StringIO()):
        model = CHGNet.load(model_name="r2scan", use_device=device, verbose=False)
    model.graph_converter.set_isolated_atom_response("ignore")
    model.eval()

    def describe(atoms: Atoms) -> AtomicDescription:
        structure = Structure(
            Lattice(atoms.cell.array),
            atoms.get_chemical_symbols(),
            atoms.positions,
            coords_are_cartesian=True,
        )
        with torch.no_grad():
            graph = model.graph_converter(structure).to(device)
            found = model([graph], task="e", return_site_energies=True, return_atom_feas=True)
        return AtomicDescription(
            found["atom_fea"][0].cpu().numpy(), found["site_energies"][0].cpu().numpy().ravel()
        )

    return describe


_CHANNELS = 128  # of SevenNet-l3i5: numbers of an atom in each layer, and vectors and tensors beside them


def _sevennet(device: str) -> Callable[[Atoms], AtomicDescription]:
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No tensor product accelerator")
        from sevenn.atom_graph_data import AtomGraphData
        from sevenn.calculator import SevenNetCalculator
        from sevenn.train.dataload import unlabeled_atoms_to_graph

        calculator: Any = SevenNetCalculator("7net-l3i5", device=device)
    model = calculator.model.eval()
    model.delete_module_by_key("force_output")  # it needs gradients; energies do without
    model.key_grad = None
    found: dict[str, torch.Tensor] = {}
    for name, step in model.named_children():
        if name.endswith("_equivariant_gate"):
            layer = int(name.partition("_")[0]) + 1

            def keep(step: Any, given: Any, data: Any, layer: int = layer) -> None:
                found.update(_invariants(data["x"], step.gate.irreps_out, layer))

            step.register_forward_hook(keep)

    def describe(atoms: Atoms) -> AtomicDescription:
        graph = AtomGraphData.from_numpy_dict(unlabeled_atoms_to_graph(atoms, calculator.cutoff))
        with torch.no_grad():
            data = model(graph.to(device).to_dict())
        vectors = torch.cat([found[name] for name in EMBEDDINGS["sevennet"].layers], dim=1)
        return AtomicDescription(vectors.cpu().numpy(), data["atomic_energy"].cpu().numpy().ravel())

    return describe


def _invariants(features: torch.Tensor, irreps: Any, layer: int) -> dict[str, torch.Tensor]:
    """Return what of equivariant features (n, d) does not turn with the structure: scalars, and lengths of the rest."""
    import torch

    scalars, lengths, start = [], [], 0
    for count, irrep in irreps:
        part = features[:, start : start + count * irrep.dim]
        start += count * irrep.dim
        if irrep.l == 0:
            scalars.append(part)
        else:
            lengths.append(part.reshape(len(part), count, irrep.dim).norm(dim=2))
    found = {f"scalars{layer}": torch.cat(scalars, dim=1)}
    return {**found, f"lengths{layer}": torch.cat(lengths, dim=1)} if lengths else found


EMBEDDINGS: Mapping[str, Embedding] = {
    "chgnet": Embedding(
        _chgnet,
        {"last": 64},
        "CHGNet, model r2scan (pretrained universal potential)",
        lambda: f"chgnet {metadata.version('chgnet')} r2scan",
        0.15,
        "chgnet",
        "mlip",
    ),
    # Which layers was chosen on folds inside the training part: the last ones serve its own energies.
    "sevennet": Embedding(
        _sevennet,
        dict.fromkeys(("scalars2", "scalars3", "scalars4", "lengths3", "lengths4"), _CHANNELS),
        "SevenNet-l3i5 (pretrained universal potential)",
        lambda: f"sevenn {metadata.version('sevenn')} l3i5",
        0.6,
        "sevenn",
        "mlip",
    ),
}


def embedding_names(given: str | Sequence[str]) -> tuple[str, ...]:
    """Return names of embeddings, given one by one or in one text with commas, in the order of `EMBEDDINGS`.

    Raises
    ------
    InputError
        As `get_embedding`, and if one is named twice.
    """
    names = [name.strip() for name in given.split(",")] if isinstance(given, str) and given else list(given)
    for name in names:
        get_embedding(name)
        if names.count(name) > 1:
            raise InputError(f"embeddings: {name!r} is named twice; expected each once")
    return tuple(name for name in EMBEDDINGS if name in names)


def get_embedding(name: str) -> Embedding:
    """Return an embedding by its name, importing nothing.

    Raises
    ------
    InputError
        If there is none of that name, or its package is not installed.
    """
    if name not in EMBEDDINGS:
        raise InputError(f"embeddings: {name!r}; expected one of {', '.join(EMBEDDINGS)}")
    found = EMBEDDINGS[name]
    if found.package and not is_installed(found.package):
        cure = f"run, in the checkout, {install_command(found.extra)}" if found.extra else "install it"
        raise InputError(f"embeddings: {found.package} is not installed; {cure}")
    return found


def embed(
    sites: Sequence[Site],
    name: str = "chgnet",
    *,
    device: str = "cpu",
    jobs: int = 1,
    folder: Path | str | None = None,
    quiet: bool = True,
) -> np.ndarray:
    """Return what a potential knows of each site at its given positions, shape (n, width), float32.

    A site that was cut from a periodic structure is described within it, any other as a cluster with vacuum around it.
    What was described before, anywhere, is read from the folder; what is described now is kept there.

    Parameters
    ----------
    sites : sequence of Site
        Of any adsorbate.
    name : str
        Of `EMBEDDINGS`.
    device : str
        Such as `"cpu"`.
    jobs : int
        Processes; 0 for as many as there are cores.
    folder : path, optional
        By default one within `interpretkit.runs.cache.cache_folder()`.
    quiet : bool
        No progress bar.

    Returns
    -------
    ndarray
        What `Embedding.blocks` names, (n, width): vectors of the binding atom, of the adsorbate's other atoms
        (mean; zeros without any), of the contacts (mean, and spread over them), of the contacts without the adsorbate
        (the same), of the change that the adsorbate makes (the same); and energies of atoms in eV, `ENERGY_PARTS`: of
        the binding atom, of the others; the change of the contacts' (sum, spread), of the metals' in each further zone
        (sums), of all atoms together; and the contacts' without adsorbate (sum). Sums and means, so that the order of
        atoms does not count.

    Raises
    ------
    InputError
        If there is no such embedding or its package is missing, or the folder cannot be written to.
    """
    import numpy as np

    embedding = get_embedding(name)
    if not len(sites):
        return np.zeros((0, embedding.width), np.float32)
    version = embedding.version()
    keys = [_content_key(site, version) for site in sites]
    store = RowCache(cache_folder() / "embeddings" / name if folder is None else folder)
    rows = store.read(keys)
    todo = {key: site for key, site in zip(keys, sites, strict=True) if key not in rows}
    chunks = [dict(list(todo.items())[start : start + CHUNK]) for start in range(0, len(todo), CHUNK)]
    with progress("Embedding", len(todo), quiet=quiet or not todo) as bar:
        for part in _described(chunks, name, device, jobs):
            store.write(part)
            rows.update(part)
            bar.advance(len(part))
    return np.stack([rows[key] for key in keys])


def cost_line(names: Sequence[str], count: int | None = None) -> str:
    """Return what describing sites takes, so many of them where that is known, in a line said before it begins."""
    used = [get_embedding(name) for name in names]
    seconds = sum(embedding.seconds for embedding in used)
    sites = "sites" if count is None else f"up to {count} sites"
    together = "" if count is None else f", {count * seconds / 60:.1f} minutes"
    return (
        f"{' and '.join(embedding.source for embedding in used)}: {sites} at about {seconds:g} s each on one core"
        f"{together}; what was described before is read from {cache_folder() / 'embeddings'}"
    )


def _described(
    chunks: Sequence[Mapping[str, Site]], name: str, device: str, jobs: int
) -> Any:  # an iterator over chunks of rows
    import joblib

    if jobs == 0:
        jobs = joblib.cpu_count() if device == "cpu" else 1
    if jobs > 1 and len(chunks) > 1:
        return joblib.Parallel(n_jobs=min(jobs, len(chunks)), return_as="generator_unordered")(
            joblib.delayed(_described_in_one_thread)(chunk, name, device) for chunk in chunks
        )
    return (_describe(chunk, name, device) for chunk in chunks)


def _described_in_one_thread(chunk: Mapping[str, Site], name: str, device: str) -> dict[str, np.ndarray]:
    from interpretkit.training.device import set_threads

    set_threads(1)
    return _describe(chunk, name, device)


def _describe(chunk: Mapping[str, Site], name: str, device: str) -> dict[str, np.ndarray]:
    describe = _made(name, device)
    return {key: gathered(site, describe) for key, site in chunk.items()}


@cache
def _made(name: str, device: str) -> Callable[[Atoms], AtomicDescription]:
    return EMBEDDINGS[name].make(device)


def gathered(site: Site, describe: Callable[[Atoms], AtomicDescription]) -> np.ndarray:
    """Return the row of one site, (width,), float32; see `embed`."""
    import numpy as np

    metals, index = _metals_around(site)
    bare = describe(_boxed(metals))
    whole = metals.copy()
    whole.extend(_adsorbate(site))
    full = describe(_boxed(whole))
    count = len(metals)
    contacts = index[: site.contacts]
    before, after = bare.vectors[contacts], full.vectors[contacts]
    adsorbed = full.vectors[count:]
    rest = adsorbed[1:].mean(0) if len(adsorbed) > 1 else np.zeros_like(adsorbed[0])
    change = full.energies_ev[:count] - bare.energies_ev
    # A metal that is in the site by several images counts once, in the zone that is nearest.
    zones = site.zones
    zone_of = np.full(count, -1)
    for zone in (3, 2, 1, 0):
        zone_of[index[zones == zone]] = zone
    energies = [
        full.energies_ev[count],
        full.energies_ev[count + 1 :].sum(),
        change[contacts].sum(),
        change[contacts].std(),
        *(change[zone_of == zone].sum() for zone in (1, 2, 3)),
        full.energies_ev.sum() - bare.energies_ev.sum(),
        bare.energies_ev[contacts].sum(),
    ]
    vectors = [adsorbed[0], rest]
    for values in (after, before, after - before):
        vectors += [values.mean(0), values.std(0)]
    return np.concatenate([*vectors, energies]).astype(np.float32)


def _metals_around(site: Site) -> tuple[Atoms, np.ndarray]:
    """Return the metals to describe, and the place among them of each metal of the site, (n,)."""
    import numpy as np
    from ase import Atoms

    if site.host is not None and len(site.host_indices) == len(site):
        host, chosen = site.host, np.array(site.host_indices)
        same = [host.symbols[k] for k in chosen.tolist()] == list(site.symbols)
        if same and _gaps(host, host.positions[chosen] - site.positions).max() < _SAME_PLACE:
            is_metal = _is_metal(host)
            kept = np.flatnonzero(is_metal)
            metals = Atoms(host.numbers[kept], positions=host.positions[kept], cell=host.cell, pbc=host.pbc)
            return metals, np.searchsorted(kept, chosen)
    return Atoms(list(site.symbols), positions=site.positions), np.arange(len(site))


def _gaps(host: Atoms, offsets: np.ndarray) -> np.ndarray:
    from ase.geometry import find_mic

    periodic: Any = host.pbc  # a flag for each direction, whatever ASE's own hint says
    return find_mic(offsets, host.cell, periodic)[1]


def _is_metal(atoms: Atoms) -> np.ndarray:
    import numpy as np

    from catalysis.structure.elements import METALS

    return np.array([symbol in METALS for symbol in atoms.symbols])


def _adsorbate(site: Site) -> Atoms:
    from ase import Atoms

    return Atoms(list(site.adsorbate_symbols), positions=site.adsorbate_positions)


def _boxed(atoms: Atoms) -> Atoms:
    """Return a structure that repeats in all directions, with vacuum where the given one does not."""
    import numpy as np

    found = atoms.copy()
    free = np.flatnonzero(~atoms.pbc)
    if len(free):
        found.center(vacuum=_VACUUM / 2, axis=free.tolist())
    found.pbc = True
    return found


def _content_key(site: Site, version: str) -> str:
    """Return what tells a site, as it is described, from every other: atoms and places, not names."""
    import numpy as np

    metals, index = _metals_around(site)
    digest = hashlib.sha256(version.encode())
    for array in (
        metals.numbers.astype(np.int32),
        np.round(metals.positions, 6) + 0.0,
        np.round(metals.cell.array, 6) + 0.0,
        metals.pbc,
        index[: site.contacts].astype(np.int32),
        site.zones.astype(np.int8),
        index.astype(np.int32),
        np.array(site.adsorbate_symbols, dtype="U2"),
        np.round(site.adsorbate_positions, 6) + 0.0,
    ):
        digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()
