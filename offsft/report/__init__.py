"""What a run leaves for people: summary, figures, a page."""
