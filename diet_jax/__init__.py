"""Streaming dataset distillation for recommender systems; importing it loads nothing heavy."""

__version__ = "0.1.0"
