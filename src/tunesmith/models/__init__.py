"""Pre-trained models: where they come from, what may be opened, heads, layers, and the way back to the base."""
