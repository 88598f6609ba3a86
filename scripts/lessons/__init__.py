"""The lessons, one script each; `setup.py` installs them with the package. ``gpt-numpy study lesson 04`` opens one."""
