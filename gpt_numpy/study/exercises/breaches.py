"""What a function of an exercise may do wrong beside its numbers: each an exception that a problem raises."""


class WrittenTo(Exception):
    """A function wrote to its arguments ``names``."""

    def __init__(self, names):
        super().__init__(f"writes to {', '.join(names)}")
        self.names = names


class LeftAsItWas(Exception):
    """A function that must write to its argument ``name`` did not."""

    def __init__(self, name):
        super().__init__(f"{name} is left as it was")
        self.name = name


class TooMuchAtOnce(Exception):
    """A function makes larger arrays than the exercise allows."""


class WrongCount(Exception):
    """A backward returned another number of gradients than it has inputs."""
