"""`python -m nuclens` is the command line."""

from nuclens.cli import main

if __name__ == "__main__":
    main()
