"""The environment of a process: its Ray session, token, signals, placement, console and metrics."""
