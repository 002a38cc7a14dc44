"""Evaluation with the engines and verifiers that the rewriting uses."""
