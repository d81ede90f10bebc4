"""The sidecar beside a Seldon server: receives its request-log events, fills the prediction log, closes windows, sends alerts."""
