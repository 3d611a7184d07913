"""Meters, one file each: a way of counting cost, or a score of runs. Columns in, a column or one answer a run out."""
