"""Paths on disk and S3, their faults, and a run's folder and lock."""
