"""Run the command line as ``python -m minissl``."""

from minissl.cli import main

if __name__ == "__main__":
    main()
