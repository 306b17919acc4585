"""Run one decode instance: `python -m services.decode --config FILE`. By order it becomes something else."""

import sys

from services.decode.service import Decode
from shared.becoming import live

if __name__ == "__main__":
    sys.exit(live(Decode))
