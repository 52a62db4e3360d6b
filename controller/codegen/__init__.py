"""Writes a searched network as a standalone PyTorch project that a person would have written."""
