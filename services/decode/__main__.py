"""Run one decode instance: `python -m services.decode --config FILE`."""

import sys

from services.decode.service import Decode
from shared.lifecycle import main

if __name__ == "__main__":
    sys.exit(main(Decode))
