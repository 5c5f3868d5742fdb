"""Disentanglement scores: how well codes separate the factors that made the data, on plain arrays."""

from interpretkit.disentanglement.fixed_factor_scores import beta_vae, factor_vae, irs
from interpretkit.disentanglement.information import Discretiser
from interpretkit.disentanglement.information_scores import dcimig, infomec, med, mig, modularity
from interpretkit.disentanglement.prediction_scores import dci, explicitness, sap
from interpretkit.disentanglement.score import Score, noise_codes, perfect_codes
from interpretkit.disentanglement.unsupervised_scores import tc, udr

__all__ = [
    "Discretiser",
    "Score",
    "beta_vae",
    "dci",
    "dcimig",
    "explicitness",
    "factor_vae",
    "infomec",
    "irs",
    "med",
    "mig",
    "modularity",
    "noise_codes",
    "perfect_codes",
    "sap",
    "tc",
    "udr",
]
