"""The commands of the core: a folder is a group, a file in it a command."""
