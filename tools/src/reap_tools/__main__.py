"""`python -m reap_tools` is `reap-tools`."""

import sys

from reap_tools.cli import main

sys.exit(main())
