"""Meters, one file each: a way of counting cost, or a score of a run. Columns in, one column out."""
