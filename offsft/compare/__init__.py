"""The paper's comparison for any model and data: objectives with and without rewriting, from one set of rewrites."""
