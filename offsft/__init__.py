"""offsft: close the policy gap of a demonstration data set before training, and correct the rest in training."""

__version__ = "0.1.0"
