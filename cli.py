"""Run the command line without installing: ``python cli.py COMMAND``."""

from minissl.cli import main

if __name__ == "__main__":
    main()
