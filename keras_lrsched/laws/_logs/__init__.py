"""Logs of other programs, read as the curve of a run: one module for each family of forms."""
