"""A trained model of sites: its folder, how it is measured, and when it is not to be trusted."""
