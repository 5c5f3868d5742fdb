"""Energies and forces from interatomic potentials, and labelling sites by them."""
