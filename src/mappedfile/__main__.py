"""``python -m mappedfile``."""

import sys

from mappedfile.cli import main

if __name__ == "__main__":
    sys.exit(main())
