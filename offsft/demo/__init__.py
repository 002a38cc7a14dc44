"""The embedded default: a small model from a package and generated word problems."""
