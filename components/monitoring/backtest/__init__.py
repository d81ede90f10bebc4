"""Policies of retraining, replayed on a history: what each would have served, what it would have cost."""
