"""The kernel that the README of ``kernels`` shows is run as it stands there."""

import re
from pathlib import Path

import numpy as np

from gpt_numpy import kernels


def test_the_kernel_in_the_readme(tmp_path):
    text = (Path(kernels.__file__).parent / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len([line for line in program.splitlines() if line.strip()]) <= 24
    file = tmp_path / "relu.py"  # numba reads a kernel's source
    file.write_text(program, encoding="utf-8")
    names = {"__file__": str(file), "__name__": "relu"}
    exec(compile(program, str(file), "exec"), names)
    for dtype in (np.float32, np.float64):
        x = np.random.default_rng(0).standard_normal((3, 16391)).astype(dtype)
        np.testing.assert_array_equal(names["relu_forward"](x), np.maximum(x, 0))
