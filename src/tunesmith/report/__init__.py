"""What people and other programs read about a run. Everything here is made from the run folder alone."""
