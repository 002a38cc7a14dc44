"""A run's output for people: a summary, a table for the terminal, figures, a page."""
