"""Levers: one folder per way of spending compute; see `isoflop._lever` for the contract they share."""
