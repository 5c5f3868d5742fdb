"""Models of adsorption energies that learn from a site's class and the elements in its slots."""
