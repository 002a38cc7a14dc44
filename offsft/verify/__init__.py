"""Verifiers, each behind `offsft.protocols.Verifier`."""

from offsft.config import Verify
from offsft.verify.pool import VerifierPool


def open_verifier(settings: Verify) -> VerifierPool:
    """The verifier of a recipe; its processes start with it and end with `close()`."""
    from offsft.verify.math import judge

    return VerifierPool(
        judge,
        workers=settings.workers,
        timeout_s=settings.timeout_s,
        memory_mb=settings.memory_mb,
        warm_up=("\\boxed{\\frac{1}{2}}", "0.5"),
    )
