"""Engines that sample and score, each behind `offsft.protocols.Sampler`."""
