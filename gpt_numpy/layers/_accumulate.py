"""``into=``: how every backward lets its caller accumulate parameter gradients.

A backward in this package only ever returns new arrays; that is what its mathematics reads like. The
decorator gives it one more keyword: with ``into=(array, …)``, one array for each parameter gradient in the
order they are returned, the gradients are added to those arrays, and those are returned in their place. The
kernels implement the same keyword inside their matrix products, where adding costs nothing.
"""

import functools
import inspect


def adds_into(backward):
    """Give ``backward`` the keyword ``into``. The parameter gradients are the last values it returns."""

    @functools.wraps(backward)
    def with_into(*args, into=None, **kwargs):
        gradients = backward(*args, **kwargs)
        if into is None:
            return gradients
        n_input_gradients = len(gradients) - len(into)
        for accumulated, gradient in zip(into, gradients[n_input_gradients:]):
            accumulated += gradient
        return (*gradients[:n_input_gradients], *into)

    signature = inspect.signature(backward)
    parameters = list(signature.parameters.values())
    parameters.append(inspect.Parameter("into", inspect.Parameter.KEYWORD_ONLY, default=None))
    with_into.__signature__ = signature.replace(parameters=parameters)
    return with_into
