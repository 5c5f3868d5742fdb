"""Checks that question a network: what its layers hold, where it errs, what it was biased by."""
