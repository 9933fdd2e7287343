"""The command `resx`, also as `python -m resx`: Ctrl-C and SIGTERM end it with one line from its first moment on."""

import signal
import sys
from typing import Any


def _end(number: int, frame: Any) -> None:
    print("resx: stopped", file=sys.stderr)
    raise SystemExit(128 + number)


def main() -> None:
    """Run the command line. What trains handles both signals by itself; one that is ignored stays so."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    from resx.cli import main as command_line  # takes a second

    command_line()


if __name__ == "__main__":  # workers import this file, too
    main()
