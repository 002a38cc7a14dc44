"""offsft: closes the policy gap of a demonstration data set before training, and corrects the rest in training."""

__version__ = "0.1.0"
