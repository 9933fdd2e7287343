"""The command `resx`, also as `python -m resx`: Ctrl-C and SIGTERM end it with one line from its first moment on."""

import signal
import sys
from typing import Any


class _Ended(BaseException):
    """A signal ended the command; no SystemExit, which a user's plugin may raise and which is then caught."""


def _end(number: int, frame: Any) -> None:
    print("resx: stopped", file=sys.stderr)
    raise _Ended(number)


def main() -> None:
    """Run the command line. What trains handles both signals by itself; one that is ignored stays so."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    try:
        from resx.cli import main as command_line  # takes a second

        command_line()
    except _Ended as ended:
        sys.exit(128 + ended.args[0])


if __name__ == "__main__":  # workers import this file, too
    main()
