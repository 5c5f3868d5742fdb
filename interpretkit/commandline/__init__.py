"""What all commands share: the decorator, what a command finds, the options, the groups."""
