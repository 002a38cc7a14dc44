"""A run's rewrites as files for other trainers."""
