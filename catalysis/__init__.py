"""Inverse design of catalytic active sites by persistent path homology."""
