"""``python -m llmdispatcher``: the same as the command ``llmdispatcher``."""

import sys

from llmdispatcher.cli import main

if __name__ == "__main__":
    sys.exit(main())
