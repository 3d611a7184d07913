"""Out-of-distribution scores: each file without an underscore is one, higher for what is like the training data.

`score(features, *, weight, bias, ...)` takes the features (rows, units) that the last linear layer reads, as NumPy
arrays or PyTorch tensors, and returns one number a row of the same kind, in float64. Scores that scale by the share of
large features take features of at least 0, as after a ReLU. Ask `premise` in `_premise` before using one of those.
"""
