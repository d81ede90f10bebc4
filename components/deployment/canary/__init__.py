"""Canary: a challenger gets a growing share of the traffic and is judged on live evidence at every step; rolled back when it is harmful."""
