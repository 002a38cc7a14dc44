"""A whole run: rewrite, train, evaluate, report."""
