"""`python -m mesh.cli`: the same as the command `mesh`."""

import sys

from mesh.cli.main import main

sys.exit(main())
