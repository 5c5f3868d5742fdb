"""``python -m interpretkit`` is ``interpretkit``."""

from interpretkit.cli import main

if __name__ == "__main__":
    main()
