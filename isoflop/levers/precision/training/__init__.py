"""Training in low precision, simulated: one recipe or part of one a file. See docs/training-precision.md."""
