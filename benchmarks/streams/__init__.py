"""Streams of dated, labelled rows on which the retraining decision is developed and judged."""
