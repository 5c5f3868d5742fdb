"""Question a network: where it can be fooled, what its layers hold, what it was biased by."""
