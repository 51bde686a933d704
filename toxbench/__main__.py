"""Entry point of ``python -m toxbench``."""

from toxbench.cli.main import main

if __name__ == "__main__":
    main()
