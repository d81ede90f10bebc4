"""The main job: the whole loop, embedded, on the real data of a use case."""
