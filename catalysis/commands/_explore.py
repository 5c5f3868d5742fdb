"""What pages let their readers explore: designs among the data, the sites of a latent space, explained sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from catalysis.models.site_model import SiteModel
    from catalysis.structure.sites import Site
    from catalysis.studies.design import Design
    from catalysis.vae.network import Latent
    from interpretkit.visualization.instruments import Property, StructureExplorer

# A page with more structures would be slow to open.
MOST_SITES = 2000


class Directions:
    """The two directions of each channel that go most with the energy, by partial least squares over the data.

    Parameters
    ----------
    latent : Latent
        The posterior of the data, n sites.
    energies : ndarray, (n,)
        Their energies in eV.

    Attributes
    ----------
    flat : dict of str to ndarray, (n, 2)
        Where the sites lie along them, by channel; without a channel whose latents hardly differ.
    collapsed : list of str
        The channels without a map.
    """

    def __init__(self, latent: Latent, energies: NDArray[np.floating]) -> None:
        import numpy as np
        from sklearn.cross_decomposition import PLSRegression

        self._fitted: dict[str, Any] = {}
        self.flat: dict[str, NDArray[np.floating]] = {}
        self.collapsed: list[str] = []
        for channel, points in _by_channel(latent).items():
            if np.linalg.matrix_rank(points - points.mean(0), tol=1e-3 * np.sqrt(len(points))) < 2:
                self.collapsed.append(channel)
                continue
            self._fitted[channel] = PLSRegression(2).fit(points, energies)
            self.flat[channel] = self._fitted[channel].transform(points)

    def of(self, latent: Latent) -> dict[str, NDArray[np.floating]]:
        """Return where other sites lie, (m, 2) by channel."""
        points = _by_channel(latent)
        return {channel: fitted.transform(points[channel]) for channel, fitted in self._fitted.items()}


def _by_channel(latent: Latent) -> dict[str, NDArray[np.floating]]:
    return {
        "coordination": latent.coordination.detach().cpu().numpy(),
        "ligand": latent.ligand.detach().cpu().numpy(),
    }


def energy_property(energies: Sequence[float | None], label: str = "energy") -> Property:
    """Return energies in eV as a property, the weakest and the strongest binding within one click."""
    from catalysis.exploring import STRONGEST, WEAKEST
    from interpretkit.visualization.instruments import Property

    return Property(label, energies, "eV", lowest=STRONGEST, highest=WEAKEST)


def latent_properties(flat: Mapping[str, NDArray[np.floating]]) -> dict[str, Property]:
    """Return places along the directions of each channel as properties."""
    from interpretkit.visualization.instruments import Property

    return {
        f"{channel}_{k + 1}": Property(f"{channel} latents, direction {k + 1}", values[:, k].tolist())
        for channel, values in flat.items()
        for k in range(2)
    }


def share_properties(sites: Sequence[Site]) -> dict[str, Property]:
    """Return the share of each element among the metals of sites."""
    from interpretkit.visualization.instruments import Property

    elements = sorted({symbol for site in sites for symbol in site.symbols})
    if len(elements) < 2:
        return {}
    return {
        f"percent_{e}": Property(
            f"{e} among the metals", [100 * site.symbols.count(e) / len(site) for site in sites], "%"
        )
        for e in elements
    }


def table_sites(model: SiteModel, rows: Sequence[int]) -> list[Site | None]:
    """Return sites of a model's data in the ideal geometry of their class; None where the class has no template."""
    config, table = model.vae.config, model.sites
    templates = config.templates
    found: list[Site | None] = []
    for row in rows:
        k = int(table.class_index[row])
        template = templates[k]
        if template is None:
            found.append(None)
            continue
        kinds = table.ligands[row][list(config.classes[k].slots)].tolist()
        found.append(
            template.decorate(
                [config.elements[kind] for kind in kinds],
                site_id=str(table.site_id[row]),
                slab_id=str(table.slab_id[row]),
                energy_ev=float(table.energy_ev[row]),
            )
        )
    return found


def designs_among_data(
    model: SiteModel, designs: Sequence[Design], directions: Directions, seed: int
) -> StructureExplorer:
    """Return designs marked among the data that the model learned from, at most `MOST_SITES` of them."""
    import numpy as np

    from catalysis.exploring import explorer_of
    from interpretkit.visualization.instruments import Property

    count = len(model.sites)
    rows = np.sort(np.random.default_rng(seed).permutation(count)[:MOST_SITES])
    built = table_sites(model, rows.tolist())
    kept = [k for k, site in enumerate(built) if site is not None]
    data = [site for site in built if site is not None]
    rows = rows[kept]
    sites = [design.site for design in designs]
    own = directions.of(model.vae.encode(model.vae.channels(sites)))
    flat = {
        channel: np.concatenate([own[channel], values[rows]]) for channel, values in directions.flat.items()
    }
    gap = [None] * len(data)
    everything = [*sites, *data]
    properties = {
        "energy_ev": energy_property(
            [*(design.energy_ev for design in designs), *model.sites.energy_ev[rows].tolist()],
            "energy, predicted for designs",
        ),
        "deviation_ev": Property(
            "standard deviation of the prediction", [*(d.deviation_ev for d in designs), *gap], "eV"
        ),
        "probability": Property(
            "probability of staying, in the window", [*(d.probability for d in designs), *gap]
        ),
        **latent_properties(flat),
        **share_properties(everything),
    }
    return explorer_of(
        everything,
        properties,
        x=f"{next(reversed(flat))}_1" if flat else "energy_ev",
        y="energy_ev",
        colour="site_class",
        groups=["design"] * len(sites) + ["data"] * len(data),
        marked="design",
        names=[*(site.site_id for site in sites), *(site.site_id for site in data)],
        file="designs",
    )
