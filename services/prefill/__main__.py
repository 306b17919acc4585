"""Run one prefill instance: `python -m services.prefill --config FILE`. By order it becomes something else."""

import sys

from services.prefill.service import Prefill
from shared.becoming import live

if __name__ == "__main__":
    sys.exit(live(Prefill))
