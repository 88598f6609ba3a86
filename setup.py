"""The list of packages; everything else stands in setup.cfg.

The lessons lie in scripts/, where readers look for them, and are installed as a package beside the code that runs them.
A symbolic link would say the same, but a checkout on Windows holds a text file in place of a link.
"""

from setuptools import find_packages, setup

LESSONS = "gpt_numpy.study.lessons"

setup(
    packages=[*find_packages(include=["gpt_numpy", "gpt_numpy.*"]), LESSONS], package_dir={LESSONS: "scripts/lessons"}
)
