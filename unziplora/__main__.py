"""`python -m unziplora`."""

import sys

from unziplora.cli.commands import main

sys.exit(main())
