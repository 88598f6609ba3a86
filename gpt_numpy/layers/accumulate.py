"""``into=`` and ``add=``: how every backward lets its caller accumulate parameter gradients.

A backward in this package is written to return new arrays, as its mathematics reads. The decorator gives the
backward the keyword ``into=(array, …)``: one array for each parameter gradient, in the order of the returned
gradients; None for the gradient of a parameter that the layer does not have. The gradients are added to those arrays,
or with ``add=False`` written over what is there, and the call returns those arrays. The kernels implement
the same keywords inside their matrix products, where adding costs nothing and writing saves a pass that sets zeros.

All arrays are checked before the first is changed: a refused call has changed nothing.

The backward of a norm has one more keyword, ``dstream``: the gradient of the same x that passed the branch by, in the
residual stream. It is added to dx; the kernels do that when they store dx, which saves a pass over both.
"""

import functools
import inspect

from ..arguments import check_into, check_shape


def adds_into(n_parameters, dstream=False):
    """Give a backward the keywords ``into`` and ``add``: its last ``n_parameters`` values are the parameter gradients.

    n_parameters None: all values but the first are. dstream: whether the backward gets the keyword ``dstream`` as well.
    """

    def decorate(backward):
        return _with_into(_with_dstream(backward) if dstream else backward, n_parameters)

    return decorate


def _with_dstream(backward):
    @functools.wraps(backward)
    def with_dstream(*args, dstream=None, **kwargs):
        if dstream is not None:
            check_shape("dstream", dstream, args[0].shape)
        dx, *others = backward(*args, **kwargs)
        if dstream is not None:
            dx += dstream
        return dx, *others

    signature = inspect.signature(backward)
    keyword = inspect.Parameter("dstream", inspect.Parameter.KEYWORD_ONLY, default=None)
    with_dstream.__signature__ = signature.replace(parameters=[*signature.parameters.values(), keyword])
    return with_dstream


def _with_into(backward, n_parameters):
    @functools.wraps(backward)
    def with_into(*args, add=True, into=None, **kwargs):
        gradients = backward(*args, **kwargs)
        if into is None:
            return gradients
        n_inputs = 1 if n_parameters is None else len(gradients) - n_parameters
        inputs, parameters = gradients[:n_inputs], gradients[n_inputs:]
        shapes = {f"into[{i}]": None if g is None else g.shape for i, g in enumerate(parameters)}
        check_into(into, parameters[0].dtype, **shapes)
        for accumulated, gradient in zip(into, parameters):
            if gradient is None:
                continue
            if not add:
                accumulated[...] = 0
            accumulated += gradient
        return (*inputs, *into)

    signature = inspect.signature(backward)
    parameters = list(signature.parameters.values())
    for name, default in (("add", True), ("into", None)):
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default))
    with_into.__signature__ = signature.replace(parameters=parameters)
    return with_into
