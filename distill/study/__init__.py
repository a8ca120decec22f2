"""Many runs of one recipe: every arm at every value of every axis, compared with each other."""

from distill.study.command import run_study

__all__ = ["run_study"]
