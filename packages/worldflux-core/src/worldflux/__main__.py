"""`python -m worldflux`, the same as the command `worldflux`."""

from worldflux.cli import main

if __name__ == "__main__":
    main()
