"""The training objectives and the fused head that evaluates them; depends on torch alone."""
