"""Other forms of an exported student: smaller files, other runtimes. Each is measured against the float file."""
