"""Rows: read, checked, split, encoded and put in order."""
