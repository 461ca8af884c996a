"""Objectives over batches of paired views."""
