"""The stages of a run, one module each: data, student, judging, demonstration, reporting."""
