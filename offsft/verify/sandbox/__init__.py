"""Code that runs inside the sandbox of `offsft.verify.code`: standard library only, mounted there read-only."""
