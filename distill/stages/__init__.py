"""The stages of a run, one module each: data, student, evaluation, demonstration, reporting."""
