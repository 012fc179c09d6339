"""`python -m rltrain`: the same as the `rltrain` script."""

from rltrain.cli import main

if __name__ == "__main__":
    main()
