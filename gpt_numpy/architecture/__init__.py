"""What a configuration means: the parts of a model, the checks of its inputs, and the formulas of its layers."""
