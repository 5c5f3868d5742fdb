"""The commands of this front end: a folder is a group, a file in it a command."""
