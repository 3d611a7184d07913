"""Importers, one file each: what a tool wrote about its runs, as runs with settings and histories."""
