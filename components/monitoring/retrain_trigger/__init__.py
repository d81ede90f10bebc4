"""The retrain trigger: decides from alerts and performance whether to retrain, and starts at most one effective run a cause."""
