"""What the checks show: for each command a module with its figures, its tables and its page."""
