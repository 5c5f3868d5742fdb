"""A borrowed network: hooks that are undone, layers by name, recording, receptive fields, calls in bounded memory."""
