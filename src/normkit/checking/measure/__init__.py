"""The experiments: each takes a Probe, makes one measurement and returns a record of it."""
