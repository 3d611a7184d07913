"""Ways to run a trained model: a file is one, by its name."""
