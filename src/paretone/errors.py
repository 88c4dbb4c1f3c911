"""The one error that is the user's to mend."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: the message is one line that says what, where, what is allowed and what to do.

    The command line prints it without a traceback and exits with 2; every other exception is a bug.
    """


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """`` did you mean 'x'?`` for the nearest allowed word, or an empty string."""
    near = difflib.get_close_matches(given, list(allowed), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
