"""Scaling laws, one file each: a file without a leading underscore holds the law of its name.

A law is one function under `@isoflop.law`. Add a file and it is listed, fitted, checked and planned with.
"""
