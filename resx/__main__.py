"""`python -m resx` is the command `resx`."""

from resx.cli import main

if __name__ == "__main__":  # workers import this file, too
    main()
