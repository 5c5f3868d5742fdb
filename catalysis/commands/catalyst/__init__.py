"""Inverse design of catalytic sites: from slabs and energies to sites with a wanted energy."""
