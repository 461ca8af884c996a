"""The command line: `aerofix`."""
