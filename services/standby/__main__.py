"""Run a standby; once it has a role and has closed in order, it becomes that service: same process, same id."""

import sys

from services.standby.service import Standby
from shared.becoming import live

if __name__ == "__main__":
    sys.exit(live(Standby))
