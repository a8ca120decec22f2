"""The commands, in the order of the way through; each imports what it needs when it is called."""
