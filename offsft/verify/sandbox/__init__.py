"""What runs inside the sandbox of `offsft.verify.code`: standard library only, bound there read-only."""
