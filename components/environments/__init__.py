"""The environments that steps run in: one uv project each, and the names of their images."""
