"""``python -m paretone``: the command line, where no ``paretone`` is on the path, as under torchrun."""

from paretone.cli import main

if __name__ == "__main__":
    main()
