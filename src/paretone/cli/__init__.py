"""The command line. Commands import what they need when they run, so ``--help`` is quick."""

from paretone.cli.main import main

__all__ = ["main"]
