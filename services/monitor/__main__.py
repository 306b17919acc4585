"""Run a monitor."""

import sys

from services.monitor.service import Monitor
from shared.lifecycle import main

if __name__ == "__main__":
    sys.exit(main(Monitor))
