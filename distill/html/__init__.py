"""Pages that are drawn: markup, style, tables, figures and plots, for every page alike."""
