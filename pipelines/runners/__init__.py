"""Runners of the compiled pipelines."""
