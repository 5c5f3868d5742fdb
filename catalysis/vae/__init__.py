"""The multi-channel PGH-VAE: channels of a site, network, training."""
