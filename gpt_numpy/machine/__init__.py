"""What this machine can do at most, and what a model costs on it.

One place knows both, so that a share of peak means the same everywhere.

limits    what all threads can do at most, measured now: multiply-adds, and reading memory (``limit_kernels``)
memory    the bytes that are free, against those that training needs
cost      parameters, operations and bytes of a model's training step or of one generated token
setting   what a reader needs to judge a figure measured here, and what holds this machine back
"""

from .limits import peak_flops, read_bandwidth
from .setting import SPEED_VARIABLES, environment, hindrances
