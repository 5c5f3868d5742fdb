"""A run's folder: manifest, tables, arrays and files that are whole or not there, what they depend on, progress."""
