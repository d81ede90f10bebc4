"""Live performance: late labels joined to the prediction log, estimates while they are missing, measurements when they have come."""
