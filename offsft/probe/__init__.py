"""Which objective fits a model and its data: each trained for a few steps from the same start, and one recommended."""
