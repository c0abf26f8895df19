"""Knows the published layouts of public logs: one small reader for each family."""
