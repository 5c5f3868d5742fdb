"""The teacher that a command's options name, and where it comes from."""

# Heavy packages are imported inside the functions, so that the list of commands and their help come at once.

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalysis.checks import BUNDLED
from catalysis.commands._options import data_files, load_sites

if TYPE_CHECKING:
    from catalysis.energies.teacher import Teacher


def load_teacher(
    data: str,
    model_folder: str,
    *,
    energy_key: str,
    facet: str,
    kind: str,
    seed: int,
    embeddings: Sequence[str] = (),
    quiet: bool = True,
) -> tuple[Teacher, dict[str, Any], list[str | Path]]:
    """Return the teacher of a model's folder, the shipped one, or one fitted to sites, with embeddings if asked.

    Returns
    -------
    teacher
        Ready to predict.
    numbers
        What was measured of it on slabs that it had not seen; empty for one that was fitted just now.
    read
        The files and folders it comes from.

    Raises
    ------
    InputError
        If the folder holds no teacher, or the sites cannot be learned from.
    """
    from catalysis.energies.teacher import Teacher

    if model_folder or data == BUNDLED:
        folder = Path(model_folder or Path(__file__).parents[1] / "data" / "model")
        teacher = Teacher.load(folder / "teacher.safetensors")
        try:
            numbers = json.loads((folder / "numbers.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            numbers = {}  # the teacher is whole without them
        return teacher, numbers, [folder] if model_folder else list(data_files(data))
    sites = load_sites(data, energy_key=energy_key, facet=facet, kind=kind, require_energies=True)
    for name in embeddings:
        from catalysis.potentials.embeddings import embed

        embed(sites, name, jobs=0, quiet=quiet)
    return Teacher(seed=seed, embeddings=embeddings).fit(sites), {}, list(data_files(data))
