"""`python -m convc` is the command line."""

from convc.cli import main

if __name__ == "__main__":
    main()
