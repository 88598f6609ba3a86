"""Classic mistakes of hand-written gradients, each planted in one line, and the checks that catch them.

``BUGS`` maps a name to its ``Bug``; ``gpt-numpy study bug NAME`` presents one as a riddle. ``planting`` puts a bug into
a copy of the layers or of the model. The other modules hold the bugs, grouped by the file that they are planted in.
"""

from . import in_attention, in_loss_and_model, in_parts_beyond_gpt2, in_small_layers, in_todays_blocks
from .planting import Bug, failed_checks, plant, plant_source, reports, reports_of

_FILES = (in_small_layers, in_attention, in_loss_and_model, in_parts_beyond_gpt2, in_todays_blocks)
BUGS = {bug.name: bug for file in _FILES for bug in file.BUGS}

__all__ = ["BUGS", "Bug", "failed_checks", "plant", "plant_source", "reports", "reports_of"]
