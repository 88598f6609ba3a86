"""``python -m gpt_numpy`` is the ``gpt-numpy`` command."""

import sys

from .commands import main

sys.exit(main())
