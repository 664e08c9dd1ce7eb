"""``python -m mappedfile``."""

import sys

from mappedfile._cli import main

if __name__ == "__main__":
    sys.exit(main())
