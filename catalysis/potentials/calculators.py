"""Interatomic potentials: a further one is a function that makes its ASE calculator, and an entry of the table."""

# Nothing heavy is imported here, for names are checked before anything is loaded.

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interpretkit.errors import InputError
from interpretkit.runs.environment import install_command, is_installed

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


@dataclass(frozen=True)
class Potential:
    """An interatomic potential.

    Attributes
    ----------
    make : callable
        From a device, such as ``"cpu"``, to an ASE calculator.
    level_of_theory : str
        What its energies mean.
    package : str
        The module that it needs, if that is not always there.
    extra : str
        The extra of this project that brings the module; empty for one that is installed otherwise.
    """

    make: Callable[[str], Calculator]
    level_of_theory: str
    package: str = ""
    extra: str = ""


def _emt(device: str) -> Calculator:
    from ase.calculators.emt import EMT

    return EMT()


def _chgnet(device: str) -> Calculator:
    from chgnet.model.dynamics import CHGNetCalculator
    from chgnet.model.model import CHGNet

    class EnergyAndForces(CHGNetCalculator):
        """CHGNet without stresses and magnetic moments, which take a third of its time."""

        def calculate(self, atoms=None, properties=None, system_changes=None, task="ef"):  # type: ignore[no-untyped-def]
            del task
            super().calculate(atoms, properties, system_changes, task="ef")

    with contextlib.redirect_stdout(io.StringIO()):
        return EnergyAndForces(
            CHGNet.load(model_name="r2scan", use_device=device, verbose=False),
            use_device=device,
            on_isolated_atoms="ignore",
        )


POTENTIALS: Mapping[str, Potential] = {
    "chgnet": Potential(
        _chgnet, "CHGNet 0.4.2, model r2scan (pretrained universal potential)", "chgnet", "mlip"
    ),
    "emt": Potential(
        _emt,
        "ASE effective medium theory (Al, Ni, Cu, Pd, Ag, Pt, Au, C, N, O, H; for trials only)",
    ),
}


def get_potential(name: str) -> Potential:
    """Return a potential by its name, importing nothing.

    Raises
    ------
    InputError
        If there is none of that name, or its package is not installed.
    """
    if name not in POTENTIALS:
        raise InputError(f"calculator: {name!r}; expected one of {', '.join(POTENTIALS)}")
    found = POTENTIALS[name]
    if found.package and not is_installed(found.package):
        cure = f"run, in the checkout, {install_command(found.extra)}" if found.extra else "install it"
        raise InputError(
            f"calculator: {found.package} is not installed; {cure}, or try with --calculator emt"
        )
    return found


def make_calculator(name: str, device: str = "cpu") -> Calculator:
    """Return a potential's ASE calculator.

    Raises
    ------
    InputError
        As :func:`get_potential`.
    """
    return get_potential(name).make(device)
