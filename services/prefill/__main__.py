"""Run one prefill instance: `python -m services.prefill --config FILE`."""

import sys

from services.prefill.service import Prefill
from shared.lifecycle import main

if __name__ == "__main__":
    sys.exit(main(Prefill))
