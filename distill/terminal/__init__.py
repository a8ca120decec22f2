"""What a person sees at the terminal: progress, tables, one-line errors, exit status."""
