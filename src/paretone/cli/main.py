"""Entry point: runs a command and turns every end into one line and an exit code."""

import logging
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import typer

from paretone.cli import compressing, measuring, preparing, showing, slam, stepping, study, training
from paretone.cli.training import INTERRUPTED
from paretone.errors import UserError

app = typer.Typer(
    help="Smaller, faster, and the receipt: compresses speech recognisers and measures what it cost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(showing.inspect)
app.command()(compressing.plan)
app.command()(compressing.compress)
app.add_typer(preparing.app, name="data")
app.command()(training.finetune)
app.add_typer(slam.app, name="slam")
app.add_typer(study.app, name="study")
app.command()(measuring.evaluate)
app.command()(stepping.waterfall)
app.command()(measuring.score)
app.command()(measuring.transcribe)
app.command()(showing.report)
app.command()(showing.demo)

# typer carries its own copy of click since 0.25; this finds the base of its errors in either
ClickException = sys.modules[typer.BadParameter.__module__].ClickException


def main() -> NoReturn:
    """Runs the command that was typed: exit 0 when it did its work, 2 for the user's to mend, 130 when interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    _quiet_libraries()
    _share_cores()
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        _fail(str(error), 2)
    except ClickException as error:
        if error.__class__.__name__ == "NoArgsIsHelpError":
            error.show()
            sys.exit(2)
        _fail(" ".join(error.format_message().split()), 2)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    if code == INTERRUPTED:  # typer turns an interrupt into this code itself
        _fail("interrupted; what was not complete was removed", INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _share_cores() -> None:
    """Threads that wait sleep: spinning ones make small models ten times slower on a machine that others use too."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _quiet_libraries() -> None:
    """Bars and notes of libraries would mix with ours; their warnings stay."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)
