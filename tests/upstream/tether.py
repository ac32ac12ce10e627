"""Run a program until it ends, or until standard input closes: ``python tether.py PROGRAM …``.

Whoever starts this holds the other end of standard input. When they die, however they die, the
system closes it, and the program is ended: it never outlives them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading


def main(command: list[str]) -> int:
    """Run the command; return how it ended."""
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=end_with_input, args=(program,), daemon=True).start()
    return program.wait()


def end_with_input(program: subprocess.Popen[bytes]) -> None:
    """Wait for the end of standard input, then end the program."""
    while os.read(0, 1):
        pass
    program.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
