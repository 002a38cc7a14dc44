"""Evaluation with the engines and verifiers of the rewriting."""
