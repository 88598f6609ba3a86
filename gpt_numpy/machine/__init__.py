"""The limits of this machine, and the cost of a model on it.

All shares of peak are computed from the figures of this package.

limits    the rates of multiply-adds and of reading memory of all threads, measured at the call (``limit_kernels``)
memory    the bytes that are free, against those that training needs
cost      parameters, operations and bytes of a model's training step or of one generated token
setting   the facts of this machine beside a measured figure, and the settings that slow this machine down
"""

from .limits import bfloat16_products, peak_flops, read_bandwidth
from .setting import SPEED_VARIABLES, environment, hindrances
