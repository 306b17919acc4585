"""`python -m services.gateway --config FILE`: one gateway."""

import sys

from services.gateway.service import Gateway
from shared.lifecycle import main

if __name__ == "__main__":
    sys.exit(main(Gateway))
