"""Pre-trained models: where they come from, what may be opened, their heads and layers, and the way back to the base."""
