"""Decoding from packed weights: panels of weights, a token in one launch, a prompt matrix by matrix."""
