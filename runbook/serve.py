"""The web server: `python -m runbook.serve`, with the options of uvicorn.

Ended by SIGTERM it finishes what it does and leaves with 0, as every other process of ours.
"""

import signal
import sys

import uvicorn


def main() -> None:
    """Does not return: uvicorn ends the process."""
    # Uvicorn first closes what is open and then raises the signal anew, for whoever had it before.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.main(["runbook.asgi:application", "--no-access-log", *sys.argv[1:]])


if __name__ == "__main__":
    main()
