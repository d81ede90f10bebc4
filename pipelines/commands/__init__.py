"""What the commands of the command line do, where it needs an environment with more packages than the command line has."""
