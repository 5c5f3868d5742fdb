"""A dialogue on a page, served to the browser of the same machine."""
