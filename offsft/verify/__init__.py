"""Verifiers, each behind `offsft.protocols.Verifier`."""
