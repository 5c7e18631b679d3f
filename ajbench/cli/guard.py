"""How commands end: interrupts, and expected failures in one line with their exit code."""

import functools
import signal
import threading
from collections.abc import Callable
from typing import Any

import typer

from ajbench.core import console
from ajbench.core.errors import AjbenchError
from ajbench.core.failures import expected

INTERRUPTED = 130


def accept_interrupts() -> None:
    """Let SIGINT interrupt this process even if it was started with SIGINT ignored.

    Background jobs of a script and the children of job runners start that way, yet SIGINT is how job runners
    ask ajbench to save its state and stop.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()  # only there may handlers be set
    if in_main_thread and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def guarded(function: Callable[..., None]) -> Callable[..., None]:
    """Return a function that ends expected failures with one line and their exit code, and a bug as it is."""

    @functools.wraps(function)
    def wrapper(**given: Any) -> None:
        try:
            function(**given)
        except KeyboardInterrupt:
            console.fail(AjbenchError("interrupted; run the same command again to resume"))
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            if told := expected(error):
                raise typer.Exit(console.fail(told)) from None
            raise

    return wrapper
